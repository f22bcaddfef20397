"""What holds for tokens nobody thought of: mutated, made up, or at the edge of their time."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import InvalidToken
from broker.identity.jws import encode_base64url, numeric_date, parse
from tests.hostile.signatures import decoded
from tests.hostile.vectors import ABSENT, changed, signed
from tests.hostile.verifiers import NOW, VERIFIERS, Verifier
from tests.issuers import segment

if TYPE_CHECKING:
    from collections.abc import Callable

KINDS: Final = {name: make() for name, make in VERIFIERS.items()}
"""Their clocks stand still, so one of each is enough."""
TOKENS: Final = {
    name: [made.token for made in (kind.good, kind.good.rsa) if made is not None]
    for name, kind in KINDS.items()
    if kind.signatures
}
"""Signed once: ECDSA signs differently each time, and what is drawn must not depend on that."""
EXAMPLES: Final = settings(max_examples=40)
JSON: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=8,
)
HEADERS: Final = ("alg", "typ", "kid", "jwk", "crit", "b64", "jku", "x5u", "x5c", "x5t", "cty", "x")
CLAIMS: Final = (
    *("iss", "sub", "aud", "exp", "nbf", "iat", "jti", "act", "may_act", "cnf", "client_id"),
    *("scope", "txn", "via", "authorization_details", "htm", "htu", "ath", "nonce"),
    *("kubernetes.io", "x"),
)


async def accepts(verifier: Verifier, token: str) -> bool:
    """Whether a token is accepted; anything but its own refusal fails the test."""
    try:
        await verifier.verify(token)
    except verifier.refusal:
        return False
    return True


@st.composite
def edits(draw: st.DrawFn, text: str) -> str:
    """A text with a few characters or pieces put in, left out, repeated or moved."""
    for _ in range(draw(st.integers(1, 3))):
        at, to = sorted((draw(st.integers(0, len(text))), draw(st.integers(0, len(text)))))
        piece = text[at:to]
        new = draw(
            st.sampled_from(["", piece * 2, piece[::-1], piece.swapcase(), ".", "=", "A"])
            | st.characters(max_codepoint=0x17F)
            | st.text(max_size=5)
        )
        text = text[:at] + new + text[draw(st.sampled_from([at, to])) :]
    return text


@pytest.mark.parametrize("name", TOKENS)
@EXAMPLES
@given(data=st.data())
async def test_no_edited_token_is_accepted(name: str, data: st.DataObject) -> None:
    token = data.draw(st.sampled_from(TOKENS[name]))
    edited = data.draw(edits(token))

    assert await accepts(KINDS[name], edited) == (edited == token)


@pytest.mark.parametrize("name", TOKENS)
@EXAMPLES
@given(data=st.data())
async def test_no_edited_part_is_accepted(name: str, data: st.DataObject) -> None:
    """As above, below base64url: the bytes of a part, written as they should be."""
    token = data.draw(st.sampled_from(TOKENS[name]))
    parts = [decoded(part).decode("latin-1") for part in token.split(".")]
    which = data.draw(st.integers(0, 2))
    parts[which] = data.draw(edits(parts[which]))
    edited = ".".join(segment(part.encode("latin-1", "replace")) for part in parts)

    assert await accepts(KINDS[name], edited) == (edited == token)


@pytest.mark.parametrize("name", KINDS)
@EXAMPLES
@given(
    header=st.dictionaries(st.sampled_from(HEADERS), JSON | st.just(ABSENT), max_size=3),
    claims=st.dictionaries(st.sampled_from(CLAIMS), JSON | st.just(ABSENT), max_size=3),
)
async def test_what_is_really_signed_is_accepted_or_refused_and_nothing_else(
    name: str, header: dict[str, Any], claims: dict[str, Any]
) -> None:
    verifier, good = KINDS[name], KINDS[name].good
    token = good.sign(changed(good.head, **header), changed(good.claims, **claims))

    if not await accepts(verifier, token):
        return
    # Accepted: then nothing that matters can have been changed.
    assert header.get("alg", "ES256") == "ES256"
    assert not {"crit", "b64", "jku", "x5u", "x5c"} & {k for k in header if header[k] is not ABSENT}
    assert header.get("typ", good.head.get("typ")) in (*verifier.types, ABSENT)
    for exact in verifier.shape.exact:
        assert claims.get(exact, good.claims[exact]) == good.claims[exact]
    for forbidden in verifier.shape.forbidden:
        assert claims.get(forbidden, ABSENT) is ABSENT


@pytest.mark.parametrize("name", KINDS)
@EXAMPLES
@given(header=st.binary(max_size=60), payload=st.binary(max_size=60))
async def test_any_bytes_signed_are_refused(name: str, header: bytes, payload: bytes) -> None:
    good = KINDS[name].good
    for parts in ((header, payload), (good.head, payload), (header, good.claims)):
        assert not await accepts(KINDS[name], good.sign(*parts))


@pytest.mark.parametrize("name", KINDS)
@EXAMPLES
@given(data=st.data())
async def test_times_are_compared_exactly_at_their_edges(name: str, data: st.DataObject) -> None:
    """By an oracle of one line for each claim, and numbers of every size near the edges."""
    verifier = KINDS[name]
    drawn = {
        claim: data.draw(near, label=claim)
        for claim, near in {
            "exp": around(-60, -30, 0, 60, 300, 330, 600, 86_400),
            "iat": around(-86_400, -300, -60, 0, 30, 60),
            "nbf": around(-60, 0, 30, 60),
        }.items()
    }
    given_claims = {k: NOW + v for k, v in drawn.items() if v is not None}
    times = {"iat": ABSENT, "nbf": ABSENT, "exp": ABSENT, **given_claims}
    token = verifier.good.with_claims(**times)

    assert await accepts(verifier, token) == ORACLES[name](**drawn)


def around(*offsets: int) -> st.SearchStrategy[float | None]:
    """Nothing; or an offset, a whole second or a small part of one beside it."""
    small = st.sampled_from([-1, -0.5, -(2.0**-20), 0, 2.0**-20, 0.5, 1])
    beside = st.tuples(st.sampled_from(offsets), small)
    return st.none() | beside.map(sum)


def as_workload(exp: float | None, iat: float | None, nbf: float | None) -> bool:
    if exp is None or exp <= -30 or (iat is not None and iat > 30):
        return False
    return (nbf is None or nbf <= 30) and exp - (iat or 0) <= 86_400


def as_access(exp: float | None, iat: float | None, nbf: float | None) -> bool:
    # RFC 9068 knows no nbf, and we write none.
    if exp is None or iat is None or exp <= 0 or iat > 30:
        return False
    return all(isinstance(NOW + offset, int) for offset in (exp, iat))


def as_assertion(exp: float | None, iat: float | None, nbf: float | None) -> bool:
    if exp is None or exp <= -30 or (iat is not None and iat > 30):
        return False
    return (nbf is None or nbf <= 30) and exp - min(0, iat or 0) <= 330


def as_proof(exp: float | None, iat: float | None, nbf: float | None) -> bool:
    if iat is None or abs(iat) > 60:
        return False
    return (exp is None or exp > -60) and (nbf is None or nbf <= 60)


ORACLES: Final[dict[str, Callable[..., bool]]] = {
    "workload": as_workload,
    "svid": as_workload,
    "reviewed": as_workload,
    "access": as_access,
    "assertion": as_assertion,
    "proof": as_proof,
}


# ── the parser ───────────────────────────────────────────────────────────────────────────────────


@EXAMPLES
@given(header=st.dictionaries(st.text(), JSON), claims=st.dictionaries(st.text(), JSON))
def test_what_is_parsed_is_what_was_written(header: dict[str, Any], claims: dict[str, Any]) -> None:
    good = KINDS["workload"].good
    head = {**{k: v for k, v in header.items() if k not in HEADERS}, "alg": "ES256"}
    token = good.sign(head, claims)

    once = parse(token)

    assert once.compact == token
    assert parse(once.compact) == once
    assert json.dumps(once.claims, sort_keys=True) == json.dumps(claims, sort_keys=True)
    assert (once.kid, once.typ, once.algorithm, once.jwk) == (None, None, "ES256", None)


@EXAMPLES
@given(
    token=st.text()
    | st.text(alphabet="eyJAab01-_.=")
    | st.lists(st.binary(max_size=40), max_size=5).map(
        lambda parts: b".".join(map(encode_base64url, parts)).decode()
    )
    | st.text(alphabet=st.characters(categories=["Cs", "Cc", "Cf"]))
)
def test_noise_is_refused_by_the_parser(token: str) -> None:
    for own_key in (False, True):
        with pytest.raises(InvalidToken):
            parse(token, own_key=own_key)


@EXAMPLES
@given(value=JSON | st.floats() | st.integers(-(10**30), 10**30))
def test_a_date_is_a_finite_number_of_years(value: Any) -> None:
    try:
        found = numeric_date({"exp": value}, "exp")
    except InvalidToken:
        fine = isinstance(value, int | float) and not isinstance(value, bool)
        assert not (fine and 0 <= value <= 253_402_300_799)
        return
    assert found == value
    assert found is not None
    assert int(found) <= 253_402_300_799


@EXAMPLES
@given(parts=st.lists(st.text(alphabet="eyJhbGciOiJFUzI1NiJ9-_", max_size=24), max_size=6))
async def test_any_segments_signed_are_refused(parts: list[str]) -> None:
    token = signed(KINDS["workload"].good.key, *parts)

    for verifier in KINDS.values():
        assert not await accepts(verifier, token)
