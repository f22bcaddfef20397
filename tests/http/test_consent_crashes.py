"""A replica goes away between two steps of approvals and elevations: another finishes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.ids import new_id, shard_of
from broker.ledger import keys
from tests.http.consenting import ConsentWorld
from tests.http.parties import assert_problem
from tests.keys_check import assert_no_immortal_keys
from tests.waiting import wait_until
from tests.world import logs_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from broker.config import Config
    from broker.dev.stack import DevStack

ROTATE: Final = "database/rotate-root/orders"
BEYOND_CLAIMS_MS: Final = 61_000


async def newest(world: ConsentWorld, task: dict[str, Any]) -> dict[str, Any]:
    path = f"/v1/tasks/{task['task_id']}/elevations"
    return (await world.api("alice", "GET", path)).json()["items"][0]


async def test_a_yes_outlives_the_replica_it_was_said_at(
    consent: ConsentWorld, consent_twin: ConsentWorld
) -> None:
    task = await consent.open(capabilities=["orders-admin"])
    approval = await consent.asked(task)
    assert (await consent.say(approval)).status_code == 200
    await consent.close()

    assert (await consent_twin.ask(task)).status_code == 201
    assert (await consent_twin.approval(approval))["state"] == "used"


async def test_who_waits_at_a_replica_that_stops_is_answered_by_another(
    consent: ConsentWorld, consent_twin: ConsentWorld
) -> None:
    task = await consent.open(capabilities=["orders-admin"])
    approval = await consent.asked(task)
    path = f"/v1/approvals/{approval}?wait=30s"
    waiting = asyncio.ensure_future(consent.api("report-writer", "GET", path, task=task))

    async def somebody_waits() -> bool:
        return consent.app.broker.approvals.waiting == 1

    await wait_until(somebody_waits, "the long poll waits")
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert consent.app.broker.approvals.waiting == 0
    await consent_twin.say(approval)
    answer = await consent_twin.api("report-writer", "GET", path, task=task)
    assert answer.json()["state"] == "approved"


@pytest.mark.parametrize("glass", [False, True])
async def test_another_sweep_finishes_what_was_ended_and_not_settled(
    consent: ConsentWorld, consent_twin: ConsentWorld, glass: bool
) -> None:
    """The replica dies right after the write that ends the elevation: nothing is revoked yet."""
    task = await consent.open()
    if glass:
        elevation = (await consent.break_glass(task)).json()
        path = f"/v1/tasks/{task['task_id']}/grants"
        issued = await consent.bound(task, "POST", path, {"capability": "orders-admin"})
    else:
        elevation = await consent.elevated(task)
        issued = await consent.ask(task)
    assert issued.status_code == 201, issued.text
    table = consent.app.broker.elevations.table
    _, grants = await table.end(task["task_id"], elevation["elevation_id"], reason="x", actor="x")
    assert len(grants) == 1
    assert await logs_in(issued.json()["credential"])
    await consent_twin.sweep()
    # Claimed by the one that died.
    assert (await newest(consent_twin, task))["settled_at"] is None

    for _ in range(3):
        await consent_twin.sweep(ahead_ms=BEYOND_CLAIMS_MS)
    over = await newest(consent_twin, task)
    assert over["settled_at"]
    assert not await logs_in(issued.json()["credential"])
    held = await consent_twin.app.pipeline.queries.task(task["task_id"])
    assert held is not None
    assert not [h for h in held.handles.values() if h.get("elevation")]
    if glass:
        assert over["rotation"] == {ROTATE: "done"}
    kinds = await consent_twin.kinds(task)
    assert kinds.count("elevation.ended") == 1
    assert kinds.count("rotation.done") == int(glass)


async def test_a_mark_that_a_crash_left_goes_with_its_time(consent: ConsentWorld) -> None:
    task = await consent.open(agent="report-writer")
    await consent.app.connection.command("DEL", keys.glass("report-writer"))
    table = consent.app.broker.elevations.table
    left = new_id("elv", 0)
    assert await table.hold(keys.glass("report-writer"), left, 120_000) == left
    body = assert_problem(await consent.break_glass(task), 409, "conflict")
    assert body["elevation_id"] == left
    lives_for = await consent.app.connection.command("PTTL", keys.glass("report-writer"))
    assert 0 < lives_for <= 120_000
    await assert_no_immortal_keys(consent)
    # Its time goes by.
    await consent.app.connection.command("PEXPIRE", keys.glass("report-writer"), 0)
    assert (await consent.break_glass(task)).status_code == 201
    await consent.complete(task)
    await consent.sweep()


@pytest.fixture
async def unable(
    engines: tuple[DevStack, Config], consent: ConsentWorld
) -> AsyncGenerator[ConsentWorld]:
    """A replica for which Vault has nothing to rotate."""
    config = consent.config
    changed = [
        c.model_copy(update={"rotate": "database/rotate-root/nothing-is-here"})
        if c.name == "orders-admin"
        else c
        for c in config.capabilities
    ]
    made = ConsentWorld(engines[0].issuer, config.model_copy(update={"capabilities": changed}))
    yield made
    await made.close()


async def due_now(world: ConsentWorld, elevation: dict[str, Any]) -> None:
    """Let the time go by until it is tried again."""
    shard = shard_of(elevation["task_id"], "tsk")
    assert shard is not None
    place = f"e|{elevation['task_id']}|{elevation['elevation_id']}"
    await world.app.connection.command("ZADD", keys.table(shard, "due"), "XX", 0, place)


async def test_a_rotation_that_failed_is_told_once_and_tried_again(
    consent: ConsentWorld, unable: ConsentWorld
) -> None:
    task = await consent.open()
    elevation = (await consent.break_glass(task)).json()
    path = f"/v1/tasks/{task['task_id']}/elevations/{elevation['elevation_id']}"
    ended = await unable.api("alice", "DELETE", path)
    assert ended.status_code == 200, ended.text
    for _ in range(3):
        await due_now(unable, elevation)
        await unable.sweep()
    over = await newest(unable, task)
    assert over["rotation"] == {ROTATE: "failed"}
    assert over["settled_at"] is None
    assert (await unable.kinds(task)).count("rotation.failed") == 1

    async def rotated() -> bool:  # the server may be busy with it, and refuse it for a moment
        await due_now(consent, elevation)
        await consent.sweep()
        return (await newest(consent, task))["rotation"] == {ROTATE: "done"}

    await wait_until(rotated, "it is rotated")
    over = await newest(consent, task)
    assert over["settled_at"]
    kinds = await consent.kinds(task)
    assert (kinds.count("rotation.failed"), kinds.count("rotation.done")) == (1, 1)
