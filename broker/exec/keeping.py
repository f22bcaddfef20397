"""Credentials for programs that ask for them again and again, and keep none themselves.

The AWS command line calls its ``credential_process``, and git its helper, at every use. With a
credential for each call hundreds would live at once. So the last one is kept, where it never
reaches a disk: in a file system in memory, readable by its user alone. Where there is none, none is
kept.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import stat
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from broker.client import BrokerClientError, IssuedGrant
from broker.client.decoding import decode, encode
from broker.exec.files import in_memory, write_private
from broker.exec.work import PASSING

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence

    from broker.client import Client
    from broker.clock import Clock

_FRESH: Final = 1 / 3
"""What must be left of a credential's life for it to be handed out once more."""


class Keeper:
    """One place for one credential: of one task, one capability and one set of parameters."""

    def __init__(self, folder: Path | None, *about: object, clock: Clock) -> None:
        """``about`` tells this place from all others; without a ``folder`` nothing is kept."""
        name = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()[:32]
        self._file = folder / name if folder else None
        self._clock = clock

    def get(self, broker: Client, request: Callable[[], IssuedGrant]) -> IssuedGrant:
        """Return the one that is kept, if the broker says that it lives, or request another.

        Callers at the same time get the same one.
        """
        if self._file is None:
            return request()
        with _locked(self._file):
            found = self._read()
            if found is not None and self._is_fresh(*found) and _lives(broker, found[0]):
                return found[0]
            issued = request()
            self._write(issued)
            return issued

    def drop(self) -> str | None:
        """Forget the one that is kept; return its grant."""
        if self._file is None:
            return None
        with _locked(self._file):
            found = self._read()
            self._file.unlink(missing_ok=True)
        return found[0].grant_id if found else None

    def _is_fresh(self, issued: IssuedGrant, since: float) -> bool:
        if issued.expires_at is None:
            return False
        end = issued.expires_at.timestamp()
        return end - self._clock.now() > (end - since) * _FRESH

    def _read(self) -> tuple[IssuedGrant, float] | None:
        assert self._file is not None  # noqa: S101  the callers have looked
        try:
            with os.fdopen(os.open(self._file, os.O_RDONLY | os.O_NOFOLLOW)) as file:
                document: dict[str, Any] = json.load(file)
            return decode(IssuedGrant, document["issued"]), float(document["since"])
        except (OSError, ValueError, KeyError, TypeError, BrokerClientError):
            return None

    def _write(self, issued: IssuedGrant) -> None:
        assert self._file is not None  # noqa: S101  the callers have looked
        document = {"since": self._clock.now(), "issued": encode(issued, reveal=True)}
        fresh = self._file.with_name(f"{self._file.name}.{secrets.token_hex(8)}")
        try:
            write_private(fresh, json.dumps(document, default=str))
            fresh.replace(self._file)
        except OSError:  # full, say: it works without
            fresh.unlink(missing_ok=True)


def places() -> list[Path]:
    """Return where our user's own folder may be, the best first."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    shared = Path(f"/dev/shm/broker-{os.getuid()}")  # noqa: S108  looked at before it is used
    return [Path(runtime) / "broker", shared] if runtime else [shared]


def folder(candidates: Sequence[Path]) -> Path | None:
    """Return the first of these that is in memory and nobody else's; none if none is."""
    for place in candidates:
        if in_memory(place.parent):
            with contextlib.suppress(FileExistsError, OSError):
                place.mkdir(mode=0o700)
            if _is_private(place):
                return place
    return None


def _is_private(place: Path) -> bool:
    """Whether it is a folder of ours that nobody else can enter: others can write to its parent."""
    try:
        seen = place.lstat()
    except OSError:
        return False
    mode = stat.S_IMODE(seen.st_mode)
    return stat.S_ISDIR(seen.st_mode) and seen.st_uid == os.getuid() and mode == 0o700  # noqa: PLR2004


def _lives(broker: Client, issued: IssuedGrant) -> bool:
    try:
        return broker.get_grant(issued.grant_id).state == "active"
    except PASSING:
        raise
    except BrokerClientError:
        return False


@contextmanager
def _locked(file: Path) -> Generator[None]:
    lock = os.open(f"{file}.lock", os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
