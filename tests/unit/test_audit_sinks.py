"""Feeding sinks from the log's files: each event at least once, in order, and nobody waits."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from cloudevents.core.formats.json import JSONFormat

from broker.audit.log import LogWriter
from broker.audit.record import cloud_event
from broker.audit.sinks import Feed, SinkError, Stdout
from broker.clock import SystemClock
from broker.events import Event
from tests.audit_bench import BEGIN_MS, SIGNER, SOURCE, Log, segments
from tests.clocks import ManualClock
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping, Sequence
    from pathlib import Path


class Memory:
    """A sink that remembers; it fails as often as it is told."""

    def __init__(self, *failures: SinkError) -> None:
        self.failures = list(failures)
        self.got: list[list[str]] = []
        self.open = asyncio.Event()
        self.open.set()
        self.closed = False

    async def deliver(self, events: Sequence[Mapping[str, Any]]) -> None:
        await self.open.wait()
        if self.failures:
            raise self.failures.pop(0)
        self.got.append([event["id"] for event in events])

    async def close(self) -> None:
        self.closed = True

    @property
    def ids(self) -> list[str]:
        return [identifier for batch in self.got for identifier in batch]


@contextlib.asynccontextmanager
async def fed(feed: Feed) -> AsyncGenerator[Feed]:
    """Run a feed for a while."""
    task = asyncio.create_task(feed.run())
    try:
        yield feed
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def feed_of(log: Log, sink: Any, **options: Any) -> Feed:
    settings: dict[str, Any] = {"first_delay_s": 0.001, **options}
    return Feed("siem", sink, log.folder, SystemClock(), **settings)


async def has(sink: Memory, ids: list[str]) -> None:
    async def look() -> bool:
        return sink.ids == ids

    await wait_until(look, "the sink has them all, in order")


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "log", segment_bytes=4096)


# ── delivering ───────────────────────────────────────────────────────────────────────────────────


async def test_a_sink_gets_everything_in_order(log: Log) -> None:
    sink = Memory()
    async with fed(feed_of(log, sink)) as feed:
        for _ in range(5):
            feed.committed(log.add(60))
        await has(sink, log.ids())
        feed.committed(log.add(1))
        await has(sink, log.ids())

    assert max(map(len, sink.got)) <= 100


async def test_only_what_is_committed_is_delivered(log: Log) -> None:
    sink = Memory()
    async with fed(feed_of(log, sink)) as feed:
        log.add(10)
        feed.committed(4)
        await has(sink, log.ids()[:4])
        feed.committed(10)
        await has(sink, log.ids())


async def test_it_goes_on_where_it_was(log: Log) -> None:
    first, second = Memory(), Memory()
    async with fed(feed_of(log, first)) as feed:
        feed.committed(log.add(10))
        await has(first, log.ids())

        async def kept() -> bool:
            file = log.folder / "sinks" / "siem.json"
            return file.exists() and json.loads(file.read_bytes())["seq"] == 10

        await wait_until(kept, "the position is kept")
    async with fed(feed_of(log, second)) as feed:
        feed.committed(log.add(5))
        await has(second, log.ids()[10:])


async def test_a_new_sink_gets_all_that_there_is(log: Log) -> None:
    size = log.add(150)
    sink = Memory()
    async with fed(feed_of(log, sink)) as feed:
        feed.committed(size)
        await has(sink, log.ids())


async def test_types_choose_by_how_they_begin(log: Log) -> None:
    sink = Memory()
    async with fed(feed_of(log, sink, types=["grant.", "task.ended"])) as feed:
        for kind in ("grant.activated", "granted", "task.ended", "task.opened", "x.grant."):
            feed.committed(log.add(1, kind))
        ids = log.ids()
        await has(sink, [ids[0], ids[2]])

        async def idle() -> bool:
            return feed.waiting == 0

        await wait_until(idle, "what it doesn't want counts as done")


async def test_failures_are_retried_until_they_end(log: Log) -> None:
    failures: list[str] = []
    sink = Memory(*(SinkError("no answer") for _ in range(5)))
    async with fed(feed_of(log, sink, on_failure=failures.append)) as feed:
        feed.committed(log.add(250))
        await has(sink, log.ids())

        async def well() -> bool:
            return not feed.problem

        await wait_until(well, "it is well again")
    assert failures == ["siem"] * 5


async def test_a_mistake_of_ours_shows_and_is_tried_again(log: Log) -> None:
    class Broken(Memory):
        broken = True

        async def deliver(self, events: Sequence[Mapping[str, Any]]) -> None:
            if self.broken:
                self.broken = False
                raise KeyError("oops")
            await super().deliver(events)

    sink = Broken()
    failures: list[str] = []
    async with fed(feed_of(log, sink, on_failure=failures.append)) as feed:
        feed.committed(log.add(3))
        await has(sink, log.ids())
    assert failures == ["siem"]


async def test_a_batch_that_is_too_large_is_halved(log: Log) -> None:
    sink = Memory(*(SinkError("413", too_large=True) for _ in range(3)))
    async with fed(feed_of(log, sink)) as feed:
        feed.committed(log.add(100))
        await has(sink, log.ids())

    assert [len(batch) for batch in sink.got[:2]] == [12, 13]


async def test_a_hanging_sink_falls_behind_and_nothing_else_happens(log: Log) -> None:
    sink, healthy = Memory(), Memory()
    sink.open.clear()
    async with (
        fed(feed_of(log, sink)) as feed,
        fed(Feed("other", healthy, log.folder, SystemClock())) as other,
    ):
        for _ in range(20):
            size = log.add(100)
            feed.committed(size)
            other.committed(size)
        await has(healthy, log.ids())

        async def behind() -> bool:
            return feed.waiting > 0

        await wait_until(behind, "it shows that the sink is behind")
        assert feed.lag_ms == 0  # these events are from the future
        assert sink.got == []
        sink.open.set()
        await has(sink, log.ids())


async def test_its_lag_is_the_age_of_the_oldest_event_it_lacks(log: Log) -> None:
    clock = ManualClock(BEGIN_MS / 1000 + 100)
    sink = Memory()
    sink.open.clear()
    async with fed(Feed("siem", sink, log.folder, clock)) as feed:
        feed.committed(log.add(3))

        async def lags() -> bool:
            return feed.lag_ms == 100_000

        await wait_until(lags, "the lag shows")
        clock.advance(20)
        assert feed.lag_ms == 120_000
        assert feed.waiting == 3
        sink.open.set()

        async def caught_up() -> bool:
            return feed.lag_ms == feed.waiting == 0

        await wait_until(caught_up, "it has caught up")


async def test_of_two_replicas_on_one_folder_one_delivers(log: Log) -> None:
    sink = Memory()
    size = log.add(50)
    async with fed(feed_of(log, sink)) as one, fed(feed_of(log, sink)) as other:
        one.committed(size)
        other.committed(size)
        await has(sink, log.ids())
        size = log.add(50)
        one.committed(size)
        other.committed(size)
        await has(sink, log.ids())


async def test_what_was_delivered_from_a_log_that_was_set_back_is_delivered_anew(
    tmp_path: Path, log: Log
) -> None:
    sink = Memory()
    log.add(4)
    kept = log.writer.head
    async with fed(feed_of(log, sink)) as feed:
        feed.committed(log.add(4))
        await has(sink, log.ids())
        before = log.ids()
        log.writer.close()
        log.writer = LogWriter.open(log.folder, signer=SIGNER, clock=SystemClock(), head=kept)
        feed.committed(4)
        event = Event(f"{BEGIN_MS}-09-0", BEGIN_MS, "test", "", "", "", {})
        for sequence in range(6):
            event = Event(f"{BEGIN_MS}-09-{sequence}", BEGIN_MS, "test", "", "", "", {})
            log.writer.append([cloud_event(event, source=SOURCE)], {})
        feed.committed(10)

        await has(sink, before + log.ids())


async def test_a_changed_record_holds_nothing_up_for_ever(log: Log) -> None:
    sink = Memory()
    log.add(50)
    [path, *_] = segments(log.folder)
    path.write_bytes(path.read_bytes().replace(b'"number":3}', b'"number":9}'))
    async with fed(feed_of(log, sink)) as feed:
        feed.committed(50)

        async def all_there() -> bool:
            return set(sink.ids) == set(log.ids()) and feed.waiting == 0

        await wait_until(all_there, "everything is delivered")


async def test_a_damaged_line_shows_and_delivery_goes_on_once_it_is_mended(log: Log) -> None:
    sink = Memory()
    log.add(5)
    [path] = segments(log.folder)
    good = path.read_bytes()
    path.write_bytes(good.replace(b'"seq":3}', b'"seq":x}'))
    async with fed(feed_of(log, sink)) as feed:
        feed.committed(5)

        async def shows() -> bool:
            return bool(feed.problem)

        await wait_until(shows, "it says that the log can't be read")
        path.write_bytes(good)
        await has(sink, log.ids())


async def test_a_place_that_cant_be_written_delivers_nothing_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "sinks").touch()
    feed = Feed("siem", Memory(), tmp_path, SystemClock())
    async with fed(feed):

        async def shows() -> bool:
            return bool(feed.problem)

        await wait_until(shows, "it says so")


# ── standard output ──────────────────────────────────────────────────────────────────────────────


async def test_standard_output_gets_a_cloudevent_a_line(log: Log) -> None:
    reading, writing = os.pipe()
    async with fed(feed_of(log, Stdout(writing))) as feed:
        feed.committed(log.add(30))
        with os.fdopen(reading) as lines:
            got = [await asyncio.to_thread(lines.readline) for _ in range(30)]
    os.close(writing)

    read = [JSONFormat().read(None, line) for line in got]
    assert [event.get_id() for event in read] == log.ids()
    assert {event.get_source() for event in read} == {SOURCE}
    assert {event.get_type() for event in read} == {"broker.test"}


async def test_a_reader_that_stops_reading_is_waited_for_by_nobody_else(log: Log) -> None:
    reading, writing = os.pipe()
    async with fed(feed_of(log, Stdout(writing))) as feed:
        feed.committed(log.add(2000))  # more than a pipe holds

        async def behind() -> bool:
            return feed.waiting > 0

        await wait_until(behind, "it is behind")
        with os.fdopen(reading, "rb") as lines:
            got = [await asyncio.to_thread(lines.readline) for _ in range(2000)]
    os.close(writing)

    assert [json.loads(line)["id"] for line in got] == log.ids()


async def test_a_reader_that_has_gone_is_a_failure(log: Log) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with pytest.raises(SinkError, match="Broken pipe"):
        await Stdout(writing).deliver([{"id": "1"}])
    os.close(writing)
