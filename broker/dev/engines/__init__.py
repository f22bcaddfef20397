"""Embedded engines: real Valkey, OpenBao and PostgreSQL servers from wheels, one data directory.

Each keeps to a directory of its own below the one it is given, so all three may share one.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Self

from broker.dev.engines.openbao import OpenBao
from broker.dev.engines.postgres import Postgres
from broker.dev.engines.process import EngineError
from broker.dev.engines.valkey import Valkey

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["DataDirLock", "EngineError", "OpenBao", "Postgres", "Valkey"]


class DataDirLock:
    """One ``broker dev`` per data directory; the kernel releases it when this process ends."""

    def __init__(self, data: Path) -> None:
        """``data`` is created (0700) when missing; the lock is the file ``lock`` in it."""
        self._data = data.absolute()
        self._fd: int | None = None

    def acquire(self) -> None:
        """Take the lock at once, or raise ``EngineError`` naming the process that has it."""
        self._data.mkdir(mode=0o700, parents=True, exist_ok=True)
        fd = os.open(self._data / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(fd, 20).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise EngineError(
                f"{self._data} is in use by another broker dev (process {holder}): "
                "stop it, or choose another directory with --data"
            ) from error
        os.ftruncate(fd, 0)
        os.write(fd, f"{os.getpid()}\n".encode())
        self._fd = fd

    def release(self) -> None:
        """Give the lock back. The file stays: removing it would let two holders in."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
