"""Every way the claims of a workload JWT can be wrong, each signed for real."""

from __future__ import annotations

import json

import pytest

from broker.identity.oidc import JwtIssuer
from tests.clocks import ManualClock
from tests.unit.oidc_world import (
    ISSUER,
    KEY,
    NOW,
    Keys,
    claims,
    issuer_with,
    refusal,
    settings,
)


@pytest.mark.parametrize("name", ["iss", "sub", "aud", "exp"])
async def test_each_required_claim_is_required(name: str) -> None:
    await refusal(KEY.sign(claims(**{name: None})))


async def test_iat_is_optional() -> None:
    await issuer_with(KEY).verify(KEY.sign(claims(iat=None)))


@pytest.mark.parametrize(
    "value", [f"{ISSUER}/", ISSUER.upper(), "https://other.example", "", [ISSUER], 1, True]
)
async def test_the_issuer_is_compared_exactly(value: object) -> None:
    assert "another issuer" in await refusal(KEY.sign(claims(iss=value)))


async def test_the_audience_may_be_one_of_several() -> None:
    await issuer_with(KEY).verify(KEY.sign(claims(aud=["other", "broker"])))


@pytest.mark.parametrize(
    "value",
    ["other", "broker/", "brokers", "", [], ["other"], ["broker", 1], [["broker"]], {"broker": 1}],
)
async def test_other_audiences_are_refused(value: object) -> None:
    assert "aud" in await refusal(KEY.sign(claims(aud=value)))


@pytest.mark.parametrize(
    "value", ["", "a" * 513, "a\nb", "a\x00", "a\x7f", "a\u202eb", "a\u2028b", 1, True, ["a"], {}]
)
async def test_a_subject_is_a_short_printable_text(value: object) -> None:
    assert "sub" in await refusal(KEY.sign(claims(sub=value)))


@pytest.mark.parametrize("name", ["exp", "nbf", "iat"])
@pytest.mark.parametrize(
    "value", [True, False, str(NOW), [NOW], {}, -1, 1e999, 10**30, 1e300, b"null"]
)
async def test_dates_are_sane_numbers(name: str, value: object) -> None:
    document = json.dumps(claims(**{name: "@"}))
    literal = "null" if value == b"null" else json.dumps(value).replace("Infinity", "1e999")
    token = KEY.sign(document.replace('"@"', literal).encode())
    assert f"{name} is not a valid date" in await refusal(token)


async def test_dates_may_have_fractions() -> None:
    identity = await issuer_with(KEY).verify(KEY.sign(claims(exp=NOW + 10.75, iat=NOW - 0.5)))
    assert identity.expires_at == NOW + 10


async def test_expiry_forgives_the_leeway_and_not_a_second_more() -> None:
    issuer = issuer_with(KEY)
    await issuer.verify(KEY.sign(claims(iat=NOW - 60, exp=NOW - 29)))
    assert "expired" in await refusal(KEY.sign(claims(iat=NOW - 60, exp=NOW - 30)), issuer)
    assert "expired" in await refusal(KEY.sign(claims(iat=NOW - 60, exp=NOW - 31)), issuer)


async def test_a_token_expires_while_the_clock_runs() -> None:
    clock = ManualClock()
    issuer = JwtIssuer(settings(refresh_s=86_400), clock, Keys(KEY))
    token = KEY.sign(claims(exp=NOW + 60))
    clock.advance(89)
    await issuer.verify(token)
    clock.advance(1)
    await refusal(token, issuer)


@pytest.mark.parametrize(("name", "problem"), [("nbf", "not valid yet"), ("iat", "in the future")])
async def test_tokens_from_the_future_are_refused(name: str, problem: str) -> None:
    await issuer_with(KEY).verify(KEY.sign(claims(**{name: NOW + 30})))
    assert problem in await refusal(KEY.sign(claims(**{name: NOW + 31})))


async def test_tokens_that_live_too_long_are_refused() -> None:
    issuer = issuer_with(KEY, max_lifetime_s=3600)
    await issuer.verify(KEY.sign(claims(exp=NOW + 3600)))
    await issuer.verify(KEY.sign(claims(iat=None, exp=NOW + 3600)))
    for changes in ({"exp": NOW + 3601}, {"iat": None, "exp": NOW + 3601}, {"iat": NOW - 3001}):
        assert "3600 seconds" in await refusal(KEY.sign(claims(**changes)), issuer)
