"""What is revoked is shut out at its target at once, whatever Vault does."""

from __future__ import annotations

import socket
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest

from tests.admin import Admin, own_stack, running
from tests.exposed import OPENMETRICS, Exposed
from tests.waiting import wait_until
from tests.world import World, logs_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

DSN: Final = "orders-dsn"
MANY: Final = 30
TOML: Final = f"""
[revocation]
backoff = "50ms"
max_backoff = "200ms"
wait = "5s"
[[targets]]
name = "orders"
kind = "postgresql"
dsn_file = "{DSN}"
accounts = "v-token-br*"
capabilities = ["orders-read"]
"""


class Own:
    """Engines, and the file that says where the broker finds the target."""

    def __init__(self, stack: DevStack, config: Config, folder: Path) -> None:
        self.stack, self.config, self._dsn = stack, config, folder / DSN
        self.right()

    def right(self) -> None:
        assert self.stack.postgres is not None
        self.at(self.stack.postgres.admin_dsn.reveal())

    def at(self, dsn: str) -> None:
        self._dsn.write_text(dsn)

    @asynccontextmanager
    async def world(self, **target: Any) -> AsyncGenerator[World]:
        targets = [entry.model_copy(update=target) for entry in self.config.targets]
        config = self.config.model_copy(update={"targets": tuple(targets)})
        made = World(self.stack.issuer, config)
        await made.empty()
        yield made
        await made.close()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Generator[Own]:
    folder = tmp_path_factory.mktemp("lockout")
    (folder / DSN).write_text("not yet")
    with own_stack(folder, TOML) as (stack, config):
        yield Own(stack, config, folder)


@pytest.fixture
def own(made: Own) -> Generator[Own]:
    yield made
    made.right()


async def shut_out(world: World, outcome: str = "ok") -> float:
    answer = await world.http.get("/metrics", headers={"Accept": OPENMETRICS})
    return Exposed(answer.text, answer.headers["Content-Type"]).value(
        "lockouts_total", outcome=outcome
    )


async def test_an_account_is_shut_out_while_vault_is_away(own: Own) -> None:
    openbao = own.stack.openbao
    assert openbao is not None
    async with own.world() as world:
        task = await world.open()
        granted = await world.grant(task)
        mine = await psycopg.AsyncConnection.connect(granted["credential"]["dsn"], autocommit=True)
        await mine.execute("SELECT 1")
        openbao.kill()
        try:
            counts = (await world.complete(task))["grants"]
            assert counts == {"revoked": 0, "revoking": 1, "abandoned": 0}
            assert not await logs_in(granted["credential"])
            with pytest.raises(psycopg.OperationalError):
                await mine.execute("SELECT 1")
            # That it is shut out is no proof of its death.
            assert (await world.show_grant(granted["grant_id"]))["state"] == "revoking"
        finally:
            openbao.start()

        async def dead() -> bool:
            return (await world.show_grant(granted["grant_id"]))["state"] == "revoked"

        async with running(world):
            await wait_until(dead, "it is confirmed dead")
        assert await Admin(own.stack).roles() == set()


async def test_many_that_end_together_are_shut_out_together(own: Own) -> None:
    async with own.world() as world:
        task, other = await world.open(), await world.open()
        granted = [await world.grant(task) for _ in range(MANY)]
        stays = await world.grant(other)

        assert (await world.complete(task))["grants"]["revoked"] == MANY

        assert not any([await logs_in(grant["credential"]) for grant in granted])
        assert await logs_in(stays["credential"])
        assert await shut_out(world) == MANY


async def test_a_target_that_hangs_holds_revoking_up_once_and_never_fails_it(own: Own) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=100) as silent:
        own.at(f"postgresql://x:y@127.0.0.1:{silent.getsockname()[1]}/orders")
        async with own.world() as world:
            for _ in range(3):
                task = await world.open()
                granted = await world.grant(task)
                assert (await world.complete(task))["grants"]["revoked"] == 1
                assert not await logs_in(granted["credential"])
            assert await shut_out(world) == 0
            assert await shut_out(world, "failed") < 3  # it is let alone for a while


@pytest.mark.parametrize("dsn", ["", "mysql://x", "postgresql://nobody:x@{place}/orders"])
async def test_a_target_that_is_set_up_wrong_never_fails_revoking(own: Own, dsn: str) -> None:
    assert own.stack.postgres is not None
    own.at(dsn.format(place=f"{own.stack.postgres.host}:{own.stack.postgres.port}"))
    async with own.world() as world:
        task = await world.open()
        granted = await world.grant(task)
        assert (await world.complete(task))["grants"]["revoked"] == 1
        assert not await logs_in(granted["credential"])
        assert await shut_out(world, "failed") == 1


@pytest.mark.parametrize(
    "target", [{"lockout": False}, {"accounts": "others-*"}, {"capabilities": ("orders-write",)}]
)
async def test_what_a_target_is_not_for_is_left_to_vault(own: Own, target: dict[str, Any]) -> None:
    async with own.world(**target) as world:
        task = await world.open()
        granted = await world.grant(task)
        assert (await world.complete(task))["grants"]["revoked"] == 1
        assert not await logs_in(granted["credential"])
        assert await shut_out(world) == await shut_out(world, "failed") == 0
