"""Sinks: more places that events are delivered to, each at least once and in order.

A sink is fed from the log's files, from a position of its own that is kept beside them and written
after each delivery. So one that hangs takes no memory, and holds up neither the log nor issuing; it
only falls behind, and that shows. Replicas that share a folder share its positions: one of them
delivers.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import threading
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Protocol

from broker.audit.errors import LogDamaged
from broker.audit.files import make_folder, write_whole
from broker.audit.reader import Bookmark, Chunk, read_chunk
from broker.audit.record import TYPE_PREFIX, canonical
from broker.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from broker.clock import Clock

log = get_logger("audit")
BATCH: Final = 100
_FIRST_DELAY_S: Final = 0.5
_LONGEST_DELAY_S: Final = 60.0
_LONGEST_WAIT_S: Final = 600.0
"""No server's Retry-After is honoured for longer."""
_SHARED_S: Final = 2.0
"""How often it is tried to take over a sink that another replica feeds."""


class SinkError(Exception):
    """A delivery failed, or nobody knows; it is tried again. The text is for the log.

    ``wait_s`` is how long the sink wants to be left alone; ``too_large`` that it would take less;
    ``refused`` that it won't take this, now or later.
    """

    def __init__(
        self, problem: str, *, wait_s: float = 0.0, too_large: bool = False, refused: bool = False
    ) -> None:
        super().__init__(problem)
        self.problem = problem
        self.wait_s = wait_s
        self.too_large = too_large
        self.refused = refused


class Sink(Protocol):
    """Where events go."""

    async def deliver(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Return once these CloudEvents have arrived.

        Raises:
            SinkError: they haven't, as far as is known.
        """
        ...

    async def close(self) -> None:
        """Let go of what is held open."""
        ...


class Stdout:
    """Writes one JSON line an event to standard output, or to another descriptor.

    A reader that stops reading blocks a thread that nobody waits for at the end.
    """

    def __init__(self, descriptor: int = 1) -> None:
        """Nothing is written yet."""
        self._descriptor = descriptor

    async def deliver(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Write the lines."""
        content = b"".join(canonical(event) + b"\n" for event in events)
        loop = asyncio.get_running_loop()
        written: asyncio.Future[None] = loop.create_future()

        def settle(error: OSError | None) -> None:
            if written.done():
                return
            if error is None:
                written.set_result(None)
            else:
                written.set_exception(SinkError(error.strerror or "can't be written"))

        def write() -> None:
            failed: OSError | None = None
            left = memoryview(content)
            try:
                while left:
                    left = left[os.write(self._descriptor, left) :]
            except OSError as error:
                failed = error
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, failed)

        threading.Thread(target=write, daemon=True, name="audit-stdout").start()
        await written

    async def close(self) -> None:
        """Nothing is held open."""


@dataclass(frozen=True, slots=True)
class FeedKind:
    """What is fed: ``folder`` is where, beside the log, its positions are kept.

    With ``from_now`` one that has no position yet gets what happens from now on, and nothing older.
    """

    word: str
    folder: str
    from_now: bool = False


SINK: Final = FeedKind("sink", "sinks")


