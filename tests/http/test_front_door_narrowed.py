"""Narrowed tokens: less of a task, and no way back to all of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.http.front_door import ORDERS, REPORTS
from tests.http.parties import assert_oauth_error, assert_problem, details
from tests.world import JWT

if TYPE_CHECKING:
    import httpx2

    from tests.http.front_door import FrontDoor


def expect(answer: httpx2.Response, status: int = 200) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    return answer.json()


async def api(
    door: FrontDoor, token: str, method: str, path: str, body: Any = None
) -> httpx2.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return await door.http.request(method, path, json=body, headers=headers)


async def ask_child(door: FrontDoor, token: str, parent: dict[str, Any], *names: str) -> Any:
    ask = {"agent": "order-clerk", "purpose": "a part", "parent_task_id": parent["task_id"]}
    return await api(door, token, "POST", "/v1/tasks", {**ask, "capabilities": list(names)})


def narrow(task: dict[str, Any], *names: str) -> str:
    return details(task["task_id"], capabilities=list(names))


async def test_a_narrowed_token_opens_no_task_that_may_have_more(door: FrontDoor) -> None:
    task = await door.task_of(capabilities=["orders-read", "orders-api"])
    token = await door.task_token(task)
    less = expect(await door.narrowed(token, authorization_details=narrow(task, "orders-api")))[
        "access_token"
    ]

    for names in (["orders-read"], ["orders-api", "orders-read"]):
        answer = await ask_child(door, less, task, *names)
        assert assert_problem(answer, 403, "access_denied")["reason"] == "more_than_token"
    expect(await ask_child(door, less, task, "orders-api"), 201)
    expect(await ask_child(door, token, task, "orders-read"), 201)


async def test_a_narrowed_token_has_no_more_in_the_tasks_below(door: FrontDoor) -> None:
    task = await door.task_of()
    token = await door.task_token(task)
    less = expect(await door.narrowed(token, authorization_details=narrow(task, "orders-api")))[
        "access_token"
    ]
    child = await door.task_of("order-clerk", parent_task_id=task["task_id"])
    other = await door.task_of(
        "order-clerk", parent_task_id=task["task_id"], capabilities=["orders-read"]
    )

    async def delegated(below: dict[str, Any], detail: str) -> httpx2.Response:
        return await door.narrowed(
            less,
            actor_token=door.identity(below["agent"]),
            actor_token_type=JWT,
            authorization_details=detail,
        )

    # Asked for itself in the child's task, and exchanged for a token of the child's agent.
    path = f"/v1/tasks/{child['task_id']}/grants"
    assert (await api(door, less, "POST", path, {"capability": "orders-read"})).status_code == 403
    expect(await api(door, less, "POST", path, {"capability": "orders-api"}), 201)
    body = expect(await delegated(child, details(child["task_id"])))
    assert body["authorization_details"][0]["capabilities"] == ["orders-api"]
    theirs = body["access_token"]
    assert (await api(door, theirs, "POST", path, {"capability": "orders-read"})).status_code == 403
    assert_oauth_error(
        await delegated(child, narrow(child, "orders-read")), "invalid_authorization_details"
    )
    assert_oauth_error(
        await delegated(other, details(other["task_id"])), "invalid_authorization_details"
    )


async def test_the_least_capability_is_one_that_the_token_has(door: FrontDoor) -> None:
    task = await door.task_of()
    less = expect(
        await door.narrowed(
            await door.task_token(task), authorization_details=narrow(task, "orders-admin")
        )
    )["access_token"]

    body = expect(await door.narrowed(less, resource=ORDERS, scope="orders.read"))

    assert (await door.show_grant(body["grant_id"]))["capability"] == "orders-admin"
    assert_oauth_error(await door.narrowed(less, resource=REPORTS), "invalid_target")


async def test_a_narrowed_token_tells_and_ends_nothing_of_others(door: FrontDoor) -> None:
    one, other = await door.task_of(), await door.task_of()
    less = expect(
        await door.narrowed(
            await door.task_token(one), authorization_details=narrow(one, "orders-api")
        )
    )["access_token"]
    theirs = await door.grant(other, "orders-api")
    path = f"/v1/tasks/{other['task_id']}"

    assert_problem(await api(door, less, "GET", path), 404, "not_found")
    for method, more, body in (
        ("POST", f"{path}/complete", {"outcome": "failed"}),
        ("POST", f"{path}/heartbeat", None),
        ("DELETE", f"/v1/grants/{theirs['grant_id']}", None),
    ):
        assert_problem(await api(door, less, method, more, body), 404, "not_found")
    answer = await door.post(
        "/oauth/introspect",
        {"token": theirs["credential"]["access_token"]},
        Authorization=f"Bearer {less}",
    )
    assert_oauth_error(answer, "unauthorized_client", 403)
