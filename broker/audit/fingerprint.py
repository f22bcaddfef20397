"""Keyed fingerprints: a secret leaves a trace by which it is found again, and by nothing else.

An operator who holds a leaked value asks whether it was the one in an event. Without the key a
fingerprint tells nothing, not even of values that could be guessed.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Self

from broker.audit.files import sync_folder, write_new
from broker.errors import ConfigError
from broker.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

PREFIX: Final = "fp_"
_KEY_BYTES: Final = 32
_BYTES: Final = 16
_OTHERS: Final = 0o077
_BEGIN: Final = b"fingerprint-key-1:"


class Fingerprints:
    """Makes fingerprints with one key. Replicas that share the key make the same ones."""

    __slots__ = ("__key",)

    def __init__(self, key: bytes) -> None:
        """``key`` is 32 random bytes."""
        if len(key) != _KEY_BYTES:
            raise ValueError(f"a fingerprint key has {_KEY_BYTES} bytes")
        self.__key = key

    @classmethod
    def load_or_create(cls, path: Path) -> Self:
        """Read the key file, making it if there is none; replicas that start at once share it.

        Raises:
            ConfigError: it is open to others, unreadable, or no such key.
        """
        try:
            if not path.exists():
                _create(path)
            return cls(_read(path))
        except OSError as error:
            raise ConfigError(
                f"the fingerprint key {path} can't be used: {error.strerror}"
            ) from error

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read the key file, which has to be there.

        Raises:
            ConfigError: as ``load_or_create``, or there is none.
        """
        try:
            return cls(_read(path))
        except OSError as error:
            raise ConfigError(
                f"the fingerprint key {path} can't be read: {error.strerror}"
            ) from error

    def of(self, value: str | bytes | Secret) -> str:
        """Return the fingerprint of a text: ``fp_`` and 128 bits in base32."""
        if isinstance(value, Secret):
            value = value.reveal()
        text = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        digest = hmac.digest(self.__key, text, hashlib.sha256)[:_BYTES]
        return PREFIX + base64.b32encode(digest).decode().rstrip("=").lower()

    def of_value(self, value: object) -> str:
        """Return the fingerprint of a JSON value: of a text itself, else of its canonical form."""
        if isinstance(value, str | bytes | Secret):
            return self.of(value)
        return self.of(json.dumps(value, sort_keys=True, separators=(",", ":")))


def _create(path: Path) -> None:
    """Write a fresh key for its owner alone, all of it or nothing; the first to come wins."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write_new(draft, _BEGIN + base64.b64encode(secrets.token_bytes(_KEY_BYTES)) + b"\n")
        with suppress(FileExistsError):
            path.hardlink_to(draft)
    finally:
        draft.unlink(missing_ok=True)
    sync_folder(path.parent)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        # Asked of the open file: the name may point elsewhere a moment later.
        mode = os.fstat(file.fileno()).st_mode
        if mode & _OTHERS:
            raise ConfigError(
                f"{path} is open to other users (mode {mode & 0o777:o}): run chmod 600 {path}"
            )
        content = file.read(1024)
    key = b""
    if content.startswith(_BEGIN):
        try:
            key = base64.b64decode(content.removeprefix(_BEGIN).strip(), validate=True)
        except ValueError:
            key = b""
    if len(key) != _KEY_BYTES:
        raise ConfigError(
            f"{path} is not a fingerprint key: restore it from a backup. With a new one nothing "
            "that was fingerprinted before can be found again"
        )
    return key
