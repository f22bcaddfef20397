"""Elevations of a task, without asking for them: what stands in its row, and nothing around it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from broker.ids import new_id, shard_of
from broker.ledger import keys

if TYPE_CHECKING:
    from tests.world import World


async def elevate(world: World, task_id: str, capability: str, ttl_ms: int = 60_000) -> str:
    """Give a task a capability for a window; returns the elevation's id."""
    elevation = new_id("elv", shard_of(task_id, "tsk") or 0)
    now = await world.app.pipeline.queries.now()
    row = {"capability": capability, "power": "operate", "by": "test", "started_at": now}
    await _write(world, task_id, elevation, {**row, "expires_at": now + ttl_ms})
    return elevation


async def end(world: World, task_id: str, elevation: str) -> None:
    """End it before its time."""
    now = await world.app.pipeline.queries.now()
    await _write(world, task_id, elevation, {"ended_at": now})


async def miss(world: World, task_id: str, elevation: str) -> None:
    """Let its heartbeat be overdue, with no sweep that has noticed yet."""
    now = await world.app.pipeline.queries.now()
    await _write(world, task_id, elevation, {"heartbeat_ms": 1000, "heartbeat_due": now - 1})


async def _write(world: World, task_id: str, elevation: str, row: dict[str, Any]) -> None:
    table = keys.table(shard_of(task_id, "tsk") or 0, "tasks")
    task = json.loads(await world.app.connection.command("HGET", table, task_id))
    held = task.setdefault("elevations", {}).setdefault(elevation, {})
    held.update(row)
    await world.app.connection.command("HSET", table, task_id, json.dumps(task))
