"""The file of the key that signs the log: made on first use, private ever after."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)

from broker.audit.files import sync_folder, write_new
from broker.audit.note import Signer
from broker.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

_OTHERS: Final = 0o077
_MAX_BYTES: Final = 64 << 10


def load_signer(path: Path, name: str) -> Signer:
    """Return the signer whose PKCS #8 PEM file ``path`` is; one is made if there is none.

    ``name`` is the log's origin. Replicas that begin at once end up with the same key.

    Raises:
        ConfigError: the file is open to others, or holds no unencrypted Ed25519 key.
        OSError: it can't be read or made.
    """
    if not path.exists():
        _make(path)
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode
        if mode & _OTHERS:
            raise ConfigError(
                f"{path} is open to other users (mode {mode & 0o777:o}): run chmod 600 {path}"
            )
        content = file.read(_MAX_BYTES)
    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise ConfigError(f"{path} is not an unencrypted private key in PEM") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError(f"{path} is not an Ed25519 key, the only kind that signs the audit log")
    return Signer(name, key)


def _make(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = Ed25519PrivateKey.generate()
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")
    try:
        write_new(temporary, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        with suppress(FileExistsError):  # another replica was first: its key it is
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync_folder(path.parent)
