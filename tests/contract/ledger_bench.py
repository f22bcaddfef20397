"""A ledger to try things on: rows brought into any state, and what its tables must then hold."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from broker.grants import DEAD, Grant, GrantState
from broker.ids import new_id, shard_of
from broker.ledger import keys
from broker.ledger.connection import Connection
from broker.ledger.models import LedgerTimes
from broker.ledger.queries import UNSETTLED, Queries
from broker.ledger.redis import RedisLedger
from broker.tasks import Task, TaskState

if TYPE_CHECKING:
    from collections.abc import Mapping

SHARDS: Final = 8
HOUR: Final = 3_600_000
ATTEMPTS: Final = 3
DECISION: Final[Mapping[str, Any]] = {"effect": "allow", "reasons": "test"}
TASK_ENDS: Final = {
    TaskState.COMPLETED: TaskState.ACTIVE,
    TaskState.FAILED: TaskState.ACTIVE,
    TaskState.CANCELLED: TaskState.ACTIVE,
    TaskState.EXPIRED: TaskState.ACTIVE,
    TaskState.REVOKED: TaskState.ACTIVE,
    TaskState.DENIED: TaskState.PENDING_APPROVAL,
}


class Bench:
    """One replica's ledger, without a pipeline around it."""

    def __init__(self, url: str, times: LedgerTimes | None = None) -> None:
        self.connection = Connection(url, shards=SHARDS)
        self.ledger = RedisLedger(self.connection, times or LedgerTimes())
        self.queries = Queries(self.connection, ("vault", "token"))

    async def close(self) -> None:
        await self.connection.close()

    # Rows.

    def new_task(self, parent: Task | None = None, **fields: Any) -> Task:
        shard = shard_of(parent.id, "tsk") if parent else fields.pop("shard", 3)
        assert isinstance(shard, int)
        task_id = new_id("tsk", shard)
        row: dict[str, Any] = {
            "id": task_id,
            "state": TaskState.ACTIVE,
            "agent": "report-writer",
            "owner": "you@example.com",
            "created_by": "orchestrator",
            "orchestrator": "orchestrator",
            "subject": "orchestrator",
            "purpose": "a test",
            "capabilities": ("orders-read",),
            "parent_id": parent.id if parent else "",
            "root_id": parent.root_id if parent else task_id,
            "actors": ("report-writer", *(parent.actors if parent else ())),
            "depth": parent.depth + 1 if parent else 0,
            "created_at": 0,
            "expires_at": 0,
        }
        return Task(**(row | fields))

    async def open(self, parent: Task | None = None, *, ttl_ms: int = HOUR, **fields: Any) -> Task:
        """Open a task that has one handle, ``h``."""
        task, new = await self.ledger.open_task(
            self.new_task(parent, **fields),
            ttl_ms=ttl_ms,
            max_children=100,
            decision=DECISION,
            actor="orchestrator",
        )
        assert new
        if task.state is TaskState.ACTIVE:
            await self.handle(task, "expect")
            await self.handle(task, "record", value="accessor")
        return task

    async def handle(self, task: Task, op: str, value: str = "") -> str:
        return await self.ledger.handle(
            task.id, op, "h", backend="vault", actor="broker", value=value
        )

    def new_grant(self, task: Task, **fields: Any) -> Grant:
        shard = shard_of(task.id, "tsk")
        assert shard is not None
        row: dict[str, Any] = {
            "id": new_id("grt", shard),
            "state": GrantState.PENDING,
            "task_id": task.id,
            "agent": task.agent,
            "orchestrator": task.orchestrator,
            "capability": "orders-read",
            "backend": "vault",
            "power": "read",
            "path": "database/creds/orders-read",
            "handle": "h",
            "created_at": 0,
            "expires_at": 0,
        }
        return Grant(**(row | fields))

    async def reserve(
        self, task: Task, *, ttl_ms: int = HOUR // 2, max_live: int = 1000, **fields: Any
    ) -> Grant:
        return await self.ledger.reserve(
            self.new_grant(task, **fields),
            ttl_ms=ttl_ms,
            max_live=max_live,
            decision=DECISION,
            actor="report-writer",
        )

    async def activate(self, grant: Grant) -> Grant:
        return await self.ledger.activate(
            grant, lease=f"lease/{grant.id}", lifetime_ms=HOUR, actor="broker"
        )

    async def confirm(self, grant: Grant) -> Grant:
        return await self.ledger.confirm(grant, evidence="lease_lookup", actor="broker")

    async def abandon(self, grant: Grant) -> Grant:
        return await self.ledger.abandon(grant, statement="it is gone", actor="operator")

    async def retry(self, grant: Grant, attempts: int) -> Grant:
        return await self.ledger.retry_later(
            grant, error="no answer", delay_ms=5000, attempts=attempts, actor="broker"
        )

    async def revoke(self, *grants: Grant) -> tuple[Grant, ...]:
        ids = [grant.id for grant in grants]
        return await self.ledger.begin_revoke(ids, reason="a test", actor="operator")

    async def end(self, task: Task, state: TaskState = TaskState.COMPLETED) -> str:
        return (await self.ledger.end_task(task.id, state, reason="a test", actor="x"))[0]

    async def task_in(self, state: TaskState) -> Task:
        """Return a task in a state, brought there by legal moves."""
        first = TASK_ENDS.get(state, state)
        task = await self.open(state=first)
        if state is not first:
            await self.end(task, state)
        return await self.task(task)

    async def grant_in(self, state: GrantState, task: Task | None = None) -> Grant:
        """Return a grant in a state, brought there by legal moves."""
        grant = await self.reserve(task or await self.open())
        if state is GrantState.FAILED:
            await self.ledger.fail(grant, error="no", actor="broker")
        elif state is not GrantState.PENDING:
            await self.activate(grant)
        if state not in (GrantState.PENDING, GrantState.ACTIVE, GrantState.FAILED):
            await self.revoke(grant)
        if state is GrantState.STUCK:
            await self.retry(grant, 1)
        if state is GrantState.ABANDONED:
            await self.abandon(grant)
        if state is GrantState.REVOKED:
            await self.confirm(grant)
        held = await self.grant(grant)
        assert held.state is state
        return held

    async def task(self, task: Task) -> Task:
        held = await self.queries.task(task.id)
        assert held is not None
        return held

    async def grant(self, grant: Grant) -> Grant:
        held = await self.queries.grant(grant.id)
        assert held is not None
        return held

    # What is in Redis.

    async def snapshot(self) -> dict[str, bytes | None]:
        """Every key and all it holds, as Redis dumps it."""
        found: list[bytes] = await self.connection.command("KEYS", "broker:*")
        return {k.decode(): await self.connection.command("DUMP", k) for k in sorted(found)}

    async def event_types(self) -> Counter[str]:
        """How many events of each type the log has, over all shards."""
        counts: Counter[str] = Counter()
        for shard in range(SHARDS):
            stream: Any = self.connection.client
            rows = await stream.xrange(keys.table(shard, "audit"))
            counts.update(row[b"type"].decode() for _, row in rows)
        return counts

    async def check_tables(self) -> None:
        """Compare indexes and schedules with what the rows say they must be."""
        for shard in range(SHARDS):
            await self._check_shard(shard)

    async def _check_shard(self, shard: int) -> None:
        index: set[str] = set()
        due: dict[str, int | None] = {}
        purge: set[str] = set()
        for task in (await self._rows(shard, "tasks")).items():
            _expect_task(*task, index, due, purge)
        for grant in (await self._rows(shard, "grants")).items():
            _expect_grant(*grant, index, due, purge)
        assert set(await self._scores(shard, "index")) == index
        scheduled = await self._scores(shard, "due")
        assert set(scheduled) == set(due)
        assert {k: at for k, at in due.items() if at is not None}.items() <= scheduled.items()
        assert set(await self._scores(shard, "purge")) == purge

    async def _rows(self, shard: int, name: str) -> dict[str, dict[str, Any]]:
        table = keys.table(shard, name)
        ids = await self.connection.command("HKEYS", table)
        rows = [await self.connection.command("HGET", table, key) for key in ids]
        return {key.decode(): json.loads(row) for key, row in zip(ids, rows, strict=True)}

    async def _scores(self, shard: int, name: str) -> dict[str, int]:
        table = keys.table(shard, name)
        found = await self.connection.command("ZRANGE", table, 0, -1)
        scores = [await self.connection.command("ZSCORE", table, member) for member in found]
        return {m.decode(): int(float(score)) for m, score in zip(found, scores, strict=True)}


