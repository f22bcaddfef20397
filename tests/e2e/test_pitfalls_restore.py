"""Pitfall 11: the ledger comes back as it was some time ago."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

import pytest

from tests.admin import Admin, own_stack, running
from tests.waiting import wait_until
from tests.world import World, logs_in

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.engines import Valkey
    from broker.dev.stack import DevStack


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[DevStack, Config]]:
    with own_stack(tmp_path_factory.mktemp("restore")) as made:
        yield made


def back_up(valkey: Valkey, to: Path) -> None:
    valkey.stop()
    shutil.copytree(valkey.home / "appendonlydir", to)
    valkey.start()


def restore(valkey: Valkey, backup: Path) -> None:
    valkey.stop()
    shutil.rmtree(valkey.home / "appendonlydir")
    shutil.copytree(backup, valkey.home / "appendonlydir")
    valkey.start()


async def test_11_an_old_ledger_neither_resurrects_the_dead_nor_kills_the_living(
    own: tuple[DevStack, Config], tmp_path: Path
) -> None:
    stack, config = own
    assert stack.valkey is not None
    admin = Admin(stack)
    world = World(stack.issuer, config)
    old, running_on = await world.open(), await world.open()
    doomed = await world.grant(old, ttl="5m")
    lasting = await world.grant(running_on, ttl="5m")
    back_up(stack.valkey, tmp_path / "backup")
    await world.complete(old)
    young = await world.open()
    unknown = await world.grant(young, ttl="5m")
    leases = await admin.leases()
    await world.close()
    restore(stack.valkey, tmp_path / "backup")

    world = World(stack.issuer, config)
    async with running(world):
        # The ledger takes the first for alive, and has never heard of the last.
        assert (await world.show_grant(doomed["grant_id"]))["state"] == "active"
        assert (await world.call("operator", "GET", f"/v1/tasks/{young['task_id']}")).is_error
        assert not await logs_in(doomed["credential"])
        await world.sweep()
        assert await logs_in(lasting["credential"])
        assert await logs_in(unknown["credential"])
        assert await admin.leases() == leases

        assert (await world.complete(old))["grants"] == {
            "revoked": 1,
            "revoking": 0,
            "abandoned": 0,
        }
        assert (await world.show_grant(doomed["grant_id"]))["state"] == "revoked"
        assert await logs_in(lasting["credential"])
        await world.complete(running_on)
        assert not await logs_in(lasting["credential"])
    await world.http.aclose()


async def test_11_what_a_lost_ledger_knew_dies_at_its_tasks_deadline_by_vaults_own_clock(
    own: tuple[DevStack, Config],
) -> None:
    stack, config = own
    admin = Admin(stack)
    world = World(stack.issuer, config)
    before = await admin.leases()
    task = await world.open(ttl="4s")
    granted = await world.grant(task)
    assert await logs_in(granted["credential"])

    await world.app.connection.command("FLUSHALL")

    async def gone() -> bool:
        return await admin.leases() <= before

    await wait_until(gone, "Vault ends the task's token, and its leases with it", within_s=60)
    assert not await logs_in(granted["credential"])
    await world.close()
