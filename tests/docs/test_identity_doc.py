"""Every kind of workload in docs/identity.md: its configuration loads, and lets it in."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from jwt import decode

from tests import workload_tokens
from tests.docs.blocks import Document, DocumentedWorld, blocks, configuration, documented
from tests.issuers import Answer, IssuerKey, jwks
from tests.loopback import Asked, Loopback
from tests.token_reviews import REVIEWER, TokenReviews

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

KEY = IssuerKey.new("RS256")
PAGE = "identity.md"
BLOCKS = blocks(PAGE)

TOKENS: Mapping[str, Callable[[], dict[str, Any]]] = {
    "GitHub Actions": workload_tokens.github,
    "GitLab CI": workload_tokens.gitlab,
    "Kubernetes": workload_tokens.kubernetes,
    "Kubernetes TokenReview": workload_tokens.kubernetes,
    "People, and any OpenID Connect provider": workload_tokens.person,
}
"""Whose tokens each section is about."""


def keys_in(folder: Path) -> dict[str, object]:
    """Where the tests' keys are."""
    file = folder / "jwks.json"
    file.write_bytes(jwks(KEY))
    return {"jwks_file": str(file)}


def principal(document: Document) -> dict[str, Any]:
    """The one principal of a section."""
    (found,) = document["principals"]
    return found


async def assert_let_in(world: DocumentedWorld, heading: str, token: str) -> None:
    """The broker's token is for the section's principal."""
    answer = await world.redeem(token)
    assert answer.status_code == 200, answer.text
    claims = decode(answer.json()["access_token"], options={"verify_signature": False})
    assert claims["client_id"] == principal(BLOCKS[heading])["name"]


@pytest.mark.parametrize("heading", BLOCKS)
def test_every_configuration_loads_as_it_is_written(
    heading: str, engines: tuple[DevStack, Config]
) -> None:
    config = configuration(engines[0], BLOCKS[heading], as_written=True)
    known = {entry.name for entry in config.principals}
    assert {entry["name"] for entry in BLOCKS[heading].get("principals", [])} <= known


@pytest.mark.parametrize("heading", [name for name in TOKENS if name != "Kubernetes TokenReview"])
async def test_the_configuration_lets_its_workload_in(
    heading: str, engines: tuple[DevStack, Config], tmp_path: Path
) -> None:
    async with documented(engines[0], BLOCKS[heading], **keys_in(tmp_path)) as world:
        await assert_let_in(world, heading, KEY.sign(TOKENS[heading]()))
        forged = await world.redeem(IssuerKey.new("RS256").sign(TOKENS[heading]()))
        assert forged.status_code == 400


async def test_token_review_lets_its_workload_in(
    engines: tuple[DevStack, Config], tmp_path: Path
) -> None:
    heading = "Kubernetes TokenReview"
    token_file = tmp_path / "token"
    token_file.write_text(REVIEWER)
    with Loopback(TokenReviews(KEY)) as server:
        places = {"token_review": server.url, "token_file": str(token_file)}
        async with documented(engines[0], BLOCKS[heading], **places) as world:
            await assert_let_in(world, heading, KEY.sign(TOKENS[heading](), typ=None))


@pytest.mark.parametrize("heading", ["GitHub Actions", "GitLab CI", "Kubernetes"])
async def test_discovery_finds_the_keys(
    heading: str, engines: tuple[DevStack, Config], tmp_path: Path
) -> None:
    with Loopback(lambda _: Answer()) as server:
        metadata = {"issuer": server.url, "jwks_uri": f"{server.url}/keys"}

        def answer(asked: Asked) -> Answer:
            found = asked.path == "/.well-known/openid-configuration"
            return Answer(json.dumps(metadata).encode() if found else jwks(KEY))

        server.answer = answer
        places = {"issuer": server.url, "discovery": True}
        async with documented(engines[0], BLOCKS[heading], **places) as world:
            token = KEY.sign({**TOKENS[heading](), "iss": server.url})
            await assert_let_in(world, heading, token)
            assert len(server.asked) == 2
