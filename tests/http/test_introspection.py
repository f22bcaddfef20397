"""``POST /oauth/introspect``: alive or not, to the one whose business it is (RFC 7662)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.http.parties import (
    FORM,
    ORDERS,
    PartyWorld,
    assert_oauth_error,
    bearer,
    party_world,
)
from tests.issuers import IssuerKey

if TYPE_CHECKING:
    import httpx2

    from broker.config import Config
    from broker.dev.stack import DevStack
    from tests.world import World

INACTIVE = {"active": False}


async def introspect(world: World, caller: str, token: str) -> httpx2.Response:
    answer = await world.http.post(
        "/oauth/introspect", data={"token": token}, headers=await bearer(world, caller)
    )
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return answer


async def service_credential(world: World, **fields: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    task = await world.open(capabilities=["orders-api"], **fields)
    return task, await world.grant(task, "orders-api")


async def test_a_live_credential_is_described_to_its_service(world: World) -> None:
    task, granted = await service_credential(world)

    answer = await introspect(world, "orders-service", granted["credential"]["access_token"])

    body = answer.json()
    assert 0 < body.pop("exp") - body.pop("iat") <= 300
    assert body.pop("jti").startswith("jti_")
    assert body == {
        "active": True,
        "iss": world.config.broker.issuer,
        "sub": "orchestrator",
        "aud": ORDERS,
        "client_id": "report-writer",
        "token_type": "Bearer",
        "act": {"sub": "report-writer"},
        "authorization_details": [{"type": "broker_task", "task_id": task["task_id"]}],
        "txn": task["task_id"],
        "scope": "orders.read",
    }


@pytest.mark.parametrize("outcome", ["completed", "failed", "cancelled"])
async def test_a_credential_dies_with_its_task(world: World, outcome: str) -> None:
    task, granted = await service_credential(world)
    token = granted["credential"]["access_token"]
    assert (await introspect(world, "orders-service", token)).json()["active"] is True

    await world.complete(task, outcome)

    assert (await introspect(world, "orders-service", token)).json() == INACTIVE


async def test_a_credential_dies_with_its_grant(world: World) -> None:
    task, granted = await service_credential(world)
    token = granted["credential"]["access_token"]

    path = f"/v1/grants/{granted['grant_id']}"
    await world.call("report-writer", "DELETE", path, task_id=task["task_id"])

    assert (await introspect(world, "orders-service", token)).json() == INACTIVE


async def test_a_credential_dies_when_an_operator_says_so(world: World) -> None:
    _, granted = await service_credential(world)
    token = granted["credential"]["access_token"]

    ask = {"selector": {"agent": "report-writer"}, "reason": "suspicious"}
    assert (await world.call("operator", "POST", "/v1/revocations", ask)).status_code == 200

    assert (await introspect(world, "orders-service", token)).json() == INACTIVE


async def test_a_credential_dies_at_its_time_though_nothing_has_swept(world: World) -> None:
    _, granted = await service_credential(world)
    task = await world.open(capabilities=["orders-api"])
    momentary = await world.grant(task, "orders-api", ttl="1ms")

    token = momentary["credential"]["access_token"]

    assert (await introspect(world, "orders-service", token)).json() == INACTIVE
    assert (
        await introspect(world, "orders-service", granted["credential"]["access_token"])
    ).json()["active"]


async def test_what_is_not_the_services_business_is_inactive(parties: PartyWorld) -> None:
    task, granted = await service_credential(parties)
    for_orders = granted["credential"]["access_token"]
    for_broker = await parties.token("report-writer", task["task_id"])
    own = await parties.token("orders-service")

    assert (await introspect(parties, "billing-service", for_orders)).json() == INACTIVE
    assert (await introspect(parties, "orders-service", for_broker)).json() == INACTIVE
    assert (await introspect(parties, "orders-service", own)).json() == INACTIVE


@pytest.mark.parametrize("caller", ["operator", "auditor"])
async def test_who_watches_over_everything_may_ask_about_everything(
    world: World, caller: str
) -> None:
    task, granted = await service_credential(world)

    for token in (
        granted["credential"]["access_token"],
        await world.token("report-writer", task["task_id"]),
    ):
        assert (await introspect(world, caller, token)).json()["active"] is True
    await world.complete(task)
    assert (await introspect(world, caller, token)).json() == INACTIVE


@pytest.mark.parametrize("token", ["x", "a.b.c", "ü", "\0", "x" * 30_000, '{"active":true}'])
async def test_what_is_no_token_is_inactive_and_no_error(world: World, token: str) -> None:
    assert (await introspect(world, "orders-service", token)).json() == INACTIVE


async def test_other_tokens_are_inactive(world: World) -> None:
    forged = IssuerKey.new().sign({"iss": world.config.broker.issuer}, typ="at+jwt")

    for token in (forged, world.identity("orders-service")):
        assert (await introspect(world, "orders-service", token)).json() == INACTIVE


@pytest.mark.parametrize("fields", [{}, {"tokens": "x"}, {"token": ["x", "y"]}])
async def test_the_token_is_given_exactly_once(world: World, fields: dict[str, Any]) -> None:
    answer = await world.http.post(
        "/oauth/introspect", data=fields, headers={**FORM, **await bearer(world, "operator")}
    )

    assert_oauth_error(answer, "invalid_request")


async def test_a_stranger_is_told_nothing(world: World) -> None:
    _, granted = await service_credential(world)
    token = granted["credential"]["access_token"]

    bare = await world.http.post("/oauth/introspect", data={"token": token})
    itself = await world.http.post(
        "/oauth/introspect", data={"token": token}, headers={"Authorization": f"Bearer {token}"}
    )

    for answer in (bare, itself):
        assert_oauth_error(answer, "invalid_client", 401)
        assert answer.headers["www-authenticate"].startswith("Bearer ")


async def test_agents_and_orchestrators_do_not_introspect(world: World) -> None:
    task, granted = await service_credential(world)
    token = granted["credential"]["access_token"]

    for headers in (
        await bearer(world, "orchestrator"),
        await bearer(world, "report-writer", task["task_id"]),
    ):
        answer = await world.http.post("/oauth/introspect", data={"token": token}, headers=headers)
        assert_oauth_error(answer, "unauthorized_client", 403)


async def test_below_an_issuer_with_a_path_errors_are_oauths_too(
    engines: tuple[DevStack, Config],
) -> None:
    issuer = "http://127.0.0.1:8700/broker"
    world = party_world(engines[0], broker={"issuer": issuer})
    try:
        metadata = await world.http.get(
            "http://127.0.0.1:8700/.well-known/oauth-authorization-server/broker"
        )
        assert metadata.json()["issuer"] == issuer
        answer = await world.http.post(metadata.json()["token_endpoint"], data={"grant_type": "x"})
        assert_oauth_error(answer, "unsupported_grant_type")
    finally:
        await world.close()
