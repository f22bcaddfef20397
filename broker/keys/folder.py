"""The folder of signing keys: private files that appear whole, under a lock that replicas share.

Keys are PKCS #8 PEM files named ``signing-NNNN.pem``, mode 0600, in the order of their numbers.
"""

from __future__ import annotations

import fcntl
import os
import re
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from broker.errors import ConfigError
from broker.keys.key import SigningKey, read_key

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping
    from pathlib import Path

_NAME: Final = re.compile(r"signing-([0-9]{4,9})\.pem")
_TEMPORARY: Final = re.compile(r"\.signing-[0-9]{4,9}\.pem\.tmp")
_LOCK: Final = ".lock"
_OTHERS: Final = 0o077
_OTHERS_WRITE: Final = 0o022
_MAX_BYTES: Final = 64 << 10
_TRIES: Final = 5

Listing = tuple[tuple[int, str, tuple[int, int, int]], ...]
"""Number and name of each key file, and what changes when the file does; lowest number first."""


class KeyFolder:
    """The files, and what was read from them; a file is parsed once, unless it changes."""

    def __init__(self, path: Path) -> None:
        """Nothing is read or made yet."""
        self.path = path
        self._read: Mapping[tuple[int, str, tuple[int, int, int]], SigningKey] = {}

    def prepare(self) -> None:
        """Make the folder if there is none.

        Raises:
            ConfigError: others can write to it.
            OSError: it can't be made or looked at.
        """
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        _check_mode(self.path, self.path.stat().st_mode, _OTHERS_WRITE, "700")

    def listing(self) -> Listing:
        """Return which key files there are; cheap, for noticing changes."""
        found: list[tuple[int, str, tuple[int, int, int]]] = []
        with os.scandir(self.path) as entries:
            for entry in entries:
                if (match := _NAME.fullmatch(entry.name)) is None:
                    continue
                try:
                    state = entry.stat()
                except FileNotFoundError:
                    continue  # removed by another replica this moment
                mark = (state.st_mtime_ns, state.st_size, state.st_ino)
                found.append((int(match[1]), entry.name, mark))
        return tuple(sorted(found))

    def load(self) -> tuple[Listing, tuple[SigningKey, ...]]:
        """Read every key that is still one, lowest number first, and the listing it is of.

        Keys before one that replaces all others aren't even read.

        Raises:
            ConfigError: a file is open to others, no key, or a key that stands there twice.
            OSError: the folder or a file can't be read.
        """
        for attempt in range(_TRIES):
            listing = self.listing()
            try:
                keys = self._load(listing)
            except FileNotFoundError:
                # Another replica removed a key between our looking and our reading.
                if attempt == _TRIES - 1:
                    raise
                continue
            return listing, keys
        raise AssertionError  # the last attempt returned or raised

    def _load(self, listing: Listing) -> tuple[SigningKey, ...]:
        read: dict[tuple[int, str, tuple[int, int, int]], SigningKey] = {}
        for item in reversed(listing):
            read[item] = self._read.get(item) or _read(self.path / item[1], item[0])
            if read[item].replaces_all:
                break
        keys = tuple(reversed(read.values()))
        kids = {key.kid: key.number for key in keys}
        if len(kids) < len(keys):
            twice = next(key for key in keys if kids[key.kid] != key.number)
            raise ConfigError(f"{self.path} holds the key of number {twice.number} twice")
        self._read = read
        return keys

    def write(self, key: SigningKey) -> None:
        """Add a key; the lock is held. Its file appears whole or not at all, and stays.

        Raises:
            OSError: it can't be written; nothing has changed.
        """
        name = f"signing-{key.number:04}.pem"
        for entry in self.path.iterdir():
            if _TEMPORARY.fullmatch(entry.name):
                entry.unlink(missing_ok=True)  # a key that a crash kept from being used
        temporary = self.path / f".{name}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, 0o600), "wb") as file:
            os.fchmod(file.fileno(), 0o600)
            file.write(key.file_text())
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self.path / name)
        self._sync()

    def remove_before(self, number: int) -> None:
        """Delete every key file below ``number``; the lock is held.

        Lowest first: what replaces the others is never gone before them.

        Raises:
            OSError: one can't be deleted; those above it stay.
        """
        for found, name, _ in self.listing():
            if found < number:
                (self.path / name).unlink(missing_ok=True)
        self._sync()

    @contextmanager
    def locked(self, *, wait: bool) -> Generator[bool]:
        """Hold the folder's lock; yields False if another has it and ``wait`` is false.

        Whoever dies lets go of it.
        """
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(self.path / _LOCK, flags, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)

    def _sync(self) -> None:
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _read(path: Path, number: int) -> SigningKey:
    with path.open("rb") as file:
        # Asked of the open file: the name may point elsewhere a moment later.
        state = os.fstat(file.fileno())
        _check_mode(path, state.st_mode, _OTHERS, "600")
        content = file.read(_MAX_BYTES)
    try:
        # Not the time of writing alone: a copy can keep that of its original.
        written_at = int(max(state.st_mtime, state.st_ctime))
        return read_key(content, number=number, written_at=written_at)
    except ValueError as error:
        raise ConfigError(f"{path} {error}") from None


def _check_mode(path: Path, mode: int, forbidden: int, wanted: str) -> None:
    if mode & forbidden:
        raise ConfigError(
            f"{path} is open to other users (mode {mode & 0o777:o}): run chmod {wanted} {path}"
        )
