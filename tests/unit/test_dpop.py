"""DPoP proofs: the checks of RFC 9449 section 4.3, and what gets past a careless reader.

Here those of the proof itself; those of the request in ``test_dpop_requests.py``. The first and the
tenth, one header and the nonce, are in ``tests/contract/test_replay.py``.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from typing import Any

import pytest
from joserfc import jwk as joserfc_jwk
from joserfc import jwt as joserfc_jwt

from broker.errors import InvalidToken
from broker.identity.dpop import ALGORITHMS, MAX_ID_CHARS, Proof
from broker.identity.jws import parse
from tests.issuers import IssuerKey, segment
from tests.possession import Sender, ath
from tests.unit.dpop_world import NOW, SENDER, TOKEN, URL, proof, refusal, verified

RSA = IssuerKey.new("RS256", None)
KEYS = {
    name: IssuerKey(name, None, RSA.private)
    if name.startswith(("RS", "PS"))
    else IssuerKey.new(name, None)
    for name in ALGORITHMS
}
OTHER = Sender()


def test_a_proof_says_who_holds_which_key_for_what_request() -> None:
    found = verified(proof(jti="one", nonce="n"))

    assert found == Proof(SENDER.jkt(), "one", URL, "n", NOW)
    assert verified(proof()).nonce is None


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_every_algorithm_of_the_metadata_works(algorithm: str) -> None:
    sender = Sender(KEYS[algorithm])

    assert verified(proof(sender)).jkt == sender.jkt()


@pytest.mark.filterwarnings("ignore:EdDSA is deprecated")  # RFC 9864 has another name for it
@pytest.mark.parametrize(
    ("algorithm", "key"),
    [
        ("ES256", joserfc_jwk.ECKey.generate_key("P-256")),
        ("ES512", joserfc_jwk.ECKey.generate_key("P-521")),
        ("EdDSA", joserfc_jwk.OKPKey.generate_key("Ed25519")),
        ("PS256", joserfc_jwk.RSAKey.import_key(RSA.private)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_proofs_of_a_library_nobody_here_wrote(algorithm: str, key: joserfc_jwk.Key) -> None:
    header: dict[str, Any] = {
        "typ": "dpop+jwt",
        "alg": algorithm,
        "jwk": key.as_dict(private=False),
    }
    claims = {"jti": "one", "htm": "GET", "htu": URL, "iat": int(NOW), "ath": ath(TOKEN)}
    made = joserfc_jwt.encode(header, claims, key, algorithms=[algorithm])

    found = verified(made, method="GET", access_token=TOKEN)

    assert found.jkt == key.thumbprint()


def test_the_example_of_the_rfc_verifies() -> None:
    """RFC 9449 section 5, figure 2: a real proof, for https://server.example.com/token."""
    made = (
        "eyJ0eXAiOiJkcG9wK2p3dCIsImFsZyI6IkVTMjU2IiwiandrIjp7Imt0eSI6IkVDIiwieCI6Imw4dEZyaHgtMzR0"
        "VjNoUklDUkRZOXpDa0RscEJoRjQyVVFVZldWQVdCRnMiLCJ5IjoiOVZFNGpmX09rX282NHpiVFRsY3VOSmFqSG10"
        "NnY5VERWclUwQ2R2R1JEQSIsImNydiI6IlAtMjU2In19.eyJqdGkiOiItQndDM0VTYzZhY2MybFRjIiwiaHRtIj"
        "oiUE9TVCIsImh0dSI6Imh0dHBzOi8vc2VydmVyLmV4YW1wbGUuY29tL3Rva2VuIiwiaWF0IjoxNTYyMjYyNjE2f"
        "Q.2-GxA6T8lP4vfrg8v-FdWP0A0zdrj8igiMLvqRMUvwnQg4PtFLbdLXiOSsX0x7NVY-FNyJK70nfbV37xRZT3Lg"
    )

    found = verified(made, url="https://server.example.com/token", now=1_562_262_616.0)

    # Section 6.1, figure 10: the thumbprint of that key.
    assert found.jkt == "0ZcOCORZNYy-DWpqq30jZyJGHTN0d2HglBV3uiguA4I"


