"""One signing key: made, or read from the text of its file."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from broker.identity.jwk import MIN_RSA_BITS, VerificationKey, parse_key, thumbprint

if TYPE_CHECKING:
    from collections.abc import Mapping

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

_RSA_BITS: Final = 3072
_MAX_RSA_BITS: Final = 8192
_SIGNS_FROM: Final = "Signs-From"
_CREATED: Final = "Created"
_ALONE: Final = "Replaces-All"
_BEGIN: Final = b"-----BEGIN "


class Algorithm(StrEnum):
    """What the broker signs with (RFC 7518 section 3.1)."""

    ES256 = "ES256"
    RS256 = "RS256"


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A key of the broker's. Times are epoch seconds.

    ``signs_from`` is when it begins to sign, 0 for a file that doesn't say: at once.
    ``replaces_all`` says that every key before it is dead, whether or not its file is gone yet.
    """

    number: int
    created: int
    signs_from: int
    replaces_all: bool
    algorithm: Algorithm
    private_key: PrivateKey = field(repr=False)
    public: Mapping[str, str] = field(repr=False)
    verification: VerificationKey = field(repr=False)

    @property
    def kid(self) -> str:
        """The key's id: its thumbprint."""
        return self.public["kid"]

    @property
    def began(self) -> int:
        """When it began to sign, or will."""
        return self.signs_from or self.created

    def file_text(self) -> bytes:
        """Return what its file holds: its times as explanatory text (RFC 7468 section 5.2), PEM."""
        says = {_CREATED: str(self.created), _SIGNS_FROM: str(self.signs_from)}
        if self.replaces_all:
            says[_ALONE] = "yes"
        lines = ["A signing key of the broker. Whoever reads it can sign as the broker."]
        lines += [f"{name}: {value}" for name, value in says.items()]
        pem = self.private_key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        return "\n".join([*lines, ""]).encode() + pem


def generate(algorithm: Algorithm) -> PrivateKey:
    """Make a private key: P-256, or RSA of 3,072 bits, which takes a good part of a second."""
    if algorithm is Algorithm.RS256:
        return rsa.generate_private_key(public_exponent=65537, key_size=_RSA_BITS)
    return ec.generate_private_key(ec.SECP256R1())


def signing_key(
    private_key: PrivateKey,
    *,
    number: int,
    created: int,
    signs_from: int = 0,
    replaces_all: bool = False,
) -> SigningKey:
    """Work out what follows from a private key: its algorithm, its id, its public half."""
    is_rsa = isinstance(private_key, rsa.RSAPrivateKey)
    algorithm = Algorithm.RS256 if is_rsa else Algorithm.ES256
    public_key: Any = private_key.public_key()
    jwk: dict[str, str] = (RSAAlgorithm if is_rsa else ECAlgorithm).to_jwk(public_key, as_dict=True)
    jwk.pop("key_ops", None)
    public = {**jwk, "kid": thumbprint(jwk), "alg": algorithm.value, "use": "sig"}
    return SigningKey(
        number=number,
        created=created,
        signs_from=signs_from,
        replaces_all=replaces_all,
        algorithm=algorithm,
        private_key=private_key,
        public=public,
        verification=parse_key(public),
    )


def read_key(content: bytes, *, number: int, written_at: int) -> SigningKey:
    """Read a key file; ``written_at`` stands in for the times of one that names none.

    Raises:
        ValueError: not a key that the broker can sign with; the message says why, and nothing of
            what is in the file.
    """
    says, _, _ = content.partition(_BEGIN)
    reason = "is not an unencrypted private key in PEM"
    try:
        private_key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ValueError(reason) from None
    if not _fits(private_key):
        raise ValueError("is not a key for ES256 (P-256) or RS256 (2048 to 8192 bits)")
    assert isinstance(private_key, PrivateKey)  # noqa: S101  it fits
    return signing_key(
        private_key,
        number=number,
        created=_seconds(says, _CREATED, written_at),
        signs_from=_seconds(says, _SIGNS_FROM, 0),
        replaces_all=_line(says, _ALONE) == b"yes",
    )


def _fits(key: object) -> bool:
    if isinstance(key, rsa.RSAPrivateKey):
        return MIN_RSA_BITS <= key.key_size <= _MAX_RSA_BITS
    return isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)


def _line(says: bytes, name: str) -> bytes | None:
    found = re.findall(rb"(?m)^%s: *(.*?)\r?$" % name.encode(), says)
    if len(found) > 1:
        raise ValueError(f"says {name} twice")
    return found[0] if found else None


def _seconds(says: bytes, name: str, otherwise: int) -> int:
    value = _line(says, name)
    if value is None:
        return otherwise
    if re.fullmatch(rb"[0-9]{1,12}", value) is None:
        raise ValueError(f"has a {name} that is not epoch seconds")
    return int(value)
