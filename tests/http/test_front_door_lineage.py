"""What hangs from a token ends with it: exchanged tokens, credentials, tasks; at every replica."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, Final

import httpx2
import pytest

from broker.app import build
from broker.clock import SystemClock
from broker.errors import BackendUnavailable
from broker.ledger.live_tokens import LiveTokens
from broker.steps import Step
from tests.http.front_door import ACCESS_TOKEN, ORDERS, FrontDoor, front_door
from tests.http.parties import assert_oauth_error, details
from tests.waiting import wait_until
from tests.world import JWT

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

API: Final = "orders-api"


def expect(answer: httpx2.Response, status: int = 200) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    return answer.json()


async def ask(door: FrontDoor, token: str, task: dict[str, Any]) -> httpx2.Response:
    return await door.http.post(
        f"/v1/tasks/{task['task_id']}/grants",
        json={"capability": API},
        headers={"Authorization": f"Bearer {token}"},
    )


async def had(door: FrontDoor, token: str, task: dict[str, Any]) -> dict[str, Any]:
    return expect(await ask(door, token, task), 201)


async def open_below(door: FrontDoor, token: str, task: dict[str, Any], agent: str) -> Any:
    body = {
        "agent": agent,
        "purpose": "x",
        "capabilities": [API],
        "parent_task_id": task["task_id"],
    }
    return await door.http.post(
        "/v1/tasks", json=body, headers={"Authorization": f"Bearer {token}"}
    )


async def delegated(door: FrontDoor, token: str, task: dict[str, Any]) -> str:
    """A parent's token, exchanged by the agent of a task below."""
    answer = await door.narrowed(
        token,
        actor_token=door.identity(task["agent"]),
        actor_token_type=JWT,
        authorization_details=details(task["task_id"]),
    )
    return expect(answer)["access_token"]


async def revoke(door: FrontDoor, token: str, **more: str) -> httpx2.Response:
    return await door.post("/oauth/revoke", {"token": token, **more})


async def is_dead(door: FrontDoor, credential: dict[str, Any]) -> bool:
    grant = await door.show_grant(credential["grant_id"])
    token = credential.get("access_token") or credential["credential"]["access_token"]
    return grant["state"] == "revoked" and not await door.alive(token)


# ── what goes with a token ───────────────────────────────────────────────────────────────────────


async def test_what_was_had_with_it_in_the_tasks_below_goes_too(door: FrontDoor) -> None:
    root = await door.task_of()
    first = await door.task_token(root)
    child = await door.task_of("order-clerk", parent_task_id=root["task_id"])
    own = await door.task_token(child)
    grandchild = await door.task_of("runner", parent_task_id=child["task_id"])
    theirs = await delegated(door, first, child)
    bottom = expect(
        await door.narrowed(
            theirs,
            authorization_details=details(grandchild["task_id"]),
            **door.as_client("runner"),
        )
    )["access_token"]
    gone = [
        await had(door, first, child),
        await had(door, theirs, child),
        expect(await door.narrowed(theirs, resource=ORDERS)),
        await had(door, bottom, grandchild),
        expect(await door.narrowed(bottom, resource=ORDERS)),
    ]
    kept = await had(door, own, child)

    assert (await revoke(door, first)).status_code == 200

    for token in (first, theirs, bottom):
        assert not await door.alive(token)
    assert all([await is_dead(door, one) for one in gone])
    # The child's agent proved itself, and what it has by that is its own.
    assert await door.alive(own)
    assert not await is_dead(door, kept)


async def test_a_credential_had_with_an_exchanged_token_dies_with_the_first(
    door: FrontDoor,
) -> None:
    task = await door.task_of()
    first = await door.task_token(task)
    second = expect(await door.narrowed(first))["access_token"]
    third = expect(await door.narrowed(second))["access_token"]
    credential, sibling = await had(door, third, task), await had(door, first, task)

    assert (await revoke(door, second)).status_code == 200
    assert await is_dead(door, credential)
    assert not await is_dead(door, sibling)
    assert (await revoke(door, first)).status_code == 200
    assert await is_dead(door, sibling)


