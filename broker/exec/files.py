"""Secrets as files, for programs that take them in no other way: private, in memory where we can.

A folder that nobody else can enter, on a file system in memory if there is one. It goes when the
command has ended. After a ``kill -9`` it stays, with a credential that is dying; whoever makes the
next one takes it away: its owner holds a lock while it lives.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from broker.exec.refusal import Unfit

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from broker.secret import Secret

_PREFIX: Final = "broker-exec-"
_LOCK: Final = ".lock"


class SecretFiles:
    """Files of mode 0600 in a folder of mode 0700; all gone when the block is left."""

    def __init__(self, parent: Path | None = None) -> None:
        """``parent`` is where the folder is made; a place in memory unless given."""
        self._parent = parent or place()
        self._folder: Path | None = None
        self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)

    def write(self, contents: Mapping[str, Secret]) -> dict[str, str]:
        """Write the files, called like the variables that are to name them; return their paths.

        Raises:
            Unfit: they can't be written.
        """
        if not contents:
            return {}
        try:
            folder = self._folder or self._made()
            for name, secret in contents.items():
                write_private(folder / name, secret.reveal())
        except OSError as error:
            msg = f"--file: nothing can be written below {self._parent}: {error.strerror}"
            raise Unfit(msg) from None
        return {name: str(folder / name) for name in contents}

    def _made(self) -> Path:
        sweep(self._parent)
        self._folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._parent))
        self._lock = os.open(self._folder / _LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        return self._folder


def write_private(path: Path, text: str) -> None:
    """Write a file that is new, and that its owner alone can read.

    Raises:
        FileExistsError: it is there already, or a link is.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(path, flags, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def place() -> Path:
    """Return where files of ours are in memory, if they can be anywhere."""
    for candidate in (os.environ.get("XDG_RUNTIME_DIR"), "/dev/shm"):  # noqa: S108  that is where
        if candidate and in_memory(Path(candidate)) and os.access(candidate, os.W_OK):
            return Path(candidate)
    return Path(tempfile.gettempdir())


def in_memory(folder: Path) -> bool:
    """Whether what is written to a folder never reaches a disk (but by swapping).

    Linux says it in ``/proc``; elsewhere nothing is known to be.
    """
    try:
        at = folder.stat().st_dev
        mounts = Path("/proc/self/mountinfo").read_text("utf-8").splitlines()
    except OSError:
        return False
    device = f"{os.major(at)}:{os.minor(at)}"
    rows = (row.partition(" - ") for row in mounts)
    return any(
        row[0].split()[2] == device and row[2].split()[0] in {"tmpfs", "ramfs"} for row in rows
    )


def sweep(parent: Path) -> None:
    """Remove the folders whose owners have died."""
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # somebody else's, or gone by now
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
