"""Very many live grants in a ledger, by the functions of the ledger's own scripts, in pipelines.

They are copies of a grant that a broker has issued, under copies of its task. No backend knows of
them: what is measured beside them is the ledger, and none comes due before it is over.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING, Final

from broker.dev.bench.stand import AGENT, READ
from broker.grants import GrantState
from broker.ids import new_id
from broker.ledger import keys, scripts
from broker.ledger.connection import Connection
from broker.ledger.queries import Queries
from broker.ledger.rows import compact
from broker.tasks import TaskState

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.client import Client
    from broker.grants import Grant
    from broker.tasks import Task

SHARDS: Final = 64
PER_TASK: Final = 50
_LUA: Final = """
-- A = {task, grant, ids, lease, life_ms}: a task that was opened, and its grants, reserved
-- and activated.
local function begun(row, id)
  row.id, row.created_at, row.expires_at = id, NOW, NOW + A.life_ms
  return row
end
local task = begun(A.task, A.task.id)
save(TASKS, task)
index(true, 't', stamp(task))
index(true, 'tb', task.orchestrator, stamp(task))
index(true, 'ta', task.agent, stamp(task))
index(true, 'to', task.owner, stamp(task))
due('t', task.id, task_due(task))
for _, id in ipairs(A.ids) do
  local grant = begun(A.grant, id)
  grant.lease = A.lease .. id
  save(GRANTS, grant)
  index(true, 'g', stamp(grant))
  index(true, 'gb', grant.orchestrator, stamp(grant))
  index_grant(grant, true)
  due('g', grant.id, grant.expires_at)
end
"""
_NOTES: Final = keys.table(0, "frozen")
_LIFE_MS: Final = 4 * 3_600_000
_TASKS_AT_A_TIME: Final = 20
_LOOK_S: Final = 0.1
_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Pattern:
    """A task and its grant, as the ledger holds them, and which policies decided."""

    task: Task
    grant: Grant
    policies: str


def pattern(orchestrator: Client, redis: str) -> Pattern:
    """Have a broker issue a grant, and read what its ledger holds of it."""
    task = orchestrator.open_task(AGENT, "bench", [READ], ttl="1h").task_id
    grant = orchestrator.request_grant(task, READ).grant_id
    found = asyncio.run(_read(redis, task, grant))
    orchestrator.complete(task)
    return found


async def _read(redis: str, task_id: str, grant_id: str) -> Pattern:
    connection = Connection(redis)
    try:
        queries = Queries(connection, ())
        task, grant = await queries.task(task_id), await queries.grant(grant_id)
        assert task is not None  # noqa: S101  a broker has just answered with both
        assert grant is not None  # noqa: S101  as above
        return Pattern(task, grant, await _policies(connection))
    finally:
        await connection.close()


async def _policies(connection: Connection) -> str:
    """Wait until a broker that has just started has written down by which ones it decides."""
    while True:
        note: bytes | None = await connection.command("HGET", _NOTES, keys.IN_FORCE)
        if note:
            return note.decode().partition("|")[0]
        await asyncio.sleep(_LOOK_S)


async def seed(
    redis: str,
    like: Pattern,
    count: int,
    on_progress: Callable[[int], None] = lambda _: None,
    *,
    shards: int = SHARDS,
) -> None:
    """Add ``count`` live grants, and leave the ledger as if their events were all in the log.

    Their policies have been in force for long: a broker that starts doesn't decide them all again.
    Meanwhile the server doesn't wait for its disk; afterwards it does, and its file is rewritten,
    so that no rewriting of it comes in the way of what is measured.
    """
    connection = Connection(redis, shards=shards, timeout_s=_TIMEOUT_S)
    try:
        await connection.command("CONFIG", "SET", "appendfsync", "no")
        await connection.command("CONFIG", "SET", "auto-aof-rewrite-percentage", 0)
        tasks = -(-count // PER_TASK)
        for start in range(0, tasks, _TASKS_AT_A_TIME):
            batch = range(start, min(start + _TASKS_AT_A_TIME, tasks))
            await asyncio.gather(
                *(
                    fill(connection, like, n % shards, min(PER_TASK, count - n * PER_TASK))
                    for n in batch
                )
            )
            on_progress(min(count, (batch[-1] + 1) * PER_TASK))
        await connection.command("HSET", _NOTES, keys.IN_FORCE, f"{like.policies}|0")
        await _settle(connection)
    finally:
        await connection.close()


async def fill(connection: Connection, like: Pattern, shard: int, size: int) -> list[str]:
    """Add a task with so many grants to a shard; the grants' ids, which their leases end with."""
    task_id = new_id("tsk", shard)
    task = replace(like.task, id=task_id, root_id=task_id, state=TaskState.ACTIVE)
    grant = replace(like.grant, task_id=task_id, state=GrantState.ACTIVE)
    ids = [new_id("grt", shard) for _ in range(size)]
    about = {
        "task": {**compact(task), "id": task_id},
        "grant": compact(grant),
        "lease": like.grant.lease[: -len(like.grant.id)],
        "ids": ids,
        "life_ms": _LIFE_MS,
    }
    declared = keys.tables(shard)
    await connection.command("EVAL", _script(), len(declared), *declared, json.dumps(about))
    return ids


@cache
def _script() -> str:
    """Return what stands before each of the ledger's scripts, and what is ours after it."""
    any_of_them = resources.files("broker.ledger") / "lua" / "record.lua"
    return scripts.source("record").removesuffix(any_of_them.read_text("utf-8")) + _LUA


async def _settle(connection: Connection) -> None:
    await connection.command("CONFIG", "SET", "appendfsync", "always")
    await _rewritten(connection)
    await connection.command("BGREWRITEAOF")
    await _rewritten(connection)


async def _rewritten(connection: Connection) -> None:
    """Wait until the server's file isn't being rewritten, nor about to be."""
    while True:
        about = await connection.command("INFO", "persistence")
        if not (about["aof_rewrite_in_progress"] or about["aof_rewrite_scheduled"]):
            return
        await asyncio.sleep(_LOOK_S)
