"""The writer of the log: a folder of segments, signed checkpoints, and one writer at a time.

    audit/
      00000000000000000000.jsonl    a segment, named by the number of its first record
      checkpoints/00000000000000004711   a signed checkpoint of the first 4711 records
      checkpoints/latest                 the newest of them
      forgotten                     a signed note: up to where records were removed on purpose
      00000000000000004711.0.cut    what a writer wrote and never got committed

How it is used, by one replica at a time, in a thread (all of it blocks on the disk):

1. ``head = Head.from_json(…)`` from the ledger, or None if there is none yet.
2. ``writer = LogWriter.open(folder, signer=…, clock=…, head=head)``. On ``LedgerBehindLog`` commit
   ``error.head`` in the ledger, and open with that.
3. ``cursor = dict(writer.head.cursor)``; for each event ``record.advance(cursor, event)``; then
   ``head = writer.append(events, cursor)``: on disk when it returns. On ``OSError`` nothing was
   written and the same may be tried again.
4. Commit ``head.to_json()`` in the ledger, if what is there is still the head before. If that fails
   or nobody knows: ``writer.close()``, and open again with what the ledger says.
5. Now and then, after a commit and never before it: ``writer.checkpoint()``, ``writer.forget(…)``.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Self

from broker.audit.chain import Chain
from broker.audit.checkpoint import Checkpoint, CheckpointFolder
from broker.audit.errors import LogBusy, LogDamaged
from broker.audit.files import make_folder, write_all
from broker.audit.head import Head
from broker.audit.record import record_line
from broker.audit.retention import forget
from broker.audit.segments import Header, begin_segment, lines
from broker.audit.standing import Place, stand
from broker.clock import to_rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from broker.audit.head import Position
    from broker.audit.note import Signer, VerifierKey
    from broker.clock import Clock

SEGMENT_BYTES: Final = 16 << 20
_LOCK: Final = ".lock"


class LogWriter:
    """Appends records to the log in a folder. Not thread-safe: one call at a time.

    ``head`` is where the log stands: after ``open`` what was asked for, later what ``append``
    returned. ``cut`` is where ``open`` put records that were never committed, if it found any, and
    ``lacks`` how many committed ones just before ``head`` aren't in this folder: they are on the
    disk of another replica, or lost. Both are worth an alarm.
    """

    head: Head
    cut: Path | None
    lacks: int

    def __init__(
        self,
        folder: Path,
        signer: Signer,
        trusted: Sequence[VerifierKey],
        clock: Clock,
        segment_bytes: int,
    ) -> None:
        """Use ``open``."""
        self._folder = folder
        self._checkpoints = CheckpointFolder(folder)
        self._signer = signer
        self._keys = (signer.key, *trusted)
        self._clock = clock
        self._segment_bytes = segment_bytes
        self._lock = self._descriptor = -1
        self._stained = False

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        signer: Signer,
        clock: Clock,
        head: Head | None = None,
        trusted: Sequence[VerifierKey] = (),
        segment_bytes: int = SEGMENT_BYTES,
    ) -> Self:
        """Open a folder to append after ``head``; the folder is made if there is none.

        The log's origin is the signer's name. ``trusted`` are keys that signed this log before, or
        in other replicas.

        Raises:
            LogBusy: another writer has it.
            LedgerBehindLog: a checkpoint covers more than ``head``.
            LogDamaged: what is there isn't what a writer left.
            OSError: the disk.
        """
        make_folder(folder)
        writer = cls(folder, signer, trusted, clock, segment_bytes)
        try:
            writer._lock = _lock(folder)
            writer._go_on(head or Head())
        except BaseException:
            writer.close()
            raise
        return writer

    @property
    def signed(self) -> int:
        """The size of the newest checkpoint; ``head.size - signed`` records wait for one."""
        return self._signed.chain.size

    def append(self, events: Sequence[Mapping[str, Any]], cursor: Mapping[int, Position]) -> Head:
        """Write CloudEvents, in order, and return the head to commit; ``cursor`` goes into it.

        When it returns they are on the disk. A segment that is full is followed by another first,
        with a checkpoint between them: what was appended before must have been committed.

        Raises:
            OSError: nothing was written; the writer stays usable.
            LogDamaged: the segment isn't as long as it was written, or, when a checkpoint is due,
                its records aren't those that were.
        """
        if not events:
            self.head = replace(self.head, cursor=cursor)
            return self.head
        self._prepare(full_at=self._segment_bytes)
        chain = Chain.after(self.head)
        written: list[bytes] = []
        for event in events:
            line = record_line(event, seq=chain.size, prev=chain.prev)
            chain.add(line)
            written += (line, b"\n")
        content = b"".join(written)
        try:
            write_all(self._descriptor, content)
            os.fsync(self._descriptor)
        except OSError:
            # What there is of it is no record: off with it, now or before the next one.
            self._stained = True
            with suppress(OSError):
                self._clean()
            raise
        self._offset += len(content)
        self.head = chain.head(cursor)
        return self.head

    def checkpoint(self) -> str:
        """Sign what was appended (and committed) so far, and return the signed note.

        What is signed is what is on the disk: the records since the last checkpoint are read again,
        and must lead from the tree that was signed then to the tree that is signed now.

        Raises:
            OSError: it isn't written, and counts as not signed.
            LogDamaged: the records on the disk aren't those that were appended.
        """
        self._prepare()
        if self._note is None or self.head.size > self.signed:
            return self._sign()
        return self._note

    def forget(self, before_ms: int) -> list[Path]:
        """Remove the oldest segments whose last event is before ``before_ms``; return which.

        The segment being written stays, and so do the checkpoints at which segments begin. That
        this was done on purpose is signed first.

        Raises:
            OSError: some may be left; they go the next time.
        """
        return forget(
            self._folder, before_ms, signer=self._signer, keys=self._keys, time=self._now()
        )

    def close(self) -> None:
        """Let go of the folder."""
        for descriptor in (self._descriptor, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._lock = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _go_on(self, head: Head) -> None:
        """Take over what is in the folder; a crash may have kept a checkpoint from it."""
        standing = stand(self._folder, head, self._keys)
        self.head, self.cut = head, standing.cut
        self._path, self._first = standing.segment, standing.first
        self._offset = standing.at.offset
        self._signed, self._note = standing.signed, standing.note
        self._follows = standing.follows
        self.lacks = head.size - standing.follows[0]
        if self._note and self._checkpoints.read(self.signed) is None:
            self._checkpoints.write(self.signed, self._note)
        if self._path is not None:
            self._use(self._path)

    def _prepare(self, full_at: int | None = None) -> None:
        """See to it that there is a segment, clean, with a checkpoint at its start."""
        self._clean()
        if self._path is None:
            self._begin()
        elif os.fstat(self._descriptor).st_size != self._offset:
            raise LogDamaged(f"{self._path} isn't as long as it was written.")
        elif full_at is not None and self._offset >= full_at and self.head.size > self._first:
            first = self._first
            self.checkpoint()
            self._follows = (self.head.size, self.head.prev)
            self._begin()
            with suppress(OSError):
                self._checkpoints.thin(first, self.head.size)
        if self._note is None:
            self._sign()

    def _clean(self) -> None:
        """Take off what is left of an append that failed."""
        if self._stained:
            os.ftruncate(self._descriptor, self._offset)
            self._stained = False

    def _begin(self) -> None:
        """Begin a segment at the head."""
        header = Header(self._signer.name, self.head, self._follows, self._now())
        path, length = begin_segment(self._folder, header, self._signer)
        self._use(path)
        self._path, self._first, self._offset = path, header.first, length
        if self._signed.chain.size != self.head.size:
            self._note = None
        self._signed = Place(header.chain(), length)

    def _use(self, path: Path) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = descriptor

    def _sign(self) -> str:
        """Sign the head, once what is on the disk has led there from the last checkpoint."""
        place = self._read_again()
        checkpoint = Checkpoint(self._signer.name, self.head.size, self.head.root)
        note = self._signer.sign(checkpoint.text())
        self._checkpoints.write(checkpoint.size, note)
        self._signed, self._note = place, note
        return note

    def _read_again(self) -> Place:
        """Go from the last checkpoint to the head by what is on the disk."""
        assert self._path is not None  # noqa: S101  the callers saw to it
        chain, offset = self._signed.chain.copy(), self._signed.offset
        with self._path.open("rb") as file:
            file.seek(offset)
            for line in lines(file):
                if not chain.take(line):
                    break
                offset += len(line)
        if not chain.is_at(self.head):
            raise LogDamaged(f"{self._path}: record {chain.size} isn't as it was written.")
        return Place(chain, offset)

    def _now(self) -> str:
        return to_rfc3339(int(self._clock.now() * 1000))


def _lock(folder: Path) -> int:
    """Take the folder's lock, which whoever dies lets go of."""
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(folder / _LOCK, flags, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise LogBusy(f"{folder} has another writer.") from None
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
