"""The broker's own signing keys: ES256, in files only the broker can read.

Keys are PKCS #8 PEM files named ``signing-NNNN.pem``. All are published and verify; the highest
number signs. A new key therefore goes in as the next number, and an old one is removed once the
last token it signed is dead.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Self

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from jwt.algorithms import ECAlgorithm

from broker.errors import ConfigError
from broker.identity import jws
from broker.identity.jwk import VerificationKey, parse_key

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence
    from pathlib import Path

ALGORITHM: Final = "ES256"
_NAME: Final = re.compile(r"signing-[0-9]{4}\.pem")
_FIRST: Final = "signing-0001.pem"
_LOCK: Final = ".lock"
_OTHERS: Final = 0o077
_OTHERS_WRITE: Final = 0o022


class KeyRing:
    """Signing keys, newest last; the newest signs, all verify."""

    def __init__(self, private_keys: Sequence[ec.EllipticCurvePrivateKey]) -> None:
        """Use :meth:`load_or_create` outside of tests."""
        self._public = [_public_jwk(key) for key in private_keys]
        self._verification = {jwk["kid"]: parse_key(jwk) for jwk in self._public}
        self._signer = private_keys[-1]
        self._signer_kid = self._public[-1]["kid"]

    @classmethod
    def load_or_create(cls, directory: Path) -> Self:
        """Load the keys in ``directory``, making the first one if there is none.

        Processes that start at once on the same directory end up with the same keys.

        Raises:
            ConfigError: a file or the directory is open to others, unreadable, or no such key.
        """
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_mode(directory, directory.stat().st_mode, _OTHERS_WRITE, "700")
            keys = _load(directory)
            if not keys:
                with _locked(directory):
                    # Somebody may have made one while we waited for the lock.
                    keys = _load(directory) or [_create(directory)]
        except OSError as error:
            raise ConfigError(
                f"signing keys in {directory} can't be used: {error.strerror}"
            ) from error
        return cls(keys)

    def jwks(self) -> dict[str, Any]:
        """Return the public keys as a JWK Set (RFC 7517 section 5)."""
        return {"keys": [dict(jwk) for jwk in self._public]}

    def sign(self, header: Mapping[str, Any], payload: Mapping[str, Any]) -> str:
        """Return a compact JWS signed by the newest key; ``alg`` and ``kid`` are filled in."""
        return jws.sign({**header, "kid": self._signer_kid}, payload, self._signer, ALGORITHM)

    def find(self, kid: str) -> VerificationKey | None:
        """Return the public key with this id, if it is one of ours."""
        return self._verification.get(kid)


def thumbprint(jwk: Mapping[str, Any]) -> str:
    """Return the SHA-256 thumbprint of an elliptic-curve JWK (RFC 7638 section 3)."""
    required = {name: jwk[name] for name in ("crv", "kty", "x", "y")}
    canonical = json.dumps(required, separators=(",", ":"), sort_keys=True).encode()
    return jws.encode_base64url(hashlib.sha256(canonical).digest()).decode("ascii")


def _public_jwk(key: ec.EllipticCurvePrivateKey) -> dict[str, Any]:
    jwk: dict[str, Any] = ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    return {**jwk, "kid": thumbprint(jwk), "alg": ALGORITHM, "use": "sig"}


def _load(directory: Path) -> list[ec.EllipticCurvePrivateKey]:
    """Load every key, lowest number first."""
    names = sorted(entry.name for entry in directory.iterdir() if _NAME.fullmatch(entry.name))
    return [_read(directory / name) for name in names]


def _read(path: Path) -> ec.EllipticCurvePrivateKey:
    with path.open("rb") as file:
        # Asked of the open file: the name may point elsewhere a moment later.
        _check_mode(path, os.fstat(file.fileno()).st_mode, _OTHERS, "600")
        content = file.read()
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(f"{path} is not an unencrypted private key in PEM") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ConfigError(f"{path} is not a P-256 key, which {ALGORITHM} needs")
    return key


def _create(directory: Path) -> ec.EllipticCurvePrivateKey:
    """Make the first key; the lock is held. The file appears under its name whole or not at all."""
    key = ec.generate_private_key(ec.SECP256R1())
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    temporary = directory / f".{_FIRST}.tmp"
    temporary.unlink(missing_ok=True)  # left by a crash
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
        os.fchmod(file.fileno(), 0o600)
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(directory / _FIRST)
    _sync_directory(directory)
    return key


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def _locked(directory: Path) -> Generator[None]:
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(directory / _LOCK, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _check_mode(path: Path, mode: int, forbidden: int, wanted: str) -> None:
    if mode & forbidden:
        raise ConfigError(
            f"{path} is open to other users (mode {mode & 0o777:o}): run chmod {wanted} {path}"
        )
