"""Pitfalls 2, 4, 5 and 10: revocations that are slow, fail, have happened already, or pile up."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from tests.admin import Admin, own_stack, running
from tests.waiting import wait_until
from tests.world import World, logs_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from broker.config import Config
    from broker.dev.stack import DevStack

IMPATIENT = """
[revocation]
attempts = 3
backoff = "50ms"
max_backoff = "200ms"
claim = "5s"
stuck_limit = 3
"""
BROKEN = "SELECT no_such_function('{{name}}')"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[DevStack, Config]]:
    with own_stack(tmp_path_factory.mktemp("failing"), IMPATIENT) as made:
        yield made


@pytest.fixture
async def admin(own: tuple[DevStack, Config]) -> AsyncGenerator[Admin]:
    made = Admin(own[0])
    yield made
    await made.set_revocation("orders-read")


@pytest.fixture
async def world(own: tuple[DevStack, Config]) -> AsyncGenerator[World]:
    stack, config = own
    made = World(stack.issuer, config)
    await made.empty()
    yield made
    await made.close()


async def state_of(world: World, granted: dict[str, Any]) -> str:
    return (await world.show_grant(granted["grant_id"]))["state"]


async def becomes(world: World, granted: dict[str, Any], state: str) -> None:
    async def there() -> bool:
        return await state_of(world, granted) == state

    await wait_until(there, f"{granted['grant_id']} is {state}")


async def test_2_it_is_revoking_while_the_lease_is_there_and_revoked_only_after(
    world: World, admin: Admin
) -> None:
    await admin.set_revocation(
        "orders-read", "SELECT pg_sleep(1)", 'DROP OWNED BY "{{name}}"', 'DROP ROLE "{{name}}"'
    )
    task = await world.open()
    granted = await world.grant(task)
    seen: set[tuple[str, bool]] = set()

    ending = asyncio.create_task(world.complete(task))
    while not ending.done():
        state = await state_of(world, granted)
        seen.add((state, bool(await admin.leases())))
    await ending

    assert ("revoking", True) in seen
    assert ("revoked", True) not in seen
    assert await state_of(world, granted) == "revoked"
    events = await world.events(task["task_id"])
    kinds = [e["type"] for e in events if e["grant_id"] == granted["grant_id"]]
    assert kinds[-2:] == ["grant.revoking", "grant.revoked"]
    [revoked] = [e for e in events if e["type"] == "grant.revoked"]
    assert revoked["data"]["evidence"] == "lease_lookup"
    assert revoked["data"]["time_to_dead_ms"] >= 1000


async def test_4a_a_role_that_owns_objects_goes_and_its_objects_stay(
    world: World, admin: Admin
) -> None:
    task = await world.open(agent="order-clerk", capabilities=["orders-write"])
    credential = (await world.grant(task, "orders-write"))["credential"]
    async with await psycopg.AsyncConnection.connect(credential["dsn"]) as session:
        await session.execute("CREATE TABLE left_behind (id integer)")
        await session.execute("CREATE FUNCTION left_too() RETURNS int LANGUAGE sql AS 'SELECT 1'")

    answer = await world.complete(task)

    assert answer["grants"] == {"revoked": 1, "revoking": 0, "abandoned": 0}
    assert credential["username"] not in await admin.roles()
    owner = await admin.sql("SELECT tableowner FROM pg_tables WHERE tablename = 'left_behind'")
    assert owner == [("orders_owner",)]
    await admin.sql("DROP TABLE left_behind")
    await admin.sql("DROP FUNCTION left_too()")


async def test_4b_a_revoke_that_fails_is_retried_then_stuck_then_still_retried_then_dead(
    world: World, admin: Admin
) -> None:
    task = await world.open()
    granted = await world.grant(task)
    await admin.set_revocation("orders-read", BROKEN)
    async with running(world):
        assert (await world.complete(task))["grants"] == {
            "revoked": 0,
            "revoking": 1,
            "abandoned": 0,
        }
        await becomes(world, granted, "stuck")

        assert await logs_in(granted["credential"])

        async def listed() -> bool:
            answer = await world.call("operator", "GET", "/v1/grants?state=stuck")
            return granted["grant_id"] in [g["grant_id"] for g in answer.json()["items"]]

        await wait_until(listed, "it is listed as stuck")

        async def warned() -> str:
            answer = await world.call(None, "GET", "/readyz")
            assert answer.status_code == 200
            check = answer.json()["checks"]["revocation"]
            return check if check != "ok" else ""

        assert "1 credentials are stuck" in await wait_until(warned, "readyz warns")
        shown = await world.show_grant(granted["grant_id"])
        assert shown["error"]
        assert shown["next_attempt_at"]
        assert (await world.show_task(task["task_id"]))["closed_at"] is None
        stuck = [e for e in await world.events(task["task_id"]) if e["type"] == "grant.stuck"]
        assert stuck[0]["data"]["attempts"] == 3

        async def retried() -> bool:
            return (await world.show_grant(granted["grant_id"]))["attempts"] > 3

        await wait_until(retried, "it is still retried")
        await admin.set_revocation("orders-read")
        await becomes(world, granted, "revoked")

        async def calm() -> bool:
            answer = await world.call(None, "GET", "/readyz")
            return answer.json()["checks"]["revocation"] == "ok"

        await wait_until(calm, "readyz is calm again")

        async def closed() -> bool:
            return (await world.show_task(task["task_id"]))["closed_at"] is not None

        await wait_until(closed, "the task is closed")
    assert not await logs_in(granted["credential"])


async def test_4b_a_broker_that_cannot_log_in_says_so_and_goes_on_when_it_can(
    own: tuple[DevStack, Config], world: World
) -> None:
    task, other = await world.open(), await world.open()
    granted = await world.grant(task)
    secret = own[0].data / "vault-secret-id"
    text = secret.read_text()
    secret.unlink()
    try:
        restarted = World(own[0].issuer, own[1])
        async with running(restarted):
            assert (await restarted.complete(task))["grants"]["revoking"] == 1
            await becomes(restarted, granted, "stuck")
            error = (await restarted.show_grant(granted["grant_id"]))["error"]
            path = f"/v1/tasks/{other['task_id']}/grants"
            ask = {"capability": "orders-read"}
            answer = await restarted.call("orchestrator", "POST", path, ask)
            assert (answer.status_code, answer.json()["code"]) == (503, "backend_unavailable")
            assert "secret-id" not in answer.text + error
            secret.write_text(text)
            await becomes(restarted, granted, "revoked")
        await restarted.http.aclose()
    finally:
        secret.write_text(text)


async def test_4b_a_revoke_fails_for_what_the_role_owns_elsewhere(
    world: World, admin: Admin
) -> None:
    """What a role owns in another database can't be reassigned from this one."""
    await admin.sql("CREATE DATABASE elsewhere")
    task = await world.open()
    granted = await world.grant(task)
    who = granted["credential"]["username"]
    await admin.sql(f'CREATE TABLE mine (); ALTER TABLE mine OWNER TO "{who}"', "elsewhere")
    async with running(world):
        await world.complete(task)
        await becomes(world, granted, "stuck")
        # Its logins had ended before the drop failed.
        assert not await logs_in(granted["credential"])
        await admin.sql("DROP DATABASE elsewhere WITH (FORCE)")
        await becomes(world, granted, "revoked")
    assert who not in await admin.roles()


