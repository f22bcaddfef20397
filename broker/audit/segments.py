"""The files of the log: segments with their signed first line, and what was removed on purpose.

A segment's first line is its header, one line of JSON in the log's form; records follow. The header
says from where the segment goes on, so that it can be checked when those before it are gone.
"""

from __future__ import annotations

import json
import re
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Self

from broker.audit.chain import Chain
from broker.audit.files import write_whole
from broker.audit.head import Head, cursor_row, read_cursor, read_place
from broker.audit.note import MAX_NOTE, NoteError, open_note, verify_signature
from broker.audit.record import MAX_LINE, canonical

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from broker.audit.note import Signer, VerifierKey

FORGOTTEN: Final = "forgotten"

_NAME: Final = re.compile(r"([0-9]{20})\.jsonl")
_HEADER_TEXT: Final = "broker-audit-segment\n"
_FORGOTTEN_TEXT: Final = "broker-audit-forgotten\n"


class HeaderError(ValueError):
    """A segment's first line isn't a header that a known key signed."""


@dataclass(frozen=True, slots=True)
class Header:
    """The first line of a segment, which is no record.

    ``head`` is what the log was before the segment's first record. ``follows`` is how far the
    folder itself went when the segment was begun, and the hash of the last record there: less than
    ``head`` if what is between was written to another disk. ``time`` is when it was begun.
    """

    origin: str
    head: Head
    follows: tuple[int, str]
    time: str

    @property
    def first(self) -> int:
        """The number of the segment's first record."""
        return self.head.size

    def chain(self) -> Chain:
        """Return the place before the first record."""
        return Chain.after(self.head)

    def line(self, signer: Signer) -> bytes:
        """Return the line, signed, with the newline."""
        row: dict[str, Any] = {
            "segment": self.head.size,
            "origin": self.origin,
            "prev": self.head.prev,
            "ranges": list(self.head.ranges),
            "cursor": cursor_row(self.head.cursor),
            "follows": list(self.follows),
            "time": self.time,
        }
        return canonical({**row, "signature": signer.signature(_signed(row))}) + b"\n"

    @classmethod
    def read(cls, line: bytes, keys: Iterable[VerifierKey]) -> Self:
        """Read a header.

        Raises:
            HeaderError: it isn't one, or none of ``keys`` signed it.
        """
        keys = tuple(keys)
        try:
            row: dict[str, Any] = json.loads(line)
            if canonical(row) + b"\n" != line:
                raise HeaderError("is not written as a header is")
            verify_signature(_signed(row, without="signature"), row.pop("signature"), keys)
            header = cls._of(**row)
        except NoteError as error:
            raise HeaderError(f"has a header whose signature is bad: {error}") from None
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise HeaderError("does not begin with a header") from None
        if header.origin not in {key.name for key in keys}:
            raise HeaderError("is of another log")
        return header

    @classmethod
    def _of(cls, **row: Any) -> Self:  # noqa: ANN401  JSON
        place = read_place(row.pop("segment"), row.pop("prev"), row.pop("ranges"))
        follows, prev = row.pop("follows")
        return cls(
            head=Head(*place, cursor=read_cursor(row.pop("cursor"))), follows=(follows, prev), **row
        )


def _signed(row: dict[str, Any], without: str = "") -> str:
    """Return what is signed of a header: a text that can't be taken for a checkpoint's."""
    kept = {name: value for name, value in row.items() if name != without}
    return f"{_HEADER_TEXT}{canonical(kept).decode()}\n"


def segment_file(folder: Path, first: int) -> Path:
    """Return where the segment that begins with record ``first`` is."""
    return folder / f"{first:020}.jsonl"


def segments(folder: Path) -> list[tuple[int, Path]]:
    """Return the segments and the numbers of their first records, in order."""
    if not folder.is_dir():
        return []
    found = ((_NAME.fullmatch(path.name), path) for path in folder.iterdir())
    return sorted((int(match[1]), path) for match, path in found if match)


def lines(file: BinaryIO) -> Iterator[bytes]:
    """Read lines, with their newlines. One that is too long for a record comes in pieces."""
    return iter(partial(file.readline, MAX_LINE + 1), b"")


def begin_segment(folder: Path, header: Header, signer: Signer) -> tuple[Path, int]:
    """Make a segment with nothing but a header; return its file and how long that is.

    Raises:
        OSError: there is none.
    """
    path = segment_file(folder, header.first)
    if path.exists():
        raise FileExistsError(f"{path} is there already")
    line = header.line(signer)
    try:
        write_whole(path, line)
    except OSError:
        with suppress(OSError):
            path.unlink(missing_ok=True)
        raise
    return path, len(line)


def keep_cut(folder: Path, first: int, content: bytes) -> Path:
    """Keep what is cut off the log at record ``first`` in a file of its own."""
    number = len(list(folder.glob(f"{first:020}.*.cut")))
    path = folder / f"{first:020}.{number}.cut"
    write_whole(path, content)
    return path


def write_forgotten(folder: Path, signer: Signer, first: int, time: str) -> None:
    """Sign that all before record ``first`` may be missing."""
    note = signer.sign(f"{_FORGOTTEN_TEXT}{signer.name}\n{first}\n{time}\n")
    write_whole(folder / FORGOTTEN, note.encode())


def read_forgotten(folder: Path, keys: Iterable[VerifierKey]) -> int:
    """Return before which record all may be missing.

    Raises:
        NoteError: what is there isn't signed by one of ``keys`` or is of another log.
    """
    keys = tuple(keys)
    try:
        with (folder / FORGOTTEN).open("rb") as file:
            content = file.read(MAX_NOTE + 1)
    except FileNotFoundError:
        return 0
    kind, origin, first, *_ = [*open_note(content, keys).split("\n"), "", ""]
    if f"{kind}\n" == _FORGOTTEN_TEXT and origin in {key.name for key in keys}:
        return int(first)
    raise NoteError("not what this log says of what it has forgotten")
