"""The algorithm: none, the public key as a shared secret, one of another kind of key."""

from __future__ import annotations

import hashlib
import hmac
import itertools
import json
from base64 import urlsafe_b64decode
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.hostile.vectors import ABSENT, FORM, SIGNATURE, Good, Vector, changed, signed, vector
from tests.issuers import PRIMITIVES, IssuerKey, segment

if TYPE_CHECKING:
    from collections.abc import Iterator

_P384: Final = IssuerKey.new("ES384")
_P521: Final = IssuerKey.new("ES512")
_ED25519: Final = IssuerKey.new("EdDSA")
_RSA: Final = IssuerKey.new("RS256")

_ODD: Final[tuple[object, ...]] = (
    ABSENT,
    None,
    "",
    7,
    0,
    True,
    False,
    [],
    ["ES256"],
    {},
    {"ES256": True},
)
_UNKNOWN: Final = (
    "es256",
    "Es256",
    " ES256",
    "ES256 ",
    "ES256\0",
    "ES256\n",
    "\u0415S256",  # a Cyrillic letter
    "ES256K",
    "ES256,RS256",
    "ESP256",
    "Ed448",
    "ML-DSA-44",
    "RS1",
    "RSA1_5",
    "RSA-OAEP",
    "ECDH-ES",
    "A128KW",
    "PBES2-HS256+A128KW",
    "dir",
    "sha256WithRSAEncryption",
    "SHA256",
    "X" * 4000,
)


def unsigned(good: Good) -> Iterator[Vector]:
    """RFC 8725 section 3.2: ``none``, in all spellings, with and without a signature."""
    _, payload, signature = good.parts()
    for letters in itertools.product("nN", "oO", "nN", "eE"):
        alg = "".join(letters)
        head = segment(changed(good.head, alg=alg))
        yield vector(f"{alg}-empty", "no signature", f"{head}.{payload}.", FORM)
        yield vector(f"{alg}-kept", "a good one", f"{head}.{payload}.{signature}", FORM)
        yield vector(f"{alg}-signed", "a good one of this", signed(good.key, head, payload), FORM)
    for alg in ("none ", "\0none", "null", "None,ES256", "n\u043ene"):
        head = segment(changed(good.head, alg=alg))
        yield vector(f"{alg!a}-empty", "looks like none", f"{head}.{payload}.", FORM)


def shared_secret(good: Good) -> Iterator[Vector]:
    """RFC 8725 section 2.1: the public key, in any form somebody may have it, as HMAC's secret."""
    for base in (good, good.rsa):
        if base is None:
            continue
        for digest in ("sha256", "sha384", "sha512"):
            alg = f"HS{digest[3:]}"
            text = f"{segment(changed(base.head, alg=alg))}.{segment(base.claims)}"
            for name, secret in _forms(base.key):
                mac = segment(hmac.new(secret, text.encode(), digest).digest())
                yield vector(f"{alg}-{base.key.algorithm}-{name}", "", f"{text}.{mac}", FORM)
        # Its header left as it was: what is checked is a signature, and the MAC is none.
        text = ".".join(base.parts()[:2])
        for name, secret in _forms(base.key):
            mac = segment(hmac.new(secret, text.encode(), hashlib.sha256).digest())
            yield vector(f"kept-{base.key.algorithm}-{name}", "", f"{text}.{mac}", SIGNATURE)


def not_accepted(good: Good) -> Iterator[Vector]:
    """Missing, of another type, misspelt, or not one that anybody here accepts."""
    for value in (*_ODD, *_UNKNOWN):
        yield vector(f"{value!a:.40}", "really signed", good.with_header(alg=value), FORM)


def of_another_key(good: Good) -> Iterator[Vector]:
    """RFC 8725 section 3.1: a key is used with the algorithms it is for, and a good signature of
    somebody else's key is none."""
    key = good.key
    for other in (_P384, _P521, _ED25519, _RSA):
        token = good.sign(header=changed(good.head, alg=other.algorithm), key=other)
        yield vector(f"{other.algorithm}-foreign", "another key, its own alg", token, SIGNATURE)
        if other is _ED25519:  # by its other name (RFC 9864)
            token = good.sign(header=changed(good.head, alg="Ed25519"), key=other)
            yield vector("Ed25519-foreign", "another key, its own alg", token, SIGNATURE)
        lies = good.sign(key=other)
        yield vector(f"{other.algorithm}-as-{key.algorithm}", "alg kept", lies, SIGNATURE)
    stranger = IssuerKey.new(key.algorithm)
    yield vector("stranger", "a key of the same kind", good.sign(key=stranger), SIGNATURE)
    for alg in ("ES384", "ES512"):
        token = _signed_as(good, alg, IssuerKey(alg, None, key.private))
        yield vector(f"{alg}-with-P-256", "a longer digest, the key's curve", token, SIGNATURE)
    for alg in ("RS256", "RS512", "PS256", "PS512", "EdDSA", "Ed25519"):
        token = good.with_header(alg=alg)
        yield vector(f"EC-signature-as-{alg}", "alg of another kind of key", token, SIGNATURE)
    if good.rsa is not None:
        yield from _of_rsa(good.rsa)


def _of_rsa(good: Good) -> Iterator[Vector]:
    private = good.key.private
    for said, made in itertools.product(("RS256", "RS384", "PS256", "PS384"), repeat=2):
        if said[2:] != made[2:] or said != made:
            token = _signed_as(good, said, IssuerKey(made, None, private))
            yield vector(f"{made}-as-{said}", "padding or digest mixed up", token, SIGNATURE)
    for alg in ("ES256", "ES384", "EdDSA", "Ed25519"):
        token = good.with_header(alg=alg)
        yield vector(f"RSA-signature-as-{alg}", "alg of another kind of key", token, SIGNATURE)


def _signed_as(good: Good, alg: str, key: IssuerKey) -> str:
    text = f"{segment(changed(good.head, alg=alg))}.{segment(good.claims)}"
    signature = PRIMITIVES[key.algorithm].sign(text.encode(), key.private)
    return f"{text}.{segment(signature)}"


def _forms(key: IssuerKey) -> Iterator[tuple[str, bytes]]:
    """What an attacker can make of a public key, and a server may take for a secret."""
    public = key.private.public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    yield "pem", pem
    yield "pem-stripped", pem.strip()
    yield "pem-crlf", pem.replace(b"\n", b"\r\n")
    yield "der", public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    jwk: dict[str, Any] = PRIMITIVES[key.algorithm].to_jwk(public, as_dict=True)
    yield "jwk", json.dumps(jwk).encode()
    yield "jwk-sorted", json.dumps(jwk, sort_keys=True, separators=(",", ":")).encode()
    member = jwk.get("n") or jwk["x"]
    yield "member", member.encode()
    yield "number", urlsafe_b64decode(member + "=" * (-len(member) % 4))
    if jwk["kty"] == "EC":
        yield "point", public.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    else:
        yield "pkcs1", public.public_bytes(Encoding.PEM, PublicFormat.PKCS1)
    yield "kid", str(key.kid).encode()
    yield "empty", b""
    yield "zero", b"\0"
