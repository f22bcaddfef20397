"""Two replicas at once: nothing is issued under what ends, and no claims overlap."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from secrets import randbelow
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import LedgerUnavailable, TaskNotActive
from broker.grants import Grant, GrantState
from broker.ledger.models import HandleRetired, LedgerTimes
from broker.tasks import TaskState
from tests.contract.ledger_bench import HOUR, SHARDS, Bench
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any

    from broker.config import Config
    from broker.dev.stack import DevStack
    from broker.events import Event
    from broker.ledger.models import Claimed
    from broker.tasks import Task

TASKS = 40
EVERY_SHARD = range(SHARDS)
SHORT = LedgerTimes(claim_ms=300, pending_ms=300)


def by_id(claimed: Claimed) -> list[str]:
    return [row.id for row in (*claimed.tasks, *claimed.grants)]


async def scattered(work: Coroutine[Any, Any, Any]) -> Any:
    """Begin some passes of the loop later: what begins at once travels together, in order."""
    for _ in range(randbelow(30)):
        await asyncio.sleep(0)
    return await work


async def test_nothing_is_issued_under_a_task_that_is_ending(bench: Bench, other: Bench) -> None:
    tasks = [await bench.open(shard=i % SHARDS) for i in range(TASKS)]

    async def issue(task: Task) -> GrantState | None:
        try:
            return (await bench.activate(await bench.reserve(task))).state
        except TaskNotActive:
            return None

    work: list[Coroutine[Any, Any, Any]] = []
    for task in tasks:
        work += [issue(task), issue(task), other.end(task), issue(task), issue(task)]
    outcomes = await asyncio.gather(*map(scattered, work))

    assert {GrantState.ACTIVE, None} <= set(outcomes), "no race was run"
    for task in tasks:
        states = {grant.state for grant in await bench.queries.grants_of(task.id)}
        assert states <= {GrantState.REVOKING}
    await bench.check_tables()


async def test_no_child_is_opened_below_a_parent_that_is_ending(bench: Bench, other: Bench) -> None:
    parents = [await bench.open(shard=i % SHARDS) for i in range(TASKS)]

    async def child(parent: Task) -> Task | None:
        try:
            return await bench.open(parent)
        except TaskNotActive:
            return None

    work: list[Coroutine[Any, Any, Any]] = []
    for parent in parents:
        work += [child(parent), other.end(parent, TaskState.REVOKED), child(parent)]
    opened = await asyncio.gather(*map(scattered, work))

    children = [await bench.queries.children_of(parent.id) for parent in parents]
    assert 0 < sum(map(len, children)) < 2 * TASKS, "no race was run"
    assert sum(map(len, children)) == sum(isinstance(one, type(parents[0])) for one in opened)
    for child_id in (child_id for below in children for child_id in below):
        held = await bench.queries.task(child_id)
        assert held is not None
        assert held.state is TaskState.REVOKED
    await bench.check_tables()


async def test_no_more_than_the_quota_is_issued_at_once(bench: Bench, other: Bench) -> None:
    task = await bench.open()
    tries = [b.reserve(task, max_live=3) for b in (bench, other) for _ in range(10)]
    done = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(not isinstance(one, BaseException) for one in done) == 3


async def test_a_handle_is_never_retired_under_a_grant_being_minted(
    bench: Bench, other: Bench
) -> None:
    tasks = [await bench.open(shard=i % SHARDS) for i in range(TASKS)]

    async def race(task: Task) -> tuple[object, str]:
        reserve, retire = await asyncio.gather(
            bench.reserve(task), other.handle(task, "retire"), return_exceptions=True
        )
        assert isinstance(retire, str)
        return reserve, retire

    for reserve, retire in await asyncio.gather(*map(race, tasks)):
        assert isinstance(reserve, HandleRetired) is (retire == "active")


async def test_what_a_dead_replica_claimed_comes_back_to_one_other_only(
    engines: tuple[DevStack, Config], bench: Bench, other: Bench
) -> None:
    dead = Bench(engines[1].redis.url, SHORT)
    # Grants being revoked, and chains of which each part has a claim of its own.
    for shard in EVERY_SHARD:
        task = await dead.open(shard=shard)
        await dead.revoke(*[await dead.grant_in(GrantState.ACTIVE, task) for _ in range(5)])
        parent = await dead.open(shard=shard)
        await dead.open(parent)
        await dead.end(parent)
    until = await dead.queries.now() + SHORT.claim_ms
    await dead.close()

    async def claims_are_over() -> bool:
        return await bench.queries.now() > until

    await wait_until(claims_are_over, "the claims of the dead have run out")
    claims = await asyncio.gather(
        *(b.ledger.claim_due(EVERY_SHARD, limit=3) for _ in range(10) for b in (bench, other))
    )
    taken = [item for claim in claims for item in by_id(claim)]
    assert len(taken) == SHARDS * (5 + 2)
    assert len(set(taken)) == len(taken)
    assert by_id(await other.ledger.claim_due(EVERY_SHARD, limit=100)) == []


async def test_one_sweep_claims_each_part_of_a_chain_once(bench: Bench) -> None:
    """Parent, child and grants, all due by their own times, and ended by the cascade as well."""
    parent = await bench.open(ttl_ms=HOUR)
    child = await bench.open(parent, ttl_ms=HOUR)
    await bench.grant_in(GrantState.ACTIVE, parent)
    await bench.grant_in(GrantState.PENDING, child)
    claimed = await bench.ledger.claim_due(
        EVERY_SHARD, limit=100, horizon_ms=parent.expires_at + HOUR
    )
    assert sorted(by_id(claimed)) == sorted(set(by_id(claimed)))
    assert len(claimed.tasks) == len(claimed.grants) == 2
    await bench.check_tables()


async def test_a_silent_task_is_ended_and_one_that_is_heard_of_is_not(bench: Bench) -> None:
    silent = await bench.open(heartbeat_ms=60_000)
    heard = await bench.open(heartbeat_ms=120_000)
    later = silent.heartbeat_due + 1000
    claimed = await bench.ledger.claim_due(EVERY_SHARD, limit=10, horizon_ms=later)
    assert [(task.id, task.reason) for task in claimed.tasks] == [(silent.id, "heartbeat_lost")]
    before = (await bench.task(heard)).heartbeat_due
    assert (await bench.ledger.heartbeat(heard.id)).heartbeat_due >= before
    await bench.check_tables()


async def test_reading_on_from_the_last_event_never_misses_one(bench: Bench, other: Bench) -> None:
    each = 60
    stop = asyncio.Event()

    async def write(which: Bench, name: str) -> None:
        for n in range(each):
            await which.ledger.record("test", shard=n * 5 % SHARDS, actor=name, data={"n": n})

    async def read(limit: int) -> list[Event]:
        seen: list[Event] = []
        idle = 0
        while not stop.is_set() or idle < 10:
            after = seen[-1].id if seen else ""
            page = await other.queries.events(after=after, limit=limit)
            seen += page.items
            idle = idle + 1 if stop.is_set() and not page.items else 0
        return seen

    names = [f"writer-{n}" for n in range(6)]
    readers = [asyncio.ensure_future(read(limit)) for limit in (1, 7, 500)]
    await asyncio.gather(*(write((bench, other)[n % 2], name) for n, name in enumerate(names)))
    stop.set()
    for seen in await asyncio.gather(*readers):
        assert len({event.id for event in seen}) == len(seen)
        assert sorted((event.principal, event.data["n"]) for event in seen) == sorted(
            (name, n) for name in names for n in range(each)
        )


OPS = st.sampled_from(
    ["open", "child", "reserve", "activate", "fail", "revoke", "confirm", "give_up", "end",
     "close", "claim", "hasten", "drop", "heartbeat"]
)  # fmt: skip


@settings(max_examples=25)
@given(ops=st.lists(st.tuples(OPS, st.integers(0, 5)), max_size=40))
def test_the_indexes_fit_the_rows_after_any_operations_and_prune_leaves_nothing(
    engines: tuple[DevStack, Config], ops: list[tuple[str, int]]
) -> None:
    asyncio.run(_play(engines[1].redis.url, ops))


async def _play(url: str, ops: list[tuple[str, int]]) -> None:
    bench = Bench(url, replace(LedgerTimes(), retain_ms=0, pending_ms=0))
    try:
        await bench.connection.command("FLUSHALL")
        tasks, grants = [await bench.open(heartbeat_ms=1000)], list[Grant]()
        for op, n in ops:
            try:
                await _do(bench, op, tasks, tasks[n % len(tasks)], grants, n)
            except (TaskNotActive, LedgerUnavailable, HandleRetired):
                continue  # this operation isn't for a row in that state: see the tests of moves
        await bench.check_tables()
        assert await bench.ledger.prune() >= 0
        await bench.check_tables()
        for task in tasks:
            if (await bench.queries.task(task.id)) is not None:
                await bench.end(task, TaskState.REVOKED)
        await bench.revoke(*grants)
        for grant in grants:
            if (await bench.queries.grant(grant.id)) is not None:
                await bench.confirm(grant)
        for task in tasks:
            await bench.handle(task, "drop")
            await bench.ledger.close_task(task.id, actor="broker")
        await bench.ledger.prune()
        left = {key.decode() for key in await bench.connection.command("KEYS", "*")}
        assert {key.rpartition(":")[2] for key in left} == {"audit"}
    finally:
        await bench.close()


async def _do(  # noqa: C901, PLR0912  one branch an operation
    bench: Bench, op: str, tasks: list[Task], task: Task, grants: list[Grant], n: int
) -> None:
    if op == "open":
        tasks.append(await bench.open(shard=n))
    elif op == "child":
        tasks.append(await bench.open(task))
    elif op == "reserve":
        grants.append(await bench.reserve(task))
    elif op == "end":
        await bench.end(task)
    elif op == "close":
        await bench.ledger.close_task(task.id, actor="broker")
    elif op == "claim":
        horizon = await bench.queries.now() + n * HOUR // 4
        await bench.ledger.claim_due(EVERY_SHARD, limit=n + 1, horizon_ms=horizon)
    elif op == "hasten":
        await bench.ledger.hasten("vault", "orders-read")
    elif op == "drop":
        await bench.handle(task, "drop")
    elif op == "heartbeat":
        await bench.ledger.heartbeat(task.id)
    elif grants:
        grant = grants[n % len(grants)]
        if op == "activate":
            await bench.activate(grant)
        elif op == "fail":
            await bench.ledger.fail(grant, error="no", actor="broker")
        elif op == "revoke":
            await bench.revoke(grant)
        elif op == "confirm":
            await bench.confirm(grant)
        else:
            await bench.retry(grant, 2)