def _expect_task(
    task_id: str, row: dict[str, Any], index: set[str], due: dict[str, int | None], purge: set[str]
) -> None:
    stamp = f"{row['created_at']:013d}|{task_id}"
    index.update((f"t|{stamp}", f"tb|{row['orchestrator']}|{stamp}"))
    if "parent_id" in row:
        index.add(f"tc|{row['parent_id']}|{stamp}")
    if "closed_at" in row:
        purge.add(f"t|{task_id}")
        return
    index.update((f"ta|{row['agent']}|{stamp}", f"to|{row['owner']}|{stamp}"))
    over = min(row["expires_at"], row.get("heartbeat_due", row["expires_at"]))
    # An ended one is looked at again when whoever holds it says so.
    due[f"t|{task_id}"] = None if "ended_at" in row else over


def _expect_grant(
    grant_id: str, row: dict[str, Any], index: set[str], due: dict[str, int | None], purge: set[str]
) -> None:
    stamp = f"{row['created_at']:013d}|{grant_id}"
    index.update((f"g|{stamp}", f"gb|{row['orchestrator']}|{stamp}"))
    if row["state"] in DEAD:
        index.add(f"gd|{row['task_id']}|{row['capability']}|{stamp}")
        purge.add(f"g|{grant_id}")
        return
    index.add(f"gt|{row['task_id']}|{row['capability']}|{stamp}")
    index.add(f"gc|{row['backend']}|{row['capability']}|{stamp}")
    if row["state"] in UNSETTLED:
        index.add(f"gs|{row['state']}|{row['backend']}|{stamp}")
    if row.get("exhausted"):
        index.add(f"gx|{row['backend']}|{row['capability']}|{stamp}")
    if row.get("attempts"):
        index.add(f"gr|{row['backend']}|{stamp}")
    due[f"g|{grant_id}"] = row.get("due_at", row["expires_at"])
