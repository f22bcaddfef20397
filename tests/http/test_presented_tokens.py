"""A resource server goes on with a token that was presented to it: never with that token itself."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING, Any

import pytest

from tests.gateway_world import ACCESS_TOKEN, GATEWAY, GatewayWorld, gateway_config
from tests.http.parties import ORDERS, assert_oauth_error, assert_problem, details
from tests.world import EXCHANGE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from broker.config import Config
    from broker.dev.stack import DevStack

CAPABILITIES = ["orders-read", "broker-mcp", "orders-api"]


@pytest.fixture
async def world(engines: tuple[DevStack, Config]) -> AsyncGenerator[GatewayWorld]:
    made = GatewayWorld(engines[0].issuer, gateway_config(engines[0]))
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


def claims(token: str) -> dict[str, Any]:
    part = token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


async def acting(world: GatewayWorld, task: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """What was presented, and the token that the resource server has for it."""
    given = await world.present(task)
    answer = await world.act_by(given["access_token"])
    assert answer.status_code == 200, answer.text
    return given, answer.json()["access_token"]


async def test_it_has_a_token_of_its_own_that_says_who_acts_for_whom(world: GatewayWorld) -> None:
    task = await world.open(capabilities=CAPABILITIES)
    given = await world.present(task)

    answer = (await world.act_by(given["access_token"])).json()

    assert answer["scope"] == "agent sealed"
    assert answer["authorization_details"] == [{"type": "broker_task", "task_id": task["task_id"]}]
    got, had = claims(answer["access_token"]), claims(given["access_token"])
    assert got["aud"] == world.config.broker.issuer
    assert got["client_id"] == GATEWAY
    assert got["act"] == {"sub": GATEWAY, "act": {"sub": "report-writer"}}
    assert got["sub"] == "orchestrator"
    assert got["via"] == [had["jti"]]
    assert got["exp"] <= had["exp"]
    me = (await world.by(answer["access_token"], "GET", "/v1/whoami")).json()
    assert me["principal"] == "report-writer"
    assert me["task_id"] == task["task_id"]
    assert (me["sealed"], me["presented_to"]) == (True, GATEWAY)
    events = await world.events(task["task_id"])
    issued = [e for e in events if e["type"] == "token.issued" and e["principal"] == GATEWAY]
    assert [e["data"]["jti"] for e in issued] == [got["jti"]]


async def test_it_has_no_more_power_than_the_agent(world: GatewayWorld) -> None:
    mine = await world.open(capabilities=CAPABILITIES)
    other = await world.open(agent="order-clerk")
    _, token = await acting(world, mine)

    for method, path, body in (
        ("GET", f"/v1/tasks/{other['task_id']}", None),
        ("POST", f"/v1/tasks/{other['task_id']}/grants", {"capability": "orders-read"}),
        ("POST", f"/v1/tasks/{other['task_id']}/complete", {"outcome": "failed"}),
    ):
        assert_problem(await world.by(token, method, path, body), 404, "not_found")
    path = f"/v1/tasks/{mine['task_id']}/grants"
    ask = {"capability": "orders-write", "delivery": "voucher"}
    assert_problem(await world.by(token, "POST", path, ask), 403, "access_denied")
    # What resource servers may: nothing of it.
    answer = await world.http.post(
        "/oauth/introspect", data={"token": token}, headers={"Authorization": f"Bearer {token}"}
    )
    assert answer.status_code == 403
    await world.by(token, "POST", f"/v1/tasks/{mine['task_id']}/complete", {"outcome": "completed"})
    assert (await world.show_task(mine["task_id"]))["state"] == "completed"


async def test_what_was_presented_opens_nothing_at_the_broker(world: GatewayWorld) -> None:
    task = await world.open(capabilities=CAPABILITIES)
    token = (await world.present(task))["access_token"]

    assert_problem(await world.by(token, "GET", "/v1/whoami"), 401, "invalid_token")
    # Nor does whoever has caught it get one for the broker by it: not alone, and not as another.
    alone = {"grant_type": EXCHANGE, "subject_token": token, "subject_token_type": ACCESS_TOKEN}
    assert_oauth_error(await world.post(**alone), "invalid_request")
    for actor in ("report-writer", "order-clerk", "orders-service", "billing-service", "operator"):
        assert_oauth_error(await world.act_by(token, actor), "invalid_request")


async def test_a_token_for_the_broker_isnt_taken_for_one_that_was_presented(
    world: GatewayWorld,
) -> None:
    task = await world.open(capabilities=CAPABILITIES)
    token = await world.token("report-writer", task["task_id"])

    said = assert_oauth_error(await world.act_by(token), "invalid_request")
    assert "another audience" in said
    assert_oauth_error(await world.act_by(await world.token("orchestrator")), "invalid_request")


async def test_it_goes_no_further(world: GatewayWorld) -> None:
    task = await world.open(capabilities=CAPABILITIES)
    other = await world.open(capabilities=CAPABILITIES)
    given, token = await acting(world, task)

    again = {"grant_type": EXCHANGE, "subject_token": token, "subject_token_type": ACCESS_TOKEN}
    assert_oauth_error(await world.post(**again), "invalid_request")
    assert_oauth_error(await world.act_by(token), "invalid_request")
    assert_oauth_error(await world.act_by(token, "report-writer"), "invalid_request")
    # Not to other services, and not to other tasks of the agent.
    presented = given["access_token"]
    assert_oauth_error(await world.act_by(presented, resource=ORDERS), "invalid_target")
    elsewhere = details(other["task_id"])
    answer = await world.act_by(presented, authorization_details=elsewhere)
    assert_oauth_error(answer, "invalid_authorization_details")


async def test_it_dies_with_what_was_presented(world: GatewayWorld) -> None:
    task = await world.open(capabilities=CAPABILITIES)
    given, token = await acting(world, task)
    assert (await world.by(token, "GET", "/v1/whoami")).status_code == 200

    await world.call("operator", "DELETE", f"/v1/grants/{given['grant_id']}")

    assert_problem(await world.by(token, "GET", "/v1/whoami"), 401, "invalid_token")
    assert_oauth_error(await world.act_by(given["access_token"]), "invalid_request")


async def test_it_dies_with_the_task(world: GatewayWorld) -> None:
    task = await world.open(capabilities=CAPABILITIES)
    _, token = await acting(world, task)

    await world.complete(task)

    assert_problem(await world.by(token, "GET", "/v1/whoami"), 401, "invalid_token")


@pytest.mark.parametrize("name", [GATEWAY, "report-writer"])
async def test_it_dies_with_either_of_the_two(world: GatewayWorld, name: str) -> None:
    task = await world.open(capabilities=CAPABILITIES)
    given, token = await acting(world, task)

    path = f"/v1/principals/{name}/suspend"
    answer = await world.call("operator", "POST", path, {"reason": "a test"})
    assert answer.status_code == 200, answer.text

    assert_problem(await world.by(token, "GET", "/v1/whoami"), 401, "invalid_token")
    assert_oauth_error(await world.act_by(given["access_token"]), "invalid_request")


async def test_a_capability_less_is_passed_on(world: GatewayWorld) -> None:
    task = await world.open(capabilities=CAPABILITIES)
    given = await world.present(task)

    less = details(task["task_id"], capabilities=["orders-api"])
    answer = await world.act_by(given["access_token"], authorization_details=less)

    token = answer.json()["access_token"]
    path = f"/v1/tasks/{task['task_id']}/grants"
    ask = {"capability": "orders-read", "delivery": "voucher"}
    assert_problem(await world.by(token, "POST", path, ask), 403, "access_denied")


async def test_a_resource_server_narrows_its_own_token_as_ever(world: GatewayWorld) -> None:
    token = await world.token(GATEWAY)

    again = {"grant_type": EXCHANGE, "subject_token": token, "subject_token_type": ACCESS_TOKEN}
    answer = await world.post(**again)

    assert answer.status_code == 200, answer.text
    me = await world.by(answer.json()["access_token"], "GET", "/v1/whoami")
    assert (me.json()["principal"], me.json()["presented_to"]) == (GATEWAY, None)
