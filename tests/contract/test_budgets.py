"""Budgets: reserved in the parent's, drawn from the nearest, given back; never overrun."""

from __future__ import annotations

import asyncio
import json
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.errors import QuotaExceeded, TaskNotActive
from broker.ledger import keys
from broker.ledger.actions import Actions
from broker.ledger.models import Changed
from broker.tasks import TaskState
from broker.trail import Step
from broker.wire_limits import AskBudget, budget_json
from tests.contract.ledger_bench import DECISION, HOUR, Bench

if TYPE_CHECKING:
    from broker.tasks import Task

CALL: Final = Step(frozenset(), data_class="internal")
GRANT: Final = Step(frozenset(), data_class="internal", lasting=True)
KINDS: Final = ("grants", "calls", "amount")
_DECISIONS: Final = count()


async def open_with(
    bench: Bench, parent: Task | None = None, *, keep: bool = False, **budget: Any
) -> Task:
    rows = AskBudget.model_validate(budget).rows()
    return await bench.open(parent, budget=rows, keep_budget=keep)


async def call(bench: Bench, task: Task, step: Step = CALL) -> None:
    """Write an allowed call, decided on the state of now as often as it takes."""
    actions = Actions(bench.connection)
    while True:
        _, survey = await actions.survey(task.id)
        try:
            await actions.call(
                task,
                capability="note",
                decision={"id": f"dec_{next(_DECISIONS)}"},
                seen=survey.version,
                step=step,
                report_ms=HOUR,
                tokens=(),
                actor="report-writer",
            )
        except Changed:
            continue
        return


async def reserve(bench: Bench, task: Task) -> None:
    await bench.ledger.reserve(
        bench.new_grant(task),
        ttl_ms=HOUR,
        max_live=1000,
        decision=DECISION,
        actor="report-writer",
        step=GRANT,
    )


async def standing(bench: Bench, task: Task) -> dict[str, Any]:
    shown = budget_json(await bench.task(task)) or {}
    return {kind: row for kind, row in shown.items() if row is not None}


async def account(bench: Bench, task: Task, kind: str = "calls") -> tuple[int, int, int]:
    """What a task has spent, reserved and left."""
    row = (await standing(bench, task))[kind]
    assert row["given"] == row["spent"] + row["reserved"] + row["left"]
    return row["spent"], row["reserved"], row["left"]


async def exhausted(work: Any) -> str:
    with pytest.raises(QuotaExceeded) as caught:
        await work
    assert caught.value.extra["reason"] == "budget_exhausted"
    return next(kind for kind in KINDS if f"left of {kind}" in caught.value.detail)


async def test_each_kind_is_spent_and_then_refused(bench: Bench) -> None:
    task = await open_with(bench, grants=1, calls=2, amount="10.5")

    await reserve(bench, task)
    await call(bench, task, Step(frozenset(), amount=100_000))

    assert await exhausted(call(bench, task, Step(frozenset(), amount=5_001))) == "amount"
    await call(bench, task, Step(frozenset(), amount=5_000))
    assert await exhausted(call(bench, task)) == "calls"
    assert await exhausted(reserve(bench, task)) == "grants"
    amount = (await standing(bench, task))["amount"]
    assert amount == {
        "given": "10.5000",
        "spent": "10.5000",
        "reserved": "0.0000",
        "left": "0.0000",
    }


async def test_a_budget_of_nothing_is_nothing_and_no_budget_is_no_bound(bench: Bench) -> None:
    nothing = await open_with(bench, calls=0)
    assert await exhausted(call(bench, nothing)) == "calls"
    await reserve(bench, nothing)

    free = await bench.open()
    await call(bench, free)
    assert await standing(bench, free) == {}


async def test_what_is_refused_leaves_nothing_but_its_event(bench: Bench) -> None:
    task = await open_with(bench, grants=0)
    before = await bench.snapshot()

    await exhausted(reserve(bench, task))

    after = await bench.snapshot()
    assert {key for key in after if before.get(key) != after[key]} == {
        keys.table(3, "audit"),
    }


