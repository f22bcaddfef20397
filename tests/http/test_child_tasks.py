"""An agent hands part of its task to another: never more, never longer, and dead with the root."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import pytest

from tests.http.parties import PartyWorld, assert_problem, party_world
from tests.world import World, logs_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import httpx2

    from broker.config import Config
    from broker.dev.stack import DevStack


@pytest.fixture
async def shallow(engines: tuple[DevStack, Config]) -> AsyncGenerator[PartyWorld]:
    made = party_world(engines[0], tasks={"max_depth": 1, "max_children": 2})
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


async def open_child(
    world: World, parent: dict[str, Any], by: str | None = None, **fields: Any
) -> httpx2.Response:
    ask = {
        "agent": "order-clerk",
        "purpose": "a part of it",
        "capabilities": ["orders-read"],
        "parent_task_id": parent["task_id"],
        **fields,
    }
    by = by or parent["agent"]
    own = parent["task_id"] if by == parent["agent"] else None
    return await world.call(by, "POST", "/v1/tasks", ask, task_id=own)


async def test_a_child_belongs_to_its_chain(world: World) -> None:
    root = await world.open()

    child = (await open_child(world, root)).json()

    assert child["parent_task_id"] == child["root_task_id"] == root["task_id"]
    assert child["created_by"] == "report-writer"
    assert child["on_behalf_of"] == root["on_behalf_of"]
    assert child["agent"] == "order-clerk"
    assert child["task_id"][4:6] == root["task_id"][4:6], "one chain, one shard"


@pytest.mark.parametrize("by", [None, "orchestrator"])
async def test_a_child_never_outlives_its_parent(world: World, by: str | None) -> None:
    root = await world.open(ttl="5m")

    longer = (await open_child(world, root, by, ttl="1h")).json()
    shorter = (await open_child(world, root, by, ttl="1m")).json()

    assert longer["expires_at"] == root["expires_at"]
    assert any("parent" in note for note in longer["notes"])
    assert datetime.fromisoformat(shorter["expires_at"]) < datetime.fromisoformat(
        root["expires_at"]
    )
    assert shorter["notes"] == []


@pytest.mark.parametrize("by", [None, "orchestrator"])
async def test_a_child_never_has_more_than_its_parent(world: World, by: str | None) -> None:
    root = await world.open()

    answer = await open_child(world, root, by, capabilities=["orders-read", "orders-write"])

    assert assert_problem(answer, 403, "access_denied")["reason"] == "more_than_parent"


async def test_a_child_gets_only_what_its_own_agent_may_have(world: World) -> None:
    root = await world.open(capabilities=["orders-read", "orders-api"])

    answer = await open_child(world, root, capabilities=["orders-api"])

    assert_problem(answer, 403, "access_denied")


async def test_a_chain_is_no_circle(world: World) -> None:
    root = await world.open()
    child = (await open_child(world, root)).json()

    itself = await open_child(world, root, agent="report-writer")
    back = await open_child(world, child, agent="report-writer")

    for answer in (itself, back):
        assert assert_problem(answer, 403, "access_denied")["reason"] == "chain_has_a_cycle"


async def test_a_chain_has_a_bottom(shallow: PartyWorld) -> None:
    root = await shallow.open()
    child = (await open_child(shallow, root)).json()

    answer = await open_child(shallow, child, agent="report-writer")

    assert assert_problem(answer, 403, "access_denied")["reason"] == "chain_too_deep"


async def test_a_task_has_so_many_children_and_no_more(shallow: PartyWorld) -> None:
    root = await shallow.open()
    for _ in range(2):
        assert (await open_child(shallow, root)).status_code == 201

    assert_problem(await open_child(shallow, root), 429, "quota_exceeded")


async def test_an_agent_opens_children_of_its_own_task_only(world: World) -> None:
    root, other = await world.open(), await world.open()
    child = (await open_child(world, root)).json()
    ask = {
        "agent": "order-clerk",
        "purpose": "not mine",
        "capabilities": ["orders-read"],
    }

    for parent in (other, child):
        answer = await world.call(
            "report-writer",
            "POST",
            "/v1/tasks",
            {**ask, "parent_task_id": parent["task_id"]},
            task_id=root["task_id"],
        )
        assert_problem(answer, 404, "not_found")
    bare = await world.call("report-writer", "POST", "/v1/tasks", ask, task_id=root["task_id"])
    assert_problem(bare, 403, "access_denied")


async def test_a_child_cannot_speak_for_somebody_else(world: World) -> None:
    root = await world.open()
    person = world.issuer.token("person/eve").reveal()

    answer = await open_child(world, root, on_behalf_of=person)

    assert assert_problem(answer, 400, "invalid_request")["field"] == "on_behalf_of"


@pytest.mark.parametrize("proof", ["ada@example.com", "a.b.c"])
async def test_a_bad_proof_of_a_person_is_a_bad_field_not_a_bad_caller(
    world: World, proof: str
) -> None:
    ask = {"agent": "report-writer", "purpose": "p", "capabilities": ["orders-read"]}

    answer = await world.call("orchestrator", "POST", "/v1/tasks", {**ask, "on_behalf_of": proof})

    assert assert_problem(answer, 400, "invalid_request")["field"] == "on_behalf_of"


async def test_the_orchestrator_sees_and_ends_what_its_agents_opened(world: World) -> None:
    root = await world.open()
    child = (await open_child(world, root)).json()
    path = f"/v1/tasks/{child['task_id']}"

    assert (await world.call("orchestrator", "GET", path)).json()["task_id"] == child["task_id"]
    answer = await world.call("orchestrator", "POST", f"{path}/complete", {"outcome": "cancelled"})

    assert answer.json()["state"] == "cancelled"
    assert (await world.show_task(root["task_id"]))["state"] == "active"


async def test_a_child_does_not_see_its_parent(world: World) -> None:
    root = await world.open()
    child = (await open_child(world, root)).json()

    answer = await world.call(
        "order-clerk", "GET", f"/v1/tasks/{root['task_id']}", task_id=child["task_id"]
    )

    assert_problem(answer, 404, "not_found")


@pytest.mark.parametrize("outcome", ["completed", "failed", "cancelled"])
async def test_the_end_of_the_root_kills_every_credential_of_the_chain(
    world: World, outcome: str
) -> None:
    root = await world.open()
    child = (await open_child(world, root)).json()
    credentials = [(await world.grant(task))["credential"] for task in (root, child)]
    assert [await logs_in(credential) for credential in credentials] == [True, True]
    token = await world.token("order-clerk", child["task_id"])

    answer = await world.complete(root, outcome)

    assert answer == {"state": outcome, "grants": {"revoked": 2, "revoking": 0, "abandoned": 0}}
    assert [await logs_in(credential) for credential in credentials] == [False, False]
    shown = await world.show_task(child["task_id"])
    assert (shown["state"], shown["reason"]) == ("cancelled", f"parent_{outcome}")
    assert shown["closed_at"]
    dead = await world.http.get(
        f"/v1/tasks/{child['task_id']}", headers={"Authorization": f"Bearer {token}"}
    )
    assert_problem(dead, 401, "invalid_token")
    late = await open_child(world, root, "orchestrator")
    assert_problem(late, 409, "task_not_active")


async def test_the_end_of_a_child_leaves_its_parent_alone(world: World) -> None:
    root = await world.open()
    child = (await open_child(world, root)).json()
    kept, lost = (await world.grant(root))["credential"], (await world.grant(child))["credential"]

    await world.complete(child)

    assert (await logs_in(kept), await logs_in(lost)) == (True, False)
