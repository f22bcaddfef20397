"""Principals stopped while their credentials are in use: what PostgreSQL says afterwards."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from broker.catalog import PrincipalState
from broker.dev.config import OWNER
from broker.ledger.registry import Change
from broker.register import Entry, marks_of
from tests.register_world import RegisterWorld, replica, revoked
from tests.waiting import wait_until
from tests.world import logs_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import httpx2

    from broker.config import Config
    from broker.dev.stack import DevStack


@pytest.fixture
async def here(engines: tuple[DevStack, Config]) -> AsyncGenerator[RegisterWorld]:
    async with replica(engines, empty=True) as made:
        yield made


@pytest.fixture
async def there(
    engines: tuple[DevStack, Config], here: RegisterWorld
) -> AsyncGenerator[RegisterWorld]:
    """Another replica on the same ledger."""
    async with replica(engines) as made:
        yield made


async def test_suspended_its_passwords_and_its_childrens_are_refused(
    here: RegisterWorld, there: RegisterWorld
) -> None:
    task = await there.open()
    granted = await there.grant(task)
    ask = {
        "agent": "order-clerk",
        "purpose": "a part of it",
        "capabilities": ["orders-read"],
        "parent_task_id": task["task_id"],
    }
    child = await there.call("report-writer", "POST", "/v1/tasks", ask, task_id=task["task_id"])
    below = await there.grant(child.json())
    assert await logs_in(granted["credential"])
    assert await logs_in(below["credential"])

    moved = await here.move("report-writer", "suspend")

    assert moved["grants"] == {"revoked": 2, "revoking": 0, "abandoned": 0}
    assert not await logs_in(granted["credential"])
    assert not await logs_in(below["credential"])
    assert (await there.exchange("report-writer", task["task_id"])).status_code == 400
    # Its child's agent is not suspended, and works for others.
    other = await there.open(agent="order-clerk")
    assert await logs_in((await there.grant(other))["credential"])


async def test_nothing_that_was_issued_meanwhile_is_good(
    here: RegisterWorld, there: RegisterWorld
) -> None:
    tasks = [await here.open() for _ in range(3)]
    tokens = [await there.token("report-writer", task["task_id"]) for task in tasks]
    start = asyncio.Event()

    async def ask(n: int) -> httpx2.Response:
        await start.wait()
        path = f"/v1/tasks/{tasks[n % 3]['task_id']}/grants"
        headers = {"Authorization": f"Bearer {tokens[n % 3]}"}
        return await there.http.post(path, json={"capability": "orders-read"}, headers=headers)

    async def suspend() -> dict[str, Any]:
        await start.wait()
        return await here.move("report-writer", "suspend")

    asking = [asyncio.ensure_future(ask(n)) for n in range(6)]
    suspending = asyncio.ensure_future(suspend())
    asking += [asyncio.ensure_future(ask(n)) for n in range(6)]
    start.set()
    answers = await asyncio.gather(*asking)
    await suspending
    for world in (here, there):
        await world.app.pipeline.work.drain(20)

    delivered = [a.json()["credential"] for a in answers if a.status_code == 201]
    assert not any([await logs_in(credential) for credential in delivered])
    assert {a.status_code for a in answers} <= {201, 401, 403, 409}
    grants = (await here.call("operator", "GET", "/v1/grants?limit=100")).json()["items"]
    await here.sweep()
    for grant in grants:
        shown = await here.show_grant(grant["grant_id"])
        assert shown["state"] in {"revoked", "failed"}, shown


async def test_an_owner_leaves_with_and_without_handing_over(
    here: RegisterWorld, there: RegisterWorld
) -> None:
    team, others = "team@example.com", "others@example.com"
    await here.add("worker", owner=team, capabilities=["orders-read"])
    await there.app.reaper.look()
    granted = await there.grant(await there.open(agent="worker"))

    await here.leave(team, hand_over_to=others)
    assert await logs_in(granted["credential"])

    gone = await there.leave(others)
    assert gone["grants"] == {"revoked": 1, "revoking": 0, "abandoned": 0}
    assert not await logs_in(granted["credential"])


async def test_another_replica_finishes_what_a_dead_one_left(
    engines: tuple[DevStack, Config], here: RegisterWorld
) -> None:
    granted = await here.grant(await here.open())
    await _half_suspended(here)
    assert await logs_in(granted["credential"])

    async with replica(engines) as other:
        await other.app.principals.keep_up(older_than_ms=0)

        await wait_until(lambda: revoked(other, granted["grant_id"]), "the grant is confirmed dead")
    assert not await logs_in(granted["credential"])


async def _half_suspended(world: RegisterWorld) -> None:
    """As a replica leaves it that dies right after the first write."""
    register = await world.app.principals.roster.registry.load()
    entry = Entry(name="report-writer", state=PrincipalState.SUSPENDED, state_at=1)
    marks = marks_of(register.changed([entry], []), "report-writer", OWNER)
    change = Change(entries=[entry], todo=["p|report-writer"])
    registry = world.app.principals.roster.registry
    assert await registry.write(register, change, marks, actor="operator") == "ok"
