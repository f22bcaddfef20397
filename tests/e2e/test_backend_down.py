"""Pitfalls 4, 6 and 30: PostgreSQL, OpenBao or Redis goes away in the middle, and comes back."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from broker.steps import Step
from tests.admin import Admin, own_stack, running
from tests.waiting import wait_until
from tests.world import World, logs_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    import httpx2

    from broker.config import Config
    from broker.dev.stack import DevStack

PATIENT = """
[revocation]
backoff = "60s"
max_backoff = "60s"
claim = "2s"
wait = "5s"
"""
IMPATIENT = {"backoff": 50, "max_backoff": 200}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[DevStack, Config]]:
    with own_stack(tmp_path_factory.mktemp("down"), PATIENT) as made:
        yield made


@asynccontextmanager
async def a_world(
    own: tuple[DevStack, Config],
    *,
    revocation: dict[str, Any] | None = None,
    vault: dict[str, Any] | None = None,
    retention: dict[str, Any] | None = None,
    before_step: Callable[[Step], None] = lambda _: None,
) -> AsyncGenerator[World]:
    stack, config = own
    assert config.vault is not None
    update = {
        "revocation": config.revocation.model_copy(update=revocation),
        "vault": config.vault.model_copy(update=vault),
        "retention": config.retention.model_copy(update=retention),
    }
    made = World(stack.issuer, config.model_copy(update=update), before_step=before_step)
    await made.empty()
    yield made
    await made.close()


async def becomes(world: World, grant_id: str, state: str) -> None:
    async def there() -> bool:
        return (await world.show_grant(grant_id))["state"] == state

    await wait_until(there, f"{grant_id} is {state}")


async def test_4c_what_waits_for_postgresql_dies_soon_after_it_is_back_though_nobody_asks(
    own: tuple[DevStack, Config],
) -> None:
    """By backing off alone the next try would be a minute away."""
    postgres = own[0].postgres
    assert postgres is not None
    async with a_world(own) as world:
        tasks = [await world.open(), await world.open()]
        waiting = [await world.grant(task) for task in tasks]
        postgres.kill()
        try:
            for task, granted in zip(tasks, waiting, strict=True):
                counts = {"revoked": 0, "revoking": 1, "abandoned": 0}
                assert (await world.complete(task))["grants"] == counts
                assert (await world.show_grant(granted["grant_id"]))["attempts"] == 1
        finally:
            postgres.start()
        async with running(world):
            for granted in waiting:
                await becomes(world, granted["grant_id"], "revoked")
                assert not await logs_in(granted["credential"])


async def test_4d_with_openbao_down_nothing_is_issued_and_nothing_is_forgotten(
    own: tuple[DevStack, Config],
) -> None:
    openbao = own[0].openbao
    assert openbao is not None
    admin = Admin(own[0])
    async with a_world(own, revocation=IMPATIENT) as world:
        task, other = await world.open(), await world.open()
        granted = await world.grant(task)
        await world.grant(other)  # its task token is ready
        roles = await admin.roles()
        openbao.kill()
        try:
            path = f"/v1/tasks/{other['task_id']}/grants"
            answer = await world.call("orchestrator", "POST", path, {"capability": "orders-read"})
            assert (answer.status_code, answer.json()["code"]) == (503, "backend_unavailable")
            assert int(answer.headers["Retry-After"]) > 0
            grants = await world.app.pipeline.queries.grants_of(other["task_id"], dead=True)
            assert sorted(g.state for g in grants) == ["active", "failed"]
            assert await admin.roles() == roles
            readiness = await world.call(None, "GET", "/readyz")
            assert readiness.status_code == 503
            assert readiness.json()["checks"]["vault"] != "ok"

            assert (await world.complete(task))["grants"] == {
                "revoked": 0,
                "revoking": 1,
                "abandoned": 0,
            }
            assert (await world.show_grant(granted["grant_id"]))["state"] == "revoking"
        finally:
            openbao.start()
        async with running(world):
            await becomes(world, granted["grant_id"], "revoked")
            assert not await logs_in(granted["credential"])
            await world.complete(other)
        assert await admin.leases() == set()


async def test_10_a_backend_that_is_away_is_not_asked_and_issues_again_once_a_probe_got_through(
    own: tuple[DevStack, Config],
) -> None:
    openbao = own[0].openbao
    assert openbao is not None
    async with a_world(own, revocation=IMPATIENT) as world:
        task, api = await world.open(), await world.open(capabilities=["orders-api"])
        await world.grant(task)
        path = f"/v1/tasks/{task['task_id']}/grants"

        async def ask() -> httpx2.Response:
            return await world.call("orchestrator", "POST", path, {"capability": "orders-read"})

        async def tried() -> int:
            return len(await world.app.pipeline.queries.grants_of(task["task_id"], dead=True))

        openbao.kill()
        try:
            assert (await ask()).status_code == 503

            async def refused_at_once() -> bool:
                before, refused = await tried(), await ask()
                assert (refused.status_code, refused.json()["code"]) == (503, "backend_unavailable")
                assert int(refused.headers["Retry-After"]) > 0
                return await tried() == before

            await wait_until(refused_at_once, "nothing is even reserved")
            checks = (await world.call(None, "GET", "/readyz")).json()["checks"]
            assert "nothing is issued on vault" in checks["revocation"]
            assert (await world.grant(api, "orders-api"))["state"] == "active"
        finally:
            openbao.start()

        async def issued() -> bool:
            return (await ask()).status_code == 201

        await wait_until(issued, "a probe gets through, and after it everybody")
        assert (await ask()).status_code == 201
        assert (await world.call(None, "GET", "/readyz")).json()["checks"]["revocation"] == "ok"
        await world.complete(task)


async def test_4d_a_sealed_openbao_is_one_that_is_down(own: tuple[DevStack, Config]) -> None:
    admin = Admin(own[0])
    async with a_world(own, revocation=IMPATIENT) as world:
        task = await world.open()
        granted = await world.grant(task)
        await admin.vault("PUT", "sys/seal")
        try:
            answer = await world.call(
                "orchestrator",
                "POST",
                f"/v1/tasks/{task['task_id']}/grants",
                {"capability": "orders-read"},
            )
            assert (answer.status_code, answer.json()["code"]) == (503, "backend_unavailable")
            readiness = (await world.call(None, "GET", "/readyz")).json()
            assert readiness["checks"]["vault"] == "sealed"
            assert (await world.complete(task))["grants"]["revoking"] == 1
            assert await logs_in(granted["credential"])
        finally:
            await admin.unseal()
        async with running(world):
            await becomes(world, granted["grant_id"], "revoked")
        assert not await logs_in(granted["credential"])


async def test_6_a_grant_is_not_forgotten_when_redis_goes_between_revoke_and_confirm(
    own: tuple[DevStack, Config],
) -> None:
    stack = own[0]
    assert stack.valkey is not None
    armed = False

    def strike(step: Step) -> None:
        if armed and step is Step.CONFIRM:
            assert stack.valkey is not None
            stack.valkey.kill()

    async with a_world(own, before_step=strike) as world:
        task = await world.open()
        granted = await world.grant(task)
        token = await world.token("orchestrator")
        armed = True
        answer = await world.http.post(
            f"/v1/tasks/{task['task_id']}/complete",
            json={"outcome": "completed"},
            headers={"Authorization": f"Bearer {token}"},
        )
        armed = False
        await world.app.pipeline.work.drain(10)
        stack.valkey.start()

        assert answer.json()["grants"] == {"revoked": 0, "revoking": 1, "abandoned": 0}
        assert not await logs_in(granted["credential"])  # dead, and not known to be
        assert (await world.show_grant(granted["grant_id"]))["state"] == "revoking"
        async with running(world):
            await becomes(world, granted["grant_id"], "revoked")

        revoked = [e for e in await world.events(task["task_id"]) if e["type"] == "grant.revoked"]
        assert [e["data"]["evidence"] for e in revoked] == ["lease_lookup"]


async def test_6_a_ledger_row_stays_until_it_is_confirmed_whatever_the_pruning(
    own: tuple[DevStack, Config],
) -> None:
    postgres = own[0].postgres
    assert postgres is not None
    async with a_world(own, revocation=IMPATIENT, retention={"tasks": 1}) as world:
        task = await world.open()
        granted = await world.grant(task)
        prune = world.app.pipeline.ledger.prune
        postgres.kill()
        try:
            await world.complete(task)
            assert await prune() == 0
            assert (await world.show_grant(granted["grant_id"]))["state"] == "revoking"
        finally:
            postgres.start()
        async with running(world):
            await becomes(world, granted["grant_id"], "revoked")

            async def closed() -> bool:
                return (await world.show_task(task["task_id"]))["closed_at"] is not None

            await wait_until(closed, "the task is closed")
            assert await prune() == 2  # it was kept for being alive, not for want of pruning
            answer = await world.call("operator", "GET", f"/v1/grants/{granted['grant_id']}")
            assert answer.status_code == 404


async def test_30_a_vault_that_never_answers_stops_issuing_and_nothing_else(
    own: tuple[DevStack, Config],
) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        async with a_world(own, vault={"address": address, "timeout": 300}) as world:
            task = await world.open(capabilities=["orders-read", "orders-api"])
            path = f"/v1/tasks/{task['task_id']}/grants"

            answer = await world.call("orchestrator", "POST", path, {"capability": "orders-read"})

            assert (answer.status_code, answer.json()["code"]) == (503, "backend_unavailable")
            assert int(answer.headers["Retry-After"]) > 0
            assert await world.app.pipeline.queries.grants_of(task["task_id"], dead=True) == []
            assert (await world.grant(task, "orders-api"))["state"] == "active"
            readiness = await world.call(None, "GET", "/readyz")
            assert readiness.status_code == 503


async def test_30_a_mint_that_times_out_is_settled_through_its_handle(
    own: tuple[DevStack, Config],
) -> None:
    """Nobody knows what Vault did, so the grant is revoking until its task token is gone."""
    admin = Admin(own[0])
    quick = {**IMPATIENT, "claim": 500}
    async with a_world(own, revocation=quick, vault={"timeout": 700}) as world:
        task = await world.open()
        before = await admin.roles()
        await world.app.pipeline.work.drain(10)
        await admin.set_creation("orders-read", "SELECT pg_sleep(3)")
        try:
            answer = await world.call(
                "orchestrator",
                "POST",
                f"/v1/tasks/{task['task_id']}/grants",
                {"capability": "orders-read"},
            )
            assert (answer.status_code, answer.json()["code"]) == (503, "backend_unavailable")
            [lost] = await world.app.pipeline.queries.grants_of(task["task_id"], dead=True)
            assert (lost.lease, lost.reason) == ("", "outcome_unknown")
            async with running(world):
                await becomes(world, lost.id, "revoked")
                events = await world.events(task["task_id"])
        finally:
            await admin.set_creation("orders-read")

        async def over() -> bool:
            return "SELECT pg_sleep(3)" not in await admin.statements()

        await wait_until(over, "PostgreSQL has done with the slow statement")
        evidence = [e["data"]["evidence"] for e in events if e["type"] == "grant.revoked"]
        assert evidence == ["handle_lookup"]
        assert await admin.leases() == set()
        assert await admin.roles() <= before
