"""Draining: events go from the ledger's outbox into the log, by one replica at a time.

1. Take the lease, or renew it.
2. Open the log where the ledger says that it ends. What a writer wrote beyond that and never got
   committed is cut off; it comes again, since it is still in the outbox.
3. Read what comes next, of all shards in one order.
4. Append it. It is on the disk now, and counts for nothing yet.
5. Commit: tell the ledger how far the log goes. Refused for whom another has come after.
6. Now and then sign a checkpoint of what is committed, and forget segments that are old enough.

A crash between any two of them loses nothing and repeats nothing. A disk that can't be written
costs this replica the lease, so that another may try.
"""

from __future__ import annotations

import asyncio
import secrets
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

from broker.audit.errors import LedgerBehindLog
from broker.audit.head import Head, Position
from broker.audit.log import LogWriter
from broker.audit.record import cloud_event
from broker.batches import CommitPoint
from broker.errors import AuditUnavailable, BrokerError
from broker.events import Event
from broker.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from broker.audit.guard import Guard
    from broker.audit.note import Signer, VerifierKey
    from broker.batches import Batch, Gap, Place
    from broker.clock import Clock

T = TypeVar("T")
log = get_logger("audit")
LEASE_S: Final = 10.0
"""How long the lease is good for, unless it is renewed."""
_RENEW_S: Final = 3.0
"""How often it is renewed while nothing happens."""
REST_S: Final = 5.0
"""How long after a failure of its disk a replica leaves the lease to others."""
_LOOK_S: Final = 1.0
"""How often a replica that has no lease asks for it."""
_FORGET_S: Final = 3600.0
_PASS_S: Final = 5.0
_SETTLE_S: Final = 0.01


class DrainStep(StrEnum):
    """Steps 2 to 6, for whoever wants to stop between them."""

    OPEN = "open"
    READ = "read"
    APPEND = "append"
    COMMIT = "commit"
    SIGN = "sign"


class Outbox(Protocol):
    """The ledger's side; see ``broker/ledger/outbox.py``."""

    async def lease(self, owner: str, fence: int = 0) -> CommitPoint | None:
        """Take the right to drain, or renew it; None if another has it."""
        ...

    async def release(self, owner: str) -> None:
        """Let another take the lease at once."""
        ...

    async def read(self, cursor: Mapping[int, Place]) -> Batch:
        """Read what comes after ``cursor``."""
        ...

    async def commit(self, owner: str, point: CommitPoint, cursor: Mapping[int, Place]) -> bool:
        """Say that the log goes as far as ``point``; False if another has come after."""
        ...


@dataclass(frozen=True, slots=True)
class DrainReport:
    """What one run did. ``holder`` says whether this replica is the one that drains.

    ``lag_ms`` is how long ago everything was in the log that there was; ``size`` counts records.
    """

    holder: bool
    drained: int = 0
    lag_ms: int = 0
    size: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainSettings:
    """Where the log is and how it is kept. ``retention_ms`` of None keeps all of it."""

    folder: Path
    source: str
    checkpoint_ms: int = 10_000
    retention_ms: int | None = None
    segment_bytes: int = 16 << 20


class _Replaced(Exception):
    """Another replica has taken over since."""


