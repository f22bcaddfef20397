"""Single records of a log, and the hashes of spans of them that proofs are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.audit.errors import LogDamaged, NotProvable
from broker.audit.merkle import Tree, leaf_hash
from broker.audit.record import read_record
from broker.audit.segments import Header, HeaderError, lines, segments

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from broker.audit.note import VerifierKey

Span = tuple[int, int]
"""From one record to before another."""


def find_event(folder: Path, event_id: str) -> int:
    """Return the number of the record of an event.

    Raises:
        NotProvable: it isn't in this folder.
        OSError: the files can't be read.
    """
    wanted = event_id.encode(errors="replace")
    for _, path in segments(folder):
        with path.open("rb") as file:
            for line in lines(file):
                if wanted in line and (seq := _number_of(line, event_id)) is not None:
                    return seq
    raise NotProvable(f"The log here has no event {event_id[:64]!r}.")


def read_line(folder: Path, seq: int) -> bytes:
    """Return the line of a record, without the newline.

    Raises:
        NotProvable: it isn't in this folder.
        OSError: the files can't be read.
    """
    for number, line in _records(folder, _segment_of(folder, seq)):
        if number == seq:
            return line
    raise NotProvable(f"Record {seq} is not in this folder.")


def hash_spans(
    folder: Path, keys: Sequence[VerifierKey], spans: Sequence[Span], *, begin: int
) -> list[bytes]:
    """Return the Merkle root of each of ``spans``, which don't overlap, in one pass.

    The pass begins at the segment of record ``begin``; of what is before that segment, no more may
    be wanted than is in its header: the largest perfect subtrees.

    Raises:
        NotProvable: some records aren't in this folder.
        LogDamaged: the segment's header isn't signed.
        OSError: the files can't be read.
    """
    trees = {span: Tree() for span in spans}
    waiting = sorted(spans)
    first = _segment_of(folder, begin)
    tree = _read_header(folder, first, keys).head.tree()
    for (start, end), node in zip(tree.spans(), tree.nodes, strict=True):
        for span in spans:
            if span[0] <= start and end <= span[1]:
                trees[span].append_subtree(node, (end - start).bit_length() - 1)
    for seq, line in _records(folder, first):
        while waiting and waiting[0][1] <= seq:
            waiting.pop(0)
        if not waiting:
            break
        if waiting[0][0] <= seq:
            trees[waiting[0]].append(leaf_hash(line))
    for (start, end), found in trees.items():
        if found.size != end - start:
            raise NotProvable(f"Records {start + found.size} to {end - 1} are not in this folder.")
    return [trees[span].root() for span in spans]


def _segment_of(folder: Path, seq: int) -> int:
    """Return the first record of the segment that a record should be in."""
    before = [first for first, _ in segments(folder) if first <= seq]
    if not before:
        raise NotProvable(f"Record {seq} is not in this folder.")
    return before[-1]


def _records(folder: Path, first: int) -> Iterator[tuple[int, bytes]]:
    """Yield numbers and lines of records, from a segment on as long as they follow."""
    seq = first
    for begin, path in segments(folder):
        if begin < first:
            continue
        if begin != seq:
            return
        with path.open("rb") as file:
            source = lines(file)
            next(source, b"")
            for line in source:
                if line.endswith(b"\n"):
                    yield seq, line[:-1]
                    seq += 1


def _read_header(folder: Path, first: int, keys: Sequence[VerifierKey]) -> Header:
    path = dict(segments(folder))[first]
    with path.open("rb") as file:
        try:
            header = Header.read(next(lines(file), b""), keys)
        except HeaderError as error:
            raise LogDamaged(f"{path.name} {error}.") from None
    if header.first != first:
        raise LogDamaged(f"{path.name} is the segment of record {header.first}.")
    return header


def _number_of(line: bytes, event_id: str) -> int | None:
    """Return the number of a record if it is that event's."""
    try:
        record = read_record(line)
    except ValueError:
        return None
    seq: int = record["seq"]
    return seq if record["event"].get("id") == event_id else None
