"""The routes that are looked up ahead of the others answer as any other does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import pytest

from tests.http.parties import assert_problem

if TYPE_CHECKING:
    from tests.world import World

OAUTH: Final = ("/oauth/token", "/oauth/introspect")
AUTHZEN: Final = ("/access/v1/evaluation", "/access/v1/evaluations")


@pytest.mark.parametrize("path", [*OAUTH, *AUTHZEN])
async def test_it_is_in_the_document_and_takes_posts_alone(world: World, path: str) -> None:
    document = (await world.http.get("/openapi.json")).json()
    refused = await world.http.get(path)

    assert set(document["paths"][path]) == {"post"}
    assert refused.status_code == 405
    assert refused.headers["allow"] == "POST"


@pytest.mark.parametrize("path", OAUTH)
async def test_what_is_refused_has_oauths_form(world: World, path: str) -> None:
    answer = await world.http.post(path, json={})

    assert answer.status_code == 400
    assert answer.json()["error"] == "invalid_request"


@pytest.mark.parametrize("path", AUTHZEN)
async def test_what_is_refused_is_a_problem(world: World, path: str) -> None:
    assert_problem(await world.http.post(path, json={}), 401, "unauthenticated")


@pytest.mark.parametrize("path", [*OAUTH, *AUTHZEN])
async def test_a_query_parameter_given_twice_is_refused_here_too(world: World, path: str) -> None:
    answer = await world.http.post(f"{path}?a=1&a=2")

    assert answer.status_code == 400
    assert "given twice" in answer.text
