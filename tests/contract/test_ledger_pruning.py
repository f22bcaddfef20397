"""What is forgotten, and when; what is asked again with the same key; who froze what."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from broker.errors import Frozen, IdempotencyConflict
from broker.grants import DEAD, GrantState
from broker.ledger.models import Idempotency, LedgerTimes
from broker.tasks import ENDED, TaskState
from tests.contract.ledger_bench import DECISION, HOUR, SHARDS, Bench

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from broker.config import Config
    from broker.dev.stack import DevStack


@pytest.fixture
async def bench(engines: tuple[DevStack, Config]) -> AsyncGenerator[Bench]:
    """A ledger that keeps nothing longer than it must."""
    made = Bench(engines[1].redis.url, replace(LedgerTimes(), retain_ms=0))
    await made.connection.command("FLUSHALL")
    yield made
    await made.close()


@pytest.fixture
async def keeper(engines: tuple[DevStack, Config]) -> AsyncGenerator[Bench]:
    """A ledger that keeps things for as long as it does by default."""
    made = Bench(engines[1].redis.url)
    await made.connection.command("FLUSHALL")
    yield made
    await made.close()


@pytest.mark.parametrize("state", list(GrantState))
async def test_only_a_dead_grant_is_pruned(bench: Bench, state: GrantState) -> None:
    grant = await bench.grant_in(state)
    assert await bench.ledger.prune() == (state in DEAD)
    assert (await bench.queries.grant(grant.id) is None) is (state in DEAD)
    await bench.check_tables()


@pytest.mark.parametrize("closed", [False, True])
@pytest.mark.parametrize("state", list(TaskState))
async def test_only_a_closed_task_is_pruned(bench: Bench, state: TaskState, closed: bool) -> None:
    task = await bench.task_in(state)
    if closed:
        await bench.handle(task, "drop")
        await bench.ledger.close_task(task.id, actor="x")
    gone = closed and state in ENDED
    assert await bench.ledger.prune() == gone
    assert (await bench.queries.task(task.id) is None) is gone
    await bench.check_tables()


async def test_what_is_kept_is_pruned_only_after_its_time(keeper: Bench) -> None:
    grant = await keeper.grant_in(GrantState.REVOKED)
    assert await keeper.ledger.prune() == 0
    assert (await keeper.grant(grant)).state is GrantState.REVOKED


async def test_pruning_goes_on_where_its_limit_stopped_it(bench: Bench) -> None:
    task = await bench.open()
    for _ in range(5):
        await bench.grant_in(GrantState.REVOKED, task)
    assert [await bench.ledger.prune(limit=2) for _ in range(4)] == [2, 2, 1, 0]
    await bench.check_tables()


async def test_the_same_key_opens_one_task_and_reserves_one_grant(keeper: Bench) -> None:
    key = Idempotency("task:x", "k", "digest")
    tries = [
        await keeper.ledger.open_task(
            keeper.new_task(),
            ttl_ms=HOUR,
            max_children=1,
            decision=DECISION,
            actor="x",
            idempotency=key,
        )
        for _ in range(2)
    ]
    assert [new for _, new in tries] == [True, False]
    assert tries[0][0] == tries[1][0]

    task = await keeper.open()
    grants = [
        await keeper.ledger.reserve(
            keeper.new_grant(task),
            ttl_ms=HOUR,
            max_live=1,
            decision=DECISION,
            actor="x",
            idempotency=replace(key, scope="grant:x"),
        )
        for _ in range(2)
    ]
    assert grants[0] == grants[1]
    assert (await keeper.event_types())["grant.reserved"] == 1


async def test_the_same_key_for_something_else_is_refused(keeper: Bench) -> None:
    task = await keeper.open()
    for digest in ("one", "another"):
        ask = keeper.ledger.reserve(
            keeper.new_grant(task),
            ttl_ms=HOUR,
            max_live=9,
            decision=DECISION,
            actor="x",
            idempotency=Idempotency("grant:x", "k", digest),
        )
        if digest == "one":
            await ask
        else:
            with pytest.raises(IdempotencyConflict):
                await ask
    assert len(await keeper.queries.grants_of(task.id)) == 1


@pytest.mark.parametrize("kind", ["task", "agent", "owner"])
async def test_a_frozen_task_gets_nothing_through_a_child(bench: Bench, kind: str) -> None:
    parent = await bench.open(agent="parent", owner="owner-of-the-parent")
    child = await bench.open(parent)
    field = f"{kind}:{ {'task': parent.id, 'agent': parent.agent, 'owner': parent.owner}[kind] }"
    await bench.ledger.freeze(field, record={"by": "x"}, actor="x", event_shard=0)
    for ask in (bench.open(parent), bench.reserve(child)):
        with pytest.raises(Frozen):
            await ask
    assert (await bench.reserve(await bench.open())).state is GrantState.PENDING


@pytest.mark.parametrize("kind", ["all", "task", "agent", "owner", "capability", "backend"])
async def test_a_freeze_stops_issuing_in_every_shard_until_it_is_thawed(
    bench: Bench, kind: str
) -> None:
    tasks = [await bench.open(shard=shard) for shard in range(SHARDS)]
    chosen = tasks[-1]
    values = {
        "task": chosen.id,
        "agent": chosen.agent,
        "owner": chosen.owner,
        "capability": "orders-read",
        "backend": "vault",
    }
    field = "all" if kind == "all" else f"{kind}:{values[kind]}"
    record = {"by": "operator", "reason": "r", "at": 1}
    await bench.ledger.freeze(field, record=record, actor="operator", event_shard=2)
    for task in tasks:
        if kind != "task" or task is chosen:
            with pytest.raises(Frozen):
                await bench.reserve(task)
        else:
            await bench.reserve(task)
    assert await bench.queries.freezes() == {field: record}

    await bench.ledger.freeze(field, record=None, actor="operator", event_shard=5)
    assert (await bench.reserve(chosen)).state is GrantState.PENDING
    assert await bench.queries.freezes() == {}
    events = await bench.event_types()
    assert (events["freeze.set"], events["freeze.cleared"]) == (1, 1)
