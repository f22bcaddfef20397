"""Very many live grants in a ledger, by the ledger's own scripts in pipelines.

They are copies of a grant that a broker has issued, under copies of its task. No backend knows of
them: what is measured beside them is the ledger, and none comes due before it is over.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from broker.dev.bench.stand import AGENT, READ
from broker.errors import Unavailable
from broker.grants import GrantState
from broker.ids import new_id
from broker.ledger import keys
from broker.ledger.connection import Connection
from broker.ledger.queries import Queries
from broker.ledger.redis import RedisLedger
from broker.tasks import TaskState

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.client import Client
    from broker.grants import Grant
    from broker.tasks import Task

SHARDS: Final = 64
PER_TASK: Final = 50
_LIFE_MS: Final = 4 * 3_600_000
_TASKS_AT_A_TIME: Final = 20
_ACTOR: Final = "bench"
_TIMEOUT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Pattern:
    """A task and its grant, as the ledger holds them."""

    task: Task
    grant: Grant


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
        return Pattern(task, grant)
    finally:
        await connection.close()


async def seed(
    redis: str, like: Pattern, count: int, on_progress: Callable[[int], None] = lambda _: None
) -> None:
    """Add ``count`` live grants, and leave the ledger as if their events were all in the log.

    Meanwhile the server doesn't wait for its disk; afterwards it does, and its file is rewritten,
    so that no rewriting of it comes in the way of what is measured.
    """
    connection = Connection(redis, timeout_s=_TIMEOUT_S)
    try:
        await connection.command("CONFIG", "SET", "appendfsync", "no")
        ledger = RedisLedger(connection)
        tasks = -(-count // PER_TASK)
        for start in range(0, tasks, _TASKS_AT_A_TIME):
            batch = range(start, min(start + _TASKS_AT_A_TIME, tasks))
            sizes = [min(PER_TASK, count - number * PER_TASK) for number in batch]
            await asyncio.gather(
                *(
                    _fill(ledger, like, number % SHARDS, size)
                    for number, size in zip(batch, sizes, strict=True)
                )
            )
            on_progress(min(count, (batch[-1] + 1) * PER_TASK))
        await _settle(connection)
    finally:
        await connection.close()


async def _fill(ledger: RedisLedger, like: Pattern, shard: int, size: int) -> None:
    task_id = new_id("tsk", shard)
    task = replace(like.task, id=task_id, root_id=task_id, state=TaskState.ACTIVE)
    await ledger.open_task(task, ttl_ms=_LIFE_MS, max_children=1, decision={}, actor=_ACTOR)
    await asyncio.gather(*(_grant(ledger, like, task, shard) for _ in range(size)))


async def _grant(ledger: RedisLedger, like: Pattern, task: Task, shard: int) -> None:
    own = new_id("grt", shard)
    grant = replace(like.grant, id=own, task_id=task.id, state=GrantState.PENDING, lease="", via=())
    lease = like.grant.lease[: -len(own)] + own
    reserved = ledger.reserve(grant, ttl_ms=_LIFE_MS, max_live=PER_TASK, decision={}, actor=_ACTOR)
    active = ledger.activate(
        grant,
        lease=lease,
        account=like.grant.account,
        lifetime_ms=_LIFE_MS,
        lives_ms=_LIFE_MS,
        actor=_ACTOR,
    )
    # Of one pass of the event loop, so of one trip, in this order.
    _, found = await asyncio.gather(reserved, active)
    if found.state is not GrantState.ACTIVE:
        raise Unavailable(f"a grant to be measured beside is {found.state}")


async def _settle(connection: Connection) -> None:
    for shard in range(SHARDS):
        await connection.command("XTRIM", keys.table(shard, "audit"), "MAXLEN", 0)
    await connection.command("CONFIG", "SET", "appendfsync", "always")
    await connection.command("BGREWRITEAOF")
    while True:
        about = await connection.command("INFO", "persistence")
        if about["aof_rewrite_in_progress"] == 0:
            return
        await asyncio.sleep(0.1)
