"""Allowed calls in a real Valkey: which of two that were decided on the same state is written."""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Final

import pytest

from broker.ledger.actions import Actions
from broker.ledger.models import Changed
from broker.trail import State, Step, Trail
from tests.contract.ledger_bench import HOUR, Bench

if TYPE_CHECKING:
    from broker.tasks import Task

READ: Final = Step(frozenset(("reads:orders",)), data_class="internal", rank=1)
_DECISIONS = count(1)


async def call(bench: Bench, task: Task, seen: str, step: Step = READ) -> State:
    return await Actions(bench.connection).call(
        task,
        capability="note",
        decision={"id": f"dec_{next(_DECISIONS)}"},
        seen=seen,
        step=step,
        report_ms=HOUR,
        tokens=(),
        actor="report-writer",
    )


async def test_those_that_add_nothing_new_get_by_each_other(bench: Bench) -> None:
    task, actions = await bench.open(), Actions(bench.connection)
    _, before = await actions.survey(task.id)
    await call(bench, task, before.growth)
    _, known = await actions.survey(task.id)

    states = [await call(bench, task, known.growth) for _ in range(3)]

    assert [state.chain for state in states] == ["0.2.0", "0.3.0", "0.4.0"]
    _, now = await actions.survey(task.id)
    assert now.growth == known.growth
    assert known.after(READ, states[-1]) == now, "what is remembered is what there is"


async def test_whoever_counts_is_told_of_each(bench: Bench) -> None:
    task = await bench.open()
    await call(bench, task, (await Actions(bench.connection).survey(task.id))[1].growth)
    _, known = await Actions(bench.connection).survey(task.id)
    await call(bench, task, known.version)

    with pytest.raises(Changed):
        await call(bench, task, known.version)


@pytest.mark.parametrize(
    "step",
    [
        Step(frozenset(("egress:internet",)), data_class="internal", rank=1),
        Step(READ.effects, data_class="confidential", rank=1),
        Step(READ.effects, data_class="internal", rank=2),
        Step(READ.effects, data_class="internal", rank=1, lasting=True),
    ],
    ids=["effect", "data class", "power", "way"],
)
async def test_what_is_new_is_missed_by_nobody(bench: Bench, step: Step) -> None:
    task = await bench.open()
    await call(bench, task, (await Actions(bench.connection).survey(task.id))[1].growth)
    _, known = await Actions(bench.connection).survey(task.id)
    await call(bench, task, known.growth, step)

    for seen in (known.growth, known.version):
        with pytest.raises(Changed):
            await call(bench, task, seen)


async def test_a_child_tells_its_chain_and_a_task_its_own(bench: Bench) -> None:
    """What is new to one task alone is new: policies look at a task's own trail as well."""
    root = await bench.open()
    child = await bench.open(root)
    actions = Actions(bench.connection)
    await call(bench, root, (await actions.survey(root.id))[1].growth)
    _, known = await actions.survey(child.id)
    assert known.task == Trail()

    await call(bench, child, known.growth)

    with pytest.raises(Changed):
        await call(bench, child, known.growth)
    with pytest.raises(Changed):
        await call(bench, root, known.growth)


async def test_another_task_in_the_chain_is_new(bench: Bench) -> None:
    root = await bench.open()
    _, known = await Actions(bench.connection).survey(root.id)
    await bench.open(root)

    for seen in (known.growth, known.version):
        with pytest.raises(Changed):
            await call(bench, root, seen)
