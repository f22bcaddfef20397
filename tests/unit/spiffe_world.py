"""A trust domain with its keys at hand, and good SVIDs to spoil."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from broker.errors import InvalidToken
from broker.identity.jwks_sources import KeySourceError
from broker.identity.jws import parse
from broker.identity.models import TrustDomainSettings
from broker.identity.spiffe import TrustDomain
from tests.clocks import ManualClock
from tests.issuers import IssuerKey
from tests.svids import Authority, bundle

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from broker.identity.models import Identity

TD = "prod.example.com"
ME = f"spiffe://{TD}/agent/report-writer"
AUDIENCE = "https://broker.example.com"
NOW = int(ManualClock().now())

KEY = IssuerKey.new(kid="jwt-1")
ROOT = Authority.root()


class Published:
    """A bundle as a test says it is now; None is a source that is down."""

    def __init__(self, *entries: Authority | IssuerKey | dict[str, Any], **members: object) -> None:
        self.document: bytes | None = None
        self.fetched = 0
        self.publish(*entries, **members)

    def publish(self, *entries: Authority | IssuerKey | dict[str, Any], **members: object) -> None:
        self.document = bundle(*entries, **members)

    def changed(self) -> bool:
        return False

    async def fetch(self) -> bytes:

        self.fetched += 1
        if self.document is None:
            raise KeySourceError("down")
        return self.document

    async def aclose(self) -> None:
        pass


def settings(**changes: object) -> TrustDomainSettings:
    values: dict[str, Any] = {
        "name": "prod",
        "trust_domain": TD,
        "audience": AUDIENCE,
        "bundle_url": "https://bundle.example",
        **changes,
    }
    return TrustDomainSettings(**values)


def domain_with(
    *entries: Authority | IssuerKey | dict[str, Any],
    source: Published | None = None,
    clock: ManualClock | None = None,
    **changes: object,
) -> TrustDomain:
    published = source or Published(*entries)
    return TrustDomain(settings(**changes), clock or ManualClock(), published)


def from_file(path: Path, clock: ManualClock | None = None, **changes: object) -> TrustDomain:
    return TrustDomain(
        settings(bundle_url=None, bundle_file=path, **changes), clock or ManualClock()
    )


def claims(**changes: object) -> dict[str, object]:
    """Good claims; a change to None leaves one out."""
    values = {"sub": ME, "aud": [AUDIENCE], "iat": NOW, "exp": NOW + 300, **changes}
    return {name: value for name, value in values.items() if value is not None}


async def verify(domain: TrustDomain, token: str) -> Identity:

    return await domain.verify_parsed(parse(token))


async def refusal(token: str, domain: TrustDomain | None = None) -> str:
    with pytest.raises(InvalidToken) as caught:
        await verify(domain or domain_with(KEY, ROOT), token)
    return caught.value.detail


async def refused_chain(chain: Sequence[bytes], domain: TrustDomain | None = None) -> str:
    with pytest.raises(InvalidToken) as caught:
        await (domain or domain_with(KEY, ROOT)).verify_certificate(chain)
    return caught.value.detail
