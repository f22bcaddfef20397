"""Query parameters and headers that can't be meant: refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.http.parties import UNKNOWN_GRANT, UNKNOWN_TASK, assert_problem, bearer

if TYPE_CHECKING:
    from tests.world import World

LISTS = ["/v1/tasks", "/v1/grants", "/v1/audit/events"]


@pytest.mark.parametrize("path", LISTS)
@pytest.mark.parametrize("limit", ["0", "-1", "501", "x", "", "1.5", "9" * 5000, "\u0661"])
async def test_a_limit_is_a_number_in_range(world: World, path: str, limit: str) -> None:
    answer = await world.http.get(
        path, params={"limit": limit}, headers=await bearer(world, "operator")
    )

    body = assert_problem(answer, 400, "invalid_request")
    assert [row["field"] for row in body["errors"]] == ["limit"]


@pytest.mark.parametrize("path", ["/v1/tasks", "/v1/grants"])
@pytest.mark.parametrize(
    "cursor",
    [
        "x",
        "|",
        "0|",
        "|tsk_00000000000000000000000000",
        "-1|tsk_00000000000000000000000000",
        "0|tsk_*",
        "\0",
        "0|tsk_00000000000000000000000000|",
        "\xff",
        "1" * 400,
    ],
)
async def test_a_cursor_is_one_of_the_lists_own(world: World, path: str, cursor: str) -> None:
    answer = await world.http.get(
        path, params={"cursor": cursor}, headers=await bearer(world, "operator")
    )

    assert_problem(answer, 400, "invalid_request")


@pytest.mark.parametrize(
    "after",
    [
        "x",
        "0",
        "0-0",
        "0-00-0-0",
        "--",
        "x-00-0",
        "0-zz-0",
        "0-00-x",
        "\0-\0-\0",
        "$",
        "+",
        "1" * 400,
        "99999999999999999999-00-0",
        "0-00-99999999999999999999999",
        "1_0-00-0",
        " 1-00-0",
        "٣-00-0",
    ],
)
async def test_an_event_is_named_by_its_id(world: World, after: str) -> None:
    answer = await world.http.get(
        "/v1/audit/events", params={"after": after}, headers=await bearer(world, "operator")
    )

    assert_problem(answer, 400, "invalid_request")


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/v1/tasks", "agent"),
        ("/v1/grants", "agent"),
        ("/v1/grants", "task_id"),
        ("/v1/audit/events", "task_id"),
    ],
)
async def test_an_overlong_filter_is_refused(world: World, path: str, name: str) -> None:
    answer = await world.http.get(
        path, params={name: "x" * 321}, headers=await bearer(world, "operator")
    )

    body = assert_problem(answer, 400, "invalid_request")
    assert [row["field"] for row in body["errors"]] == [name]


@pytest.mark.parametrize("path", ["/v1/tasks", "/v1/grants"])
@pytest.mark.parametrize("state", ["actve", "ACTIVE", "*", "active|", "\0"])
async def test_a_state_that_does_not_exist_is_refused(world: World, path: str, state: str) -> None:
    answer = await world.http.get(
        path, params={"state": state}, headers=await bearer(world, "operator")
    )

    assert_problem(answer, 400, "invalid_request")


async def test_a_cursor_is_checked_below_a_task_too(world: World) -> None:
    task = await world.open()

    answer = await world.http.get(
        "/v1/grants",
        params={"task_id": task["task_id"], "cursor": "nonsense"},
        headers=await bearer(world, "operator"),
    )

    assert_problem(answer, 400, "invalid_request")


@pytest.mark.parametrize("task_id", [UNKNOWN_TASK, "tsk_*", "|", "\0", "tsk_ff" + "0" * 24])
async def test_lists_about_an_unknown_task_say_so(world: World, task_id: str) -> None:
    headers = await bearer(world, "operator")

    grants = await world.http.get("/v1/grants", params={"task_id": task_id}, headers=headers)
    events = await world.http.get("/v1/audit/events", params={"task_id": task_id}, headers=headers)

    assert_problem(grants, 404, "not_found")
    # The log outlives what it is about, so it has no unknown tasks.
    assert (events.status_code, events.json()) == (200, {"items": [], "next": None})


@pytest.mark.parametrize(
    "grant_id", [UNKNOWN_GRANT, "x", "grt_*", "%00", "%F0%9F%94%91", "grt_ff" + "0" * 24, "%7C"]
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
async def test_an_unknown_grant_is_not_found(world: World, method: str, grant_id: str) -> None:
    headers = await bearer(world, "operator")

    answer = await world.http.request(method, f"/v1/grants/{grant_id}", headers=headers)

    assert_problem(answer, 404, "not_found")
