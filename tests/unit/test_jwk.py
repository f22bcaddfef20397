"""Single keys and key sets: which are used, for what, and which are left out."""

from __future__ import annotations

import json

import pytest

from broker.identity.jwk import MAX_KEYS, KeySet, UnusableKey, parse_key, parse_key_set
from tests.issuers import IssuerKey, jwks

KEY = IssuerKey.new()
RSA = IssuerKey.new("RS256")


@pytest.mark.parametrize(
    ("jwk", "why"),
    [
        ("text", "object"),
        ({}, "kty"),
        ({"kty": ["EC"]}, "kty"),
        ({"kty": "oct", "k": "c2VjcmV0", "alg": "HS256"}, "not used"),
        ({"kty": "AKP", "alg": "ML-DSA-44"}, "not used"),
        (KEY.jwk(crv="secp256k1"), "not used"),
        (KEY.jwk(crv="P-384"), "malformed"),
        (KEY.jwk(crv=["P-256"]), "crv"),
        (KEY.jwk(x="AAAA"), "malformed"),
        (KEY.jwk(y=KEY.jwk()["x"]), "malformed"),
        (KEY.jwk(x=1), "malformed"),
        (KEY.jwk(y=None), "malformed"),
        (KEY.jwk(d="AAAA"), "private"),
        (KEY.jwk(d=1), "private"),
        (RSA.jwk(p="AAAA"), "private"),
        (KEY.jwk(use="enc"), "not for verifying"),
        (KEY.jwk(use=["sig"]), "not for verifying"),
        (KEY.jwk(key_ops=["sign"]), "not for verifying"),
        (KEY.jwk(key_ops="verify"), "not for verifying"),
        (KEY.jwk(alg="ES384"), "doesn't fit"),
        (KEY.jwk(alg="HS256"), "doesn't fit"),
        (KEY.jwk(alg="none"), "doesn't fit"),
        (KEY.jwk(alg=["ES256"]), "doesn't fit"),
        (RSA.jwk(alg="ES256"), "doesn't fit"),
        (RSA.jwk(alg="RSA-OAEP"), "doesn't fit"),
        (RSA.jwk(n="AQAB"), "malformed|weaker"),
        (RSA.jwk(n=None), "malformed"),
        (RSA.jwk(e="AA"), "malformed"),
        (KEY.jwk(kid=1), "kid"),
        (KEY.jwk(kid=""), "kid"),
        (KEY.jwk(kid="k" * 257), "kid"),
        (IssuerKey.new("RS256", bits=1024).jwk(), "1024 bits"),
    ],
)
def test_keys_that_cannot_be_used_are_left_out(jwk: object, why: str) -> None:
    with pytest.raises(UnusableKey, match=why):
        parse_key(jwk)
    document = json.dumps({"keys": [jwk, KEY.jwk()]}).encode()
    found = parse_key_set(document)
    assert len(found) == 1
    assert len(found.unusable) == 1
    assert found.unusable[0].startswith("key 0: ")


@pytest.mark.parametrize(
    ("jwk", "algorithms"),
    [
        (KEY.jwk(), {"ES256"}),
        (KEY.jwk(use="jwt-svid"), {"ES256"}),
        (KEY.jwk(use=None, key_ops=["verify"]), {"ES256"}),
        (IssuerKey.new("ES384").jwk(), {"ES384"}),
        (IssuerKey.new("ES512").jwk(), {"ES512"}),
        (IssuerKey.new("EdDSA").jwk(), {"EdDSA", "Ed25519"}),
        (IssuerKey.new("EdDSA").jwk(alg="Ed25519"), {"Ed25519"}),
        (RSA.jwk(), {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}),
        (RSA.jwk(alg="PS384"), {"PS384"}),
    ],
)
def test_keys_are_bound_to_their_algorithms(jwk: object, algorithms: set[str]) -> None:
    assert parse_key(jwk).algorithms == algorithms


@pytest.mark.parametrize("document", [b"", b"[]", b"{}", b'{"keys":{}}', b"[" * 100_000, b"\xff"])
def test_what_is_no_key_set_is_no_empty_key_set(document: bytes) -> None:
    with pytest.raises(ValueError, match="not a JWK Set"):
        parse_key_set(document)


def test_key_sets_are_bounded() -> None:
    with pytest.raises(ValueError, match=f"more than {MAX_KEYS}"):
        parse_key_set(jwks(*[{"kty": "EC"}] * (MAX_KEYS + 1)))


def test_an_empty_key_set_is_valid_and_knows_nothing() -> None:
    empty = parse_key_set(jwks())
    assert len(empty) == 0
    assert not empty.knows(None)
    assert not KeySet([]).knows("k1")
