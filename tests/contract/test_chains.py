"""Chains read whole from a real Valkey: each task once, and all that lives below it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from broker.grants import DEAD, GrantState
from broker.ids import new_id
from broker.trail import Step
from tests.contract.ledger_bench import DECISION, HOUR, SHARDS, Bench

if TYPE_CHECKING:
    from broker.ledger.chains import Chains
    from broker.tasks import Task


@pytest.fixture
def chains(bench: Bench) -> Chains:
    return bench.queries.chains


async def tree(bench: Bench, **fields: Any) -> list[Task]:
    """A root, two children, and one below each of these."""
    root = await bench.open(**fields)
    children = [await bench.open(root) for _ in range(2)]
    return [root, *children, *[await bench.open(child) for child in children]]


async def test_all_below_a_task_and_each_once(bench: Bench, chains: Chains) -> None:
    root, left, right, leaf, other_leaf = await tree(bench)
    stranger = await bench.open()

    async def below(*tasks: Task) -> list[str]:
        return [m.task.id for m in await chains.below(t.id for t in tasks)]

    assert set(await below(root)) == {t.id for t in (root, left, right, leaf, other_leaf)}
    assert set(await below(left)) == {left.id, leaf.id}
    assert set(await below(root, left, leaf)) == set(await below(root))
    assert len(await below(root, left, leaf, root)) == 5
    assert stranger.id not in await below(root)
    for unknown in ("", "tsk_1", new_id("tsk", 1), new_id("tsk", SHARDS)):
        assert await chains.below([unknown]) == []


async def test_a_bound_reads_one_more_and_no_further(bench: Bench, chains: Chains) -> None:
    root, *rest = await tree(bench)

    for most in range(7):
        found = [m.task.id for m in await chains.below([root.id], most=most)]
        assert len(found) == min(most + 1, 5)
        assert found[0] == root.id, "parents first"
        assert set(found[1:3]) <= {task.id for task in rest[:2]}
    assert await chains.grants([root.id], most=0) == []
    assert await chains.approvals([root.id], most=0) == []


async def test_what_a_member_has_done_and_its_chain(bench: Bench, chains: Chains) -> None:
    root, left, *_ = await tree(bench)
    step = Step(frozenset({"reads:orders"}), "confidential", lasting=True, rank=1)
    await bench.ledger.reserve(
        bench.new_grant(left),
        ttl_ms=HOUR,
        max_live=9,
        decision=DECISION,
        actor="x",
        step=step,
    )

    found = {m.task.id: m for m in await chains.below([root.id])}

    assert found[left.id].trail.effects == {"reads:orders"}
    assert found[root.id].trail.effects == frozenset()
    assert found[root.id].chain.data_classes == {"confidential"}
    assert (found[root.id].chain.rank, found[root.id].tasks) == (1, 5)


@pytest.mark.parametrize("state", list(GrantState))
async def test_grants_that_arent_confirmed_dead(
    bench: Bench, chains: Chains, state: GrantState
) -> None:
    root, left, *_ = await tree(bench)
    grant = await bench.grant_in(state, left)

    found = await chains.grants([root.id, left.id])

    assert [g.id for g in found] == ([] if state in DEAD else [grant.id])


async def test_whose_tasks(bench: Bench, chains: Chains) -> None:
    mine = [await bench.open(shard=shard) for shard in range(SHARDS)]
    other = await bench.open(agent="other", owner="them@example.com")
    opened = await bench.open(agent="other", orchestrator="nightly")
    closed = await bench.open()
    await bench.end(closed)
    await bench.handle(closed, "drop")
    await bench.ledger.close_task(closed.id, actor="x")

    ids = {task.id for task in mine}
    assert set(await chains.of("agent", "report-writer")) == ids
    assert set(await chains.of("agent", "nightly")) == {opened.id}
    assert set(await chains.of("agent", "orchestrator")) == {*ids, other.id}
    assert set(await chains.of("owner", "them@example.com")) == {other.id}
    assert set(await chains.of("owner", "you@example.com")) == {*ids, opened.id}
    assert await chains.of("task", other.id) == [other.id]
    assert set(await chains.run_by("other")) == {other.id, opened.id}
    assert await chains.of("agent", "nobody") == []


async def test_more_than_one_trips_worth(bench: Bench, chains: Chains) -> None:
    wanted = [new_id("tsk", n % SHARDS) for n in range(2500)]
    task = await bench.open()

    found = await chains.members([*wanted, task.id])

    assert [m.task.id for m in found] == [task.id]