async def test_who_has_none_draws_from_the_nearest_above_that_has(bench: Bench) -> None:
    root = await open_with(bench, calls=10, grants=1)
    child = await open_with(bench, root, calls=3)
    below = await bench.open(await bench.open(child))

    await call(bench, below)
    await reserve(bench, below)  # of grants the root has some

    assert await account(bench, child) == (1, 0, 2)
    assert await account(bench, root) == (0, 3, 7)
    assert await account(bench, root, "grants") == (1, 0, 0)
    assert await exhausted(reserve(bench, child)) == "grants"


async def test_a_childs_own_is_reserved_or_it_is_not_opened(bench: Bench) -> None:
    root = await open_with(bench, calls=5, amount="100")
    await open_with(bench, root, calls=3)
    before = await bench.snapshot()

    assert await exhausted(open_with(bench, root, amount="1", calls=3)) == "calls"

    after = await bench.snapshot()
    changed = {key for key in after if before.get(key) != after[key]}
    assert changed == {keys.table(3, "audit")}, "nothing was reserved, nor half of it"
    assert await account(bench, root) == (0, 3, 2)


async def test_at_its_end_a_child_gives_back_what_it_did_not_spend(bench: Bench) -> None:
    root = await open_with(bench, calls=10)
    child = await open_with(bench, root, calls=6)
    below = await open_with(bench, child, calls=4)
    await call(bench, child)
    await call(bench, below)
    assert await account(bench, child) == (1, 4, 1)

    await bench.end(below)
    assert await account(bench, child) == (2, 0, 4)
    await bench.end(child)
    assert await account(bench, root) == (2, 0, 8)
    assert (await bench.event_types())["budget.settled"] == 2


async def test_children_settle_before_their_parents(bench: Bench) -> None:
    root = await open_with(bench, calls=10)
    child = await open_with(bench, root, calls=6)
    for _ in range(2):
        await call(bench, await open_with(bench, child, calls=2))

    await bench.end(child)

    assert await account(bench, root) == (2, 0, 8)


async def test_what_a_policy_has_kept_does_not_come_back(bench: Bench) -> None:
    root = await open_with(bench, calls=10)
    child = await open_with(bench, root, calls=6)
    await call(bench, await open_with(bench, child, keep=True, calls=4))

    await bench.end(child)

    # The grandchild's four are gone, the two that the child had left are not.
    assert await account(bench, root) == (4, 0, 6)


async def test_an_end_told_twice_gives_back_once(bench: Bench, other: Bench) -> None:
    root = await open_with(bench, calls=10)
    child = await open_with(bench, root, calls=6)

    await asyncio.gather(*(b.end(child) for b in (bench, other) for _ in range(5)))

    assert await account(bench, root) == (0, 0, 10)


@pytest.mark.parametrize("state", [TaskState.DENIED, TaskState.CANCELLED, TaskState.EXPIRED])
async def test_a_task_that_was_never_opened_gives_all_of_it_back(
    bench: Bench, state: TaskState
) -> None:
    root = await open_with(bench, calls=10)
    waiting = await bench.open(
        root, budget=AskBudget(calls=6).rows(), state=TaskState.PENDING_APPROVAL
    )
    assert await account(bench, root) == (0, 6, 4)

    await bench.end(waiting, state)

    assert await account(bench, root) == (0, 0, 10)


async def test_of_fifty_racing_calls_the_budget_lets_through_exactly_its_number(
    bench: Bench, other: Bench
) -> None:
    root = await open_with(bench, calls=20)
    tasks = [root, await bench.open(root), await bench.open(await bench.open(root))]

    work = [call((bench, other)[i % 2], tasks[i % 3]) for i in range(50)]
    done = await asyncio.gather(*work, return_exceptions=True)

    assert sum(one is None for one in done) == 20
    assert all(one is None or isinstance(one, QuotaExceeded) for one in done)
    assert await account(bench, root) == (20, 0, 0)


