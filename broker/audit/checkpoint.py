"""Checkpoints (c2sp.org/tlog-checkpoint): how large the log is and its root, signed."""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

from broker.audit.files import make_folder, sync_folder, write_whole
from broker.audit.merkle import HASH_BYTES
from broker.audit.note import MAX_NOTE, NoteError, open_note

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from broker.audit.note import VerifierKey

FOLDER: Final = "checkpoints"
LATEST: Final = "latest"

_SIZE: Final = re.compile(r"0|[1-9][0-9]{0,18}")
_NAME: Final = re.compile(r"[0-9]{20}")
_LINES: Final = 3


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What a checkpoint says: of which log, how many records, and their Merkle root."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        """Return the text that is signed."""
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode()}\n"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text. Lines after the third are extensions, and say nothing to us.

        Raises:
            NoteError: it is not a checkpoint's.
        """
        lines = text.removesuffix("\n").split("\n")
        if len(lines) < _LINES or not all(lines) or _SIZE.fullmatch(lines[1]) is None:
            raise NoteError("not the text of a checkpoint")
        origin, size, encoded = lines[:_LINES]
        try:
            root = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError):
            root = b""
        if len(root) != HASH_BYTES or base64.b64encode(root).decode() != encoded:
            raise NoteError("the root of the checkpoint is not a SHA-256")
        return cls(origin, int(size), root)


def open_checkpoint(content: str | bytes, keys: Iterable[VerifierKey]) -> Checkpoint:
    """Return what a signed checkpoint says.

    Raises:
        NoteError: it isn't one, none of ``keys`` signed it, or it is of another log than theirs.
    """
    keys = tuple(keys)
    checkpoint = Checkpoint.parse(open_note(content, keys))
    if checkpoint.origin not in {key.name for key in keys}:
        raise NoteError("a checkpoint of another log")
    return checkpoint


class CheckpointFolder:
    """The files: one for each size, and ``latest``, which is written before the one with its size.

    So ``latest`` is never behind, whenever the power goes.
    """

    def __init__(self, log: Path) -> None:
        """``log`` is the folder of the log."""
        self.path = log / FOLDER

    def sizes(self) -> list[int]:
        """Return of which sizes there are checkpoints, smallest first."""
        if not self.path.is_dir():
            return []
        return sorted(int(e.name) for e in self.path.iterdir() if _NAME.fullmatch(e.name))

    def file(self, size: int) -> Path:
        """Return where the checkpoint of a size is."""
        return self.path / f"{size:020}"

    def read(self, size: int) -> bytes | None:
        """Return the signed note of a size, or None if there is none."""
        return _read(self.file(size))

    def latest(self) -> bytes | None:
        """Return the newest signed note, or None if there is none."""
        return _read(self.path / LATEST)

    def write(self, size: int, note: str) -> None:
        """Keep a signed checkpoint.

        Raises:
            OSError: it may be there all the same: no other may be signed for this size.
        """
        make_folder(self.path)
        write_whole(self.path / LATEST, note.encode())
        write_whole(self.file(size), note.encode())

    def thin(self, first: int, end: int) -> None:
        """Remove those between two sizes: the later one covers all that they do."""
        inner = [size for size in self.sizes() if first < size < end]
        for size in inner:
            self.file(size).unlink(missing_ok=True)
        if inner:
            sync_folder(self.path)


def _read(path: Path) -> bytes | None:
    try:
        with path.open("rb") as file:
            return file.read(MAX_NOTE + 1)
    except FileNotFoundError:
        return None
