"""Reading the log's files from a bookmark on, as far as they are committed."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

from broker.audit.errors import LogDamaged
from broker.audit.record import read_record, record_hash
from broker.audit.segments import lines, segment_file, segments

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO


@dataclass(frozen=True, slots=True)
class Bookmark:
    """Before which record one stands, and where that is: ``offset`` bytes into a segment.

    An ``offset`` of 0 says that it isn't known: it is looked for. ``prev`` is the hash of the
    record before, if that is known: what comes next has to name it.
    """

    seq: int = 0
    segment: int = 0
    offset: int = 0
    prev: str = ""

    def to_json(self) -> str:
        """Write it for a file."""
        return json.dumps(asdict(self))

    def unchecked(self) -> Bookmark:
        """Return the same place, where anything may come next."""
        return Bookmark(self.seq, self.segment, self.offset)

    @classmethod
    def from_json(cls, text: str | bytes) -> Self:
        """Read it; what can't be read stands at the beginning, so that nothing is passed over."""
        try:
            row: Any = json.loads(text)
            seq, segment, offset = (int(row[name]) for name in ("seq", "segment", "offset"))
            made = cls(seq, segment, offset, str(row["prev"]))
        except (ValueError, TypeError, KeyError):
            return cls()
        return made if min(made.seq, made.segment, made.offset) >= 0 else cls()


@dataclass(frozen=True, slots=True)
class Chunk:
    """Events that follow each other, and the bookmark after them.

    ``absent`` counts records before them that aren't in this folder: forgotten, or on the disk of
    another replica. ``broken`` says that the record after them doesn't follow: the log was set back
    since it was read, and went on otherwise; or somebody changed it.
    """

    events: tuple[dict[str, Any], ...]
    after: Bookmark
    absent: int = 0
    broken: bool = False


def read_chunk(
    folder: Path, place: Bookmark, *, until: int, limit: int, max_bytes: int = 1 << 20
) -> Chunk:
    """Read up to ``limit`` events after ``place``, of records before number ``until``.

    Without any, unless the chunk is broken, there is nothing more in this folder yet.

    Raises:
        LogDamaged: a line is no record.
        OSError: the files can't be read.
    """
    events: list[dict[str, Any]] = []
    absent, size = 0, 0
    while place.seq < until:
        place, gone = _find(folder, place)
        absent += gone
        if place.offset == 0:
            break
        path = segment_file(folder, place.segment)
        with path.open("rb") as file:
            file.seek(place.offset)
            for line in lines(file):
                if place.seq >= until or len(events) >= limit or size >= max_bytes:
                    return Chunk(tuple(events), place, absent)
                if not line.endswith(b"\n"):
                    break  # being written
                record = _record(line, place.seq, path)
                if place.prev and record["prev"] != place.prev:
                    return Chunk(tuple(events), place, absent, broken=True)
                events.append(record["event"])
                size += len(line)
                place = _after(place, line)
        if all(first <= place.segment for first, _ in segments(folder)):
            break
        place = Bookmark(place.seq, prev=place.prev)
    return Chunk(tuple(events), place, absent)


def read_events(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield every event in a folder, also those that nobody has committed yet.

    Whether they are what was written is for ``verify`` to say.

    Raises:
        LogDamaged: a line is no record.
        OSError: the files can't be read.
    """
    place, end = Bookmark(), 1 << 62
    while True:
        chunk = read_chunk(folder, place, until=end, limit=1000)
        yield from chunk.events
        if not chunk.events and not chunk.broken:
            return
        place = chunk.after.unchecked()


def _find(folder: Path, place: Bookmark) -> tuple[Bookmark, int]:
    """Find where record ``place.seq`` is, or the first after it that is here.

    Returns a bookmark without an offset if there is none, and how many records are passed over.
    """
    if place.offset and _is_at(segment_file(folder, place.segment), place):
        return place, 0
    found = segments(folder)
    before = [first for first, _ in found if first <= place.seq]
    if before:
        path = segment_file(folder, before[-1])
        with path.open("rb") as file:
            seq, offset = _skip(file, before[-1], place.seq)
        if seq == place.seq:
            return Bookmark(seq, before[-1], offset, place.prev), 0
    later = [first for first, _ in found if first > place.seq]
    if not later:
        return Bookmark(place.seq, prev=place.prev), 0
    with segment_file(folder, later[0]).open("rb") as file:
        _, offset = _skip(file, later[0], later[0])
    return Bookmark(later[0], later[0], offset), later[0] - place.seq


def _skip(file: BinaryIO, seq: int, wanted: int) -> tuple[int, int]:
    """Go over the header and over records up to ``wanted``, as far as there are any."""
    source = lines(file)
    offset = len(next(source, b""))
    while seq < wanted:
        line = next(source, b"")
        if not line.endswith(b"\n"):
            break
        seq, offset = seq + 1, offset + len(line)
    return seq, offset


def _is_at(path: Path, place: Bookmark) -> bool:
    """Whether a record of that number, or the end of the file, is where the bookmark says."""
    try:
        with path.open("rb") as file:
            file.seek(place.offset - 1)
            ended, line = file.read(1), next(lines(file), b"")
    except FileNotFoundError:
        return False
    number = b'"seq":%d}\n' % place.seq
    return ended == b"\n" and (line == b"" or line.endswith(number) or not line.endswith(b"\n"))


def _after(place: Bookmark, line: bytes) -> Bookmark:
    return Bookmark(
        place.seq + 1, place.segment, place.offset + len(line), record_hash(line.rstrip(b"\n"))
    )


def _record(line: bytes, seq: int, path: Path) -> dict[str, Any]:
    try:
        record = read_record(line)
    except ValueError as error:
        raise LogDamaged(f"{path}: record {seq} {error}.") from None
    if record["seq"] != seq:
        raise LogDamaged(f"{path}: record {record['seq']} is where {seq} belongs.")
    return record