async def test_of_fifty_racing_credentials_likewise(bench: Bench, other: Bench) -> None:
    root = await open_with(bench, grants=13)
    child = await bench.open(root)

    work = [reserve((bench, other)[i % 2], (root, child)[i % 3 == 0]) for i in range(50)]
    done = await asyncio.gather(*work, return_exceptions=True)

    assert sum(one is None for one in done) == 13
    held = [g for t in (root, child) for g in await bench.queries.grants_of(t.id, dead=True)]
    assert len(held) == 13
    assert await account(bench, root, "grants") == (13, 0, 0)


async def test_children_that_race_for_a_budget_never_get_more_than_there_is(
    bench: Bench, other: Bench
) -> None:
    root = await open_with(bench, calls=10)

    work = [open_with((bench, other)[i % 2], root, calls=3) for i in range(20)]
    done = await asyncio.gather(*work, return_exceptions=True)

    assert sum(not isinstance(one, BaseException) for one in done) == 3
    assert await account(bench, root) == (0, 9, 1)


async def test_calls_that_race_with_their_tasks_end_are_counted_or_refused(
    bench: Bench, other: Bench
) -> None:
    root = await open_with(bench, calls=100)
    children = [await open_with(bench, root, calls=3) for _ in range(10)]

    work = [call((bench, other)[i % 2], child) for i in range(2) for child in children]
    ends = [other.end(child) for child in children]
    done = await asyncio.gather(*work, *ends, return_exceptions=True)

    assert all(isinstance(one, str | TaskNotActive) or one is None for one in done)
    spent = sum(one is None for one in done)
    assert await account(bench, root) == (spent, 0, 100 - spent)


MOVES = st.lists(
    st.tuples(
        st.sampled_from(["open", "open within", "open to keep", "call", "call", "end"]),
        st.integers(0, 9),
        st.integers(0, 5),
    ),
    max_size=25,
)


@given(MOVES)
@settings(
    max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None
)
async def test_whatever_happens_the_books_balance(
    bench: Bench, moves: list[tuple[str, int, int]]
) -> None:
    """Nothing is spent that wasn't given, and what was given is spent, reserved or left."""
    root = await open_with(bench, calls=12)
    tasks: list[Task] = [root]
    calls = 0
    for move, at, much in moves:
        task = tasks[at % len(tasks)]
        try:
            match move:
                case "call":
                    await call(bench, task)
                    calls += 1
                case "end" if task is not root:
                    await bench.end(task)
                case "open":
                    tasks.append(await bench.open(task))
                case "open within" | "open to keep":
                    keep = move == "open to keep"
                    tasks.append(await open_with(bench, task, keep=keep, calls=much))
                case _:
                    pass
        except (QuotaExceeded, TaskNotActive):
            continue
    for task in tasks:
        if "calls" in await standing(bench, task):
            spent, reserved, left = await account(bench, task)
            assert min(spent, reserved, left) >= 0
    kept = any(move == "open to keep" for move, _, _ in moves)
    for task in reversed(tasks[1:]):
        await bench.end(task)
    spent, reserved, _ = await account(bench, root)
    assert reserved == 0
    assert calls <= spent <= 12
    assert kept or spent == calls


async def test_what_was_given_is_written_without_loss(bench: Bench) -> None:
    most = "999999999.9999"
    root = await open_with(bench, amount=most)
    await call(bench, root, Step(frozenset(), amount=9_999_999_999_998))
    row = await bench.connection.command("HGET", keys.table(3, "tasks"), root.id)
    assert json.loads(row)["budget"]["amount"]["spent"] == "9999999999998"
    assert (await standing(bench, root))["amount"]["left"] == "0.0001"
