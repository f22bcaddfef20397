"""Draining on real servers: in turns, in time, and what is missing, set back or changed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

import pytest

from broker.audit.drain import DrainStep
from broker.dev.engines import Valkey
from broker.errors import AuditUnavailable, LedgerUnavailable
from broker.ledger import keys
from tests.audit_bench import (
    SOURCE,
    Replica,
    assert_whole,
    drained,
    emit,
    events_of,
    lease_runs_out,
    records,
    segments,
)
from tests.clocks import ManualClock
from tests.contract.ledger_bench import Bench
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Generator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("v")) as server:
        yield server


@pytest.fixture
async def bench(valkey: Valkey) -> AsyncGenerator[Bench]:
    made = Bench(valkey.url)
    await made.connection.command("FLUSHALL")
    yield made
    await made.close()


# ── the ordinary ─────────────────────────────────────────────────────────────────────────────────


async def test_events_become_records_of_the_log(bench: Bench, tmp_path: Path) -> None:
    replica = Replica(bench, tmp_path / "log")
    await emit(bench, 50)

    await drained(bench, replica)

    events = await assert_whole(bench, tmp_path / "log")
    assert {e["source"] for e in events} == {SOURCE}
    assert {e["type"] for e in events} == {"broker.test"}
    assert replica.committed[-1] == 50
    head = json.loads((await replica.outbox.point()).head)
    assert head["size"] == 50
    assert replica.guard.state() == "ok"
    report = await replica.drain.run_once()
    assert (report.drained, report.size, report.holder) == (0, 50, True)
    assert report.lag_ms < 1000
    await replica.drain.stop()


async def test_one_replica_drains_and_the_other_takes_over(bench: Bench, tmp_path: Path) -> None:
    clock = ManualClock()
    first, second = (Replica(bench, tmp_path / "log", clock=clock) for _ in range(2))
    await emit(bench, 5)
    await drained(bench, first)

    assert not (await second.drain.run_once()).holder
    await emit(bench, 5)
    await first.drain.stop()
    clock.advance(1)
    await drained(bench, second)

    assert len(await assert_whole(bench, tmp_path / "log")) == 10
    await second.drain.stop()


async def test_who_was_away_too_long_commits_nothing(bench: Bench, tmp_path: Path) -> None:
    away = Replica(bench, tmp_path / "a")
    await emit(bench, 5)
    await drained(bench, away)
    await lease_runs_out(bench)
    heir = Replica(bench, tmp_path / "b")
    await emit(bench, 5)
    await drained(bench, heir)
    await emit(bench, 5)

    async def noticed() -> bool:
        return not (await away.drain.run_once()).holder

    await wait_until(noticed, "it notices that another has taken over")
    assert away.committed[-1] == 5
    await drained(bench, heir)
    await heir.drain.stop()
    await away.drain.stop()
    await assert_whole(bench, tmp_path / "a", tmp_path / "b")


async def test_checkpoints_are_signed_now_and_then_and_at_the_end(
    bench: Bench, tmp_path: Path
) -> None:
    clock = ManualClock()
    replica = Replica(bench, tmp_path, clock=clock, checkpoint_ms=10_000)

    def signed() -> int:
        return int((tmp_path / "checkpoints" / "latest").read_text().splitlines()[1])

    async def settled() -> bool:
        return len((await replica.outbox.read({})).events) == 5

    await emit(bench, 5)
    await wait_until(settled, "the first run can read all five")
    await replica.drain.run_once()
    assert signed() == 5
    await emit(bench, 5)
    await drained(bench, replica)
    assert signed() == 5
    clock.advance(10)
    await replica.drain.run_once()
    assert signed() == 10
    await emit(bench, 5)
    await replica.drain.stop()
    assert signed() == 15
    assert len(await assert_whole(bench, tmp_path)) == 15
    assert await bench.connection.command("EXISTS", keys.lease("audit")) == 0


async def test_an_idle_log_keeps_its_lease_and_says_that_it_is_up_to_date(
    bench: Bench, tmp_path: Path
) -> None:
    clock = ManualClock()
    replica = Replica(bench, tmp_path, clock=clock)
    await replica.drain.run_once()
    before = (await replica.outbox.point()).at
    await bench.connection.command("PEXPIRE", keys.lease("audit"), 5000)

    clock.advance(4)
    await replica.drain.run_once()

    assert (await replica.outbox.point()).at > before
    assert await bench.connection.command("PTTL", keys.lease("audit")) > 5000
    await replica.drain.stop()


async def test_old_segments_are_forgotten(bench: Bench, tmp_path: Path) -> None:
    replica = Replica(bench, tmp_path, segment_bytes=1024, retention_ms=1)
    for _ in range(4):
        await emit(bench, 20)
        await drained(bench, replica)
    await replica.drain.stop()
    assert len(segments(tmp_path)) > 1

    later = Replica(bench, tmp_path, segment_bytes=1024, retention_ms=1)
    await emit(bench, 1)
    await drained(bench, later)

    assert len(segments(tmp_path)) == 1
    assert (tmp_path / "forgotten").exists()
    await later.drain.stop()


async def test_a_run_that_is_cancelled_ends_all_the_same(bench: Bench, tmp_path: Path) -> None:
    replica = Replica(bench, tmp_path)
    await emit(bench, 50)
    for _ in range(20):
        run = asyncio.ensure_future(replica.drain.run_once())
        await asyncio.sleep(0)
        run.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await run
        await emit(bench, 1)

    await replica.drain.stop()

    await assert_whole(bench, tmp_path)


# ── what is missing ──────────────────────────────────────────────────────────────────────────────


async def test_deleted_events_are_a_gap_in_the_log_itself(bench: Bench, tmp_path: Path) -> None:
    replica = Replica(bench, tmp_path)
    await emit(bench, 4, shard=3)
    await drained(bench, replica)
    await emit(bench, 5, shard=3)
    rows: Any = await bench.connection.client.xrange(keys.table(3, "audit"))
    gone = [stream_id for stream_id, _ in rows[5:7]]
    await bench.connection.command("XDEL", keys.table(3, "audit"), *gone)

    async def all_drained() -> bool:
        return (await replica.drain.run_once()).size == 8

    await wait_until(all_drained, "seven events and a gap are in the log")
    [gap] = [e for e in records(tmp_path) if e["type"] == "broker.audit.gap"]
    assert gap["data"]["added"] in range(7, 10)  # the last ones may have come after it was noticed
    assert gap["data"] == {**gap["data"], "shard": 3, "missed": 2, "why": "deleted"}
    others = [e["id"] for e in records(tmp_path) if e["type"] == "broker.test"]
    assert others == await events_of(bench)
    await replica.drain.stop()
    # Whoever goes on knows of it, and finds no other.
    other = Replica(bench, tmp_path)
    await emit(bench, 1, shard=3)
    await wait_until(lambda: _size(other, 9), "the next one is in the log")
    await other.drain.stop()
    assert [e["type"] for e in records(tmp_path)].count("broker.audit.gap") == 1


async def _size(replica: Replica, size: int) -> bool:
    return (await replica.drain.run_once()).size == size


async def test_an_emptied_ledger_leaves_its_mark_and_the_log_goes_on(
    bench: Bench, tmp_path: Path
) -> None:
    replica = Replica(bench, tmp_path)
    await emit(bench, 16)
    await drained(bench, replica)
    await replica.drain.stop()
    before = records(tmp_path)
    await bench.connection.command("FLUSHALL")
    await emit(bench, 3, shard=2)

    again = Replica(bench, tmp_path)
    await wait_until(lambda: _size(again, 16 + 3 + 8), "the log goes on")
    await again.drain.stop()

    after = records(tmp_path)
    assert after[:16] == before
    new = after[16:]
    assert [e["id"] for e in new if e["type"] == "broker.test"] == await events_of(bench)
    gaps = [e["data"] for e in new if e["type"] == "broker.audit.gap"]
    assert {gap["why"] for gap in gaps} == {"reset"}
    assert sum(gap["missed"] for gap in gaps) == -16


async def test_a_ledger_restored_from_a_backup_doesnt_shorten_the_log(
    bench: Bench, tmp_path: Path
) -> None:
    replica = Replica(bench, tmp_path, checkpoint_ms=0)
    await emit(bench, 8)
    await drained(bench, replica)
    names = [*(keys.table(shard, "audit") for shard in range(8)), keys.head()]
    backup = {name: await bench.connection.command("DUMP", name) for name in names}
    await emit(bench, 8)
    await drained(bench, replica)
    await replica.drain.stop()
    before = records(tmp_path)
    for name, content in backup.items():
        await bench.connection.command("RESTORE", name, "0", content, "REPLACE")

    again = Replica(bench, tmp_path)
    await emit(bench, 1)
    await wait_until(lambda: _size(again, 16 + 1 + 8), "the log goes on")
    await again.drain.stop()

    after = records(tmp_path)
    assert after[:16] == before
    assert len({event["id"] for event in after}) == len(after)


@pytest.mark.parametrize("what", ["all of it", "all, and it has to begin anew", "one shard"])
async def test_a_ledger_that_is_set_back_under_its_writer_is_noticed_and_the_log_goes_on(
    bench: Bench, tmp_path: Path, what: str
) -> None:
    """Nothing of what it forgets was signed; but this writer knows that it was committed."""
    replica = Replica(bench, tmp_path)
    await emit(bench, 8)
    await drained(bench, replica)
    shards = (5,) if what == "one shard" else range(8)
    names = [keys.table(shard, "audit") for shard in shards]
    if what != "one shard":
        names.append(keys.head())
    backup = {name: await bench.connection.command("DUMP", name) for name in names}
    await emit(bench, 8)
    await drained(bench, replica)
    before = records(tmp_path)
    assert replica.set_back == []
    for name, content in backup.items():
        await bench.connection.command("RESTORE", name, "0", content, "REPLACE")
    if what.endswith("anew"):
        await bench.connection.command("HINCRBY", keys.head(), "fence", 1)

    await emit(bench, 1)
    await wait_until(lambda: _size(replica, 16 + 1 + len(shards)), "the log goes on")

    assert replica.set_back
    assert records(tmp_path)[:16] == before
    await replica.drain.stop()


async def test_a_writer_that_stops_as_its_ledger_is_lost_leaves_no_lease_behind(
    bench: Bench, tmp_path: Path
) -> None:
    """It asks for its own lease back, and is given another by a ledger that knows of none."""
    away = False

    def fails(_: DrainStep) -> None:
        if away:
            raise LedgerUnavailable("It is away.")

    await emit(bench, 8)
    before = Replica(bench, tmp_path)
    await drained(bench, before)
    await before.drain.stop()
    replica = Replica(bench, tmp_path, before_step=fails)
    await drained(bench, replica)
    away = True
    with pytest.raises(LedgerUnavailable):
        await replica.drain.run_once()
    away = False
    await bench.connection.command("FLUSHALL")
    assert not (await replica.drain.run_once()).holder
    await replica.drain.stop()

    heir = Replica(bench, tmp_path)
    assert (await heir.drain.run_once()).holder
    await heir.drain.stop()


async def test_that_a_ledger_was_behind_once_excuses_no_gap_that_comes_later(
    bench: Bench, tmp_path: Path
) -> None:
    away = False

    def fails(step: DrainStep) -> None:
        if away and step is DrainStep.READ:
            raise LedgerUnavailable("It is away.")

    before = Replica(bench, tmp_path)
    await emit(bench, 8)
    await drained(bench, before)
    await before.drain.stop()
    await bench.connection.command("FLUSHALL")
    replica, away = Replica(bench, tmp_path, before_step=fails), True
    with pytest.raises(LedgerUnavailable):
        await replica.drain.run_once()
    assert len(replica.set_back) == 1
    away = False

    await replica.drain.run_once()

    assert len(replica.set_back) == 2
    await replica.drain.stop()


async def test_a_commit_point_that_is_no_such_thing_stops_the_log(
    bench: Bench, tmp_path: Path
) -> None:
    replica = Replica(bench, tmp_path)
    await bench.connection.command("HSET", keys.head(), "head", "nonsense")

    with pytest.raises(AuditUnavailable):
        await replica.drain.run_once()

    assert "unreadable" in replica.guard.state()
    await replica.drain.stop()


async def test_a_tampered_record_is_never_signed(bench: Bench, tmp_path: Path) -> None:
    clock = ManualClock()
    replica = Replica(bench, tmp_path, clock=clock)
    await emit(bench, 3)
    await drained(bench, replica)
    await emit(bench, 3)
    await drained(bench, replica)
    [segment] = segments(tmp_path)
    content = segment.read_bytes()
    segment.write_bytes(content[:-90].replace(b'"number":1', b'"number":7') + content[-90:])
    clock.advance(10)
    signed = (tmp_path / "checkpoints" / "latest").read_bytes()

    if segment.read_bytes() == content:
        pytest.fail("nothing was changed")
    with pytest.raises(AuditUnavailable, match="damaged"):
        await replica.drain.run_once()

    assert (tmp_path / "checkpoints" / "latest").read_bytes() == signed
    assert "damaged" in replica.guard.state()
    await replica.drain.stop()