async def test_no_task_is_opened_with_a_token_that_ended_and_those_opened_end(
    door: FrontDoor,
) -> None:
    root = await door.task_of()
    first, other = await door.task_token(root), await door.task_token(root)
    second = expect(await door.narrowed(first))["access_token"]
    child = expect(await open_below(door, second, root, "order-clerk"), 201)
    kept = expect(await open_below(door, other, root, "order-clerk"), 201)
    credential = await door.grant(child, API)

    assert (await revoke(door, first)).status_code == 200

    assert (await door.show_task(child["task_id"]))["state"] == "revoked"
    assert await is_dead(door, credential)
    assert (await door.show_task(kept["task_id"]))["state"] == "active"
    assert (await open_below(door, second, root, "order-clerk")).status_code == 401


@pytest.mark.parametrize("shards", [1, 64])
async def test_tasks_go_on_without_their_orchestrators_token(
    engines: tuple[DevStack, Config], tmp_path: Path, shards: int
) -> None:
    """However many shards there are, and wherever the two tokens happen to be."""
    door = front_door(engines[0], tmp_path, redis={"shards": shards})
    await door.app.connection.command("FLUSHALL")
    try:
        task = await door.task_of()
        first = await door.token("orchestrator")
        narrowed = expect(await door.narrowed(first))["access_token"]
        agents = await delegated(door, narrowed, task)

        assert (await revoke(door, first)).status_code == 200

        assert not await door.alive(narrowed)
        assert await door.alive(agents)
        assert (await ask(door, agents, task)).status_code == 201
    finally:
        await door.close()


# ── when ending it doesn't go smoothly ───────────────────────────────────────────────────────────


class Fallible(FrontDoor):
    """A broker whose backends don't answer when they are to revoke, as long as a test likes."""

    down = False

    def __init__(self, issuer: Any, config: Config) -> None:
        super().__init__(issuer, config, before_step=self._before)

    def _before(self, step: Step) -> None:
        if self.down and step is Step.REVOKE:
            raise BackendUnavailable("not now")


@pytest.fixture
async def fallible(engines: tuple[DevStack, Config], tmp_path: Path) -> AsyncGenerator[Fallible]:
    plain = front_door(engines[0], tmp_path, revocation={"backoff": "1ms", "max_backoff": "2ms"})
    await plain.close()
    made = Fallible(engines[0].issuer, plain.config)
    await made.app.connection.command("FLUSHALL")
    yield made
    made.down = False
    await made.close()


async def test_what_is_not_confirmed_is_not_called_dead_however_often_one_asks(
    fallible: Fallible,
) -> None:
    task = await fallible.task_of()
    token = await fallible.task_token(task)
    credential = await had(fallible, token, task)
    service = credential["credential"]["access_token"]
    fallible.down = True

    for ended in (token, token, service, service):
        answer = await revoke(fallible, ended)
        assert_oauth_error(answer, "temporarily_unavailable", 503)
        assert int(answer.headers["retry-after"]) > 0
    assert not await fallible.alive(token)
    assert not await fallible.alive(service)
    fallible.down = False

    async def confirmed() -> bool:
        return (await revoke(fallible, token)).status_code == 200

    await wait_until(confirmed, "the backend's lane is open again")
    assert (await revoke(fallible, service)).status_code == 200
    assert await is_dead(fallible, credential)


async def test_a_task_that_ended_with_its_token_is_asked_for_again_too(fallible: Fallible) -> None:
    root = await fallible.task_of()
    token = await fallible.task_token(root)
    child = expect(await open_below(fallible, token, root, "order-clerk"), 201)
    credential = await fallible.grant(child, API)
    fallible.down = True

    for _ in range(2):
        assert_oauth_error(await revoke(fallible, token), "temporarily_unavailable", 503)
    assert not await fallible.alive(credential["credential"]["access_token"])
    fallible.down = False

    async def confirmed() -> bool:
        return (await revoke(fallible, token)).status_code == 200

    await wait_until(confirmed, "the backend's lane is open again")
    assert await is_dead(fallible, credential)


