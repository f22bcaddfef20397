"""The outbox: every event is read once, in one order, and what is missing shows."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any

import pytest

from broker.batches import CommitPoint, Place
from broker.dev.engines import Valkey
from broker.ledger import keys
from broker.ledger.models import LedgerTimes
from broker.ledger.outbox import Outbox
from tests.contract.ledger_bench import SHARDS, Bench
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Mapping
    from pathlib import Path

    from broker.batches import Batch, Gap
    from broker.events import Event

Cursor = dict[int, Place]


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Generator[Valkey]:
    """A server of this module's own, whose events are tampered with."""
    with Valkey(tmp_path_factory.mktemp("v")) as server:
        yield server


@pytest.fixture
async def bench(valkey: Valkey) -> AsyncGenerator[Bench]:
    made = Bench(valkey.url, LedgerTimes(audit_ms=1))
    await made.connection.command("FLUSHALL")
    await made.connection.command("CONFIG", "SET", "stream-node-max-entries", "1")
    yield made
    await made.connection.command("CONFIG", "SET", "maxmemory", "0")
    await made.close()


@pytest.fixture
def outbox(bench: Bench) -> Outbox:
    return Outbox(bench.connection)


async def emit(bench: Bench, shard: int = 3, count: int = 1) -> None:
    for number in range(count):
        await bench.ledger.record("test", shard=shard, actor="op", data={"number": number})


async def add(bench: Bench, shard: int, stream_id: str, **fields: str) -> None:
    """Add a row as the broker never would."""
    pairs = [word for pair in fields.items() for word in pair]
    await bench.connection.command("XADD", keys.table(shard, "audit"), stream_id, *pairs)


async def stream(bench: Bench, shard: int) -> list[str]:
    """The ids in a shard's stream, by Redis itself."""
    rows: Any = await bench.connection.client.xrange(keys.table(shard, "audit"))
    return [stream_id.decode() for stream_id, _ in rows]


async def everything(bench: Bench) -> list[str]:
    """Ids of all events in their order, as the API gives them."""
    found = [
        (*map(int, stream_id.split("-")), shard)
        for shard in range(SHARDS)
        for stream_id in await stream(bench, shard)
    ]
    return [f"{ms}-{s:02x}-{seq}" for ms, s, seq in sorted((m, s, q) for m, q, s in found)]


async def drain(
    outbox: Outbox, cursor: Mapping[int, Place] | None = None, *, per_shard: int = 100
) -> tuple[list[Event], list[Gap], Cursor]:
    """Read until nothing is left that is old enough."""
    events: list[Event] = []
    gaps: list[Gap] = []
    place = dict(cursor or {})
    while True:
        batch = await outbox.read(place, per_shard=per_shard)
        events += batch.events
        gaps += batch.gaps
        place = dict(batch.cursor)
        if not batch.more:
            return events, gaps, place


async def settled(outbox: Outbox, cursor: Mapping[int, Place], last: str) -> Batch:
    """Read once the event with this id is old enough."""

    async def look() -> Batch | None:
        batch = await outbox.read(cursor)
        return batch if any(event.id == last for event in batch.events) else None

    found = await wait_until(look, f"event {last} is read")
    assert found is not None
    return found


async def all_read(
    bench: Bench, outbox: Outbox, *, per_shard: int = 100
) -> tuple[list[Event], Cursor]:
    """Drain a ledger to which nothing is being added; there must be no gap."""
    wanted = await everything(bench)

    async def look() -> tuple[list[Event], list[Gap], Cursor] | None:
        found = await drain(outbox, per_shard=per_shard)
        return found if len(found[0]) == len(wanted) else None

    found = await wait_until(look, "all events are read")
    assert found is not None
    events, gaps, cursor = found
    assert gaps == []
    assert [event.id for event in events] == wanted
    return events, cursor


# ── reading ──────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("per_shard", [1, 7, 1000])
async def test_all_shards_are_read_in_one_order(
    bench: Bench, outbox: Outbox, per_shard: int
) -> None:
    dice = random.Random(per_shard)  # noqa: S311  not for secrets
    for _ in range(150):
        await emit(bench, dice.choice((0, 1, 5, 5, 5)))

    events, cursor = await all_read(bench, outbox, per_shard=per_shard)

    assert len(events) == 150
    assert sum(count for _, count in cursor.values()) == 150
    assert set(cursor) == {0, 1, 5}
    for shard, (last, count) in cursor.items():
        ids = await stream(bench, shard)
        assert (last, count) == (ids[-1], len(ids))
    assert (await drain(outbox, cursor))[0] == []


