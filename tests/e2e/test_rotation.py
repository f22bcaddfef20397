"""Rotating what stands behind a capability: the password OpenBao itself uses at PostgreSQL."""

from __future__ import annotations

import asyncio
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import psycopg
import pytest

from broker.errors import BackendRefused, BackendUnavailable, Unavailable
from tests.admin import Admin, own_stack
from tests.waiting import wait_until
from tests.world import World, logs_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from broker.backends.protocol import Backend
    from broker.catalog import Capability
    from broker.config import Config
    from broker.dev.engines import Postgres
    from broker.dev.stack import DevStack

PATH: Final = "database/rotate-root/orders"
POLICY: Final = "sys/policies/acl/broker"


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[DevStack, Config]]:
    with own_stack(tmp_path_factory.mktemp("rotation")) as made:
        yield made


@pytest.fixture
async def world(own: tuple[DevStack, Config]) -> AsyncGenerator[World]:
    made = World(own[0].issuer, own[1])
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


@pytest.fixture
def admin(own: tuple[DevStack, Config]) -> Admin:
    return Admin(own[0])


def behind(world: World) -> tuple[Backend, Capability]:
    pipeline = world.app.pipeline
    return pipeline.backends["vault"], pipeline.catalog.capabilities["orders-write"]


async def admitted(postgres: Postgres, password: str) -> bool:
    """Whether PostgreSQL lets OpenBao's user in with a password."""
    try:
        session = await psycopg.AsyncConnection.connect(
            host=postgres.host,
            port=postgres.port,
            dbname="orders",
            user=postgres.vault_username,
            password=password,
        )
    except psycopg.OperationalError:
        return False
    await session.close()
    return True


@pytest.fixture
async def seen(admin: Admin) -> str:
    """A password that OpenBao uses, and that somebody has seen."""
    password = "seen-while-the-glass-was-broken"
    await admin.sql(f"ALTER ROLE vault_admin PASSWORD '{password}'")
    await admin.vault("POST", "database/config/orders", {"password": password})
    return password


async def test_the_old_password_is_refused_and_all_goes_on(
    world: World, admin: Admin, own: tuple[DevStack, Config], seen: str
) -> None:
    postgres = own[0].postgres
    assert postgres is not None
    task = await world.open()
    live = await world.grant(task)
    assert await admitted(postgres, seen)
    backend, capability = behind(world)

    assert await backend.rotate(capability)

    assert not await admitted(postgres, seen)
    assert not await admitted(postgres, postgres.vault_password.reveal())
    after = await world.grant(task)
    assert await logs_in(live["credential"])
    assert await logs_in(after["credential"])
    ended = await world.complete(task)
    assert ended["grants"] == {"revoked": 2, "revoking": 0, "abandoned": 0}
    assert not await logs_in(live["credential"])
    assert not await logs_in(after["credential"])
    assert await admin.roles() == set()


async def test_what_is_under_way_at_that_moment_is_dead_in_the_end(
    world: World, admin: Admin
) -> None:
    """OpenBao refuses calls that wait for the connection it gives up. They are made again."""
    backend, capability = behind(world)
    task = await world.open()
    token = {"Authorization": f"Bearer {await world.token('orchestrator')}"}
    path = f"/v1/tasks/{task['task_id']}/grants"

    async def come_and_go() -> list[int]:
        answers: list[int] = []
        for _ in range(6):
            answer = await world.http.post(path, json={"capability": "orders-read"}, headers=token)
            answers.append(answer.status_code)
            if answer.status_code == 201:
                there = f"/v1/grants/{answer.json()['grant_id']}"
                await world.http.delete(there, headers=token)
        return answers

    async def rotate() -> None:
        for _ in range(4):
            assert await backend.rotate(capability)

    *answers, _ = await asyncio.gather(*(come_and_go() for _ in range(6)), rotate())
    seen = {status for each in answers if each for status in each}
    assert seen <= {201, 503}, seen

    await world.complete(task)

    async def nothing_left() -> bool:
        await world.sweep(ahead_ms=60_000)
        row = await world.app.pipeline.queries.task(task["task_id"])
        assert row is not None
        return row.closed_at > 0

    await wait_until(nothing_left, "the task is closed")
    assert await admin.leases() == set()
    assert await admin.roles() == set()
    grants = await world.app.pipeline.queries.grants_of(task["task_id"], dead=True)
    assert {str(grant.state) for grant in grants} <= {"revoked", "failed"}