async def test_a_crash_right_after_the_token_leaves_nothing_that_a_sweep_misses(
    door: FrontDoor,
) -> None:
    task = await door.task_of()
    token = await door.task_token(task)
    credential = await had(door, token, task)
    claims = door.app.tokens.verify(token, None)

    # All that a replica does in one write; then it is no more.
    marked = await LiveTokens(door.app.connection).end(
        claims.jti, task_id=task["task_id"], reason="a test", claim_ms=0, actor="test"
    )

    assert [grant.id for grant in marked.grants] == [credential["grant_id"]]
    assert not await door.alive(credential["credential"]["access_token"])
    await door.sweep(ahead_ms=60_000)
    assert await is_dead(door, credential)


# ── at the same time ─────────────────────────────────────────────────────────────────────────────


async def test_nothing_outlives_a_token_that_another_replica_ends_meanwhile(
    engines: tuple[DevStack, Config], door: FrontDoor
) -> None:
    there = FrontDoor(engines[0].issuer, door.config)
    root = await door.task_of()
    child = await door.task_of("order-clerk", parent_task_id=root["task_id"])
    first = await door.task_token(root)
    second = expect(await there.narrowed(first))["access_token"]

    def some(by: FrontDoor) -> list[Any]:
        return [
            ask(by, first, root),
            ask(by, second, child),
            by.narrowed(first),
            by.narrowed(second, resource=ORDERS),
            by.narrowed(
                second,
                actor_token=by.identity("order-clerk"),
                actor_token_type=JWT,
                authorization_details=details(child["task_id"]),
            ),
            open_below(by, second, root, "runner"),
        ]

    try:
        answers = await asyncio.gather(
            *some(door), *some(there), revoke(there, first), *some(door), *some(there)
        )
        for each in (door, there):
            await each.app.pipeline.work.drain(20)
        for answer in answers:
            assert answer.status_code < 500, answer.text
            body: dict[str, Any] = answer.json() if answer.content else {}
            for token in (body.get("access_token"), body.get("credential", {}).get("access_token")):
                assert token is None or not await door.alive(token)
        live = await door.call("operator", "GET", "/v1/grants?state=active")
        assert live.json()["items"] == []
        tasks = (await door.call("operator", "GET", "/v1/tasks?state=active")).json()["items"]
        assert {task["task_id"] for task in tasks} == {root["task_id"], child["task_id"]}
    finally:
        await there.close()


# ── at the very end ──────────────────────────────────────────────────────────────────────────────


class Late(SystemClock):
    """Says that it is later from a certain reading on."""

    def __init__(self) -> None:
        self.now_at: Callable[[int], float] | None = None
        self._readings = 0

    def now(self) -> float:
        if self.now_at is None:
            return time.time()
        self._readings += 1
        return self.now_at(self._readings)


@pytest.mark.parametrize("late_s", [0, 0.5, 1, 30])
async def test_a_token_that_expires_on_the_way_gets_nothing_that_lives_on(
    engines: tuple[DevStack, Config], door: FrontDoor, late_s: float
) -> None:
    clock = Late()
    late = FrontDoor(engines[0].issuer, door.config)
    await late.close()
    late.app = build(door.config, clock=clock)
    late.http = httpx2.AsyncClient(
        transport=httpx2.ASGITransport(late.app.http()), base_url=door.config.broker.issuer
    )
    try:
        token = await late.task_token(await late.task_of())
        expires_at = late.app.tokens.verify(token, None).expires_at
        form = late.form(token, subject_token_type=ACCESS_TOKEN, resource=ORDERS)
        # It is good when it is verified, and over when what it is exchanged for is reckoned.
        clock.now_at = lambda n: expires_at - 0.001 if n == 1 else expires_at + late_s

        answer = await late.post("/oauth/token", form)
    finally:
        await late.close()

    assert_oauth_error(answer, "invalid_request")
    grants = (await door.call("operator", "GET", "/v1/grants")).json()["items"]
    assert grants == []
