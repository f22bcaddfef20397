"""Idempotency keys: a repeated request does nothing twice, and delivers nothing twice."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from broker.steps import Step
from tests.http.parties import JSON, assert_problem, bearer
from tests.world import World

if TYPE_CHECKING:
    import httpx2

    from broker.config import Config
    from broker.dev.stack import DevStack

ASK: dict[str, Any] = {
    "agent": "report-writer",
    "purpose": "the weekly report",
    "capabilities": ["orders-read"],
}
GRANT: dict[str, Any] = {"capability": "orders-read"}


def key(value: str) -> dict[str, str]:
    return {"Idempotency-Key": value}


async def ask_grant(
    world: World, task: dict[str, Any], body: dict[str, Any], value: str
) -> httpx2.Response:
    path = f"/v1/tasks/{task['task_id']}/grants"
    return await world.call(
        "report-writer", "POST", path, body, task_id=task["task_id"], headers=key(value)
    )


@pytest.mark.parametrize(
    "value",
    [b"", b" ", b"\t", b"x" * 256, "schlüssel".encode(), b"caf\xe9", b"a\x01b", b"\x7f", b"\xff"],
)
@pytest.mark.parametrize("path", ["/v1/tasks", "grants"])
async def test_a_key_is_short_and_printable(world: World, path: str, value: bytes) -> None:
    task = await world.open()
    path = path if path.startswith("/") else f"/v1/tasks/{task['task_id']}/grants"
    headers = {**JSON, **await bearer(world, "orchestrator")}
    raw = [(k.encode(), v.encode()) for k, v in headers.items()] + [(b"Idempotency-Key", value)]

    answer = (
        await world.http.post(path, content=b'{"capability": "orders-read"}', headers=raw)
        if "grants" in path
        else await world.http.request("POST", path, json=ASK, headers=raw)
    )

    body = assert_problem(answer, 400, "invalid_request")
    assert "idempotency-key" in body["detail"].lower()


async def test_two_keys_are_none(world: World) -> None:
    headers = [*(await bearer(world, "orchestrator")).items(), *key("a").items(), *key("b").items()]

    answer = await world.http.request("POST", "/v1/tasks", json=ASK, headers=headers)

    assert_problem(answer, 400, "invalid_request")


async def test_a_repeated_task_is_the_same_task(world: World) -> None:
    first = await world.call("orchestrator", "POST", "/v1/tasks", ASK, headers=key("k"))
    again = await world.call("orchestrator", "POST", "/v1/tasks", ASK, headers=key("k"))

    assert (first.status_code, again.status_code) == (201, 201)
    assert again.json() == first.json()
    listed = (await world.call("operator", "GET", "/v1/tasks")).json()["items"]
    assert len(listed) == 1


async def test_the_order_of_members_does_not_matter(world: World) -> None:
    backwards = dict(reversed(ASK.items()))
    first = await world.call("orchestrator", "POST", "/v1/tasks", ASK, headers=key("k"))
    again = await world.call("orchestrator", "POST", "/v1/tasks", backwards, headers=key("k"))

    assert again.json()["task_id"] == first.json()["task_id"]


async def test_twenty_at_once_open_one_task(world: World) -> None:
    headers = {**await bearer(world, "orchestrator"), **key("k")}
    answers = await asyncio.gather(
        *(world.http.post("/v1/tasks", json=ASK, headers=headers) for _ in range(20))
    )

    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.json()["task_id"] for answer in answers}) == 1


async def test_a_key_for_another_task_is_refused(world: World) -> None:
    await world.call("orchestrator", "POST", "/v1/tasks", ASK, headers=key("k"))

    answer = await world.call(
        "orchestrator", "POST", "/v1/tasks", {**ASK, "purpose": "another"}, headers=key("k")
    )

    assert_problem(answer, 422, "idempotency_key_reused")


async def test_a_repeated_task_that_has_ended_is_shown_as_it_is(world: World) -> None:
    first = await world.call("orchestrator", "POST", "/v1/tasks", ASK, headers=key("k"))
    await world.complete(first.json())

    again = await world.call("orchestrator", "POST", "/v1/tasks", ASK, headers=key("k"))

    assert again.json()["task_id"] == first.json()["task_id"]
    assert again.json()["state"] == "completed"


@pytest.mark.parametrize("capability", ["orders-read", "orders-api"])
async def test_a_repeated_grant_delivers_nothing_again(world: World, capability: str) -> None:
    task = await world.open(capabilities=[capability])
    body = {"capability": capability}
    first = await ask_grant(world, task, body, "k")
    assert first.status_code == 201
    secrets = [v for k, v in first.json()["credential"].items() if k not in {"type", "token_type"}]

    again = await ask_grant(world, task, body, "k")

    problem = assert_problem(again, 409, "credential_already_delivered")
    assert problem["grant_id"] == first.json()["grant_id"]
    assert problem["state"] == "active"
    assert secrets
    assert not [secret for secret in secrets if secret in again.text]
    listed = (await world.call("operator", "GET", "/v1/grants")).json()["items"]
    assert len(listed) == 1


async def test_a_key_for_another_grant_is_refused(world: World) -> None:
    task = await world.open()
    await ask_grant(world, task, GRANT, "k")

    answer = await ask_grant(world, task, {**GRANT, "ttl": "1m"}, "k")

    assert_problem(answer, 422, "idempotency_key_reused")
    assert "credential" not in answer.json()


async def test_ten_at_once_deliver_one_credential(world: World) -> None:
    task = await world.open()
    headers = {**await bearer(world, "report-writer", task["task_id"]), **key("k")}
    path = f"/v1/tasks/{task['task_id']}/grants"
    answers = await asyncio.gather(
        *(world.http.post(path, json=GRANT, headers=headers) for _ in range(10))
    )

    delivered = [answer for answer in answers if answer.status_code == 201]
    assert len(delivered) == 1
    assert {a.json()["code"] for a in answers if a not in delivered} <= {
        "request_in_progress",
        "credential_already_delivered",
    }
    grants = (await world.call("operator", "GET", "/v1/grants")).json()["items"]
    assert len(grants) == 1


async def test_a_key_belongs_to_its_caller_and_its_task(world: World) -> None:
    one, two = await world.open(), await world.open()
    path = f"/v1/tasks/{one['task_id']}/grants"
    answers = [
        await ask_grant(world, one, GRANT, "k"),
        await ask_grant(world, two, GRANT, "k"),
        await world.call("orchestrator", "POST", path, GRANT, headers=key("k")),
    ]

    assert [answer.status_code for answer in answers] == [201, 201, 201]
    assert len({answer.json()["grant_id"] for answer in answers}) == 3


class Stop(Exception):
    """The replica dies here."""


async def test_while_the_first_is_under_way_a_repetition_waits(
    engines: tuple[DevStack, Config],
) -> None:
    dies = True

    def before(step: Step) -> None:
        if dies and step is Step.MINT:
            raise Stop

    stack, config = engines
    world = World(stack.issuer, config, before_step=before)
    try:
        task = await world.open()
        crashed = await ask_grant(world, task, GRANT, "k")
        assert_problem(crashed, 500, "internal_error")
        dies = False

        again = await ask_grant(world, task, GRANT, "k")

        assert_problem(again, 409, "request_in_progress")
        assert again.headers["retry-after"] == "1"
        await world.sweep(ahead_ms=120_000)
        late = await ask_grant(world, await world.open(), GRANT, "k2")
        assert late.status_code == 201
    finally:
        await world.close()
