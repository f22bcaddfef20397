"""Every way the claims of a workload JWT can be wrong, each signed for real."""

from __future__ import annotations

import json

import pytest

from broker.identity.oidc import JwtIssuer
from broker.identity.rules import Rule
from tests.clocks import ManualClock
from tests.issuers import IssuerKey
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
@pytest.mark.parametrize("value", [True, False, str(NOW), [NOW], {}, -1, 10**30, 1e300, b"null"])
async def test_dates_are_sane_numbers(name: str, value: object) -> None:
    document = json.dumps(claims(**{name: "@"}))
    literal = "null" if value == b"null" else json.dumps(value)
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


# ── what an issuer's tokens must say ─────────────────────────────────────────────────────────────

RULES = {
    "owner_id": Rule.parse("4242"),
    "ref": Rule.parse({"match": "refs/heads/(main|release-[0-9]+)"}),
    "pod/uid": Rule.parse({"match": ".+"}),
}
MET: dict[str, object] = {"owner_id": "4242", "ref": "refs/heads/main", "pod": {"uid": "1"}}


async def test_all_of_an_issuers_rules_must_hold() -> None:
    issuer = issuer_with(KEY, claims=RULES)
    await issuer.verify(KEY.sign(claims(**MET)))
    spoiled: list[tuple[dict[str, object], str]] = [
        ({"owner_id": None}, "owner_id"),
        ({"owner_id": 4242}, "owner_id"),
        ({"owner_id": "4243"}, "owner_id"),
        ({"ref": "refs/heads/main\n"}, "ref"),
        ({"ref": "x/refs/heads/main"}, "ref"),
        ({"pod": None}, "pod/uid"),
        ({"pod": "uid"}, "pod/uid"),
        ({"pod/uid": "1", "pod": {}}, "pod/uid"),
    ]
    for changes, name in spoiled:
        token = KEY.sign(claims(**{**MET, **changes}))
        assert f"'{name}'" in await refusal(token, issuer)


async def test_a_refusal_names_the_claim_and_not_its_value() -> None:
    detail = await refusal(
        KEY.sign(claims(**{**MET, "ref": "canary-7f3a"})), issuer_with(KEY, claims=RULES)
    )
    assert "canary" not in detail
    assert "release" not in detail


async def test_a_stranger_learns_nothing_of_an_issuers_rules() -> None:
    stranger = IssuerKey.new()
    detail = await refusal(stranger.sign(claims()), issuer_with(KEY, claims=RULES))
    assert "signature" in detail
    assert not any(name in detail for name in RULES)


async def test_registered_claims_can_be_asked_for_too() -> None:
    issuer = issuer_with(KEY, claims={"sub": Rule.parse({"match": "agent/.+"})})
    await issuer.verify(KEY.sign(claims()))
    assert "'sub'" in await refusal(KEY.sign(claims(sub="operator/x")), issuer)


@pytest.mark.parametrize("act", [{"sub": "other"}, {}, None, [], "other", False])
async def test_a_delegation_is_no_proof_of_identity(act: object) -> None:
    token = KEY.sign({**claims(), "act": act})
    assert "somebody else acts: present your own" in await refusal(token)


async def test_who_may_act_is_passed_on() -> None:
    identity = await issuer_with(KEY).verify(KEY.sign(claims(may_act={"sub": "other"})))
    assert identity.claims["may_act"] == {"sub": "other"}
