"""The main job: a credential lives for its task, and is dead and confirmed dead after it."""

from __future__ import annotations

import psycopg
import pytest

from tests.world import World, logs_in


async def test_completing_a_task_kills_its_credential_and_its_open_session(world: World) -> None:
    task = await world.open()
    granted = await world.grant(task)
    credential = granted["credential"]
    session = await psycopg.AsyncConnection.connect(credential["dsn"])
    await session.execute("SELECT count(*) FROM orders")

    answer = await world.complete(task)

    assert answer == {"state": "completed", "grants": {"revoked": 1, "revoking": 0, "abandoned": 0}}
    assert not await logs_in(credential)
    with pytest.raises(psycopg.OperationalError):
        await session.execute("SELECT 1")
    shown = await world.show_grant(granted["grant_id"])
    assert shown["state"] == "revoked"
    assert shown["time_to_dead_ms"] is not None
    assert (await world.show_task(task["task_id"]))["closed_at"] is not None
