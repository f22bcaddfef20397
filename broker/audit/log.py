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

from typing import TYPE_CHECKING, Any, Final, Self

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from broker.audit.head import Head, Position
    from broker.audit.note import Signer, VerifierKey
    from broker.clock import Clock

SEGMENT_BYTES: Final = 16 << 20


class LogWriter:
    """Appends records to the log in a folder. Not thread-safe: one call at a time."""

    head: Head
    """Where the log stands: after ``open`` what was asked for, later what ``append`` returned."""
    signed: int
    """The size of the newest checkpoint; ``head.size - signed`` records wait for one."""
    cut: Path | None
    """Where ``open`` put records that were never committed, if it found any: worth an alarm."""

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
        raise NotImplementedError

    def append(self, events: Sequence[Mapping[str, Any]], cursor: Mapping[int, Position]) -> Head:
        """Write CloudEvents, in order, and return the head to commit; ``cursor`` goes into it.

        When it returns they are on the disk. A segment that is full is followed by another first,
        with a checkpoint between them: what was appended before must have been committed.

        Raises:
            OSError: nothing was written; the writer stays usable.
            LogDamaged: records on the disk have changed since they were written.
        """
        raise NotImplementedError

    def checkpoint(self) -> str:
        """Sign what was appended (and committed) so far, and return the signed note.

        What is signed is what is on the disk: the records since the last checkpoint are read again,
        and must lead from the tree that was signed then to the tree that is signed now.

        Raises:
            OSError: it isn't written, and counts as not signed.
            LogDamaged: the records on the disk aren't those that were appended.
        """
        raise NotImplementedError

    def forget(self, before_ms: int) -> list[Path]:
        """Remove the oldest segments whose last event is before ``before_ms``; return which.

        The segment being written stays, and so do the checkpoints at which segments begin. That
        this was done on purpose is signed first.

        Raises:
            OSError: some may be left; they go the next time.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the folder."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
