"""Pitfalls 1, 3 and 7: what ends with what, and what ends nothing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from broker.config import Config, PrincipalEntry
from tests.admin import Admin
from tests.world import SUBJECTS, World, logs_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from broker.dev.stack import DevStack

CHAIN = ("report-writer", "order-clerk", "summariser")


@pytest.fixture
async def chained(
    engines: tuple[DevStack, Config], monkeypatch: pytest.MonkeyPatch
) -> AsyncGenerator[World]:
    """A broker that knows a third agent, so that a chain of three is possible."""
    stack, config = engines
    monkeypatch.setitem(SUBJECTS, "summariser", "agent/summariser")
    entry = PrincipalEntry.model_validate(
        {
            "name": "summariser",
            "role": "agent",
            "owner": "you@example.com",
            "identity": {"issuer": "dev", "subject": "agent/summariser"},
            "capabilities": ["orders-read"],
        }
    )
    principals = (*config.principals, entry)
    made = World(stack.issuer, config.model_copy(update={"principals": principals}))
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


@pytest.fixture
def admin(engines: tuple[DevStack, Config]) -> Admin:
    return Admin(engines[0])


async def open_chain(world: World) -> list[dict[str, Any]]:
    """A root, its child and its grandchild."""
    tasks: list[dict[str, Any]] = []
    for agent in CHAIN:
        parent = {"parent_task_id": tasks[-1]["task_id"]} if tasks else {}
        tasks.append(await world.open(agent=agent, **parent))
    return tasks


@pytest.mark.parametrize("how", ["complete", "revoke"])
async def test_1_the_end_of_the_root_kills_what_child_and_grandchild_hold(
    chained: World, how: str
) -> None:
    tasks = await open_chain(chained)
    granted = [await chained.grant(task) for task in tasks]
    tokens = [await chained.token(t["agent"], t["task_id"]) for t in tasks]
    assert [await logs_in(g["credential"]) for g in granted] == [True] * 3

    if how == "complete":
        answer = await chained.complete(tasks[0])
        assert answer["grants"] == {"revoked": 3, "revoking": 0, "abandoned": 0}
    else:
        body = {"selector": {"task_id": tasks[0]["task_id"]}, "reason": "drill"}
        answer = (await chained.call("operator", "POST", "/v1/revocations", body)).json()
        assert (answer["matched"], answer["revoked"]) == (3, 3)

    assert [await logs_in(g["credential"]) for g in granted] == [False] * 3
    await chained.app.pipeline.work.drain(10)
    for task, granting, token in zip(tasks, granted, tokens, strict=True):
        shown = await chained.show_task(task["task_id"])
        assert shown["state"] != "active"
        assert shown["closed_at"] is not None
        assert (await chained.show_grant(granting["grant_id"]))["state"] == "revoked"
        refused = await chained.http.get(
            f"/v1/tasks/{task['task_id']}", headers={"Authorization": f"Bearer {token}"}
        )
        assert refused.status_code == 401
        again = await chained.exchange(task["agent"], task["task_id"])
        assert again.status_code == 400


async def test_1_the_end_of_a_child_leaves_its_parent_alone(chained: World) -> None:
    tasks = await open_chain(chained)
    granted = [await chained.grant(task) for task in tasks]

    await chained.complete(tasks[1])

    assert [await logs_in(g["credential"]) for g in granted] == [True, False, False]
    assert (await chained.show_task(tasks[0]["task_id"]))["state"] == "active"


async def test_1_nothing_is_minted_below_a_dead_ancestor_in_a_race_of_both(
    chained: World, admin: Admin
) -> None:
    """Every request that wins the race is dead a moment later; every other is refused."""
    before = await admin.roles()
    tasks = await open_chain(chained)
    ask = {"capability": "orders-read"}
    tokens = [await chained.token(t["agent"], t["task_id"]) for t in tasks]

    async def request(i: int) -> Any:
        task, token = tasks[i % 3], tokens[i % 3]
        return await chained.http.post(
            f"/v1/tasks/{task['task_id']}/grants",
            json=ask,
            headers={"Authorization": f"Bearer {token}"},
        )

    first = [asyncio.create_task(request(i)) for i in range(9)]
    await asyncio.wait(first, return_when=asyncio.FIRST_COMPLETED)
    later = [asyncio.create_task(request(i)) for i in range(9)]
    ended = asyncio.create_task(chained.complete(tasks[0]))
    answers = await asyncio.gather(*first, *later)
    await ended
    late = await asyncio.gather(*(request(i) for i in range(3)))

    assert {a.status_code for a in late} == {401}
    assert {a.status_code for a in answers} <= {201, 401, 403, 409, 503}
    delivered = [a.json() for a in answers if a.status_code == 201]
    assert delivered
    await chained.sweep()
    assert [g["grant_id"] for g in delivered if await logs_in(g["credential"])] == []
    states = {
        g.state
        for t in tasks
        for g in await chained.app.pipeline.queries.grants_of(t["task_id"], dead=True)
    }
    assert states <= {"revoked", "failed"}
    assert await admin.roles() <= before
    await chained.app.pipeline.work.drain(10)
    for task in tasks:
        assert (await chained.show_task(task["task_id"]))["closed_at"] is not None


async def test_1_no_child_is_opened_below_a_dead_parent(world: World) -> None:
    parent = await world.open()
    await world.complete(parent)

    body = {
        "agent": "order-clerk",
        "purpose": "late",
        "capabilities": ["orders-read"],
        "parent_task_id": parent["task_id"],
    }
    answer = await world.call("orchestrator", "POST", "/v1/tasks", body)

    assert (answer.status_code, answer.json()["code"]) == (409, "task_not_active")


async def test_3_every_open_session_dies_even_one_in_the_middle_of_a_statement(
    world: World, admin: Admin
) -> None:
    task = await world.open()
    credential = (await world.grant(task))["credential"]
    sessions = [await psycopg.AsyncConnection.connect(credential["dsn"]) for _ in range(4)]
    await sessions[0].execute("BEGIN")
    busy = asyncio.create_task(sessions[1].execute("SELECT pg_sleep(60)"))

    await world.complete(task)

    assert credential["username"] not in await admin.sessions()
    with pytest.raises(psycopg.OperationalError):
        await busy
    for session in sessions:
        with pytest.raises(psycopg.OperationalError):
            await session.execute("SELECT 1")
        await session.close()


async def test_7_nothing_but_a_terminal_outcome_revokes(world: World) -> None:
    task = await world.open(heartbeat="10m")
    granted = await world.grant(task)
    at = f"/v1/tasks/{task['task_id']}"

    for path in (at, "/v1/tasks", f"/v1/grants?task_id={task['task_id']}", "/readyz"):
        assert (await world.call("orchestrator", "GET", path)).status_code == 200
    beat = await world.call("report-writer", "POST", f"{at}/heartbeat", task_id=task["task_id"])
    assert beat.status_code == 200
    for outcome in ("running", "result_available", "active", "revoked", "expired"):
        answer = await world.call("orchestrator", "POST", f"{at}/complete", {"outcome": outcome})
        assert answer.status_code in (400, 422)
    await world.sweep()

    assert await logs_in(granted["credential"])
    assert (await world.show_grant(granted["grant_id"]))["state"] == "active"
    kinds = {event["type"] for event in await world.events(task["task_id"])}
    assert not kinds & {"grant.revoking", "grant.revoked", "task.ended"}
