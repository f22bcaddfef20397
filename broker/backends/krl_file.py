"""The file of a KRL, which any number of processes on one host may add to."""

from __future__ import annotations

import asyncio
import fcntl
import os
from typing import TYPE_CHECKING, Final

from broker.backends.krl import MOST_BYTES, Damaged, Krl, decode
from broker.errors import BackendRefused

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from broker.clock import Clock

_TRIES: Final = 250
_PAUSE_S: Final = 0.02
_READABLE: Final = 0o644
"""sshd reads it as root; whoever checks certificates elsewhere may. There is no secret in it."""


class KrlFile:
    """Adds to one file: under a lock beside it, and in its place whole or not at all.

    Every method raises ``BackendRefused``, saying what to do, when it can't be read or written.
    """

    def __init__(self, path: Path, clock: Clock) -> None:
        """Its folder has to be there, and the broker's to write."""
        self._path = path
        self._clock = clock
        self._turn = asyncio.Lock()
        self._waiting: dict[int, float] = {}

    async def ready(self) -> None:
        """See that serials could be added; the file is there afterwards.

        Without one sshd lets nobody in.
        """
        folder = self._beside("").parent
        if await asyncio.to_thread(self._read) is None or not os.access(folder, os.W_OK):
            await self._add({})

    async def add(self, serial: int, end: float) -> None:
        """Have a certificate on the list, whose end is in epoch seconds.

        What comes while another waits for the disk is written with one write.
        """
        self._waiting[serial] = end
        async with self._turn:
            if serial not in self._waiting:
                return  # it went with another's
            batch, self._waiting = self._waiting, {}
            try:
                await self._add(batch)
            except BaseException:
                self._waiting = {**batch, **self._waiting}
                raise

    async def has(self, serial: int) -> bool:
        """Read back whether a certificate is on the list."""
        krl = await asyncio.to_thread(self._read)
        return krl is not None and serial in krl.serials

    async def _add(self, batch: Mapping[int, float]) -> None:
        for _ in range(_TRIES):
            if await asyncio.to_thread(self._merge, batch):
                return
            await asyncio.sleep(_PAUSE_S)
        raise BackendRefused(f"The KRL {self._path} is being written by another for too long.")

    def _read(self) -> Krl | None:
        try:
            with self._path.open("rb") as file:
                raw = file.read(MOST_BYTES + 1)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._trouble("read", error) from error
        try:
            return decode(raw)
        except Damaged as error:
            msg = (
                f"The KRL {self._path} is left as it is, for {error}. Put a good copy back, or "
                f"make an empty one with `ssh-keygen -k -f {self._path}`; what was revoked and "
                "is not on it works again until its own end."
            )
            raise BackendRefused(msg) from error

    def _merge(self, batch: Mapping[int, float]) -> bool:
        """Write the file anew with more on it; False while another process does."""
        try:
            lock = os.open(self._beside(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise self._trouble("locked", error) from error
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            before, now = self._read() or Krl(), self._clock.now()
            self._replace(before.with_serials(batch, now).encode(now))
        except BlockingIOError:
            return False
        except OSError as error:
            raise self._trouble("written", error) from error
        finally:
            os.close(lock)
        return True

    def _replace(self, raw: bytes) -> None:
        fresh = self._beside(".new")
        with fresh.open("wb") as file:
            os.fchmod(file.fileno(), _READABLE)
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        fresh.replace(self._beside(""))
        folder = os.open(fresh.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _beside(self, suffix: str) -> Path:
        """Return a path beside the file itself: whatever links name it, servers read that."""
        file = self._path.resolve()
        return file.with_name(file.name + suffix)

    def _trouble(self, what: str, error: OSError) -> BackendRefused:
        return BackendRefused(f"The KRL {self._path} can't be {what}: {error.strerror}.")
