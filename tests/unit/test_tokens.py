"""Access tokens: what is minted comes back, and nothing else does."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import InvalidToken
from broker.identity.jwk import VerificationKey
from broker.keys import KeyRing
from broker.tokens import AccessClaims, Tokens, nested_actor
from tests.clocks import ManualClock
from tests.issuers import segment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from jwt.types import Options

    from broker.identity.jws import Jws

ISSUER = "https://broker.example"
NOW = int(ManualClock().now())
PRIVATE = ec.generate_private_key(ec.SECP256R1())
RING = KeyRing([PRIVATE])
KID = RING.jwks()["keys"][0]["kid"]

CLAIMS = AccessClaims(
    subject="orchestrator",
    client_id="report-writer",
    audience=(ISSUER,),
    jti="jti_1",
    issued_at=NOW,
    expires_at=NOW + 600,
)
FULL = dataclasses.replace(
    CLAIMS,
    audience=("https://a.example", "https://b.example"),
    scope="read write",
    act={"sub": "child", "act": {"sub": "parent"}},
    authorization_details=({"type": "broker_task", "task_id": "tsk_1"},),
    txn="tsk_0",
    cnf={"jkt": "abc"},
)


def new_tokens(clock: ManualClock | None = None, ring: KeyRing = RING) -> Tokens:
    return Tokens(ISSUER, ring, clock or ManualClock())


def payload(**changes: object) -> dict[str, object]:
    """Good claims; a change to None leaves one out."""
    values = {
        "iss": ISSUER,
        "sub": "orchestrator",
        "aud": ISSUER,
        "client_id": "report-writer",
        "jti": "jti_1",
        "iat": NOW,
        "exp": NOW + 600,
        **changes,
    }
    return {name: value for name, value in values.items() if value is not None}


def signed(claims: Mapping[str, object], **header: object) -> str:
    return RING.sign({"typ": "at+jwt", **header}, claims)


def refusal(token: str, audience: str = ISSUER) -> str:
    with pytest.raises(InvalidToken) as caught:
        new_tokens().verify(token, audience)
    return caught.value.detail


@pytest.mark.parametrize("claims", [CLAIMS, FULL], ids=["least", "most"])
def test_what_is_minted_comes_back(claims: AccessClaims) -> None:
    tokens = new_tokens()
    minted = tokens.mint(claims).reveal()
    for _ in range(2):
        for audience in claims.audience:
            assert tokens.verify(minted, audience) == claims


def test_a_minted_token_has_the_shape_of_rfc_9068() -> None:
    least, most = (new_tokens().mint(claims).reveal() for claims in (CLAIMS, FULL))
    public = jwt.PyJWKSet.from_dict(RING.jwks())[KID]
    unverified_times: Options = {"verify_exp": False, "verify_iat": False, "verify_aud": False}
    complete = jwt.decode_complete(least, public, ["ES256"], options=unverified_times)
    assert complete["header"] == {"typ": "at+jwt", "alg": "ES256", "kid": KID}
    assert complete["payload"] == payload()
    assert jwt.decode(most, public, ["ES256"], options=unverified_times) == payload(
        aud=["https://a.example", "https://b.example"],
        scope="read write",
        act={"sub": "child", "act": {"sub": "parent"}},
        authorization_details=[{"type": "broker_task", "task_id": "tsk_1"}],
        txn="tsk_0",
        cnf={"jkt": "abc"},
    )


def test_a_minted_token_is_a_secret() -> None:
    assert "ey" not in f"{new_tokens().mint(CLAIMS)!r}"


@pytest.mark.parametrize("typ", [None, "JWT", "AT+JWT", "application/at+jwt", "dpop+jwt"])
def test_only_access_tokens_are_access_tokens(typ: str | None) -> None:
    header = {} if typ is None else {"typ": typ}
    assert "access token" in refusal(RING.sign(header, payload()))


@pytest.mark.parametrize("header", [{"crit": ["exp"]}, {"jwk": {}}, {"jku": "https://x.example"}])
def test_dangerous_headers_are_refused(header: dict[str, object]) -> None:
    refusal(signed(payload(), **header))


def test_unsigned_tokens_are_refused() -> None:
    for algorithm in ("none", "HS256", "RS256"):
        head = segment({"alg": algorithm, "typ": "at+jwt", "kid": KID})
        refusal(f"{head}.{segment(payload())}.{segment(b'signature')}")
        refusal(f"{head}.{segment(payload())}.")


def test_a_key_must_be_ours_and_named() -> None:
    other = KeyRing([ec.generate_private_key(ec.SECP256R1())])
    foreign = other.sign({"typ": "at+jwt"}, payload())
    assert "not signed by this broker" in refusal(foreign)
    head = segment({"alg": "ES256", "typ": "at+jwt", "kid": KID})
    rest = foreign.split(".", 1)[1]
    assert "not signed by this broker" in refusal(f"{head}.{rest}")
    head = segment({"alg": "ES256", "typ": "at+jwt"})
    assert "not signed by this broker" in refusal(f"{head}.{signed(payload()).split('.', 1)[1]}")


@pytest.mark.parametrize("name", ["iss", "sub", "aud", "client_id", "jti", "iat", "exp"])
def test_each_required_claim_is_required(name: str) -> None:
    refusal(signed(payload(**{name: None})))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("iss", f"{ISSUER}/"),
        ("aud", "https://other.example"),
        ("aud", [ISSUER, 1]),
        ("aud", []),
        ("sub", 1),
        ("sub", "a\nb"),
        ("client_id", ["a"]),
        ("jti", ""),
        ("iat", True),
        ("iat", NOW + 31),
        ("iat", NOW + 0.5),
        ("exp", NOW + 0.5),
        ("exp", f"{NOW + 600}"),
        ("exp", NOW),
        ("exp", NOW - 1),
        ("scope", ["read"]),
        ("txn", 1),
        ("cnf", "x"),
        ("act", "agent"),
        ("act", {}),
        ("act", {"sub": "a", "act": "b"}),
        ("act", {"sub": "a", "act": {"sub": 1}}),
        ("may_act", []),
        ("may_act", {}),
        ("may_act", {"sub": 1}),
        ("may_act", {"agents": "a"}),
        ("may_act", {"agents": [1]}),
        ("may_act", {"sub": "a", "agents": ["b"]}),
        ("may_act", {"sub": "a", "iss": "https://other.example"}),
        ("authorization_details", {}),
        ("authorization_details", ["x"]),
    ],
    ids=str,
)
def test_claims_of_the_wrong_kind_are_refused(name: str, value: object) -> None:
    refusal(signed(payload(**{name: value})))


def test_a_token_is_for_its_audience_only_and_verifying_one_changes_nothing_for_others() -> None:
    tokens = new_tokens()
    minted = tokens.mint(FULL).reveal()
    tokens.verify(minted, "https://a.example")
    with pytest.raises(InvalidToken, match="audience"):
        tokens.verify(minted, ISSUER)
    with pytest.raises(InvalidToken, match="audience"):
        tokens.verify(minted, "https://a.example/")
    assert tokens.verify(minted, None) == FULL


def test_expiry_is_exact_and_holds_for_tokens_seen_before() -> None:
    clock = ManualClock()
    tokens = new_tokens(clock)
    minted = tokens.mint(CLAIMS).reveal()
    clock.advance(599.999)
    tokens.verify(minted, ISSUER)
    clock.advance(0.001)
    for _ in range(2):
        with pytest.raises(InvalidToken, match="expired"):
            tokens.verify(minted, ISSUER)


def test_a_slightly_fast_clock_of_another_replica_is_forgiven() -> None:
    new_tokens().verify(signed(payload(iat=NOW + 30)), ISSUER)


def test_a_token_seen_before_dies_with_its_key() -> None:
    class Retiring:
        """A ring that forgets."""

        forgotten = False

        def sign(self, header: Mapping[str, Any], payload: Mapping[str, Any]) -> str:
            return RING.sign(header, payload)

        def find(self, kid: str) -> VerificationKey | None:
            return None if self.forgotten else RING.find(kid)

    ring = Retiring()
    tokens = Tokens(ISSUER, ring, ManualClock())
    minted = tokens.mint(CLAIMS).reveal()
    tokens.verify(minted, ISSUER)
    ring.forgotten = True
    with pytest.raises(InvalidToken, match="not signed by this broker"):
        tokens.verify(minted, ISSUER)


def test_a_signature_is_checked_once_for_a_bounded_number_of_tokens() -> None:
    checked: list[Jws] = []

    class CountingKey(VerificationKey):
        def verifies(self, jws: Jws) -> bool:
            checked.append(jws)
            return super().verifies(jws)

    class CountingRing(KeyRing):
        def find(self, kid: str) -> VerificationKey | None:
            key = super().find(kid)
            return key and CountingKey(key.kid, key.algorithms, key.public_key)

    tokens = Tokens(ISSUER, CountingRing([PRIVATE]), ManualClock(), max_cached=3)
    minted = [tokens.mint(dataclasses.replace(CLAIMS, jti=f"j{n}")).reveal() for n in range(5)]
    for token in minted:
        tokens.verify(token, ISSUER)
    assert len(checked) == 5
    for token in minted[2:]:
        assert tokens.verify(token, ISSUER).jti
    assert len(checked) == 5
    tokens.verify(minted[0], ISSUER)
    tokens.verify(minted[4], ISSUER)
    assert len(checked) == 6


def test_actors_nest_with_the_newest_outermost() -> None:
    assert nested_actor("a", ()) == {"sub": "a"}
    assert nested_actor("c", ("b", "a")) == {
        "sub": "c",
        "act": {"sub": "b", "act": {"sub": "a"}},
    }


@given(data=st.data())
def test_a_token_changed_anywhere_never_verifies(data: st.DataObject) -> None:
    tokens = new_tokens()
    good = tokens.mint(FULL).reveal()
    tokens.verify(good, FULL.audience[0])
    position = data.draw(st.integers(0, len(good) - 1))
    replacement = data.draw(
        st.characters(max_codepoint=0x17F).filter(lambda c: c != good[position])
    )
    with pytest.raises(InvalidToken):
        tokens.verify(good[:position] + replacement + good[position + 1 :], FULL.audience[0])


@given(token=st.text() | st.text(alphabet=st.characters(categories=["Cs", "Ll"])))
def test_noise_is_refused_and_nothing_else_happens(token: str) -> None:
    refusal(token)