async def test_nothing_is_passed_over_while_others_write(bench: Bench, outbox: Outbox) -> None:
    writers = [asyncio.create_task(emit(bench, shard, 120)) for shard in range(SHARDS)]
    seen: list[str] = []
    cursor: Cursor = {}
    busy = True
    while busy or len(seen) < 120 * SHARDS:
        busy = not all(task.done() for task in writers)
        events, gaps, cursor = await drain(outbox, cursor, per_shard=10)
        assert gaps == []
        seen += [event.id for event in events]
    await asyncio.gather(*writers)

    assert seen == await everything(bench)
    assert (await drain(outbox, cursor))[:2] == ([], [])


async def test_a_batch_says_up_to_when_everything_is_read(bench: Bench, outbox: Outbox) -> None:
    await emit(bench, 2, 5)
    await emit(bench, 6, 5)
    events, _ = await all_read(bench, outbox)

    batch = await outbox.read({}, per_shard=2)

    assert batch.more
    assert {event.id for event in events if event.at <= batch.at} <= {e.id for e in batch.events}
    last = await outbox.read({}, per_shard=100)
    assert not last.more
    assert events[-1].at <= last.at < last.now


async def test_a_row_that_is_no_event_is_read_as_one_that_says_so(
    bench: Bench, outbox: Outbox
) -> None:
    await add(bench, 3, "*", secret="hunter2-canary")
    await emit(bench, 3)

    events, _ = await all_read(bench, outbox)

    assert [event.type for event in events] == ["audit.malformed", "test"]
    assert "canary" not in repr(events)
    assert events[0].data["fields"] == 1


async def test_an_id_from_the_future_keeps_no_event_waiting(bench: Bench, outbox: Outbox) -> None:
    ahead = await bench.queries.now() + 86_400_000
    fields = {"type": "test", "task": "", "grant": "", "principal": "", "data": "{}"}
    await add(bench, 3, f"{ahead}-0", **fields)
    await emit(bench, 3, 2)  # which Redis gives ids of the same time
    await emit(bench, 4)

    events, cursor = await all_read(bench, outbox)

    assert [event.at for event in events][1:] == [ahead] * 3
    assert cursor[3] == (f"{ahead}-2", 3)


# ── gaps ─────────────────────────────────────────────────────────────────────────────────────────


async def test_events_deleted_before_they_are_read_are_missed(bench: Bench, outbox: Outbox) -> None:
    await emit(bench, 3, 2)
    _, cursor = await all_read(bench, outbox)
    await emit(bench, 3, 5)
    ids = await stream(bench, 3)
    await bench.connection.command("XDEL", keys.table(3, "audit"), *ids[3:5])

    batch = await settled(outbox, cursor, "{}-03-{}".format(*ids[6].split("-")))

    assert len(batch.events) == 3
    [gap] = batch.gaps
    assert (gap.shard, gap.missed, gap.why, gap.added) == (3, 2, "deleted", 7)
    assert batch.cursor[3] == (ids[6], 7)
    assert (await drain(outbox, batch.cursor))[:2] == ([], [])


async def test_the_last_events_are_missed_too(bench: Bench, outbox: Outbox) -> None:
    await emit(bench, 3, 2)
    _, cursor = await all_read(bench, outbox)
    await emit(bench, 3, 3)
    await bench.connection.command("XTRIM", keys.table(3, "audit"), "MAXLEN", "0")

    events, [gap], _ = await drain(outbox, cursor)

    assert events == []
    assert (gap.missed, gap.why) == (3, "deleted")


async def test_what_went_before_there_was_a_log_is_told_apart(bench: Bench, outbox: Outbox) -> None:
    await emit(bench, 3, 4)
    await bench.connection.command("XTRIM", keys.table(3, "audit"), "MAXLEN", "1")
    [last] = await stream(bench, 3)

    batch = await settled(outbox, {}, "{}-03-{}".format(*last.split("-")))

    [gap] = batch.gaps
    assert (gap.missed, gap.why) == (3, "before")
    assert batch.cursor[3] == (last, 4)


async def test_trimming_what_is_read_is_no_gap(bench: Bench, outbox: Outbox) -> None:
    await emit(bench, 3, 4)
    _, cursor = await all_read(bench, outbox)
    await bench.connection.command("XTRIM", keys.table(3, "audit"), "MAXLEN", "0")

    assert (await drain(outbox, cursor))[:2] == ([], [])


