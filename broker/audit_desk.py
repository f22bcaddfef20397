"""The signed log for those who look into it: how it stands, whether it is whole, and its events.

All of it is of the folder of the replica that answers. Replicas with folders of their own have each
a part of the log; what is elsewhere is shown as such.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from broker.audit.checkpoint import CheckpointFolder, open_checkpoint
from broker.audit.export import written
from broker.audit.note import NoteError
from broker.audit.reader import Bookmark, read_chunk
from broker.audit.segments import segments
from broker.audit.verify import verify
from broker.clock import to_rfc3339
from broker.errors import AuditUnavailable, Conflict, NotFound
from broker.visibility import must_see_all

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from broker.access import Caller
    from broker.audit.export import Form, Span
    from broker.audit.report import Report
    from broker.audit_log import AuditLog

MAX_BYTES: Final = 64 << 20
"""More than that isn't verified while serving: it takes a core, of which others want some."""
_CHUNK: Final = 500


@dataclass(frozen=True, slots=True)
class Verified:
    """What verifying found: ``at`` is in epoch milliseconds, ``by`` who asked for it."""

    at: int
    by: str
    took_ms: int
    report: Report

    def as_json(self) -> dict[str, Any]:
        """Return it for pages."""
        return {
            "at": to_rfc3339(self.at),
            "by": self.by,
            "took_ms": self.took_ms,
            **self.report.as_json(),
        }


class AuditDesk:
    """Answers operators and auditors."""

    def __init__(self, log: AuditLog, *, max_bytes: int = MAX_BYTES) -> None:
        """``max_bytes`` is how much of a log is verified here at most."""
        self._log = log
        self._max_bytes = max_bytes
        self._last: Verified | None = None
        self._one_at_a_time = asyncio.Lock()

    async def standing(self, caller: Caller) -> dict[str, Any]:
        """Return how the log stands, and what verifying it last found on this replica."""
        must_see_all(caller)
        log = self._log
        head = await log.head()
        try:
            size, stored, signed = await asyncio.to_thread(self._on_disk)
        except OSError as error:
            raise _unreadable(error) from error
        return {
            "state": log.state(),
            "lag_ms": log.guard.lag_ms,
            "records": head.size if head is not None else 0,
            "segments": stored,
            "bytes": size,
            "checkpoint": signed,
            "key": str(log.key),
            "sinks": log.sinks(),
            "can_verify": size <= self._max_bytes,
            "verified": self._last.as_json() if self._last is not None else None,
        }

    async def verify(self, caller: Caller) -> Verified:
        """Check every record, segment and checkpoint of the log, and that the ledger's are there.

        Who asks while it is being done gets the same answer.

        Raises:
            Conflict: the log is too large to do that while serving.
            AuditUnavailable: its files can't be read.
        """
        must_see_all(caller)
        before = self._last
        async with self._one_at_a_time:
            if self._last is not None and self._last is not before:
                return self._last
            self._last = await self._verified(caller.name)
            return self._last

    async def export(self, caller: Caller, span: Span, form: Form) -> AsyncGenerator[bytes]:
        """Return all committed events of a span, as lines of JSON. The first are read already.

        The lines break off with an error where a record can't be read.

        Raises:
            NotFound: there is no log in this replica's folder.
            AuditUnavailable: its files can't be read.
        """
        must_see_all(caller)
        head = await self._log.head()
        folder, until = self._log.folder, head.size if head is not None else 0
        if not await asyncio.to_thread(segments, folder):
            raise NotFound("There is no log in this replica's folder yet.")
        lines = _lines(folder, until, span, form)
        first = await anext(lines, b"")

        async def all_of_it() -> AsyncGenerator[bytes]:
            yield first
            async for more in lines:
                yield more

        return all_of_it()

    async def _verified(self, by: str) -> Verified:
        log, clock = self._log, self._log.clock
        head = await log.head()  # before the files: they may only be ahead of it
        at, begun = int(clock.now() * 1000), clock.monotonic()
        try:
            size, _, _ = await asyncio.to_thread(self._on_disk)
            if size > self._max_bytes:
                raise Conflict(
                    f"The log here has {size >> 20} MiB: too much to be verified while serving. "
                    "Run: broker audit verify --config FILE --ledger"
                )
            report = await asyncio.to_thread(verify, log.folder, log.keys, head=head)
        except OSError as error:
            raise _unreadable(error) from error
        return Verified(at, by, int((clock.monotonic() - begun) * 1000), report)

    def _on_disk(self) -> tuple[int, int, dict[str, Any] | None]:
        """Return how many bytes and segments there are, and the newest checkpoint. Blocks."""
        size, found = 0, segments(self._log.folder)
        for _, path in found:
            with suppress(FileNotFoundError):  # removed by the retention this moment
                size += path.stat().st_size
        return size, len(found), self._checkpoint()

    def _checkpoint(self) -> dict[str, Any] | None:
        note = CheckpointFolder(self._log.folder).latest()
        if note is None:
            return None
        try:
            checkpoint = open_checkpoint(note, self._log.keys)
        except NoteError as error:
            return {"size": None, "problem": str(error)}
        return {"size": checkpoint.size, "problem": None}


async def _lines(folder: Path, until: int, span: Span, form: Form) -> AsyncGenerator[bytes]:
    """Yield lines, some hundreds of events at a time: as many as are in memory at once."""
    place = Bookmark()
    while True:
        try:
            chunk = await asyncio.to_thread(read_chunk, folder, place, until=until, limit=_CHUNK)
        except OSError as error:
            raise _unreadable(error) from error
        if lines := "".join(written(event, form) for event in chunk.events if span.has(event)):
            yield lines.encode()
        if not chunk.events and not chunk.broken:
            return
        place = chunk.after.unchecked()


def _unreadable(error: OSError) -> AuditUnavailable:
    return AuditUnavailable(f"The log's files can't be read: {error.strerror}.")
