"""Step 8 with the real scheduler: what is due dies by itself, by whichever replica is there."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import pytest

from broker.app import build
from broker.reaper import MAX_IN_FLIGHT
from tests.admin import running
from tests.clocks import Fast
from tests.waiting import wait_until
from tests.world import World, logs_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from broker.config import Config
    from broker.dev.stack import DevStack


@pytest.fixture
async def replica(world: World) -> AsyncGenerator[World]:
    """A broker with its scheduler running."""
    async with running(world):
        yield world


async def dead(world: World, granted: dict[str, Any]) -> dict[str, Any]:
    async def there() -> dict[str, Any] | None:
        shown = await world.show_grant(granted["grant_id"])
        return shown if shown["state"] == "revoked" else None

    shown = await wait_until(there, f"{granted['grant_id']} is dead")
    assert shown is not None
    return shown


async def ended(world: World, task: dict[str, Any]) -> dict[str, Any]:
    async def there() -> dict[str, Any] | None:
        shown = await world.show_task(task["task_id"])
        return shown if shown["closed_at"] else None

    shown = await wait_until(there, f"{task['task_id']} is closed")
    assert shown is not None
    return shown


async def test_a_grant_dies_by_itself_when_its_time_is_up(replica: World) -> None:
    task = await replica.open()
    short = await replica.grant(task, ttl="2s")
    long = await replica.grant(task, ttl="5m")
    assert await logs_in(short["credential"])

    shown = await dead(replica, short)

    assert shown["reason"] == "expired"
    assert shown["ended_at"] >= shown["expires_at"]
    assert not await logs_in(short["credential"])
    assert await logs_in(long["credential"])
    assert (await replica.show_task(task["task_id"]))["state"] == "active"
    await replica.complete(task)


async def test_8_however_much_is_being_issued_what_is_due_is_revoked(world: World) -> None:
    task = await world.open()
    granted = await world.grant(task)
    pipeline, answered = world.app.pipeline, asyncio.Event()
    for _ in range(MAX_IN_FLIGHT):
        pipeline.work.spawn(answered.wait())  # as a mint that Vault has yet to answer

    await world.app.reaper.sweep(horizon_ms=await pipeline.queries.now() + 600_000)

    await dead(world, granted)
    answered.set()


async def test_8_no_more_is_claimed_than_can_be_begun(world: World) -> None:
    """What is claimed and only waits is claimed again when its claim runs out: done twice."""
    task = await world.open()
    granted = [await world.grant(task) for _ in range(5)]
    pipeline, over = world.app.pipeline, asyncio.Event()
    later = await pipeline.queries.now() + 600_000
    for _ in range(MAX_IN_FLIGHT - 2):
        pipeline.work.spawn(over.wait(), ends=True)

    report = await world.app.reaper.sweep(horizon_ms=later)

    assert (report.grants, report.wait_ms is not None) == (2, True)
    over.set()
    await wait_until(lambda: _none_left(world), "what was under way is over")
    await world.app.reaper.sweep(horizon_ms=later)
    for each in granted:
        await dead(world, each)


async def _none_left(world: World) -> bool:
    return world.app.pipeline.work.ending == 0


async def test_8_what_waits_for_its_turn_is_not_begun_again_when_its_claim_runs_out(
    world: World,
) -> None:
    task = await world.open()
    granted = [await world.grant(task) for _ in range(3)]
    pipeline, reaper = world.app.pipeline, world.app.reaper
    turns = pipeline.lanes.of("vault", "orders-read").turns
    later = await pipeline.queries.now() + 600_000
    async with AsyncExitStack() as busy:
        for number in range(pipeline.limits.lane_width):
            await busy.enter_async_context(turns.of(f"another task, {number}"))
        await reaper.sweep(horizon_ms=later)
        await wait_until(lambda: _wait(world, 3), "all wait for their turn")
        again = await reaper.sweep(horizon_ms=later + 60_000)  # when the claims have run out
        assert again.grants == 0
        assert pipeline.work.ending == 3
    for each in granted:
        await dead(world, each)
    assert not pipeline.under_way


async def _wait(world: World, count: int) -> bool:
    return world.app.pipeline.lanes.of("vault", "orders-read").turns.waiting == count


async def test_when_the_next_is_due_is_told_by_the_clock_that_it_is_due_by(
    world: World, engines: tuple[DevStack, Config]
) -> None:
    await world.open(ttl="10m")
    fast = build(engines[1], clock=Fast())
    report = await fast.reaper.sweep()
    await fast.close()
    assert report.wait_ms is not None
    assert 500_000 < report.wait_ms <= 600_000


async def test_a_task_and_its_children_end_at_the_deadline(replica: World) -> None:
    task = await replica.open(ttl="2s")
    child = await replica.open(
        agent="order-clerk", parent_task_id=task["task_id"], ttl="10m", capabilities=["orders-read"]
    )
    assert child["expires_at"] == task["expires_at"]
    granted = [await replica.grant(t, ttl="5m") for t in (task, child)]

    for each in granted:
        await dead(replica, each)
        assert not await logs_in(each["credential"])
    shown = await ended(replica, task)
    assert (shown["state"], shown["reason"]) == ("expired", "deadline")
    assert (await ended(replica, child))["state"] == "expired"


async def test_a_task_that_falls_silent_ends(replica: World) -> None:
    task = await replica.open(heartbeat="1s")
    granted = await replica.grant(task)

    await dead(replica, granted)

    shown = await ended(replica, task)
    assert (shown["state"], shown["reason"]) == ("expired", "heartbeat_lost")
    assert not await logs_in(granted["credential"])
    path = f"/v1/tasks/{task['task_id']}/heartbeat"
    assert (await replica.call("orchestrator", "POST", path)).status_code == 409


async def test_heartbeats_keep_a_task_alive_and_nothing_else_does(replica: World) -> None:
    beating, silent = await replica.open(heartbeat="2s"), await replica.open(heartbeat="2s")
    granted, lost = await replica.grant(beating), await replica.grant(silent)
    token = await replica.token("orchestrator")
    headers = {"Authorization": f"Bearer {token}"}
    until = time.monotonic() + 5

    async def beats() -> bool:
        await replica.http.get(f"/v1/tasks/{silent['task_id']}", headers=headers)
        path = f"/v1/tasks/{beating['task_id']}/heartbeat"
        answer = await replica.http.post(path, headers=headers)
        assert answer.status_code == 200, answer.text
        return time.monotonic() > until

    await wait_until(beats, "5 s of heartbeats")

    assert await logs_in(granted["credential"])
    await dead(replica, lost)
    await dead(replica, granted)  # and silence ends this one, too


async def test_a_hundred_grants_that_expire_together_all_die(replica: World) -> None:
    tasks = [await replica.open() for _ in range(4)]
    token = await replica.token("orchestrator")

    async def grant(task: dict[str, Any]) -> dict[str, Any]:
        answer = await replica.http.post(
            f"/v1/tasks/{task['task_id']}/grants",
            json={"capability": "orders-read", "ttl": "8s"},
            headers={"Authorization": f"Bearer {token}"},
        )
        assert answer.status_code == 201, answer.text
        return answer.json()

    granted = await asyncio.gather(*(grant(task) for task in tasks for _ in range(25)))

    for each in granted:
        await dead(replica, each)
    assert [await logs_in(g["credential"]) for g in granted] == [False] * 100
    for task in tasks:
        kinds = Counter(e["type"] for e in await replica.events(task["task_id"]))
        assert (kinds["grant.revoking"], kinds["grant.revoked"]) == (25, 25)
        assert (await replica.complete(task))["grants"]["revoking"] == 0


async def test_two_replicas_share_the_sweeps_and_revoke_each_grant_once(
    engines: tuple[DevStack, Config], world: World
) -> None:
    stack, config = engines
    steps: Counter[str] = Counter()
    async with AsyncExitStack() as both:
        replicas = [
            World(stack.issuer, config, before_step=lambda step: steps.update([step.name]))
            for _ in range(2)
        ]
        for each in replicas:
            await both.enter_async_context(running(each))
        tasks = [await world.open() for _ in range(20)]
        granted = [await replicas[i % 2].grant(t, ttl="4s") for i, t in enumerate(tasks)]
        for each in granted:
            await dead(world, each)
        assert steps["REVOKE"] == 20
        for task in tasks:
            await world.complete(task)
    for each in replicas:
        await each.http.aclose()


async def test_what_a_dead_replica_had_claimed_is_taken_over(
    engines: tuple[DevStack, Config], world: World
) -> None:
    stack, config = engines
    revocation = config.revocation.model_copy(update={"claim": 1500})
    doomed = World(stack.issuer, config.model_copy(update={"revocation": revocation}))
    task = await world.open()
    granted = await world.grant(task, ttl="5m")
    shards = range(config.redis.shards)
    horizon = await doomed.app.pipeline.queries.now() + 360_000
    claimed = await doomed.app.pipeline.ledger.claim_due(shards, limit=10, horizon_ms=horizon)
    assert [g.id for g in claimed.grants] == [granted["grant_id"]]
    await doomed.close()  # it claimed, and does nothing more
    assert await logs_in(granted["credential"])

    async with running(world):
        await dead(world, granted)

    assert not await logs_in(granted["credential"])