async def test_an_emptied_shard_is_noticed_and_read_from_its_start(
    bench: Bench, outbox: Outbox
) -> None:
    await emit(bench, 3, 4)
    _, cursor = await all_read(bench, outbox)
    await bench.connection.command("DEL", keys.table(3, "audit"))

    _, [gap], cursor = await drain(outbox, cursor)

    assert (gap.missed, gap.why, gap.added) == (-4, "reset", 0)
    assert 3 not in cursor
    await emit(bench, 3, 2)
    assert len((await all_read(bench, outbox))[0]) == 2
    assert (await drain(outbox, cursor))[1] == []


async def test_a_shard_emptied_and_filled_again_is_noticed(bench: Bench, outbox: Outbox) -> None:
    await emit(bench, 3, 4)
    _, cursor = await all_read(bench, outbox)
    await bench.connection.command("DEL", keys.table(3, "audit"))
    await emit(bench, 3, 2)
    ids = await stream(bench, 3)

    batch = await settled(outbox, cursor, "{}-03-{}".format(*ids[-1].split("-")))

    assert len(batch.events) == 2
    [gap] = batch.gaps
    assert (gap.missed, gap.why, gap.added) == (-4, "reset", 2)
    assert batch.cursor[3] == (ids[-1], 2)


async def test_a_shard_restored_from_a_backup_is_noticed_and_nothing_read_twice(
    bench: Bench, outbox: Outbox
) -> None:
    name = keys.table(3, "audit")
    await emit(bench, 3, 2)
    backup = await bench.connection.command("DUMP", name)
    await emit(bench, 3, 3)
    _, cursor = await all_read(bench, outbox)
    await bench.connection.command("RESTORE", name, "0", backup, "REPLACE")

    events, [gap], cursor = await drain(outbox, cursor)

    assert events == []
    assert (gap.missed, gap.why) == (-3, "reset")
    ids = await stream(bench, 3)
    assert cursor[3] == (ids[-1], 2)
    # Ids that the clock, set back, gives out now lie below what was read; none is passed over.
    fields = {"type": "test", "task": "", "grant": "", "principal": "", "data": "{}"}
    await add(bench, 3, f"{ids[-1].split('-')[0]}-9", **fields)
    assert len((await drain(outbox, cursor))[0]) == 1


# ── lease and commit point ───────────────────────────────────────────────────────────────────────


async def test_one_replica_at_a_time_has_the_lease(outbox: Outbox) -> None:
    owners = [f"replica-{number}" for number in range(8)]

    held = await asyncio.gather(*(outbox.lease(owner) for owner in owners))

    assert [point.fence for point in held if point] == [1]
    winner = owners[[point is not None for point in held].index(True)]
    assert await outbox.lease(winner, 1) == CommitPoint(1)
    await outbox.release("somebody else")
    assert await outbox.lease("somebody else") is None
    await outbox.release(winner)
    assert await outbox.lease("somebody else") == CommitPoint(2)


async def test_a_dead_replicas_lease_runs_out_and_its_commit_is_refused(outbox: Outbox) -> None:
    dead = await outbox.lease("dead", ttl_ms=40)
    assert dead is not None

    heir = await wait_until(lambda: outbox.lease("heir"), "the lease runs out")

    assert heir is not None
    assert heir.fence > dead.fence
    assert not await outbox.commit("dead", CommitPoint(dead.fence, "its head", 1), {})
    assert await outbox.commit("heir", CommitPoint(heir.fence, "a head", 2), {1: ("5-0", 1)})
    assert await outbox.lease("dead", dead.fence) is None
    assert await outbox.point() == CommitPoint(heir.fence, "a head", 2)


async def test_a_lease_that_nobody_else_took_keeps_its_fence(outbox: Outbox, bench: Bench) -> None:
    point = await outbox.lease("slow", ttl_ms=1)
    assert point is not None

    async def gone() -> bool:
        return not await bench.connection.command("EXISTS", keys.lease("audit"))

    await wait_until(gone, "the lease runs out")
    assert await outbox.commit("slow", CommitPoint(point.fence, "head", 1), {}, ttl_ms=1)
    await wait_until(gone, "the lease runs out again")
    assert await outbox.lease("slow", point.fence) == CommitPoint(point.fence, "head", 1)
    # Whoever starts anew, under the same name or not, has a fence of its own.
    await outbox.release("slow")
    assert (await outbox.lease("slow")) == CommitPoint(point.fence + 1, "head", 1)


