"""Where the log in a folder stands, seen by a writer that wants to go on after a given head."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.audit.chain import Chain
from broker.audit.checkpoint import Checkpoint, CheckpointFolder, open_checkpoint
from broker.audit.errors import LedgerBehindLog, LogDamaged
from broker.audit.head import GENESIS, Head
from broker.audit.merkle import EMPTY_ROOT
from broker.audit.note import NoteError
from broker.audit.record import advance, read_record
from broker.audit.segments import Header, HeaderError, keep_cut, lines, segment_file, segments

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from broker.audit.head import Position
    from broker.audit.note import VerifierKey


@dataclass(frozen=True, slots=True)
class Place:
    """A place between two records of a segment; ``offset`` is in bytes."""

    chain: Chain
    offset: int


@dataclass(frozen=True, slots=True)
class Standing:
    """What a writer goes on with.

    ``segment`` is the file to append to, ``first`` its first record and ``at`` where in it; None if
    another has to begin.
    ``signed`` is the place of the newest checkpoint, whose note is ``note``; None if the segment
    has no checkpoint at its start yet. ``follows`` is how far the folder goes. ``cut`` is where
    records are now that were never committed.
    """

    segment: Path | None
    first: int
    at: Place
    signed: Place
    note: str | None
    follows: tuple[int, str]
    cut: Path | None = None


@dataclass(slots=True)
class _Walk:
    """The last segment, gone through to its end."""

    path: Path
    header: Header
    start: Place
    end: Place
    places: Mapping[int, Place]


def stand(folder: Path, head: Head, keys: Sequence[VerifierKey]) -> Standing:
    """Find where to go on after ``head``, and cut off what was never committed.

    1. What the newest checkpoint covers has to be there, and be what was signed.
    2. A checkpoint that covers more than the head says that the ledger was set back.
    3. What is at the head has to be what the ledger says of it.
    4. What is after the head was written by somebody who died before it was committed: cut off.
    5. If the folder ends before the head, the rest is on another disk: a new segment begins.

    Raises:
        LedgerBehindLog: see 2.
        LogDamaged: see 1 and 3.
        OSError: the disk.
    """
    newest, note = newest_signed(folder, keys)
    found = segments(folder)
    if not found:
        if newest.size:
            raise LogDamaged(f"{folder} has checkpoints but no records.")
        nowhere = Place(Chain.after(head), 0)
        return Standing(None, head.size, nowhere, nowhere, None, (0, GENESIS))
    first, path = found[-1]
    covered = max(newest.size, first)
    walk = _walk(path, keys, wanted={newest.size, head.size}, needed=max(covered, head.size))
    end = walk.end.chain
    if end.size < covered:  # 1
        raise LogDamaged(f"{path} ends at {end.size}, and {covered} records were signed.")
    if newest.size < first:  # it was begun, and its checkpoint not written yet
        if first < end.size:
            raise LogDamaged(f"{path}: the checkpoint at which it begins is missing.")
        note = None
    signed = walk.places.get(newest.size, walk.start)
    if newest.size >= first and not _has_root(signed.chain, newest):
        raise LogDamaged(f"{path}: not what the checkpoint of {newest.size} records was made of.")
    if covered > head.size:  # 2
        raise LedgerBehindLog(
            f"{folder} has {covered} signed records, the ledger knows of {head.size}.",
            head=end.head(_cursor(walk)),
        )
    if end.size < head.size:
        return _elsewhere(walk, head, signed, note)
    at = walk.places[head.size]
    if not at.chain.is_at(head):  # 3
        raise LogDamaged(f"{path}: the ledger says something else of the first {head.size}.")
    cut = _cut(path, head.size, at.offset)  # 4
    return Standing(path, first, at, signed, note, (head.size, head.prev), cut)


def _elsewhere(walk: _Walk, head: Head, signed: Place, note: str | None) -> Standing:
    """Step 5."""
    end = walk.end.chain
    if end.tree is None or not end.tree.could_become(head.tree()):
        raise LogDamaged(f"{walk.path}: the ledger's log doesn't go on from these records.")
    cut = _cut(walk.path, end.size, walk.end.offset)
    at = Place(Chain.after(head), 0)
    return Standing(None, head.size, at, signed, note, (end.size, end.prev), cut)


def newest_signed(folder: Path, keys: Sequence[VerifierKey]) -> tuple[Checkpoint, str | None]:
    """Return the newest checkpoint and its note; one of nothing if there is none.

    ``latest`` alone won't do: it could be an old one, put back.

    Raises:
        LogDamaged: one is no checkpoint of this log, or stands where another belongs.
    """
    checkpoints = CheckpointFolder(folder)
    sizes = checkpoints.sizes()
    numbered = checkpoints.read(sizes[-1]) if sizes else None
    latest = checkpoints.latest() or numbered
    if latest is None:
        return Checkpoint("", 0, EMPTY_ROOT), None
    try:
        newest = open_checkpoint(latest, keys)
        listed = open_checkpoint(numbered, keys).size if numbered else 0
    except NoteError as error:
        raise LogDamaged(f"{checkpoints.path}: of the newest checkpoint: {error}.") from None
    if newest.size < listed or (sizes and listed != sizes[-1]):
        raise LogDamaged(f"{checkpoints.path}: an old checkpoint stands for the newest.")
    return newest, latest.decode()


def _walk(path: Path, keys: Sequence[VerifierKey], wanted: set[int], needed: int) -> _Walk:
    """Go through a segment as far as its records follow from each other.

    Raises:
        LogDamaged: the header is bad, or what is before ``needed`` isn't merely cut short.
    """
    with path.open("rb") as file:
        source = lines(file)
        try:
            first = next(source, b"")
            header = Header.read(first, keys)
        except HeaderError as error:
            raise LogDamaged(f"{path} {error}.") from None
        if path != segment_file(path.parent, header.first):
            raise LogDamaged(f"{path} is the segment of record {header.first}.")
        chain, offset = header.chain(), len(first)
        start = Place(chain.copy(), offset)
        places = {chain.size: start}
        for line in source:
            if not chain.take(line):
                if chain.size < needed and line.endswith(b"\n"):
                    raise LogDamaged(f"{path}: record {chain.size} isn't as it was written.")
                break
            offset += len(line)
            if chain.size in wanted:
                places[chain.size] = Place(chain.copy(), offset)
    return _Walk(path, header, start, Place(chain, offset), places)


def _has_root(chain: Chain, checkpoint: Checkpoint) -> bool:
    return chain.tree is not None and chain.tree.root() == checkpoint.root


def _cursor(walk: _Walk) -> Mapping[int, Position]:
    """Work out the cursor at the end of a segment, from its header and its events."""
    cursor = dict(walk.header.head.cursor)
    with walk.path.open("rb") as file:
        source = lines(file)
        next(source)
        for _, line in zip(range(walk.header.first, walk.end.chain.size), source, strict=False):
            advance(cursor, read_record(line)["event"])
    return cursor


def _cut(path: Path, size: int, offset: int) -> Path | None:
    """Move what is after ``offset`` into a file of its own, which is returned if there is any."""
    with path.open("r+b") as file:
        file.seek(offset)
        content = file.read()
        if not content:
            return None
        kept = keep_cut(path.parent, size, content)
        file.truncate(offset)
        os.fsync(file.fileno())
    return kept