class Drain:
    """One replica's part in draining. Its runs don't overlap; a cancelled one runs to its end."""

    def __init__(  # noqa: PLR0913  its sides, and who is told
        self,
        outbox: Outbox,
        signer: Signer,
        clock: Clock,
        guard: Guard,
        settings: DrainSettings,
        *,
        trusted: Sequence[VerifierKey] = (),
        on_commit: Callable[[int], None] = lambda _: None,
        on_set_back: Callable[[int, int | None], Awaitable[None]] | None = None,
        before_step: Callable[[DrainStep], None] = lambda _: None,
    ) -> None:
        """``on_commit`` is told how many records are committed.

        ``on_set_back`` is told that the ledger has forgotten some of so many, before it is brought
        up to them: nobody would notice afterwards; and, if that is known, when the newest of them
        happened: others may have noticed, and put it right, since.
        """
        self._outbox = outbox
        self._signer = signer
        self._clock = clock
        self._guard = guard
        self._settings = settings
        self._trusted = trusted
        self._on_commit = on_commit
        self._on_set_back = on_set_back
        self._before_step = before_step
        self.owner = secrets.token_hex(8)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="audit")
        self._writer: LogWriter | None = None
        self._fence = 0
        self._holder = False
        self._asked = self._failed = self._signed = self._forgot = float("-inf")
        self._running: asyncio.Future[DrainReport] | None = None
        self._behind = False  # the ledger was when the log was opened: its gaps are known of
        self._last = Head()  # what this replica has committed, and the ledger must remember

    async def run_once(self) -> DrainReport:
        """Drain what there is, if this replica is the one to do it.

        Raises:
            AuditUnavailable: the log can't be written here. The lease is let go.
            LedgerUnavailable: what was committed is found out the next time.
        """
        if self._running is None or self._running.done():
            self._running = asyncio.ensure_future(self._run())
        return await asyncio.shield(self._running)

    async def stop(self) -> None:
        """Drain a last time, sign all of it, and let another take over at once."""
        if self._running is not None:
            with suppress(BrokerError, asyncio.CancelledError):
                await self._running
        try:
            report = await self.run_once()
            if report.holder:
                await asyncio.sleep(_SETTLE_S)  # the last events were too young to be read
                await self.run_once()
                await self._sign()
        except (BrokerError, OSError) as error:
            log.warning("the audit log was not finished", problem=type(error).__name__)
        finally:
            with suppress(BrokerError):
                await self._let_go()
            self._thread.shutdown(wait=False)

    async def _run(self) -> DrainReport:
        now = self._clock.monotonic()
        if now - self._failed < REST_S or not await self._hold(now):
            return DrainReport(holder=False)
        try:
            return await self._drain(self._writer or await self._open())
        except _Replaced:
            log.info("another replica writes the audit log now")
            await self._let_go()  # one that was lost may have given it to us anew
            return DrainReport(holder=False)
        except OSError as error:
            raise await self._give_up(error.strerror or type(error).__name__) from error
        except AuditUnavailable as error:
            log.warning("the audit log can't be used", problem=error.detail)
            raise await self._give_up(error.title) from error
        except BaseException:
            await self._close()  # what was committed, if anything, isn't known
            raise

    async def _hold(self, now: float) -> bool:
        """Step 1. Committing renews the lease, so it is asked for only if that didn't happen."""
        if now - self._asked < (LEASE_S if self._holder else _LOOK_S):
            return self._holder
        held, fence = self._holder, self._fence
        self._holder = False  # until it is known
        point = await self._outbox.lease(self.owner, fence)
        self._asked = self._clock.monotonic()
        if point is None or point.fence != fence:
            await self._close()
        if point is not None:
            self._holder, self._fence = True, point.fence
            if not held:
                log.info("this replica writes the audit log", fence=point.fence)
        return self._holder

    async def _open(self) -> LogWriter:
        """Step 2."""
        self._before_step(DrainStep.OPEN)
        self._behind = False
        point = await self._outbox.lease(self.owner, self._fence)
        if point is None or point.fence != self._fence:
            raise _Replaced
        head = Head.from_json(point.head) if point.head else None
        if self._last.size > (head.size if head else 0):
            await self._set_back(self._last, point)
            head = self._last
        try:
            writer = await self._in_thread(self._opened, head)
        except LedgerBehindLog as error:
            if error.head is None:
                raise
            await self._set_back(error.head, point)
            writer = await self._in_thread(self._opened, error.head)
        self._writer = writer
        if writer.cut is not None:
            log.warning("records that were never committed were cut off", kept_in=str(writer.cut))
        if writer.lacks:
            log.error("committed records are not in this folder", count=writer.lacks)
        self._on_commit(writer.head.size)
        return writer

    async def _set_back(self, head: Head, point: CommitPoint) -> None:
        """Have the ledger remember what the log holds: it has forgotten it, or was restored."""
        await self._tell(head.size, head.at_ms)
        await self._commit(head, point.at)
        self._behind = True

    async def _tell(self, size: int, newest_ms: int | None = None) -> None:
        log.error("the ledger was set back behind the audit log", size=size)
        if self._on_set_back is not None:
            await self._on_set_back(size, newest_ms)

    def _opened(self, head: Head | None) -> LogWriter:
        return LogWriter.open(
            self._settings.folder,
            signer=self._signer,
            clock=self._clock,
            head=head,
            trusted=self._trusted,
            segment_bytes=self._settings.segment_bytes,
        )

    async def _drain(self, writer: LogWriter) -> DrainReport:
        """Steps 3 to 6, until nothing is left or it is time to let others run."""
        begun, drained = self._clock.monotonic(), 0
        while True:
            self._before_step(DrainStep.READ)
            batch = await self._outbox.read(writer.head.cursor)  # 3
            count = len(batch.events) + len(batch.gaps)
            if count:
                self._before_step(DrainStep.APPEND)
                await self._in_thread(self._append, writer, batch)  # 4
            if any(gap.why == "reset" for gap in batch.gaps) and not self._behind:
                await self._tell(writer.head.size)  # some of its shards were
            self._behind = False
            if count or self._clock.monotonic() - self._asked > _RENEW_S:
                await self._commit(writer.head, batch.at)  # 5
            drained += count
            if not batch.more or self._clock.monotonic() - begun > _PASS_S:
                break
        self._recovered()
        await self._tend(writer)  # 6
        return DrainReport(
            holder=True, drained=drained, lag_ms=batch.now - batch.at, size=writer.head.size
        )

    def _append(self, writer: LogWriter, batch: Batch) -> None:
        events = [cloud_event(e, source=self._settings.source) for e in _with_gaps(batch)]
        writer.append(events, {shard: Position(*place) for shard, place in batch.cursor.items()})

    async def _commit(self, head: Head, at: int) -> None:
        self._before_step(DrainStep.COMMIT)
        point = CommitPoint(self._fence, head.to_json(), at)
        if not await self._outbox.commit(self.owner, point, head.cursor):
            raise _Replaced
        self._last = head
        self._asked = self._clock.monotonic()
        self._on_commit(head.size)

    async def _tend(self, writer: LogWriter) -> None:
        now, settings = self._clock.monotonic(), self._settings
        if writer.head.size > writer.signed and now - self._signed >= settings.checkpoint_ms / 1000:
            await self._sign()
        if settings.retention_ms is not None and now - self._forgot >= _FORGET_S:
            before = int(self._clock.now() * 1000) - settings.retention_ms
            gone = await self._in_thread(writer.forget, before)
            self._forgot = now
            if gone:
                log.info("segments of the audit log were forgotten", count=len(gone))

    async def _sign(self) -> None:
        writer = self._writer
        if writer is not None and writer.head.size > writer.signed:
            self._before_step(DrainStep.SIGN)
            await self._in_thread(writer.checkpoint)
            self._signed = self._clock.monotonic()

    def _recovered(self) -> None:
        if self._guard.problem:
            log.info("the audit log is written again")
            self._guard.problem = ""

    async def _give_up(self, why: str) -> AuditUnavailable:
        """Leave the lease to others, and say at once that events wait."""
        if why != self._guard.problem:
            log.error("the audit log can't be written here", problem=why)
        self._guard.problem = why
        self._failed = self._clock.monotonic()
        with suppress(BrokerError):
            await self._let_go()
            await self._guard.refresh()
        return AuditUnavailable(f"This replica can't write the audit log: {why}")

    async def _let_go(self) -> None:
        """Have no lease of ours stand; whether there is one isn't always known."""
        self._holder, self._fence = False, 0
        await self._close()
        await self._outbox.release(self.owner)

    async def _close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            with suppress(OSError):
                await self._in_thread(writer.close)

    async def _in_thread(self, what: Callable[..., T], *args: Any) -> T:  # noqa: ANN401  of what it calls
        return await asyncio.get_running_loop().run_in_executor(self._thread, what, *args)


def _with_gaps(batch: Batch) -> list[Event]:
    return [*batch.events, *(_gap_event(gap, batch.now) for gap in batch.gaps)]


def _gap_event(gap: Gap, now: int) -> Event:
    """Write down that events are missing: their shard, how many, and how that is known."""
    data = {"shard": gap.shard, "missed": gap.missed, "why": gap.why, "added": gap.added}
    log.error("events were gone before they were in the audit log", **data)
    return Event(f"{now}-{gap.shard:02x}-gap", now, "audit.gap", "", "", "", data)