async def test_the_commit_point_stays_and_the_lease_does_not(bench: Bench, outbox: Outbox) -> None:
    point = await outbox.lease("a")
    assert point is not None
    await outbox.commit("a", CommitPoint(point.fence, "head", 7), {0: ("1-0", 1), 5: ("9-2", 4)})

    assert await bench.connection.command("PTTL", keys.head()) == -1
    assert 0 < await bench.connection.command("PTTL", keys.lease("audit")) <= 10_000
    drained = await outbox.drained()
    assert drained == ["1-0", "", "", "", "", "9-2", "", ""]


async def test_draining_goes_on_when_the_server_is_full(bench: Bench, outbox: Outbox) -> None:
    await emit(bench, 3, 2)
    await bench.connection.command("CONFIG", "SET", "maxmemory", "1")

    _, cursor = await all_read(bench, outbox)
    point = await outbox.lease("a")

    assert point is not None
    assert await outbox.commit("a", CommitPoint(point.fence, "head", 7), cursor)
    assert await outbox.waiting() == 0


# ── how long events wait ─────────────────────────────────────────────────────────────────────────


async def test_waiting_is_the_age_of_the_oldest_event_not_in_the_log(
    bench: Bench, outbox: Outbox
) -> None:
    assert await outbox.waiting() == 0
    await emit(bench, 3)
    first = await bench.queries.now()
    await emit(bench, 6)
    _, cursor = await all_read(bench, outbox)

    async def old() -> bool:
        return await outbox.waiting() > 20

    await wait_until(old, "the event grows old")
    assert await outbox.waiting() <= await bench.queries.now() - first + 5

    point = await outbox.lease("a")
    assert point is not None
    now = await bench.queries.now()
    await outbox.commit("a", CommitPoint(point.fence, "head", now), cursor)
    assert await outbox.waiting() == 0


async def test_an_event_from_the_future_waits_since_the_last_commit(
    bench: Bench, outbox: Outbox
) -> None:
    now = await bench.queries.now()
    point = await outbox.lease("a")
    assert point is not None
    await outbox.commit("a", CommitPoint(point.fence, "head", now - 5000), {})
    await add(bench, 3, f"{now + 86_400_000}-0", type="test")

    assert await outbox.waiting() >= 5000


# ── pruning ──────────────────────────────────────────────────────────────────────────────────────


async def test_what_is_not_in_the_log_is_never_pruned(bench: Bench, outbox: Outbox) -> None:
    await emit(bench, 3, 3)
    await emit(bench, 4, 3)
    _, cursor = await all_read(bench, outbox)

    async def prune(drained: list[str] | None) -> list[int]:
        await bench.ledger.prune(drained=drained)
        return [len(await stream(bench, shard)) for shard in (3, 4)]

    assert await prune(await outbox.drained()) == [3, 3]
    point = await outbox.lease("a")
    assert point is not None
    ids = await stream(bench, 3)
    await outbox.commit("a", CommitPoint(point.fence, "", 1), {3: (ids[1], 2)})
    assert await prune(await outbox.drained()) == [2, 3]
    await outbox.commit("a", CommitPoint(point.fence, "", 1), cursor)
    assert await prune(await outbox.drained()) == [1, 1]

    async def gone() -> bool:
        return await prune(None) == [0, 0]

    await wait_until(gone, "without a log age alone decides")


async def test_pruning_keeps_what_is_young_though_it_is_in_the_log(valkey: Valkey) -> None:
    keeper = Bench(valkey.url)
    try:
        await keeper.connection.command("FLUSHALL")
        await emit(keeper, 3, 3)
        ids = await stream(keeper, 3)
        drained = ["", "", "", ids[-1], "", "", "", ""]
        await keeper.ledger.prune(drained=drained)
        assert await stream(keeper, 3) == ids
    finally:
        await keeper.close()


async def test_the_outbox_survives_a_restart(tmp_path: Path) -> None:
    with Valkey(tmp_path) as server:
        before = Bench(server.url)
        await emit(before, 3, 3)
        outbox = Outbox(before.connection)
        _, cursor = await all_read(before, outbox)
        point = await outbox.lease("a")
        assert point is not None
        await outbox.commit("a", CommitPoint(point.fence, "head", 1), cursor)
        await before.close()
    with Valkey(tmp_path) as server:
        after = Bench(server.url)
        outbox = Outbox(after.connection)
        assert (await outbox.point()).head == "head"
        assert (await drain(outbox, cursor))[:2] == ([], [])
        await emit(after, 3)
        assert len((await all_read(after, outbox))[0]) == 4
        await after.close()
