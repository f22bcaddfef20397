"""Settings of workload issuers, and which issuer answers for a token."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import ConfigError, InvalidToken
from broker.identity.authenticator import Authenticator
from broker.identity.oidc import JwtIssuer
from tests.clocks import ManualClock
from tests.issuers import IssuerKey
from tests.unit.oidc_world import (
    ISSUER,
    KEY,
    Keys,
    claims,
    issuer_with,
    settings,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"issuer": ""},
        {"audience": ""},
        {"jwks_url": None},
        {"discovery": True},
        {"leeway_s": -1},
        {"leeway_s": 301},
        {"max_lifetime_s": 0},
        {"refresh_s": 0},
        {"cooldown_s": 0},
        {"max_stale_s": 299},
    ],
    ids=str,
)
def test_settings_that_cannot_be_safe_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="identity issuer"):
        settings(**changes)


def test_settings_take_one_source_of_keys(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="exactly one"):
        settings(jwks_file=tmp_path / "jwks.json")
    settings(jwks_url=None, jwks_file=tmp_path / "jwks.json")
    settings(jwks_url=None, discovery=True)


async def test_the_issuer_named_by_a_token_verifies_it() -> None:
    other = IssuerKey.new()
    url = "https://other.example"
    authenticator = Authenticator(
        [issuer_with(KEY), JwtIssuer(settings(name="b", issuer=url), ManualClock(), Keys(other))]
    )
    assert (await authenticator.authenticate(KEY.sign(claims()))).issuer_name == "ci"
    assert (await authenticator.authenticate(other.sign(claims(iss=url)))).issuer_name == "b"
    # The same key id and subject, and the wrong issuer's key.
    for token in (other.sign(claims()), KEY.sign(claims(iss=url))):
        with pytest.raises(InvalidToken):
            await authenticator.authenticate(token)
    await authenticator.aclose()


@pytest.mark.parametrize("value", [f"{ISSUER}/", "https://unknown.example", None, 1, [ISSUER], {}])
async def test_nobody_answers_for_an_unknown_issuer(value: object) -> None:
    authenticator = Authenticator([issuer_with(KEY)])
    with pytest.raises(InvalidToken, match="not configured"):
        await authenticator.authenticate(KEY.sign(claims(iss=value)))


@given(token=st.text())
async def test_noise_proves_nobody(token: str) -> None:
    with pytest.raises(InvalidToken):
        await Authenticator([issuer_with(KEY)]).authenticate(token)


def test_two_issuers_cannot_share_a_name_or_an_iss() -> None:
    for changes in ({"name": "b"}, {"issuer": "https://b.example"}):
        with pytest.raises(ConfigError, match="twice"):
            Authenticator([issuer_with(KEY), issuer_with(KEY, **changes)])
