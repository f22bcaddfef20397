"""A replica dies between any two steps; another sweeps; nothing unknown is alive out there.

The replica is a process of its own and kills itself with SIGKILL, so nothing of it runs on: no
``finally``, no other coroutine, no buffered write.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from broker.backends.vault import VaultBackend
from broker.backends.vault_api import VaultGone
from broker.ledger.live_tokens import LiveTokens
from tests.crash.replica import crashed
from tests.world import World, logs_in

if TYPE_CHECKING:
    from broker.config import Config
    from broker.dev.stack import DevStack

Engines = tuple["DevStack", "Config"]
pytestmark = pytest.mark.usefixtures("pristine")

ISSUE = ["RESOLVE", "DECIDE", "RESERVE", "MINT", "ACTIVATE", "DELIVER"]
TASK_TOKEN = ["BEFORE_EXPECT", "AFTER_EXPECT", "BEFORE_RECORD", "AFTER_RECORD"]
REVOKE = [("REVOKE", 1), ("REVOKE", 2), ("CONFIRM", 1), ("CONFIRM", 3)]
CLOSE = [("REVOKE", 4), ("CONFIRM", 4)]
"""After the three leases, the fourth is the task's own token."""
BEYOND_CLAIMS_MS = 31_000


async def crash(engines: Engines, scenario: str, point: str, nth: int = 1) -> dict[str, Any]:
    return await asyncio.to_thread(crashed, engines[0].data, scenario, point, nth)


async def roles(engines: Engines) -> set[str]:
    """The dynamic accounts that exist at PostgreSQL now."""
    postgres = engines[0].postgres
    assert postgres is not None
    async with await psycopg.AsyncConnection.connect(postgres.admin_dsn.reveal()) as connection:
        found = await connection.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%'")
        return {row[0] for row in await found.fetchall()}


async def leases(world: World) -> set[str]:
    """The leases OpenBao has for the credential path."""
    assert world.app.vault is not None
    path = "sys/leases/lookup/database/creds/orders-read"
    try:
        answer = await world.app.vault.as_broker("list", path)
    except VaultGone:  # nothing is listed
        return set()
    return {f"database/creds/orders-read/{key}" for key in answer["data"]["keys"]}


async def known_leases(world: World) -> set[str]:
    """The leases of every grant that the ledger counts as live."""
    page = await world.app.pipeline.queries.grants(lambda g: g.state == "active", limit=500)
    return {grant.lease for grant in page.items}


async def task_tokens(engines: Engines, world: World) -> dict[str, str]:
    """The task tokens OpenBao knows, by accessor, and their tasks."""
    backend = world.app.pipeline.backends["vault"]
    assert isinstance(backend, VaultBackend)
    return {token.accessor: token.task async for token in backend.look.task_tokens()}


async def assert_nothing_unknown(engines: Engines, world: World) -> None:
    """What OpenBao and PostgreSQL have alive is exactly what the ledger has."""
    alive = await known_leases(world)
    assert await leases(world) == alive
    assert len(await roles(engines)) == len(alive)
    for accessor, task_id in (await task_tokens(engines, world)).items():
        task = await world.app.pipeline.queries.task(task_id)
        assert task is not None
        # Known by its accessor, or expected: its answer may have been lost on the way.
        assert {accessor, ""} & {row["value"] for row in task.handles.values()}


async def assert_all_dead(engines: Engines, world: World) -> None:
    assert await known_leases(world) == set()
    assert await leases(world) == set()
    assert await roles(engines) == set()
    assert await task_tokens(engines, world) == {}


async def end(world: World, task_id: str) -> None:
    """End the task, and sweep on until it is closed: all below it is confirmed dead.

    A token that the dead replica asked for and never saw is searched for once the grace for an
    answer under way is over. The clock of that is the ledger's; here it is made short.
    """
    world.app.pipeline.ledger.times = replace(world.app.pipeline.ledger.times, pending_ms=300)
    await world.complete({"task_id": task_id})
    async with asyncio.timeout(20):
        while (await world.show_task(task_id))["closed_at"] is None:
            await world.sweep(ahead_ms=BEYOND_CLAIMS_MS)


@pytest.mark.parametrize("point", [*ISSUE, *TASK_TOKEN])
async def test_dying_while_issuing_leaves_nothing_unknown(
    engines: Engines, world: World, point: str
) -> None:
    said = await crash(engines, "issue", point)
    await world.sweep(ahead_ms=BEYOND_CLAIMS_MS)

    grants = await world.app.pipeline.queries.grants_of(said["task_id"], dead=True)
    assert all(grant.state in ("active", "revoked") for grant in grants)
    await assert_nothing_unknown(engines, world)
    assert len(await roles(engines)) == (1 if point == "DELIVER" else 0)

    # The task goes on with another replica, and ends with nothing left.
    task = await world.show_task(said["task_id"])
    granted = await world.grant(task)
    assert await logs_in(granted["credential"])
    await end(world, said["task_id"])
    assert not await logs_in(granted["credential"])
    await assert_all_dead(engines, world)


@pytest.mark.parametrize("point", ISSUE)
async def test_dying_while_issuing_a_token_leaves_nothing_alive(
    engines: Engines, world: World, point: str
) -> None:
    said = await crash(engines, "issue-token", point)
    await world.sweep(ahead_ms=BEYOND_CLAIMS_MS)
    grants = await world.app.pipeline.queries.grants_of(said["task_id"], dead=True)
    states = ["active"] if point == "DELIVER" else ["revoked"] if grants else []
    assert [grant.state for grant in grants] == states
    await end(world, said["task_id"])
    for grant in grants:
        assert await LiveTokens(world.app.connection).status(grant.lease) is None
    assert (await world.show_task(said["task_id"]))["closed_at"] is not None


@pytest.mark.parametrize("scenario", ["complete", "revoke-all"])
@pytest.mark.parametrize(("point", "nth"), [*REVOKE, *CLOSE])
async def test_dying_while_revoking_is_taken_up_by_another(
    engines: Engines, world: World, scenario: str, point: str, nth: int
) -> None:
    said = await crash(engines, scenario, point, nth)
    await world.sweep(ahead_ms=BEYOND_CLAIMS_MS)
    await assert_all_dead(engines, world)
    for credential in said["credentials"]:
        assert not await logs_in(credential)
    assert (await world.show_task(said["task_id"]))["closed_at"] is not None


@pytest.mark.parametrize(("point", "nth"), REVOKE)
async def test_dying_while_expiring_is_taken_up_by_another(
    engines: Engines, world: World, point: str, nth: int
) -> None:
    said = await crash(engines, "expire", point, nth)
    await world.sweep(ahead_ms=6 * 60_000)
    assert await leases(world) == set()
    assert await roles(engines) == set()
    assert not any([await logs_in(credential) for credential in said["credentials"]])
    # The task itself goes on.
    assert (await world.show_task(said["task_id"]))["state"] == "active"
    await end(world, said["task_id"])
    await assert_all_dead(engines, world)
