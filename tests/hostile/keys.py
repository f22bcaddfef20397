"""Keys that an issuer should not have published, or a client registered, or a sender brought."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from tests.hostile.signatures import decoded
from tests.hostile.vectors import ABSENT, changed, raw_signature
from tests.issuers import IssuerKey, segment

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

EC: Final = IssuerKey.new(kid="e")
RSA: Final = IssuerKey.new("RS256", "r")
WEAK: Final = IssuerKey.new("RS256", "w", bits=1024)
P384: Final = IssuerKey.new("ES384", "p")
ED25519: Final = IssuerKey.new("EdDSA", "d")

_P256_PRIME: Final = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
_SHA256_INFO: Final = bytes.fromhex("3031300d060960864801650304020105000420")
_ODD: Final[tuple[Any, ...]] = ("AAAA", None, "", [])
_SMALL_ORDER: Final = (
    "0100000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000080",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0000000000000000000000000000000000000000000000000000000000000080",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
    "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff",
)


@dataclass(frozen=True)
class BadKey:
    """A JWK by which nothing may be verified, and a signature that it would verify, or seems to.

    ``readable`` says that as a key nothing is wrong with it; then its algorithm is another, or
    the signature none.
    """

    id: str
    jwk: dict[str, Any]
    algorithm: str
    sign: Callable[[str], bytes]
    readable: bool = False


def bad_keys() -> Iterator[BadKey]:
    """All of them."""
    yield from _misused()
    yield from _malformed()
    yield from _numbers()
    yield from _private()
    for number, point in enumerate(_SMALL_ORDER):
        # R and S for which the equation holds: of every message, or of one in eight.
        forged = bytes.fromhex(_SMALL_ORDER[0]) + bytes(32)
        jwk = _spoilt(ED25519, x=segment(bytes.fromhex(point)))
        yield BadKey(f"small-order-{number}", jwk, "EdDSA", lambda _, made=forged: made)


def _by(key: IssuerKey, id: str, **changes: object) -> BadKey:  # noqa: A002
    """The key itself, whose own signature is good, said to be something else."""
    return BadKey(id, _spoilt(key, **changes), key.algorithm, _signer(key))


def _misused() -> Iterator[BadKey]:
    uses: tuple[Any, ...] = ("enc", "x509-svid", "SIG", "", 7, [], ["sig"], {})
    for use in uses:
        yield _by(EC, f"use={use}", use=use)
    operations: tuple[Any, ...] = (
        [],
        ["sign"],
        ["encrypt"],
        ["VERIFY"],
        "verify",
        7,
        {"verify": 1},
        [["verify"]],
    )
    for ops in operations:
        yield _by(EC, f"key_ops={ops}", use=ABSENT, key_ops=ops)
    algorithms: tuple[Any, ...] = (
        "RS256",
        "ES384",
        "ES256K",
        "ECDH-ES",
        "none",
        "HS256",
        "",
        7,
        [],
        ["ES256"],
    )
    for alg in algorithms:
        yield _by(EC, f"alg={alg}", alg=alg)
    for alg in ("ES256", "RSA-OAEP", "RSA1_5"):
        yield _by(RSA, f"rsa-alg={alg}", alg=alg)
    for alg in ("PS256", "RS512"):
        yield replace(_by(RSA, f"rsa-alg={alg}", alg=alg), readable=True)
    ids: tuple[Any, ...] = (7, "", [], {}, "k" * 257)
    for kid in ids:
        yield _by(EC, f"kid={kid!s:.10}", kid=kid)


def _malformed() -> Iterator[BadKey]:
    x, y = EC.jwk()["x"], EC.jwk()["y"]
    types: tuple[Any, ...] = (
        ABSENT,
        None,
        "",
        "ec",
        "EC ",
        "RSA",
        "OKP",
        "oct",
        "AKP",
        7,
        [],
        ["EC"],
    )
    for kty in types:
        yield _by(EC, f"kty={kty!r}", kty=kty)
    curves: tuple[Any, ...] = (
        ABSENT,
        None,
        "",
        "p-256",
        "P-384",
        "P-521",
        "secp256k1",
        "Ed25519",
        7,
        ["P-256"],
    )
    for crv in curves:
        yield _by(EC, f"crv={crv!r}", crv=crv)
    odd: dict[str, dict[str, Any]] = {
        "no-x": {"x": ABSENT},
        "no-y": {"y": ABSENT},
        "null-x": {"x": None},
        "number-x": {"x": 7},
        "list-x": {"x": [x]},
        "empty-x": {"x": ""},
        "garbage-x": {"x": "!!!!"},
        "unicode-x": {"x": "\u00ff" * 43},
        "surrogate-x": {"x": "\ud800" + x[1:]},
        "long-x": {"x": "A" * 100_000},
        "short-x": {"x": segment(decoded(x)[1:])},
        "wide-x": {"x": segment(b"\0" + decoded(x))},
        "off-the-curve": {"x": y, "y": x},
        "infinity": {"x": segment(bytes(32)), "y": segment(bytes(32))},
        "beyond-the-field": {"x": segment(_P256_PRIME.to_bytes(32, "big"))},
        "cut-y": {"y": y[:-2]},
    }
    for name, changes in odd.items():
        yield _by(EC, name, **changes)
    odd = {
        "no-n": {"n": ABSENT},
        "no-e": {"e": ABSENT},
        "number-n": {"n": 7},
        "number-e": {"e": 65537},
        "null-e": {"e": None},
        "list-n": {"n": []},
        "empty-n": {"n": ""},
        "empty-e": {"e": ""},
        "garbage-n": {"n": "!"},
        "unicode-e": {"e": "\u00ff"},
    }
    for name, changes in odd.items():
        yield _by(RSA, f"rsa-{name}", **changes)
    for name, changes in {
        "short": {"x": "AAAA"},
        "none": {"x": ABSENT},
        "x448": {"crv": "Ed448"},
    }.items():
        yield _by(ED25519, f"ed25519-{name}", **changes)


def _numbers() -> Iterator[BadKey]:
    """RSA keys that are weak, or no RSA keys at all."""
    modulus: int = RSA.private.public_key().public_numbers().n
    size = (modulus.bit_length() + 7) // 8
    yield _by(WEAK, "1024-bits")
    for name, n, e in (
        ("2047-bits", 2**2047 - 1, 65537),
        ("one", 1, 65537),
        ("zero", 0, 65537),
        ("e=0", modulus, 0),
        ("e=2", modulus, 2),
        ("e=65536", modulus, 65536),
        ("e=n", modulus, modulus),
    ):
        changes = {"n": _integer(n), "e": _integer(e)}
        yield _by(RSA, f"rsa-{name}", **changes)
    # With an exponent of one the padded digest is its own signature.
    jwk = _spoilt(RSA, e=_integer(1))
    yield BadKey("rsa-e=1", jwk, "RS256", lambda text: _padded(text, size))
    for name, n in (("even", modulus - 1), ("power-of-two", 2**2047), ("all-ones", 2**2048 - 1)):
        jwk = _spoilt(RSA, n=_integer(n))
        yield BadKey(f"rsa-{name}", jwk, "RS256", lambda text: _padded(text, size), readable=True)
    # CVE-2006-4339: with three, a cube root whose cube begins like a padded digest.
    jwk = _spoilt(RSA, e=_integer(3))
    yield BadKey("rsa-e=3", jwk, "RS256", lambda text: _cube_root(text, size), readable=True)


def _private() -> Iterator[BadKey]:
    for member in ("d", "p", "q", "dp", "dq", "qi", "oth", "k"):
        for value in _ODD:
            yield _by(EC, f"with-{member}={value}", **{member: value})
            yield _by(RSA, f"rsa-with-{member}={value}", **{member: value})
    secret = {"kty": "oct", "kid": EC.kid, "k": segment(b"secret"), "alg": "HS256"}
    yield BadKey("oct", secret, "ES256", _signer(EC))


def _spoilt(key: IssuerKey, **changes: object) -> dict[str, Any]:
    return changed(key.jwk(), **changes)


def _signer(key: IssuerKey) -> Callable[[str], bytes]:
    def sign(text: str) -> bytes:
        return raw_signature(key, text)

    return sign


def _integer(number: int) -> str:
    return segment(number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big"))


def _padded(text: str, size: int) -> bytes:
    """EMSA-PKCS1-v1_5 (RFC 8017 section 9.2)."""
    digest = _SHA256_INFO + hashlib.sha256(text.encode()).digest()
    return b"\0\1" + b"\xff" * (size - len(digest) - 3) + b"\0" + digest


def _cube_root(text: str, size: int) -> bytes:
    """A number whose cube begins with a digest in too little padding, and ends in garbage."""
    digest = _SHA256_INFO + hashlib.sha256(text.encode()).digest()
    start = b"\0\1" + b"\xff" * 8 + b"\0" + digest
    wanted = int.from_bytes(start + b"\xff" * (size - len(start)), "big")
    low, high = 0, 1 << (wanted.bit_length() // 3 + 1)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if middle**3 <= wanted else (low, middle - 1)
    assert (low**3).to_bytes(size, "big").startswith(start)
    return low.to_bytes(size, "big")
