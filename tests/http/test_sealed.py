"""By a sealed token no credential is seen, whichever way it is asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.gateway_world import ACCESS_TOKEN, GatewayWorld, gateway_config
from tests.http.parties import ORDERS, assert_oauth_error, assert_problem, details
from tests.world import EXCHANGE, JWT, logs_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from broker.config import Config
    from broker.dev.stack import DevStack

CAPABILITIES = ["orders-read", "orders-shown", "orders-api"]


@pytest.fixture
async def world(engines: tuple[DevStack, Config]) -> AsyncGenerator[GatewayWorld]:
    made = GatewayWorld(engines[0].issuer, gateway_config(engines[0]))
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


async def ask(world: GatewayWorld, token: str, task: dict[str, Any], **fields: Any) -> Any:
    body = {"capability": "orders-read", **fields}
    return await world.by(token, "POST", f"/v1/tasks/{task['task_id']}/grants", body)


@pytest.mark.parametrize("delivery", ["inline", "wrapped"])
@pytest.mark.parametrize("name", ["report-writer", "orchestrator"])
async def test_nothing_is_delivered_but_vouchers(
    world: GatewayWorld, name: str, delivery: str
) -> None:
    task = await world.open(capabilities=CAPABILITIES)
    token = await world.sealed(name, task["task_id"] if name == "report-writer" else None)

    assert_problem(await ask(world, token, task, delivery=delivery), 403, "access_denied")
    # What there isn't looks the same.
    answer = await ask(world, token, task, delivery=delivery, capability="nothing")
    assert_problem(answer, 403, "access_denied")
    grants = await world.call("operator", "GET", f"/v1/grants?task_id={task['task_id']}")
    assert grants.json()["items"] == []
    assert (await ask(world, token, task, delivery="voucher")).status_code == 201


async def test_the_operator_may_let_models_see_a_capabilitys_secrets(world: GatewayWorld) -> None:
    task = await world.open(capabilities=CAPABILITIES)
    token = await world.sealed("report-writer", task["task_id"])

    answer = await ask(world, token, task, capability="orders-shown")

    assert answer.status_code == 201, answer.text
    assert await logs_in(answer.json()["credential"])


async def test_it_redeems_no_voucher(world: GatewayWorld) -> None:
    task = await world.open(capabilities=CAPABILITIES)
    token = await world.sealed("report-writer", task["task_id"])
    issued = (await ask(world, token, task, delivery="voucher")).json()
    grant_id, _, share = issued["credential"]["voucher"].partition(":")
    path = f"/v1/grants/{grant_id}/unwrap"

    assert_problem(await world.by(token, "POST", path, {"token": share}), 403, "access_denied")

    # Nothing was lost by that.
    plain = await world.token("report-writer", task["task_id"])
    opened = await world.by(plain, "POST", path, {"token": share})
    assert opened.status_code == 200, opened.text


async def test_it_rotates_to_a_voucher_alone(world: GatewayWorld) -> None:
    task = await world.open(capabilities=CAPABILITIES)
    token = await world.sealed("report-writer", task["task_id"])
    issued = (await ask(world, token, task, delivery="voucher")).json()
    path = f"/v1/grants/{issued['grant_id']}/rotate"

    assert_problem(await world.by(token, "POST", path, {}), 403, "access_denied")

    rotated = await world.by(token, "POST", path, {"delivery": "voucher"})
    assert rotated.status_code == 201, rotated.text
    assert rotated.json()["credential"]["type"] == "voucher"


async def test_it_stays_sealed(world: GatewayWorld) -> None:
    task = await world.open(capabilities=CAPABILITIES)
    token = await world.sealed("report-writer", task["task_id"])
    form = {"grant_type": EXCHANGE, "subject_token": token, "subject_token_type": ACCESS_TOKEN}

    for more in ({}, {"scope": "agent"}, {"scope": "agent sealed"}):
        answer = await world.post(**form, **more)
        assert answer.json()["scope"] == "agent sealed"
        again = answer.json()["access_token"]
        assert_problem(await ask(world, again, task), 403, "access_denied")
    # A token for a service is a credential too.
    assert_oauth_error(await world.post(**form, resource=ORDERS), "invalid_target")


async def test_so_do_the_tokens_of_those_it_is_passed_on_to(world: GatewayWorld) -> None:
    task = await world.open(capabilities=CAPABILITIES)
    token = await world.sealed("report-writer", task["task_id"])
    child = await world.open(
        agent="order-clerk", parent_task_id=task["task_id"], capabilities=["orders-read"]
    )

    answer = await world.post(
        grant_type=EXCHANGE,
        subject_token=token,
        subject_token_type=ACCESS_TOKEN,
        actor_token=world.identity("order-clerk"),
        actor_token_type=JWT,
        authorization_details=details(child["task_id"]),
    )

    assert answer.status_code == 200, answer.text
    theirs = answer.json()["access_token"]
    assert_problem(await ask(world, theirs, child), 403, "access_denied")


async def test_whoami_and_what_may_be_asked_for(world: GatewayWorld) -> None:
    task = await world.open(capabilities=["orders-read", "orders-shown", "send-email"])
    token = await world.sealed("report-writer", task["task_id"])

    me = (await world.by(token, "GET", "/v1/whoami")).json()
    assert me["principal"] == "report-writer"
    assert (me["role"], me["task_id"], me["sealed"]) == ("agent", task["task_id"], True)
    offers = await world.by(token, "GET", f"/v1/tasks/{task['task_id']}/capabilities")
    found = {offer["name"]: offer for offer in offers.json()["items"]}
    assert set(found) == {"orders-read", "orders-shown", "send-email"}
    assert found["orders-read"]["kind"] == "credential"
    assert not found["orders-read"]["model_may_see"]
    assert found["orders-shown"]["model_may_see"]
    assert found["send-email"]["arguments"] == {
        "body": "string?",
        "subject": "string",
        "to": "strings",
    }
    other = await world.open(agent="order-clerk")
    path = f"/v1/tasks/{other['task_id']}/capabilities"
    assert_problem(await world.by(token, "GET", path), 404, "not_found")
