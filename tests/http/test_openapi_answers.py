"""What schemathesis found once, held on to: methods a path takes, parameters given twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.http.parties import UNKNOWN_TASK, assert_problem, bearer

if TYPE_CHECKING:
    from tests.world import World


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/tasks", "GET, POST"),
        (f"/v1/tasks/{UNKNOWN_TASK}", "GET"),
        ("/v1/grants/x", "GET, DELETE"),
        ("/v1/freezes", "GET, POST, DELETE"),
        ("/oauth/token", "POST"),
        ("/healthz", "GET"),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "PATCH", "OPTIONS", "TRACE"])
async def test_a_wrong_method_is_told_every_right_one(
    world: World, path: str, allowed: str, method: str
) -> None:
    answer = await world.http.request(method, path)

    assert_problem(answer, 405, "method_not_allowed")
    assert answer.headers["allow"] == allowed


@pytest.mark.parametrize("path", ["/v1/tasks", "/v1/grants", "/v1/audit/events"])
@pytest.mark.parametrize("query", ["limit=1&limit=2", "limit=1&limit=1", "limit=1&lim%69t="])
async def test_a_query_parameter_is_given_once(world: World, path: str, query: str) -> None:
    answer = await world.http.get(f"{path}?{query}", headers=await bearer(world, "operator"))

    body = assert_problem(answer, 400, "invalid_request")
    assert body["errors"] == [{"field": "limit", "reason": "given twice"}]


async def test_many_doubled_parameters_are_refused_briefly(world: World) -> None:
    query = "&".join(f"{'x' * 250}{n % 100}=" for n in range(200))

    answer = await world.http.get(f"/v1/tasks?{query}", headers=await bearer(world, "operator"))

    body = assert_problem(answer, 400, "invalid_request")
    assert len(body["errors"]) == 20
    assert len(answer.content) < 20_000
