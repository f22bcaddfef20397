"""Every operation on every state: the legal moves are made and logged, all others refused whole."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

import pytest

from broker.errors import LedgerUnavailable, TaskNotActive
from broker.grants import DEAD, GRANT_MOVES, Grant, GrantState
from broker.tasks import ENDED, TASK_MOVES, TaskState
from tests.contract.ledger_bench import ATTEMPTS, HOUR, SHARDS, TASK_ENDS, Bench

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


G = GrantState
S = TaskState
Op = "Callable[[Bench, Grant], Awaitable[object]]"
REFUSED: Final = "refused"
SAME: Final = "same"


async def _claim(bench: Bench, grant: Grant) -> None:
    horizon = max(grant.due_at, grant.expires_at)  # before its task is over
    await bench.ledger.claim_due(range(SHARDS), limit=10, horizon_ms=horizon)


async def _end_task(bench: Bench, grant: Grant) -> None:
    await bench.ledger.end_task(grant.task_id, S.FAILED, reason="a test", actor="x")


GRANT_OPS: Final[dict[str, Callable[[Bench, Grant], Awaitable[object]]]] = {
    "activate": lambda bench, grant: bench.activate(grant),
    "fail": lambda bench, grant: bench.ledger.fail(grant, error="no", actor="broker"),
    "begin_revoke": lambda bench, grant: bench.revoke(grant),
    "confirm": lambda bench, grant: bench.confirm(grant),
    "abandon": lambda bench, grant: bench.abandon(grant),
    "retry": lambda bench, grant: bench.ledger.retry(grant, reason="a test", actor="x"),
    "retry_later": lambda bench, grant: bench.retry(grant, ATTEMPTS),
    "give_up": lambda bench, grant: bench.retry(grant, 1),
    "claim_due": _claim,
    "end_task": _end_task,
}
WANTED: Final = (G.REVOKING,)
# Operation: what it makes of each state, in the table's order; several steps are several moves.
EXPECTED: Final[dict[str, dict[GrantState, tuple[GrantState, ...] | str]]] = {
    op: dict(zip(GRANT_MOVES, row, strict=True))
    for op, row in {
        # PENDING, ACTIVE, REVOKING, STUCK, REVOKED, FAILED, ABANDONED
        "activate": ((G.ACTIVE,), SAME, SAME, WANTED, SAME, REFUSED, SAME),
        "fail": ((G.FAILED,), SAME, (G.REVOKED,), SAME, SAME, SAME, SAME),
        "begin_revoke": (WANTED, WANTED, SAME, WANTED, SAME, SAME, SAME),
        "confirm": (REFUSED, REFUSED, (G.REVOKED,), (*WANTED, G.REVOKED), SAME, SAME, SAME),
        "abandon": (SAME, SAME, (G.ABANDONED,), (G.ABANDONED,), SAME, SAME, SAME),
        "retry": (SAME, SAME, SAME, SAME, SAME, SAME, SAME),
        "retry_later": (SAME, SAME, SAME, SAME, SAME, SAME, SAME),
        "give_up": (SAME, SAME, (G.STUCK,), SAME, SAME, SAME, SAME),
        "claim_due": (WANTED, WANTED, SAME, WANTED, SAME, SAME, SAME),
        "end_task": (WANTED, WANTED, SAME, WANTED, SAME, SAME, SAME),
    }.items()
}
EVENT_OF: Final = {
    G.ACTIVE: "grant.activated",
    G.REVOKING: "grant.revoking",
    G.STUCK: "grant.stuck",
    G.REVOKED: "grant.revoked",
    G.FAILED: "grant.failed",
    G.ABANDONED: "grant.abandoned",
}


def grant_events(counts: Counter[str]) -> Counter[str]:
    return Counter({kind: counts[kind] for kind in EVENT_OF.values() if counts[kind]})


@pytest.mark.parametrize("state", list(G))
@pytest.mark.parametrize("op", list(GRANT_OPS))
async def test_an_operation_moves_a_grant_as_the_table_says_or_not_at_all(
    bench: Bench, op: str, state: GrantState
) -> None:
    grant = await bench.grant_in(state)
    before, events = await bench.snapshot(), grant_events(await bench.event_types())
    expected = EXPECTED[op][state]

    if expected == REFUSED:
        with pytest.raises(LedgerUnavailable):
            await GRANT_OPS[op](bench, grant)
        assert await bench.snapshot() == before
        return
    await GRANT_OPS[op](bench, grant)

    moves = () if isinstance(expected, str) else expected
    at = state
    for to in moves:
        assert to in GRANT_MOVES[at]
        at = to
    assert (await bench.grant(grant)).state is at
    logged = grant_events(await bench.event_types()) - events
    assert logged == Counter(EVENT_OF[to] for to in moves)
    await bench.check_tables()


@pytest.mark.parametrize("state", list(G))
@pytest.mark.parametrize(
    "op", ["activate", "fail", "begin_revoke", "confirm", "abandon", "end_task"]
)
async def test_an_operation_done_twice_is_done_once(
    bench: Bench, op: str, state: GrantState
) -> None:
    if EXPECTED[op][state] == REFUSED:
        return
    grant = await bench.grant_in(state)
    await GRANT_OPS[op](bench, grant)
    once, events = await bench.grant(grant), await bench.event_types()

    await GRANT_OPS[op](bench, grant)

    again = await bench.grant(grant)
    assert (again.state, again.lease, again.revoke_at, again.ended_at, again.attempts) == (
        (once.state, once.lease, once.revoke_at, once.ended_at, once.attempts)
    )
    late = (
        Counter({"grant.late": 1})
        if op == "activate" and state not in (G.PENDING, G.ACTIVE)
        else Counter[str]()
    )
    assert await bench.event_types() - events == late
    await bench.check_tables()


async def test_a_grant_is_retried_until_its_budget_is_used_up(bench: Bench) -> None:
    grant = await bench.grant_in(G.REVOKING)
    for attempt in range(1, ATTEMPTS + 1):
        after = await bench.retry(grant, ATTEMPTS)
        assert after.attempts == attempt
        assert after.state is (G.STUCK if attempt == ATTEMPTS else G.REVOKING)
        assert after.due_at > 0
        await bench.check_tables()


async def test_a_lost_grant_that_got_stuck_can_still_be_closed_with_its_task(
    bench: Bench,
) -> None:
    task = await bench.open()
    grant = await bench.reserve(task)
    await bench.revoke(grant)
    await bench.retry(grant, 1)
    await bench.end(task)
    # It is stuck again at once whenever nothing is known of its lease.
    await bench.retry(grant, 1)
    assert (await bench.grant(grant)).state is G.STUCK

    await bench.handle(task, "drop")
    assert (await bench.confirm(grant)).state is G.REVOKED
    assert await bench.ledger.close_task(task.id, actor="broker") == "closed"


@pytest.mark.parametrize("state", list(G))
async def test_begin_revoke_claims_what_lives_and_leaves_out_what_is_dead(
    bench: Bench, state: GrantState
) -> None:
    claimed = await bench.revoke(await bench.grant_in(state))
    assert [grant.state for grant in claimed] == ([] if state in DEAD else [G.REVOKING])


@pytest.mark.parametrize("state", list(S))
@pytest.mark.parametrize("end", list(TASK_ENDS))
async def test_ending_a_task_moves_it_as_the_table_says_or_not_at_all(
    bench: Bench, state: TaskState, end: TaskState
) -> None:
    task = await bench.task_in(state)
    before, events = await bench.snapshot(), await bench.event_types()
    if state in ENDED:
        assert await bench.end(task, end) == state
        assert await bench.snapshot() == before
    elif end in TASK_MOVES[state]:
        assert await bench.end(task, end) == end
        assert (await bench.event_types() - events) == Counter({"task.ended": 1})
        await bench.check_tables()
    else:
        with pytest.raises(LedgerUnavailable):
            await bench.end(task, end)
        assert await bench.snapshot() == before


@pytest.mark.parametrize("state", list(S))
async def test_only_an_active_task_is_worked_on(bench: Bench, state: TaskState) -> None:
    task = await bench.task_in(state)
    tries: list[Callable[[], Awaitable[object]]] = [
        lambda: bench.reserve(task),
        lambda: bench.ledger.heartbeat(task.id),
        lambda: bench.open(task),
    ]
    for attempt in tries:
        if state is S.ACTIVE:
            await attempt()
        else:
            with pytest.raises(TaskNotActive):
                await attempt()
    expected = state if state is S.ACTIVE else "task_not_active"
    assert await bench.handle(task, "expect") == expected
    await bench.check_tables()


@pytest.mark.parametrize("state", list(S))
async def test_only_an_ended_task_is_closed(bench: Bench, state: TaskState) -> None:
    task = await bench.task_in(state)
    assert await bench.ledger.close_task(task.id, actor="x") == (
        "draining" if task.handles and state in ENDED else "closed" if state in ENDED else "active"
    )
    await bench.handle(task, "drop")
    assert (await bench.ledger.close_task(task.id, actor="x") == "closed") is (state in ENDED)
    assert bool((await bench.task(task)).closed_at) is (state in ENDED)
    await bench.check_tables()


@pytest.mark.parametrize("end", [S.COMPLETED, S.FAILED, S.CANCELLED, S.REVOKED, S.EXPIRED])
async def test_a_task_takes_all_below_it_along(bench: Bench, end: TaskState) -> None:
    root = await bench.open()
    child = await bench.open(root)
    waiting = await bench.open(root, state=S.PENDING_APPROVAL)
    grandchild = await bench.open(child)
    grant = await bench.grant_in(G.ACTIVE, grandchild)

    await bench.end(root, end)

    below = S.CANCELLED if end in (S.COMPLETED, S.FAILED) else end
    assert (await bench.task(child)).state is below
    assert (await bench.task(grandchild)).state is below
    assert (await bench.task(waiting)).state is S.CANCELLED
    assert (await bench.grant(grant)).state is G.REVOKING
    await bench.check_tables()


async def test_a_child_never_outlives_its_parent(bench: Bench) -> None:
    parent = await bench.open(ttl_ms=HOUR)
    child = await bench.open(parent, ttl_ms=2 * HOUR)
    assert child.expires_at == parent.expires_at


async def test_what_a_backend_that_answers_again_makes_due(bench: Bench) -> None:
    """A capability's lane says so of its own grants; that of handles of those without a lease."""
    task = await bench.open()
    known, lost = await bench.activate(await bench.reserve(task)), await bench.reserve(task)
    for grant in await bench.revoke(known, lost):
        assert (await bench.retry(grant, attempts=6)).due_at > await bench.queries.now()

    assert await bench.ledger.hasten("vault", "orders-write") == 0
    assert await bench.ledger.hasten("vault", "") == 1
    assert (await bench.grant(lost)).due_at <= await bench.queries.now()
    assert await bench.ledger.hasten("vault", "orders-read") == 2