# ── 2: one well-formed JWT ───────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "value",
    [
        "",
        ".",
        "..",
        "a.b.c",
        "a.b.c.d",
        "Bearer x.y.z",
        "ключ.ключ.ключ",
        "\udcff.x.y",
        "x" * 20_000,
        f"{segment(b'[]')}.{segment({})}.AA",
        f"{segment(b'{' * 3000)}.{segment({})}.AA",
    ],
)
def test_what_is_no_jwt_is_no_proof(value: str) -> None:
    assert "DPoP proof" in refusal(value)


def test_two_proofs_in_one_header_are_no_proof() -> None:
    assert refusal(f"{proof()}, {proof()}")
    assert refusal(f"{proof()} ")


# ── 3: what is required ──────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", ["jti", "htm", "htu", "iat"])
@pytest.mark.parametrize("value", [None, True, 1.5e300, [], {}, "", ["POST"], float("nan")])
def test_required_claims_are_there_and_of_their_type(name: str, value: object) -> None:
    changed: dict[str, Any] = {name: value}
    assert refusal(proof(**changed))


@pytest.mark.parametrize("name", ["jti", "nonce"])
@pytest.mark.parametrize(
    "value", ["x" * (MAX_ID_CHARS + 1), "line\nbreak", "\u202e", 7, "\0", None]
)
def test_ids_and_nonces_are_short_printable_texts(name: str, value: object) -> None:
    # A claim that is null is there, and is no text.
    claims: dict[str, Any] = {"jti": "one", "htm": "POST", "htu": URL, "iat": int(NOW), name: value}
    made = SENDER.key.sign(claims, typ="dpop+jwt", kid=None, jwk=SENDER.jwk())

    assert name in refusal(made)


def test_a_jti_may_be_anything_printable_up_to_the_bound() -> None:
    assert verified(proof(jti="é" * MAX_ID_CHARS)).jti == "é" * MAX_ID_CHARS


def test_a_repeated_claim_is_refused() -> None:
    claims = json.dumps({"jti": "one", "htm": "POST", "htu": URL, "iat": int(NOW)})
    doubled = claims[:-1] + ', "htu": "https://elsewhere.example/"}'
    made = SENDER.key.sign(doubled.encode(), typ="dpop+jwt", kid=None, jwk=SENDER.jwk())

    assert "JSON" in refusal(made)


# ── 4 and 5: type and algorithm ──────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("typ", [None, "", "JWT", "at+jwt", "DPOP+JWT", "application/dpop+jwt", 7])
def test_the_type_is_exactly_dpop_jwt(typ: object) -> None:
    assert "typ" in refusal(proof(header={"typ": typ}))


@pytest.mark.parametrize("alg", [None, "none", "NONE", "HS256", "HS512", "ES256K", "RSA1_5", 7, []])
def test_only_asymmetric_algorithms_are_accepted(alg: object) -> None:
    assert "algorithm" in refusal(proof(header={"alg": alg}))


def test_an_unsigned_proof_is_refused() -> None:
    head, payload, _ = proof().split(".")
    unsigned = {**json.loads(parse_segment(head)), "alg": "none"}

    assert refusal(f"{head}.{payload}.")
    assert refusal(f"{segment(unsigned)}.{payload}.")


@pytest.mark.parametrize(
    "header",
    [
        {"crit": ["exp"]},
        {"b64": False},
        {"jku": "https://evil.example/jwks"},
        {"x5u": "https://evil.example/x5u"},
        {"x5c": ["AAAA"]},
    ],
    ids=lambda header: next(iter(header)),
)
def test_traps_in_the_header_are_refused(header: dict[str, object]) -> None:
    assert refusal(proof(header=header))


def test_only_a_proof_may_bring_its_key() -> None:
    with pytest.raises(InvalidToken, match="its own key"):
        parse(proof())


