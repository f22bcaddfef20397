"""Bodies of the wrong size, methods and paths that aren't there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.http.parties import JSON, UNKNOWN_GRANT, UNKNOWN_TASK, assert_problem, bearer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.world import World

TASK = {"agent": "report-writer", "purpose": "the weekly report", "capabilities": ["orders-read"]}


async def chunks(total: int) -> AsyncIterator[bytes]:
    for _ in range(total // 1000):
        yield b" " * 1000


async def test_a_body_over_the_limit_is_refused_before_anyone_asks_who_sent_it(
    world: World,
) -> None:
    limit = world.config.broker.max_body
    with_length = await world.http.post("/v1/tasks", content=b" " * (limit + 1))
    chunked = await world.http.post("/v1/tasks", content=chunks(limit + 5000))
    deceiving = await world.http.post(
        "/v1/tasks", content=chunks(limit + 5000), headers={"Content-Length": "2"}
    )

    for answer in (with_length, chunked, deceiving):
        assert_problem(answer, 413, "payload_too_large")


async def test_a_body_at_the_limit_is_read(world: World) -> None:
    content = json.dumps(TASK).encode()
    content += b" " * (world.config.broker.max_body - len(content))
    headers = {**JSON, **await bearer(world, "orchestrator")}

    answer = await world.http.post("/v1/tasks", content=content, headers=headers)

    assert answer.status_code == 201


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/v1/tasks"),
        ("DELETE", "/v1/tasks"),
        ("PATCH", f"/v1/tasks/{UNKNOWN_TASK}"),
        ("GET", f"/v1/tasks/{UNKNOWN_TASK}/complete"),
        ("POST", f"/v1/grants/{UNKNOWN_GRANT}"),
        ("GET", "/v1/revocations"),
        ("POST", "/v1/audit/events"),
        ("TRACE", "/v1/tasks"),
    ],
)
async def test_a_wrong_method_says_which_are_right(world: World, method: str, path: str) -> None:
    answer = await world.http.request(method, path)

    assert_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"]


@pytest.mark.parametrize(
    "path",
    ["/", "/v1", "/v1/", "/v1/tasks/", "/v2/tasks", "/v1/tasks/a/b", "/v1/tasks/%2e%2e/x", "//v1"],
)
async def test_an_unknown_path_is_not_found(world: World, path: str) -> None:
    assert_problem(await world.http.get(path), 404, "not_found")
