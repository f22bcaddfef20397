"""The signature: missing, altered, in another form, of another token, or of special numbers."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from tests.hostile.vectors import SIGNATURE, Good, Vector, raw_signature, vector
from tests.issuers import segment

if TYPE_CHECKING:
    from collections.abc import Iterator

_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Of P-256 (SEC 2, section 2.4.2)."""
_FIELD: Final = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
_WIDTH: Final = 32


def altered(good: Good) -> Iterator[Vector]:
    """Bits flipped in each of the three parts, and signatures cut, grown or put together."""
    for base in _each(good):
        name, parts = base.key.algorithm, [decoded(part) for part in base.parts()]
        for which, part in zip(("header", "payload", "signature"), parts, strict=True):
            for position in sorted({0, 1, len(part) // 3, len(part) // 2, len(part) - 1}):
                for bit in (0, 6):
                    flipped = bytearray(part)
                    flipped[position] ^= 1 << bit
                    spoilt = [bytes(flipped) if p is part else p for p in parts]
                    id = f"{name}-{which}-{position}.{bit}"  # noqa: A001
                    yield vector(id, "one bit", ".".join(map(segment, spoilt)), SIGNATURE)
        signature = parts[2]
        for id, spoilt in (  # noqa: A001
            ("empty", b""),
            ("one-byte", b"\0"),
            ("first-half", signature[: len(signature) // 2]),
            ("cut", signature[:-1]),
            ("cut-in-front", signature[1:]),
            ("grown", signature + b"\0"),
            ("grown-in-front", b"\0" + signature),
            ("doubled", signature * 2),
            ("reversed", signature[::-1]),
            ("inverted", bytes(byte ^ 255 for byte in signature)),
            ("zeros", bytes(len(signature))),
            ("ones", b"\xff" * len(signature)),
            ("long", b"\1" * 6000),
            ("text", b"signature"),
        ):
            yield _resigned(base, f"{name}-{id}", spoilt)


def swapped(good: Good) -> Iterator[Vector]:
    """Parts of several good tokens of the same key."""
    other = good.saying(jti="another", unheard_of=True)
    (head, payload, signature), (_, payload_2, signature_2) = good.parts(), other.parts()
    yield vector("signature", "", f"{head}.{payload}.{signature_2}", SIGNATURE)
    yield vector("payload", "", f"{head}.{payload_2}.{signature}", SIGNATURE)
    head_3 = segment({**good.head, "unheard_of": 1})
    yield vector("header", "", f"{head_3}.{payload}.{signature}", SIGNATURE)
    yield vector("header-and-payload", "", f"{payload}.{head}.{signature}", SIGNATURE)
    swapped_well = raw_signature(good.key, f"{payload}.{head}")
    token = f"{payload}.{head}.{segment(swapped_well)}"
    yield vector("header-and-payload-signed", "", token)
    only = raw_signature(good.key, payload)
    yield vector("payload-alone", "signed without header", _with(good, only), SIGNATURE)
    bare = raw_signature(good.key, decoded(payload).decode())
    yield vector("payload-bare", "signed before encoding", _with(good, bare), SIGNATURE)
    joined = raw_signature(good.key, head + payload)
    yield vector("no-dot", "signed without the dot", _with(good, joined), SIGNATURE)
    if good.rsa is not None:
        rsa = good.rsa.parts()
        yield vector("of-rsa", "", f"{head}.{payload}.{rsa[2]}", SIGNATURE)
        yield vector("of-ec", "", f"{rsa[0]}.{rsa[1]}.{signature}", SIGNATURE)


def ecdsa(good: Good) -> Iterator[Vector]:
    """CVE-2022-21449 and its kin: numbers that a careless equation is satisfied by."""
    _, _, encoded = good.parts()
    signature = decoded(encoded)
    r, s = (int.from_bytes(signature[at : at + _WIDTH], "big") for at in (0, _WIDTH))
    numbers = {"0": 0, "1": 1, "n-1": _ORDER - 1, "n": _ORDER, "n+1": _ORDER + 1}
    numbers |= {"p": _FIELD, "p+1": _FIELD + 1, "max": 2**256 - 1}
    for name_r, number_r in numbers.items():
        for name_s, number_s in numbers.items():
            yield _resigned(good, f"r={name_r},s={name_s}", _raw(number_r, number_s))
        yield _resigned(good, f"r={name_r}", _raw(number_r, s))
        yield _resigned(good, f"s={name_r}", _raw(r, number_r))
    yield _resigned(good, "r-and-s-swapped", _raw(s, r))
    yield _resigned(good, "minus-r", _raw(_ORDER - r, s))
    yield _resigned(good, "der", encode_dss_signature(r, s))
    yield _resigned(good, "der-zero", encode_dss_signature(0, 0))
    wide = r.to_bytes(_WIDTH + 1, "big") + s.to_bytes(_WIDTH + 1, "big")
    yield _resigned(good, "leading-zeros", wide)
    padded = r.to_bytes(48, "big") + s.to_bytes(48, "big")
    yield _resigned(good, "as-wide-as-P-384", padded)
    little = r.to_bytes(_WIDTH, "little") + s.to_bytes(_WIDTH, "little")
    yield _resigned(good, "little-endian", little)
    # ECDSA itself: whoever has one of the two has the other. So no token is known by its text.
    token = _with(good, _raw(r, _ORDER - s))
    yield vector("minus-s", "the other signature of the same", token, SIGNATURE, valid=True)


def rsa(good: Good) -> Iterator[Vector]:
    """Numbers that are no signature by any key, and padding without an operation."""
    base = good.rsa
    if base is None:
        return
    numbers = base.key.private.public_key().public_numbers()
    n: int = numbers.n
    e: int = numbers.e
    size = (n.bit_length() + 7) // 8
    signature = int.from_bytes(decoded(base.parts()[2]), "big")
    for name, number in (
        ("0", 0),
        ("1", 1),
        ("n-1", n - 1),
        ("n", n),
        ("minus", n - signature),
        ("inverse", pow(signature, -1, n)),
    ):
        yield _resigned(base, name, number.to_bytes(size, "big"))
    grown = (signature + n).to_bytes(size + 1, "big")
    yield _resigned(base, "plus-n", grown)
    yield _resigned(base, "leading-zero", signature.to_bytes(size + 1, "big"))
    opened = pow(signature, e, n).to_bytes(size, "big")
    yield _resigned(base, "padding", opened)


def decoded(part: str) -> bytes:
    """Decode a segment."""
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _each(good: Good) -> tuple[Good, ...]:
    return (good, good.rsa) if good.rsa is not None else (good,)


def _raw(r: int, s: int) -> bytes:
    """RFC 7518 section 3.4."""
    return r.to_bytes(_WIDTH, "big") + s.to_bytes(_WIDTH, "big")


def _with(good: Good, signature: bytes) -> str:
    head, payload, _ = good.parts()
    return f"{head}.{payload}.{segment(signature)}"


def _resigned(good: Good, id: str, signature: bytes) -> Vector:  # noqa: A002
    return vector(id, "", _with(good, signature), SIGNATURE)
