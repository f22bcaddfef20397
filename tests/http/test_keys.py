"""Signing keys over the API: who may see and rotate them, and what that does to tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jwt
import pytest

from broker.app import build
from broker.clock import SystemClock
from broker.durations import parse_duration
from broker.keys import KeyRing
from tests.http.parties import assert_problem
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack


class LateClock(SystemClock):
    """The machine's clock, moved on by hand."""

    def __init__(self) -> None:
        self.late = 0.0

    def now(self) -> float:
        return super().now() + self.late


def with_keys_in(config: Config, folder: Path) -> Config:
    section = config.broker.model_copy(update={"state_dir": folder})
    return config.model_copy(update={"broker": section})


@pytest.fixture
async def world(engines: tuple[DevStack, Config], tmp_path: Path) -> AsyncGenerator[World]:
    """A broker with an empty ledger, and keys of its own to rotate."""
    stack, config = engines
    made = World(stack.issuer, with_keys_in(config, tmp_path))
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


async def published(world: World) -> list[str]:
    answer = await world.http.get("/.well-known/jwks.json")
    return [key["kid"] for key in answer.json()["keys"]]


async def rotate(world: World, **ask: Any) -> dict[str, Any]:
    answer = await world.call("operator", "POST", "/v1/keys/rotate", ask)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_the_key_set_may_be_cached_for_less_than_a_key_is_published(world: World) -> None:
    answer = await world.http.get("/.well-known/jwks.json")
    assert answer.headers["cache-control"] == "public, max-age=300"
    assert answer.headers["content-type"] == "application/json"
    assert parse_duration("6m") > 300_000  # what key_publish can't go below


@pytest.mark.parametrize("name", ["operator", "auditor"])
async def test_who_watches_over_everything_sees_the_keys(world: World, name: str) -> None:
    answer = await world.call(name, "GET", "/v1/keys")
    assert answer.status_code == 200
    (key,) = answer.json()["items"]
    assert [key["kid"]] == await published(world)
    assert (key["algorithm"], key["state"], key["retires_at"]) == ("ES256", "signing", None)
    assert key["signs_from"] == key["created_at"]
    assert set(key) == {
        "kid",
        "algorithm",
        "state",
        "created_at",
        "signs_from",
        "retires_at",
    }


@pytest.mark.parametrize("name", ["orchestrator", "orders-service"])
async def test_others_do_not(world: World, name: str) -> None:
    assert_problem(await world.call(name, "GET", "/v1/keys"), 403, "access_denied")
    refused = await world.call(name, "POST", "/v1/keys/rotate", {})
    assert_problem(refused, 403, "access_denied")


async def test_agents_and_strangers_do_not(world: World) -> None:
    task = (await world.open())["task_id"]
    refused = await world.call("report-writer", "GET", "/v1/keys", task_id=task)
    assert_problem(refused, 403, "access_denied")
    assert_problem(await world.call(None, "GET", "/v1/keys"), 401, "unauthenticated")
    assert_problem(await world.call(None, "POST", "/v1/keys/rotate", {}), 401, "unauthenticated")
    assert len(await published(world)) == 1


async def test_an_auditor_may_not_rotate(world: World) -> None:
    refused = await world.call("auditor", "POST", "/v1/keys/rotate", {})
    assert_problem(refused, 403, "access_denied")
    assert len(await published(world)) == 1


@pytest.mark.parametrize(
    "ask",
    [
        {"now": True},
        {"now": True, "reason": None},
        {"now": "true", "reason": "x"},
        {"now": 1, "reason": "x"},
        {"reason": ""},
        {"reason": "\u0000"},
        {"reason": ["x"]},
        {"reason": "x" * 1001},
        {"kid": "x"},
        [],
        None,
    ],
)
async def test_malformed_rotations_are_refused(world: World, ask: Any) -> None:
    refused = await world.call("operator", "POST", "/v1/keys/rotate", ask)
    assert_problem(refused, 400, "invalid_request")
    assert len(await published(world)) == 1


async def test_the_next_key_is_published_before_it_signs(world: World) -> None:
    (first,) = await published(world)
    made = await rotate(world)
    assert (made["state"], made["removed"], made["reason"]) == ("next", [], None)
    assert await published(world) == [first, made["kid"]]
    token = await world.token("operator")
    assert jwt.get_unverified_header(token)["kid"] == first
    again = await world.call("operator", "POST", "/v1/keys/rotate", {"reason": "once more"})
    assert_problem(again, 409, "conflict")
    (event,) = [e for e in await world.events("") if e["type"] == "key.rotated"]
    assert (event["principal"], event["data"]["reason"]) == ("operator", "requested")
    assert event["data"]["kid"] == made["kid"]


async def test_now_kills_every_token_at_once_and_is_logged(world: World) -> None:
    (first,) = await published(world)
    task = await world.open()
    token = await world.token("operator")
    bearer = {"Authorization": f"Bearer {token}"}
    assert (await world.http.get("/v1/keys", headers=bearer)).status_code == 200
    made = await rotate(world, now=True, reason="a backup got out")
    assert made["state"] == "signing"
    assert made["removed"] == [first]
    assert await published(world) == [made["kid"]]
    assert_problem(await world.http.get("/v1/keys", headers=bearer), 401, "invalid_token")
    # With new tokens all goes on.
    await world.grant(task, "orders-read")
    (event,) = [e for e in await world.events("") if e["type"] == "key.rotated"]
    assert event["data"]["removed"] == [first]
    assert event["data"]["reason"] == "a backup got out"


async def test_another_replica_follows_without_a_restart(
    engines: tuple[DevStack, Config], tmp_path: Path
) -> None:
    stack, config = engines
    one, two = (World(stack.issuer, with_keys_in(config, tmp_path)) for _ in range(2))
    try:
        old = {"Authorization": f"Bearer {await two.token('operator')}"}
        await rotate(one, now=True, reason="drill")
        new = {"Authorization": f"Bearer {await one.token('operator')}"}
        await two.app.rotation.tend()  # the scheduler's job
        assert (await two.http.get("/v1/keys", headers=new)).status_code == 200
        assert_problem(await two.http.get("/v1/keys", headers=old), 401, "invalid_token")
    finally:
        await one.close()
        await two.close()


async def test_a_configured_algorithm_comes_by_rotation_and_others_verify_it(
    engines: tuple[DevStack, Config], tmp_path: Path
) -> None:
    stack, config = engines
    KeyRing.load_or_create(tmp_path / "keys")  # made before the configuration changed
    section = config.broker.model_copy(update={"state_dir": tmp_path, "signing_algorithm": "RS256"})
    clock = LateClock()
    made = World(stack.issuer, config.model_copy(update={"broker": section}))
    try:
        await made.app.rotation.tend()
        states = [status.state for status in made.app.rotation.status()]
        assert states == ["next", "signing"]
        later = build(made.config, clock=clock)
        clock.late = 601
        assert later.keys.signer.algorithm == "RS256"
        signed = later.keys.sign({"typ": "at+jwt"}, {"aud": "x"})
        keys = (await made.http.get("/.well-known/jwks.json")).json()
        key = jwt.PyJWKSet.from_dict(keys)[jwt.get_unverified_header(signed)["kid"]]
        assert jwt.decode(signed, key, algorithms=["RS256"], audience="x") == {"aud": "x"}
        await later.close()
    finally:
        await made.close()
