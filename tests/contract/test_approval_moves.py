"""Every operation on an approval in every state: legal moves are made, others change nothing.

And what is left of approvals and elevations once their task is forgotten: nothing.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.approvals import APPROVAL_MOVES, Approval, ApprovalState
from broker.elevations import Elevation
from broker.errors import BrokerError, LedgerUnavailable
from broker.ids import new_id, shard_of
from broker.ledger import keys
from broker.ledger.actions import Actions
from broker.ledger.approvals import ApprovalTable
from broker.ledger.elevations import ElevationTable
from broker.ledger.models import LedgerTimes
from broker.tasks import Task, TaskState
from tests.contract.ledger_bench import DECISION, HOUR, SHARDS, Bench

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from broker.config import Config
    from broker.dev.stack import DevStack

S = ApprovalState
DIGEST: Final = "d" * 64
USE_MS: Final = 60_000


ARGUMENTS: Final[dict[str, Any]] = {
    "huge": 1e300,
    "tiny": 5e-324,
    "whole": 10**18,
    "negative": -(10**18) - 1,
    "one": 1.0,
    "zero": -0.0,
    "list": [],
    "object": {},
    "nested": [[], {}, [{}], {"a": []}, None, True],
    "text": 'é e\u0301 \U0001f4a9 \u2028 " \\ </script>',
    "": "an empty name",
}


class ApprovalBench(Bench):
    """A ledger with approvals, which keeps nothing longer than it must."""

    def __init__(self, url: str) -> None:
        times = replace(LedgerTimes(), retain_ms=0)
        super().__init__(url, times)
        self.approvals = ApprovalTable(self.connection, times)
        self.elevations = ElevationTable(self.connection, times)

    async def ask(self, task: Task) -> Approval:
        shard = shard_of(task.id, "tsk")
        assert shard is not None
        approval = Approval(
            id=new_id("apr", shard),
            task_id=task.id,
            agent=task.agent,
            owner=task.owner,
            orchestrator=task.orchestrator,
            requester=task.agent,
            action="issue_grant",
            capability="orders-read",
            digest=DIGEST,
            needs={"": 1},
            use_ms=USE_MS,
            request=json.dumps(ARGUMENTS, ensure_ascii=False),
        )
        asked = await self.approvals.ask(
            approval,
            wait_ms=HOUR // 2,
            max_pending=9,
            max_asked=99,
            decision=DECISION,
            actor=task.agent,
        )
        assert isinstance(asked, Approval)
        return asked

    async def held(self, approval: Approval) -> Approval:
        found = await self.approvals.get(approval.id)
        assert found is not None
        return found

    async def vote(self, approval: Approval, outcome: ApprovalState) -> None:
        await self.approvals.vote(
            await self.held(approval),
            yes=outcome is S.APPROVED,
            reason="a test",
            outcome=outcome,
            have={"": 1},
            actor="alice",
        )

    async def use(self, approval: Approval) -> None:
        task = await self.queries.task(approval.task_id)
        assert task is not None
        grant = self.new_grant(task, approval_id=approval.id)
        await self.ledger.reserve(
            grant, ttl_ms=HOUR, max_live=9, decision=DECISION, actor=task.agent, approved=DIGEST
        )

    async def expire(self, approval: Approval) -> None:
        at = (await self.held(approval)).expires_at
        await self.ledger.claim_due(range(SHARDS), limit=10, horizon_ms=at)

    async def cancel(self, approval: Approval) -> None:
        await self.approvals.cancel(approval.id, reason="withdrawn", actor="x")

    async def end_task(self, approval: Approval) -> None:
        await self.ledger.end_task(approval.task_id, TaskState.FAILED, reason="a test", actor="x")

    async def approval_in(self, state: ApprovalState) -> Approval:
        approval = await self.ask(await self.open())
        if state in (S.APPROVED, S.DENIED):
            await self.vote(approval, state)
        elif state is S.USED:
            await self.vote(approval, S.APPROVED)
            await self.use(approval)
        elif state is S.EXPIRED:
            await self.expire(approval)
        elif state is S.CANCELLED:
            await self.cancel(approval)
        held = await self.held(approval)
        assert held.state is state
        return held

    async def ends(self) -> dict[str, int]:
        """How many approvals came to each state, by the log."""
        counts = await self.event_types()
        return {s: counts[f"approval.{s}"] for s in S if s is not S.PENDING}

    async def left(self, *ids: str) -> list[str]:
        """The keys and members anywhere outside the log that name one of some ids."""
        found: list[str] = []
        for shard in range(SHARDS):
            for name in ("tasks", "grants", "approvals"):
                members = await self.connection.command("HKEYS", keys.table(shard, name))
                found += [m.decode() for m in members]
            for name in ("index", "due", "purge"):
                members = await self.connection.command("ZRANGE", keys.table(shard, name), 0, -1)
                found += [m.decode() for m in members]
        return [member for member in found if any(i in member for i in ids)]


@pytest.fixture
async def bench(engines: tuple[DevStack, Config]) -> AsyncGenerator[ApprovalBench]:
    made = ApprovalBench(engines[1].redis.url)
    await made.connection.command("FLUSHALL")
    yield made
    await made.close()


OPS: Final[dict[str, Callable[[ApprovalBench, Approval], Awaitable[None]]]] = {
    "approve": lambda bench, approval: bench.vote(approval, S.APPROVED),
    "deny": lambda bench, approval: bench.vote(approval, S.DENIED),
    "use": ApprovalBench.use,
    "expire": ApprovalBench.expire,
    "cancel": ApprovalBench.cancel,
    "end_task": ApprovalBench.end_task,
}
STATES: Final = (S.PENDING, S.APPROVED, S.DENIED, S.EXPIRED, S.CANCELLED, S.USED)
EXPECTED: Final = {
    "approve": (S.APPROVED, *STATES[1:]),
    "deny": (S.DENIED, *STATES[1:]),
    "use": (S.PENDING, S.USED, *STATES[2:]),
    "expire": (S.EXPIRED, S.EXPIRED, *STATES[2:]),
    "cancel": (S.CANCELLED, S.CANCELLED, *STATES[2:]),
    "end_task": (S.CANCELLED, S.CANCELLED, *STATES[2:]),
}
"""What each operation makes of each of ``STATES``."""


@pytest.mark.parametrize("state", STATES)
@pytest.mark.parametrize("name", OPS)
async def test_each_operation_on_each_state(
    bench: ApprovalBench, name: str, state: ApprovalState
) -> None:
    approval = await bench.approval_in(state)
    before, row = await bench.ends(), await bench.held(approval)
    wanted = EXPECTED[name][STATES.index(state)]
    try:
        await OPS[name](bench, approval)
    except BrokerError:
        assert wanted is state

    now = await bench.held(approval)
    assert now.state is wanted
    told = {s: n - before[s] for s, n in (await bench.ends()).items() if n != before[s]}
    if wanted is state:
        assert told == {}
        assert now == row
    else:
        assert wanted in APPROVAL_MOVES[state]
        assert told == {wanted: 1}
        assert now.version > row.version
    assert bool(now.request) == (now.state in (S.PENDING, S.APPROVED))


def test_the_operations_make_every_legal_move() -> None:
    made = {
        (state, to)
        for row in EXPECTED.values()
        for state, to in zip(STATES, row, strict=True)
        if state is not to
    }
    assert made == {(state, to) for state, moves in APPROVAL_MOVES.items() for to in moves}


@pytest.mark.parametrize("outcome", ["used", "pending", "no-such"])
async def test_the_script_refuses_a_move_that_is_not_in_the_table(
    bench: ApprovalBench, outcome: str
) -> None:
    approval = await bench.approval_in(S.PENDING)
    shard = shard_of(approval.id, "apr")
    assert shard is not None
    args: dict[str, Any] = {
        "id": approval.id,
        "says": "approve",
        "reason": "x",
        "version": approval.version,
        "have": {"": 1},
        "actor": "alice",
        "outcome": outcome,
        "claim_ms": 1,
    }
    with pytest.raises(LedgerUnavailable):
        await bench.connection.run("vote", shard, args)
    assert await bench.held(approval) == approval
    assert not any((await bench.ends()).values())


async def test_what_is_asked_for_comes_back_exactly_however_often_it_is_written(
    bench: ApprovalBench,
) -> None:
    for state in (S.PENDING, S.APPROVED):
        approval = await bench.approval_in(state)
        assert json.dumps(json.loads(approval.request)) == json.dumps(ARGUMENTS)


async def test_a_yes_that_lapsed_before_any_sweep_answers_nothing(bench: ApprovalBench) -> None:
    task = await bench.open()
    approval = await bench.ask(task)
    await bench.vote(approval, S.APPROVED)
    assert (await bench.approvals.live(task.id, DIGEST)) is not None
    shard = shard_of(approval.id, "apr")
    assert shard is not None
    table = keys.table(shard, "approvals")
    row: bytes = await bench.connection.command("HGET", table, approval.id)
    at = str((await bench.held(approval)).expires_at).encode()
    await bench.connection.command("HSET", table, approval.id, row.replace(at, b"1"))

    assert await bench.approvals.live(task.id, DIGEST) is None
    with pytest.raises(BrokerError):
        await bench.use(approval)
    assert (await bench.ask(task)).id != approval.id


async def test_the_event_of_a_yes_says_how_long_it_is_good(bench: ApprovalBench) -> None:
    approval = await bench.approval_in(S.APPROVED)
    shard = shard_of(approval.id, "apr")
    assert shard is not None
    stream: Any = bench.connection.client
    events = await stream.xrange(keys.table(shard, "audit"))
    [data] = [row[b"data"] for _, row in events if row[b"type"] == b"approval.approved"]
    assert f'"expires_at":{approval.expires_at}'.encode() in data


@pytest.mark.parametrize("state", STATES)
async def test_nothing_of_an_approval_is_left_once_its_task_is_forgotten(
    bench: ApprovalBench, state: ApprovalState
) -> None:
    approval = await bench.approval_in(state)
    assert await bench.ledger.prune() == 0
    assert (await bench.held(approval)).state is state
    task = await bench.queries.task(approval.task_id)
    assert task is not None
    await _close(bench, task)
    await bench.ledger.prune()
    assert await bench.approvals.get(approval.id) is None
    assert await bench.left(approval.id, approval.task_id) == []


async def test_a_task_is_kept_until_its_break_glass_was_looked_at(bench: ApprovalBench) -> None:
    task = await bench.open()
    elevation = await _break_glass(bench, task)
    await _close(bench, task)
    await bench.ledger.prune()
    assert await bench.queries.task(task.id) is not None
    await _hasten(bench, task)
    await bench.elevations.settle(elevation, actor="x")
    await bench.ledger.prune()
    assert await bench.queries.task(task.id) is not None
    assert (await bench.queries.inventory({})).reviews == 1

    await bench.elevations.close_review(task.id, elevation.id, findings="all well", actor="bob")
    await _hasten(bench, task)
    await bench.ledger.prune()
    assert await bench.queries.task(task.id) is None
    assert await bench.elevations.review_of(elevation.id) is None
    assert await bench.left(task.id, elevation.id) == []


async def test_what_one_replica_has_rotated_the_failure_of_another_does_not_undo(
    bench: ApprovalBench,
) -> None:
    elevation = await _break_glass(bench, await bench.open())
    for state in ("failed", "failed", "done", "failed", "done"):
        await bench.elevations.rotated(elevation, "db/rotate", state, error="", actor="x")
    task = await bench.queries.task(elevation.task_id)
    assert task is not None
    assert task.elevations[elevation.id]["rotation"] == {"db/rotate": "done"}
    counts = await bench.event_types()
    assert (counts["rotation.failed"], counts["rotation.done"]) == (1, 1)


async def _break_glass(bench: ApprovalBench, task: Task) -> Elevation:
    shard = shard_of(task.id, "tsk")
    assert shard is not None
    elevation = Elevation(
        id=new_id("elv", shard),
        task_id=task.id,
        capability="orders-admin",
        power="privileged",
        by=task.agent,
        break_glass=True,
        rotation={"db/rotate": "pending"},
        review="open",
    )
    seen = (await Actions(bench.connection).survey(task.id))[1].version
    return await bench.elevations.start(
        elevation,
        ttl_ms=HOUR,
        approval=None,
        decision=DECISION,
        seen=seen,
        tokens=(),
        actor=task.agent,
    )


async def _close(bench: ApprovalBench, task: Task) -> None:
    """End a task and all below it, as whoever sweeps does."""
    for _ in range(2):
        await bench.end(task)
        for grant in await bench.queries.grants_of(task.id):
            await bench.confirm(grant)
    await bench.handle(task, "drop")
    await bench.ledger.close_task(task.id, actor="x")


async def _hasten(bench: ApprovalBench, task: Task) -> None:
    """Let the time go by until the task is looked at again for whether it is to be kept."""
    shard = shard_of(task.id, "tsk")
    assert shard is not None
    purge = keys.table(shard, "purge")
    assert await bench.connection.command("ZSCORE", purge, f"t|{task.id}") is not None
    await bench.connection.command("ZADD", purge, 0, f"t|{task.id}")
