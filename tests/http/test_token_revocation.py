"""``POST /oauth/revoke`` (RFC 7009): whose token, what goes with it, and when it can't be done."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.http.front_door import ORDERS
from tests.http.parties import assert_oauth_error, details
from tests.world import logs_in

if TYPE_CHECKING:
    from tests.http.front_door import FrontDoor


async def revoke(door: FrontDoor, token: str, **more: str) -> Any:
    return await door.post("/oauth/revoke", {"token": token, **more})


async def ask(door: FrontDoor, token: str, task: dict[str, Any], capability: str) -> Any:
    return await door.http.post(
        f"/v1/tasks/{task['task_id']}/grants",
        json={"capability": capability},
        headers={"Authorization": f"Bearer {token}"},
    )


async def test_a_token_is_dead_when_the_answer_comes(door: FrontDoor) -> None:
    token = await door.task_token(await door.task_of())

    answer = await revoke(door, token, token_type_hint="access_token")

    assert (answer.status_code, answer.content) == (200, b"")
    assert not await door.alive(token)
    headers = {"Authorization": f"Bearer {token}"}
    assert (await door.http.get("/v1/tasks", headers=headers)).status_code == 401
    assert (await revoke(door, token)).status_code == 200


@pytest.mark.parametrize("token", ["x", "a.b.c", "\0", "x" * 20_000])
async def test_what_is_no_token_is_no_error(door: FrontDoor, token: str) -> None:
    assert (await revoke(door, token)).status_code == 200


@pytest.mark.parametrize(
    "form",
    [
        [],
        [("token", "")],
        [("token", "x"), ("token", "x")],
        [("token", "x"), ("token_type_hint", "a"), ("token_type_hint", "b")],
    ],
)
async def test_malformed_requests(door: FrontDoor, form: list[tuple[str, str]]) -> None:
    assert_oauth_error(await door.post("/oauth/revoke", form), "invalid_request")


async def test_an_unknown_hint_is_ignored(door: FrontDoor) -> None:
    token = await door.task_token(await door.task_of())

    assert (await revoke(door, token, token_type_hint="refresh_token")).status_code == 200
    assert not await door.alive(token)


async def test_all_that_was_had_with_a_token_dies_with_it(door: FrontDoor) -> None:
    task = await door.task_of()
    token, other = await door.task_token(task), await door.task_token(task)
    database = (await ask(door, token, task, "orders-read")).json()
    kept = (await ask(door, other, task, "orders-read")).json()
    narrow = (await door.narrowed(token)).json()["access_token"]
    narrower = (await door.narrowed(narrow)).json()["access_token"]
    service = (await door.narrowed(narrower, resource=ORDERS)).json()

    assert (await revoke(door, token)).status_code == 200

    for dead in (token, narrow, narrower, service["access_token"]):
        assert not await door.alive(dead)
    assert not await logs_in(database["credential"])
    for grant_id in (database["grant_id"], service["grant_id"]):
        assert (await door.show_grant(grant_id))["state"] == "revoked"
    # The task goes on, and so does what was had with its other token.
    assert await door.alive(other)
    assert await logs_in(kept["credential"])
    for dead in (narrow, narrower):
        assert (await ask(door, dead, task, "orders-read")).status_code == 401
        assert_oauth_error(await door.narrowed(dead), "invalid_request")


async def test_a_service_token_alone(door: FrontDoor) -> None:
    token = await door.task_token(await door.task_of())
    service = (await door.narrowed(token, resource=ORDERS)).json()

    assert (await revoke(door, service["access_token"])).status_code == 200

    assert (await door.show_grant(service["grant_id"]))["state"] == "revoked"
    assert not await door.alive(service["access_token"])
    assert await door.alive(token)


async def test_nothing_slips_in_while_a_token_is_revoked(door: FrontDoor) -> None:
    task = await door.task_of()
    token = await door.task_token(task)

    answers = await asyncio.gather(
        *(ask(door, token, task, "orders-read") for _ in range(6)),
        *(door.narrowed(token, resource=ORDERS) for _ in range(3)),
        revoke(door, token),
        *(ask(door, token, task, "orders-read") for _ in range(6)),
        return_exceptions=False,
    )

    await door.app.pipeline.work.drain(20)
    assert {a.status_code for a in answers} <= {200, 201, 400, 401, 403}
    got = [a.json() for a in answers if a.status_code == 201]
    for row in got:
        assert (await door.show_grant(row["grant_id"]))["state"] == "revoked"
        assert not await logs_in(row["credential"])
    live = await door.call("operator", "GET", "/v1/grants?state=active")
    assert live.json()["items"] == []


async def test_the_token_of_another_client_stays(door: FrontDoor) -> None:
    token = await door.task_token(await door.task_of())
    mine = await door.task_token(await door.task_of("order-clerk"))

    for answer in (
        await door.post("/oauth/revoke", {**door.as_client("gateway"), "token": token}),
        await door.post("/oauth/revoke", {"token": token}, Authorization=f"Bearer {mine}"),
        await revoke(door, token, client_id="order-clerk"),
    ):
        assert_oauth_error(answer, "unauthorized_client")
    assert await door.alive(token)


async def test_an_operator_ends_any(door: FrontDoor) -> None:
    token = await door.task_token(await door.task_of())

    answer = await door.post("/oauth/revoke", {**door.as_client("desk"), "token": token})

    assert answer.status_code == 200
    assert not await door.alive(token)


async def test_a_client_ends_its_own(door: FrontDoor) -> None:
    task = await door.task_of("runner")
    form = {
        "grant_type": "client_credentials",
        "authorization_details": details(task["task_id"]),
        **door.as_client("runner"),
    }
    token = (await door.post("/oauth/token", form)).json()["access_token"]

    answer = await door.post("/oauth/revoke", {**door.as_client("runner"), "token": token})

    assert answer.status_code == 200
    assert not await door.alive(token)


async def test_revocations_are_in_the_log(door: FrontDoor) -> None:
    task = await door.task_of()
    token = await door.task_token(task)
    await revoke(door, token)

    events = [e for e in await door.events(task["task_id"]) if e["type"] == "token.revoked"]

    assert [e["principal"] for e in events] == ["report-writer"]
    assert token not in str(events)