class Feed:
    """Feeds one sink from the log's files."""

    def __init__(
        self,
        name: str,
        sink: Sink,
        folder: Path,
        clock: Clock,
        *,
        kind: FeedKind = SINK,
        types: Sequence[str] = (),
        on_failure: Callable[[str], None] = lambda _: None,
        first_delay_s: float = _FIRST_DELAY_S,
    ) -> None:
        """``types`` are the beginnings of the types the sink gets, or all; see ``run``."""
        self.name = name
        self.kind = kind
        self.waiting = 0
        """How many records the sink hasn't got yet, those included that it needn't get."""
        self.problem = ""
        """Why the last delivery failed, until one succeeds."""
        self._sink = sink
        self._folder = folder
        self._clock = clock
        self._types = tuple(TYPE_PREFIX + prefix for prefix in types)
        self._on_failure = on_failure
        self._first_delay_s = first_delay_s
        self._until = 0
        self._oldest: float | None = None
        self._woken, self._idle = asyncio.Event(), asyncio.Event()
        self._begin: int | None = None
        self._file = folder / kind.folder / f"{name}.json"
        self._unsaved = False
        self._seam = -1

    @property
    def _me(self) -> dict[str, str]:
        return {self.kind.word: self.name}

    @property
    def lag_ms(self) -> int:
        """How long ago the oldest event happened that the sink hasn't got."""
        return 0 if self._oldest is None else max(0, int((self._clock.now() - self._oldest) * 1000))

    def committed(self, size: int) -> None:
        """So many records are committed now."""
        self._until = size
        if self._begin is None:
            self._begin = size
        self._idle.clear()
        self._woken.set()

    async def caught_up(self) -> None:
        """Wait until the sink has got everything."""
        await self._idle.wait()

    async def run(self) -> None:
        """Deliver what is committed, and what will be, until cancelled."""
        while True:
            lock = await asyncio.to_thread(self._lock)
            if lock is not None:
                try:
                    await self._feed()
                except Exception as error:
                    # A mistake of ours must show, and end nothing for good.
                    log.exception("feeding failed", **self._me)
                    self._failed(SinkError(f"feeding it failed: {type(error).__name__}"))
                finally:
                    os.close(lock)
            await asyncio.sleep(_SHARED_S)

    async def close(self) -> None:
        """Let go of what the sink holds open."""
        await self._sink.close()

    async def _feed(self) -> None:
        place = await asyncio.to_thread(self._load)
        if place is None:
            place = await self._from_now()
        while True:
            self._woken.clear()
            chunk = await self._read(place)
            if chunk is None:
                continue
            if chunk.absent:
                log.info("records are not in this folder", **self._me, count=chunk.absent)
            if chunk.events:
                await self._hand_over(chunk)
            place = self._go_back(chunk.after) if chunk.broken else chunk.after
            if self._unsaved:
                await asyncio.to_thread(self._save, place)
            if not chunk.events and not chunk.broken:
                self.waiting, self._oldest = 0, None
                if not self._woken.is_set():
                    self._idle.set()
                await self._woken.wait()

    async def _from_now(self) -> Bookmark:
        """Return where the log ended when this process first heard of it, and keep that."""
        while self._begin is None:
            await self._woken.wait()
        place = Bookmark(self._begin)
        await asyncio.to_thread(self._save, place)
        return place

    def _go_back(self, place: Bookmark) -> Bookmark:
        """Deliver a segment again: the log isn't what it was when it was delivered.

        Not a second time from the same record: then it was changed, which is for others to find.
        """
        if place.seq == self._seam:
            return place.unchecked()
        log.warning("the log was set back; a segment is delivered again", **self._me)
        self._seam = place.seq
        return Bookmark(place.segment)

    async def _read(self, place: Bookmark) -> Chunk | None:
        try:
            return await asyncio.to_thread(
                read_chunk, self._folder, place, until=self._until, limit=BATCH
            )
        except (LogDamaged, OSError) as error:
            self._failed(SinkError(f"the log can't be read: {type(error).__name__}"))
            await asyncio.sleep(_SHARED_S)
            return None

    async def _hand_over(self, chunk: Chunk) -> None:
        self.waiting = self._until - chunk.after.seq + len(chunk.events)
        self._oldest = _time(chunk.events[0])
        wanted = [e for e in chunk.events if not self._types or e["type"].startswith(self._types)]
        parts = [wanted] if wanted else []
        tries = 0
        while parts:
            try:
                await self._sink.deliver(parts[0])
            except SinkError as error:
                self._failed(error)
                if error.too_large and len(parts[0]) > 1:
                    half = len(parts[0]) // 2
                    parts[:1] = [parts[0][:half], parts[0][half:]]
                    continue
                await asyncio.sleep(self._delay(tries, error.wait_s))
                tries += 1
            else:
                parts.pop(0)
                tries = 0
        if wanted:
            self._succeeded()
        self._unsaved = True

    def _delay(self, tries: int, wanted_s: float) -> float:
        """Return how long to wait: doubling, up to a minute, and never two sinks in step."""
        longest = min(self._first_delay_s * 2 ** min(tries, 20), _LONGEST_DELAY_S)
        jitter = random.uniform(longest / 2, longest)  # noqa: S311  no secret, only not in step
        return max(jitter, min(wanted_s, _LONGEST_WAIT_S))

    def _failed(self, error: SinkError) -> None:
        if not self.problem:
            log.warning("a delivery fails", **self._me, problem=error.problem)
        self.problem = error.problem
        self._on_failure(self.name)

    def _succeeded(self) -> None:
        if self.problem:
            log.info("deliveries succeed again", **self._me)
        self.problem = ""

    def _load(self) -> Bookmark | None:
        """Return where it was; None if that is to be where the log ends."""
        try:
            return Bookmark.from_json(self._file.read_bytes())
        except OSError:
            return None if self.kind.from_now else Bookmark()

    def _save(self, place: Bookmark) -> None:
        try:
            write_whole(self._file, place.to_json().encode())
        except OSError as error:
            # It was delivered all the same; after a restart it would be again.
            log.warning("its position isn't kept", **self._me, problem=error.strerror)
        self._unsaved = False

    def _lock(self) -> int | None:
        """Become the replica that feeds the sink from this folder; None if there is another."""
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            make_folder(self._file.parent)
            descriptor = os.open(self._file.with_suffix(".lock"), flags, 0o600)
        except OSError as error:
            self._failed(SinkError(f"its position can't be kept: {error.strerror}"))
            return None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        return descriptor


def _time(event: Mapping[str, Any]) -> float | None:
    try:
        return datetime.fromisoformat(event["time"]).timestamp()
    except (KeyError, TypeError, ValueError):
        return None
