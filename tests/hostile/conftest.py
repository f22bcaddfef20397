"""A broker over HTTP that knows every kind of token that the families are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.config.entries import PrincipalEntry
from broker.config.trust import TrustDomainEntry
from broker.dev.config import OWNER
from tests.hostile.verifiers import SVID_KEY, TRUST_DOMAIN
from tests.http.front_door import FrontDoor, front_door
from tests.svids import bundle

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

ROBOTS = {"robot": ("staff", "robot"), "svid-robot": ("prod", f"spiffe://{TRUST_DOMAIN}/robot")}


@pytest.fixture
async def door(engines: tuple[DevStack, Config], tmp_path: Path) -> AsyncGenerator[FrontDoor]:
    """The front door of ``tests/http``, with a trust domain, and operators in two ways."""
    plain = front_door(engines[0], tmp_path)
    await plain.close()
    file = tmp_path / "bundle.json"
    file.write_bytes(bundle(SVID_KEY))
    domain = TrustDomainEntry.model_validate(
        {
            "name": "prod",
            "trust_domain": TRUST_DOMAIN,
            "audience": "broker",
            "bundle_file": str(file),
        },
    )
    robots = (
        PrincipalEntry.model_validate(
            {
                "name": name,
                "role": "operator",
                "owner": OWNER,
                "identity": {"issuer": issuer, "subject": subject},
            }
        )
        for name, (issuer, subject) in ROBOTS.items()
    )
    config = plain.config
    identity = config.identity.model_copy(update={"trust_domains": (domain,)})
    made = FrontDoor(
        plain.issuer,
        config.model_copy(
            update={"identity": identity, "principals": (*config.principals, *robots)}
        ),
    )
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()
