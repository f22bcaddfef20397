"""One task in the ledger of a world, as the contract suite writes it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from broker.steps import bare_grant
from broker.tasks import TaskState
from broker.testing import Ledger
from tests import windows

if TYPE_CHECKING:
    from broker.backends import Minted, Prepared
    from broker.catalog import Capability
    from broker.grants import Grant
    from broker.tasks import Task
    from tests.world import World


class RealLedger(Ledger):
    """Implements it with Redis."""

    def __init__(self, world: World, task_id: str) -> None:
        self._pipeline = world.app.pipeline
        self._world = world
        self._task_id = task_id

    async def task(self) -> Task:
        found = await self._pipeline.queries.task(self._task_id)
        assert found is not None
        return found

    async def reserve(self, capability: Capability, prepared: Prepared) -> Grant:
        grant = bare_grant(await self.task(), capability, prepared)
        return await self._pipeline.ledger.reserve(
            grant, ttl_ms=60_000, max_live=20, decision={}, actor="test"
        )

    async def activate(self, grant: Grant, minted: Minted) -> Grant:
        return await self._pipeline.ledger.activate(
            grant,
            lease=minted.lease,
            account=minted.account,
            lifetime_ms=minted.lifetime_ms,
            actor="test",
        )

    async def elevate(self, capability: Capability) -> tuple[str, int]:
        elevation = await windows.elevate(self._world, self._task_id, capability.name)
        return elevation, await self._pipeline.queries.now() + 60_000

    async def end(self) -> None:
        await self._pipeline.ledger.end_task(
            self._task_id, TaskState.COMPLETED, reason="over", actor="test"
        )

    async def handle(self, task_id: str, op: str, handle: str, **about: Any) -> str:
        return await self._pipeline.ledger.handle(task_id, op, handle, **about)