# ── 6 and 7: the key ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "jwk",
    [
        pytest.param(None, id="null"),
        pytest.param([], id="list"),
        pytest.param("text", id="text"),
        pytest.param({}, id="empty"),
        pytest.param({"kty": "oct", "k": "c2VjcmV0"}, id="secret"),
        pytest.param({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}, id="secret-HS256"),
        pytest.param(SENDER.jwk(k="c2VjcmV0"), id="and-k"),
        pytest.param(SENDER.jwk(d="AAAA"), id="and-d"),
        pytest.param(SENDER.jwk(d=None, p="AAAA"), id="and-p"),
        pytest.param(SENDER.jwk(kty="OKP"), id="kty-OKP"),
        pytest.param(SENDER.jwk(crv="P-384"), id="crv-P-384"),
        pytest.param(SENDER.jwk(crv="secp256k1"), id="crv-secp256k1"),
        pytest.param(SENDER.jwk(x=["AA"]), id="x-in-a-list"),
        pytest.param(SENDER.jwk(y=SENDER.jwk()["x"]), id="x-as-y"),
        pytest.param(SENDER.jwk(use="enc"), id="use-enc"),
        pytest.param(SENDER.jwk(alg="ES384"), id="alg-ES384"),
        pytest.param({"keys": [SENDER.jwk()]}, id="set-of-keys"),
    ],
)
def test_the_key_is_a_public_signature_key(jwk: object) -> None:
    assert "jwk" in refusal(proof(header={"jwk": jwk}))


def test_a_real_private_key_is_refused() -> None:
    key = joserfc_jwk.ECKey.import_key(SENDER.key.private)

    assert "private" in refusal(proof(header={"jwk": key.as_dict(private=True)}))


def test_weak_and_costly_rsa_keys_are_refused() -> None:
    for bits in (1024, 8192):
        number = (1 << bits) - 3
        jwk = {"kty": "RSA", "n": integer(number), "e": "AQAB"}
        assert "bits" in refusal(proof(header={"jwk": jwk, "alg": "RS256"}))
    slow = {"kty": "RSA", "n": RSA.jwk()["n"], "e": integer((1 << 2000) + 1)}
    assert "exponent" in refusal(proof(header={"jwk": slow, "alg": "RS256"}))


@pytest.mark.parametrize("padding", ["=", "==", "AA"], ids=["one", "two", "more"])
def test_a_key_has_one_thumbprint(padding: str) -> None:
    x = SENDER.jwk()["x"]

    assert refusal(proof(header={"jwk": SENDER.jwk(x=x + padding)}))
    assert refusal(proof(Sender(RSA), header={"jwk": Sender(RSA).jwk(n="AA" + RSA.jwk()["n"])}))


def test_what_else_is_in_the_jwk_does_not_change_its_thumbprint() -> None:
    jwk = SENDER.jwk(use="sig", kid="mine", alg="ES256", extra="x")

    assert verified(proof(header={"jwk": jwk})).jkt == SENDER.jkt()


def test_the_signature_is_by_the_key_it_brings() -> None:
    assert "signature" in refusal(proof(header={"jwk": OTHER.jwk()}))
    assert "signature" in refusal(proof(header={"alg": "ES384"}))
    head, payload, signature = proof().split(".")
    _, another, _ = proof(jti="another").split(".")
    assert "signature" in refusal(f"{head}.{another}.{signature}")
    for spoilt in ("", "AAAA", segment(bytes(64)), signature[:-4], signature + "AAAA"):
        assert refusal(f"{head}.{payload}.{spoilt}")


def test_an_rsa_key_is_not_used_for_another_algorithm() -> None:
    sender = Sender(RSA)

    assert refusal(proof(sender, header={"alg": "PS256"}))
    assert refusal(proof(sender, header={"jwk": sender.jwk(alg="PS256")}))


def integer(number: int) -> str:
    return segment(number.to_bytes((number.bit_length() + 7) // 8, "big"))


def parse_segment(text: str) -> bytes:
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))
