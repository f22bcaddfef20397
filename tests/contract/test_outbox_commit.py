"""The outbox: one replica drains, how far the log goes is kept, and nothing goes before."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from broker.batches import CommitPoint
from broker.dev.engines import Valkey
from broker.ledger import keys
from broker.ledger.models import LedgerTimes
from broker.ledger.outbox import Outbox
from tests.contract.ledger_bench import Bench
from tests.contract.outbox_bench import (
    add,
    all_read,
    drain,
    emit,
    stream,
)
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path


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


async def test_in_a_ledger_that_was_lost_the_same_fence_is_no_right(
    bench: Bench, outbox: Outbox
) -> None:
    before = await outbox.lease("before")
    await bench.connection.command("FLUSHALL")
    after = await outbox.lease("after")
    assert before
    assert after
    assert before.fence == after.fence
    assert not await outbox.commit("before", CommitPoint(before.fence, "its head", 1), {})
    assert await outbox.commit("after", CommitPoint(after.fence, "a head", 2), {})


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