async def test_the_broker_may_write_there_and_nowhere_near(world: World) -> None:
    assert world.app.vault is not None
    near = ["database/config/orders", "database/rotate-root/other", "database/rotate-root"]
    near += [
        "database/rotate-root/orders/x",
        "database/roles/orders-write",
        "database/reset/orders",
    ]

    rights = await world.app.vault.rights([PATH, *near])

    assert rights == {PATH: ["update"], **{path: ["deny"] for path in near}}


async def test_without_the_right_it_is_refused_and_told_how_to_get_it(
    world: World, admin: Admin, own: tuple[DevStack, Config], seen: str
) -> None:
    backend, capability = behind(world)
    postgres = own[0].postgres
    assert postgres is not None
    text = (await admin.vault("GET", POLICY))["data"]["policy"]
    await admin.vault("PUT", POLICY, {"policy": text.replace(PATH, f"{PATH}-not")})
    try:
        with pytest.raises(BackendRefused, match="broker vault bootstrap") as refused:
            await backend.rotate(capability)
    finally:
        await admin.vault("PUT", POLICY, {"policy": text})

    assert PATH in refused.value.detail
    assert await admitted(postgres, seen)
    assert await backend.rotate(capability)  # once it has the right
    assert not await admitted(postgres, seen)


@pytest.mark.parametrize("path", ["nowhere/rotate-root/orders", "database/rotate-root/nope"])
async def test_what_is_not_there_cannot_be_rotated(world: World, admin: Admin, path: str) -> None:
    backend, capability = behind(world)
    text = (await admin.vault("GET", POLICY))["data"]["policy"]
    await admin.vault("PUT", POLICY, {"policy": text.replace(PATH, path)})
    try:
        with pytest.raises(Unavailable, match=path):
            await backend.rotate(replace(capability, rotate=path))
    finally:
        await admin.vault("PUT", POLICY, {"policy": text})


async def test_whether_a_server_that_is_down_did_it_is_not_known(
    world: World, own: tuple[DevStack, Config]
) -> None:
    postgres = own[0].postgres
    assert postgres is not None
    backend, capability = behind(world)
    postgres.stop()
    try:
        with pytest.raises(Unavailable):
            await backend.rotate(capability)
    finally:
        postgres.start()

    async def again() -> bool:
        try:
            return await backend.rotate(capability)
        except BackendUnavailable:
            return False

    await wait_until(again, "it is rotated, now that PostgreSQL is back")
    task = await world.open()
    assert await logs_in((await world.grant(task))["credential"])
    await world.complete(task)


def test_the_embedded_servers_start_again_after_it(tmp_path: Path) -> None:
    """Also where the one that knew the password has lost everything."""

    async def issue_and_rotate(stack: DevStack, config: Config) -> None:
        world = World(stack.issuer, config)
        try:
            task = await world.open()
            granted = await world.grant(task)
            backend, capability = behind(world)
            assert await backend.rotate(capability)
            assert await logs_in(granted["credential"])
            assert (await world.complete(task))["grants"] == {
                "revoked": 1,
                "revoking": 0,
                "abandoned": 0,
            }
        finally:
            await world.close()

    for lost in (False, False, True):
        if lost:
            shutil.rmtree(tmp_path / "d" / "openbao")
        with own_stack(tmp_path) as (stack, config):
            asyncio.run(issue_and_rotate(stack, config))