async def test_5_a_lease_revoked_behind_our_back_counts_as_revoked(
    world: World, admin: Admin
) -> None:
    task = await world.open()
    granted = await world.grant(task)
    await admin.revoke_leases()

    assert (await world.complete(task))["grants"] == {"revoked": 1, "revoking": 0, "abandoned": 0}
    shown = await world.show_grant(granted["grant_id"])
    assert (shown["state"], shown["attempts"]) == ("revoked", 0)


async def test_5_a_role_dropped_behind_our_back_counts_as_revoked(
    world: World, admin: Admin
) -> None:
    task = await world.open()
    granted = await world.grant(task)
    await admin.sql(f'DROP ROLE "{granted["credential"]["username"]}"')

    assert (await world.complete(task))["grants"] == {"revoked": 1, "revoking": 0, "abandoned": 0}
    assert await admin.leases() == set()


async def test_5_a_task_token_revoked_behind_our_back_counts_as_revoked(
    world: World, admin: Admin
) -> None:
    task = await world.open()
    granted = await world.grant(task)
    row = await world.app.pipeline.queries.task(task["task_id"])
    assert row is not None
    [handle] = row.handles.values()
    await admin.vault("POST", "auth/token/revoke-accessor", {"accessor": handle["value"]})

    async def gone() -> bool:
        return not await admin.leases()

    await wait_until(gone, "Vault has taken the leases with it")
    assert (await world.complete(task))["grants"] == {"revoked": 1, "revoking": 0, "abandoned": 0}
    await world.app.pipeline.work.drain(10)
    assert (await world.show_task(task["task_id"]))["closed_at"] is not None
    assert not await logs_in(granted["credential"])


async def test_5_a_task_goes_on_after_its_token_was_revoked_behind_our_back(
    world: World, admin: Admin
) -> None:
    task = await world.open()
    await world.grant(task)
    row = await world.app.pipeline.queries.task(task["task_id"])
    assert row is not None
    [handle] = row.handles.values()
    await admin.vault("POST", "auth/token/revoke-accessor", {"accessor": handle["value"]})

    body = {"capability": "orders-read"}
    path = f"/v1/tasks/{task['task_id']}/grants"
    first = await world.call("orchestrator", "POST", path, body)
    again = await world.call("orchestrator", "POST", path, body)

    # Vault refused the dead token; the next request makes another.
    assert (first.status_code, again.status_code) == (503, 201)
    assert await logs_in(again.json()["credential"])
    await world.complete(task)
    assert not await logs_in(again.json()["credential"])


async def test_10_a_backend_with_too_many_stuck_revocations_issues_nothing_until_they_are_gone(
    world: World, admin: Admin
) -> None:
    tasks = [await world.open() for _ in range(3)]
    for task in tasks:
        await world.grant(task)
    other = await world.open(capabilities=["orders-read", "orders-api"])
    path = f"/v1/tasks/{other['task_id']}/grants"
    await admin.set_revocation("orders-read", BROKEN)
    async with running(world):
        for task in tasks:
            await world.complete(task)

        async def all_stuck() -> bool:
            answer = await world.call(None, "GET", "/readyz")
            return "3 credentials" in answer.json()["checks"]["revocation"]

        await wait_until(all_stuck, "the backlog is seen")
        answer = await world.call("orchestrator", "POST", path, {"capability": "orders-read"})
        assert (answer.status_code, answer.json()["code"]) == (503, "backend_unavailable")
        assert int(answer.headers["Retry-After"]) > 0
        reasons = [e["data"].get("reasons") for e in await world.events(other["task_id"])]
        assert "backend_backlog" in reasons
        assert (await world.grant(other, "orders-api"))["state"] == "active"

        await admin.set_revocation("orders-read")

        async def issued() -> bool:
            answer = await world.call("orchestrator", "POST", path, {"capability": "orders-read"})
            return answer.status_code == 201

        await wait_until(issued, "it issues again")
        await world.complete(other)
