"""A key of the caller's own, and the proofs that its requests are signed with it (RFC 9449).

Imported only where it is asked for: ``cryptography`` takes longer to import than all of the client.
"""

from __future__ import annotations

import base64
import hashlib
import json
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from broker.client.errors import InvalidRequest

if TYPE_CHECKING:
    from broker.secret import Secret

_BYTES: Final = 32
"""The size of a coordinate, and of each half of a signature, on P-256 (RFC 7518 section 3.4)."""


@final
class DpopKey:
    """A P-256 key. It can't be printed, and is written nowhere."""

    __slots__ = ("__key", "_header")

    def __init__(self, key: ec.EllipticCurvePrivateKey) -> None:
        """``key`` is on the curve P-256."""
        self.__key = key
        self._header = _encoded({"typ": "dpop+jwt", "alg": "ES256", "jwk": _jwk(key)})

    @classmethod
    def new(cls) -> DpopKey:
        """Make a key that lives as long as this object."""
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def load(cls, path: str | Path) -> DpopKey:
        """Read a key from a file in PEM, unencrypted.

        Raises:
            InvalidRequest: it can't be read, or isn't such a key.
        """
        try:
            key = load_pem_private_key(Path(path).read_bytes(), None)
        except OSError as error:
            raise _unusable(path, error.strerror or "it can't be read") from None
        except (ValueError, TypeError, UnsupportedAlgorithm):
            raise _unusable(path, "it is no private key in PEM, or is encrypted") from None
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(
            key.curve, ec.SECP256R1
        ):
            raise _unusable(path, "it is no P-256 key")
        return cls(key)

    def proof(
        self, method: str, url: str, *, now: float, nonce: str | None, token: Secret | None
    ) -> str:
        """Return the ``DPoP`` header of one request (RFC 9449 section 4.2), good once.

        ``url`` is without query and fragment; ``now`` is in epoch seconds. ``nonce`` is the last
        that the server gave, ``token`` the access token that goes with the request.
        """
        claims: dict[str, Any] = {
            "jti": str(uuid.uuid4()),
            "htm": method,
            "htu": url,
            "iat": int(now),
        }
        if nonce is not None:
            claims["nonce"] = nonce
        if token is not None:
            digest = hashlib.sha256(token.reveal().encode("ascii", "replace")).digest()
            claims["ath"] = _base64url(digest)
        signed = f"{self._header}.{_encoded(claims)}"
        r, s = decode_dss_signature(self.__key.sign(signed.encode("ascii"), ec.ECDSA(SHA256())))
        signature = r.to_bytes(_BYTES, "big") + s.to_bytes(_BYTES, "big")
        return f"{signed}.{_base64url(signature)}"

    def __repr__(self) -> str:
        return "DpopKey()"


def _jwk(key: ec.EllipticCurvePrivateKey) -> dict[str, str]:
    numbers = key.public_key().public_numbers()
    x, y = (_base64url(n.to_bytes(_BYTES, "big")) for n in (numbers.x, numbers.y))
    return {"kty": "EC", "crv": "P-256", "x": x, "y": y}


def _encoded(members: dict[str, Any]) -> str:
    return _base64url(json.dumps(members, separators=(",", ":")).encode())


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _unusable(path: str | Path, why: str) -> InvalidRequest:
    return InvalidRequest(f"The DPoP key {path} can't be used: {why}", code="invalid_dpop_key")
