"""The outbox: every event is read once, in one order, and what is missing shows."""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING

import pytest

from broker.dev.engines import Valkey
from broker.ledger import keys
from broker.ledger.models import LedgerTimes
from broker.ledger.outbox import Outbox
from tests.contract.ledger_bench import SHARDS, Bench
from tests.contract.outbox_bench import (
    Cursor,
    add,
    all_read,
    drain,
    emit,
    everything,
    settled,
    stream,
)
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator


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


async def test_a_clock_that_was_set_back_and_catches_up_makes_no_gap(
    bench: Bench, outbox: Outbox
) -> None:
    """Events whose ids are ahead are read at once; they aren't missed while they become young."""
    seconds, micros = await bench.connection.command("TIME")
    ahead = int(seconds) * 1000 + int(micros) // 1000 + 1400
    await add(bench, 3, f"{ahead}-0", type="test", data="{}")
    events, gaps, cursor = await drain(outbox)
    assert (len(events), gaps) == (1, [])

    async def caught_up() -> bool:
        batch = await outbox.read(cursor)
        gaps.extend(batch.gaps)
        return batch.at > ahead

    await wait_until(caught_up, "the clock has caught up")
    assert gaps == []
