"""What an operator does about grants that can't be revoked: try again, or state that it's over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from broker.tasks import TaskState
from tests.http.parties import assert_problem
from tests.world import World, logs_in

if TYPE_CHECKING:
    import httpx2

    from broker.config import Config
    from broker.dev.stack import DevStack


async def stuck(world: World, task: dict[str, Any], capability: str = "orders-read") -> str:
    """A grant that used up its budget of attempts, and is next tried in a minute."""
    grant_id: str = (await world.grant(task, capability))["grant_id"]
    ledger, why = world.app.pipeline.ledger, "the database is down"
    [claimed] = await ledger.begin_revoke([grant_id], reason="a test", actor="test")
    await ledger.retry_later(claimed, error=why, delay_ms=60_000, attempts=1, actor="broker")
    assert (await world.show_grant(grant_id))["state"] == "stuck"
    return grant_id


async def ask(world: World, grant_id: str, what: str, reason: str = "") -> httpx2.Response:
    body = {"reason": reason} if reason else {}
    return await world.call("operator", "POST", f"/v1/grants/{grant_id}/{what}", body)


async def of_type(world: World, task: dict[str, Any], kind: str) -> dict[str, Any]:
    [event] = [e for e in await world.events(task["task_id"]) if e["type"] == kind]
    return event


async def test_4_what_is_stuck_is_tried_at_once_when_an_operator_says_so(world: World) -> None:
    task = await world.open()
    grant_id = await stuck(world, task)
    await world.sweep()
    assert (await world.show_grant(grant_id))["state"] == "stuck", "its time has not come"

    answer = await ask(world, grant_id, "retry", "the database is back")
    assert (answer.status_code, answer.json()["state"]) == (200, "stuck")
    await world.sweep()

    assert (await world.show_grant(grant_id))["state"] == "revoked"
    retried = await of_type(world, task, "grant.retried")
    assert (retried["principal"], retried["data"]["reason"]) == ("operator", "the database is back")


async def test_what_an_operator_retries_is_the_probe_of_a_shut_lane(world: World) -> None:
    task = await world.open()
    grant_id = await stuck(world, task)
    lane = world.app.pipeline.lanes.of("vault", "orders-read")
    for _ in range(5):
        lane.failed()

    await ask(world, grant_id, "retry")
    await world.sweep()

    assert (await world.show_grant(grant_id))["state"] == "revoked"
    assert not lane.is_shut


async def test_a_grant_that_is_given_up_is_never_called_revoked(world: World) -> None:
    task = await world.open()
    grant_id = await stuck(world, task)
    ledger, ended = world.app.pipeline.ledger, TaskState.COMPLETED
    _, left = await ledger.end_task(task["task_id"], ended, reason="over", actor="orchestrator")
    await ledger.retry_later(
        left.grants[0], error="no database", delay_ms=60_000, attempts=1, actor="broker"
    )
    await world.app.pipeline.close(left.tasks[0])
    assert not (await world.show_task(task["task_id"]))["closed_at"]

    answer = await ask(world, grant_id, "abandon", "its database was scrapped")
    await world.sweep()

    shown = answer.json()
    assert (shown["state"], shown["statement"]) == (
        "abandoned",
        "operator: its database was scrapped",
    )
    assert shown["ended_at"]
    assert (shown["evidence"], shown["time_to_dead_ms"], shown["next_attempt_at"]) == (None,) * 3
    assert (await world.show_task(task["task_id"]))["closed_at"], "nothing holds its task open"
    abandoned = await of_type(world, task, "grant.abandoned")
    assert abandoned["principal"] == "operator"
    assert abandoned["data"]["statement"] == shown["statement"]
    assert abandoned["data"]["error"] == "no database"
    assert (await world.complete(task))["grants"] == {"revoked": 0, "revoking": 0, "abandoned": 1}
    receipt = await world.call("operator", "GET", f"/v1/grants/{grant_id}/receipt")
    claims = receipt.json()["claims"]
    assert (claims["confirmed"], claims["statement"]) == (False, shown["statement"])
    assert claims["audit_event_id"] == abandoned["id"]


@pytest.mark.parametrize("what", ["retry", "abandon"])
async def test_only_what_is_being_revoked_is_retried_or_given_up(world: World, what: str) -> None:
    task = await world.open()
    grant_id = (await world.grant(task, "orders-read"))["grant_id"]

    live = await ask(world, grant_id, what, "drill")
    await world.complete(task)
    dead = await ask(world, grant_id, what, "drill")

    assert assert_problem(live, 409, "conflict")["state"] == "active"
    assert assert_problem(dead, 409, "conflict")["state"] == "revoked"
    assert (await world.show_grant(grant_id))["state"] == "revoked"


async def test_giving_up_needs_a_reason(world: World) -> None:
    grant_id = await stuck(world, await world.open())
    assert_problem(await ask(world, grant_id, "abandon"), 400, "invalid_request")
    assert (await world.show_grant(grant_id))["state"] == "stuck"


def altered(
    engines: tuple[DevStack, Config], capability: dict[str, Any], **sections: dict[str, Any]
) -> World:
    """A world whose ``orders-`` capabilities or sections are a little different."""
    stack, config = engines
    update: dict[str, Any] = {
        "capabilities": [
            c.model_copy(update=capability) if c.backend == "vault" else c
            for c in config.capabilities
        ]
    }
    for name, values in sections.items():
        update[name] = getattr(config, name).model_copy(update=values)
    return World(stack.issuer, config.model_copy(update=update))


async def test_9_what_can_never_be_revoked_is_given_up_with_its_task_and_said_to_be(
    engines: tuple[DevStack, Config],
) -> None:
    world = altered(engines, {"revocability": "never"})
    task = await world.open()
    granted = await world.grant(task)
    assert granted["revocability"] == "never"

    assert (await world.complete(task))["grants"] == {"revoked": 0, "revoking": 0, "abandoned": 1}

    shown = await world.show_grant(granted["grant_id"])
    assert (shown["state"], shown["time_to_dead_ms"]) == ("abandoned", None)
    assert "until it is changed" in shown["statement"]
    await world.close()


async def test_9_above_read_policy_refuses_what_can_never_be_revoked(
    engines: tuple[DevStack, Config],
) -> None:
    world = altered(engines, {"revocability": "never"})
    task = await world.open(agent="order-clerk", capabilities=["orders-write"])
    path = f"/v1/tasks/{task['task_id']}/grants"
    answer = await world.call("orchestrator", "POST", path, {"capability": "orders-write"})
    assert_problem(answer, 403, "access_denied")
    await world.complete(task)
    await world.close()


async def test_10_a_backend_that_is_behind_with_revoking_issues_nothing_and_others_do(
    engines: tuple[DevStack, Config],
) -> None:
    world = altered(engines, {}, revocation={"backlog_limit": 2})
    await world.app.connection.command("FLUSHALL")
    task = await world.open()
    behind = [await stuck(world, task) for _ in "12"]
    other = await world.open(agent="order-clerk", capabilities=["orders-write"])
    path = f"/v1/tasks/{other['task_id']}/grants"
    await world.app.reaper.look()

    refused = await world.call("orchestrator", "POST", path, {"capability": "orders-write"})
    assert_problem(refused, 503, "backend_unavailable")
    assert int(refused.headers["retry-after"]) > 0
    elsewhere = await world.open(capabilities=["orders-api"])
    assert (await world.grant(elsewhere, "orders-api"))["state"] == "active"
    readiness = (await world.call(None, "GET", "/readyz")).json()
    assert "nothing is issued on vault" in readiness["checks"]["revocation"]

    await ask(world, behind[0], "retry")
    await world.sweep()
    await world.app.reaper.look()
    issued = await world.call("orchestrator", "POST", path, {"capability": "orders-write"})
    assert issued.status_code == 201, issued.text
    assert await logs_in(issued.json()["credential"])
    await world.complete(other)
    await world.sweep(ahead_ms=100_000)
    await world.close()
