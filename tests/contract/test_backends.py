"""The broker's own backends keep the contract of ``broker.testing``, over the real ledger.

A new one adds a ``Target`` and a class of two lines. What only some of them promise is below.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest

from broker.errors import BrokerError, TaskNotActive
from broker.grants import GrantState
from broker.ids import new_id, shard_of
from broker.ledger import keys
from broker.testing import BackendContract, Ledger, Session, Target
from tests.admin import Admin
from tests.contract.real_ledger import RealLedger
from tests.world import World, logs_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Mapping

    from broker.backends import Backend
    from broker.config import Config
    from broker.dev.stack import DevStack
    from broker.grants import Grant
    from broker.testing.case import Case

Engines = tuple["DevStack", "Config"]
NOWHERE: Final = "127.0.0.1:1"


class WorldTarget(Target):
    """A backend of a world; of others over the same engines, and over none."""

    def __init__(self, engines: Engines, world: World, capability: str) -> None:
        self.world = world
        self.capability = world.app.pipeline.catalog.capabilities[capability]
        self.admin = Admin(engines[0])
        self._issuer = engines[0].issuer
        self._task_id = ""
        self._others: list[World] = []
        self._asked = False

    async def open(self) -> None:
        opened = await self.world.open(capabilities=[self.capability.name])
        self._task_id = opened["task_id"]

    async def close(self) -> None:
        task = await self.ledger().task()
        for handle in task.handles:
            await self._of(self.world).revoke_handle(task, handle)
        for other in self._others:
            await other.close()

    def ledger(self) -> Ledger:
        return RealLedger(self.world, self._task_id)

    def backend(self, ledger: Ledger) -> Backend:
        first, self._asked = not self._asked, True
        return self._of(self.world if first else self._another(self.world.config))

    def cut_off(self, ledger: Ledger) -> Backend:
        return self._of(self._another(away(self.world.config)))

    def _another(self, config: Config) -> World:
        self._others.append(World(self._issuer, config))
        return self._others[-1]

    def _of(self, world: World) -> Backend:
        return world.app.pipeline.backends[self.capability.backend]


class VaultTarget(WorldTarget):
    def unknown_lease(self, grant: Grant) -> str:
        return f"{grant.path}/{'x' * 24}"

    async def works(self, fields: Mapping[str, str]) -> bool:
        return await logs_in(dict(fields))

    async def session(self, fields: Mapping[str, str]) -> Session | None:
        connection = await psycopg.AsyncConnection.connect(fields["dsn"], autocommit=True)

        async def answers() -> bool:
            try:
                await connection.execute("SELECT count(*) FROM orders")
            except psycopg.OperationalError:
                await connection.close()
                return False
            return True

        return answers

    async def lose(self, grant: Grant, fields: Mapping[str, str]) -> bool:
        role = fields["username"]
        await self.admin.sql(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')
        return True


class TokenTarget(WorldTarget):
    def unknown_lease(self, grant: Grant) -> str:
        return new_id("jti", shard_of(grant.task_id, "tsk") or 0)

    async def works(self, fields: Mapping[str, str]) -> bool:
        answer = await self.world.http.post(
            "/oauth/introspect",
            data={"token": fields["access_token"]},
            headers={"Authorization": f"Bearer {await self.world.token('orders-service')}"},
        )
        return answer.json()["active"]

    async def lose(self, grant: Grant, fields: Mapping[str, str]) -> bool:
        shard = shard_of(grant.task_id, "tsk") or 0
        await self.world.app.connection.command("DEL", keys.token(shard, grant.lease))
        return True


def away(config: Config) -> Config:
    """The same broker, where no server answers."""
    assert config.vault is not None
    changed: dict[str, Any] = {
        "vault": config.vault.model_copy(update={"address": f"http://{NOWHERE}"}),
        "redis": config.redis.model_copy(update={"url": f"redis://{NOWHERE}/0"}),
    }
    return config.model_copy(update=changed)


async def started(target: WorldTarget) -> AsyncGenerator[Target]:
    await target.open()
    yield target
    await target.close()


class OfOurs(BackendContract):
    """What these two promise besides."""

    async def test_nothing_is_made_for_a_task_that_has_ended(self, case: Case) -> None:
        grant = await case.reserve()
        await case.ledger.end()
        # As closing the task does; what slips in before this is revoked when it is activated.
        await case.backend.revoke_handle(await case.ledger.task(), grant.handle)

        with pytest.raises(BrokerError):
            await case.mint(grant)


class TestVault(OfOurs):
    @pytest.fixture
    async def target(self, engines: Engines, world: World) -> AsyncGenerator[Target]:
        async for target in started(VaultTarget(engines, world, "orders-read")):
            yield target

    async def test_what_stands_behind_others_is_rotated_and_these_live_on(self, case: Case) -> None:
        grant, minted = await case.issue()
        assert isinstance(case.target, VaultTarget)
        behind = case.target.world.app.pipeline.catalog.capabilities["orders-write"]

        for _ in "12":  # again, as when an answer was lost
            assert await case.backend.rotate(behind)
        assert not await case.backend.rotate(case.capability)

        other, second = await case.issue()
        for each, its in ((grant, minted), (other, second)):
            assert await case.works(its)
            await case.backend.revoke(each)
            assert await case.dead(each, its)


class TestToken(OfOurs):
    test_an_open_session_ends_with_it = None  # pyright: ignore[reportAssignmentType]  there are none

    @pytest.fixture
    async def target(self, engines: Engines, world: World) -> AsyncGenerator[Target]:
        async for target in started(TokenTarget(engines, world, "orders-api")):
            yield target

    async def test_nothing_is_made_for_a_grant_that_was_ended_and_confirmed_meanwhile(
        self, case: Case
    ) -> None:
        """Else a crash before it is recorded would leave a token alive under a dead grant."""
        assert isinstance(case.target, TokenTarget)
        grant = await case.reserve()
        pipeline = case.target.world.app.pipeline
        ended = await pipeline.ledger.begin_revoke([grant.id], reason="over", actor="test")
        assert [await pipeline.revoke_claimed(each) for each in ended] == [GrantState.REVOKED]

        with pytest.raises(TaskNotActive, match="The grant was ended"):
            await case.mint(grant)

        assert not await case.backend.is_live(grant)
