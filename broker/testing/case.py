"""The steps of the pipeline that a contract test takes, one by one."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from broker.catalog import Revocability
from broker.clock import SystemClock
from broker.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from broker.backends import Backend, Minted, Prepared
    from broker.catalog import Capability
    from broker.grants import Grant
    from broker.tasks import Task
    from broker.testing.ledger import Ledger
    from broker.testing.target import Target

WITHIN_S: Final = 30.0
_POLL_S: Final = 0.02


@dataclass(frozen=True, slots=True)
class Case:
    """A task, a capability, and the backend as one replica has it."""

    target: Target
    ledger: Ledger
    backend: Backend

    @property
    def capability(self) -> Capability:
        """What is issued."""
        return self.target.capability

    def elsewhere(self) -> Case:
        """Return the same as another replica has it."""
        return replace(self, backend=self.target.backend(self.ledger))

    async def prepare(self) -> Prepared:
        """Make ready (before step 4)."""
        return await self.backend.prepare(await self.ledger.task(), self.capability)

    async def elevate(self) -> tuple[str, int]:
        """Give the task the capability for a window as well: its id and its end (epoch ms)."""
        return await self.ledger.elevate(self.capability)

    async def prepare_under(self, elevation: str, until_ms: int) -> Prepared:
        """Make ready for a task that has the capability by an elevation only."""
        bare = replace(await self.ledger.task(), capabilities=())
        return await self.backend.prepare(bare, self.capability, elevation, until_ms)

    async def reserve(self, prepared: Prepared | None = None) -> Grant:
        """Write a grant as pending (step 4)."""
        return await self.ledger.reserve(self.capability, prepared or await self.prepare())

    async def mint(self, grant: Grant) -> Minted:
        """Make the credential (step 5)."""
        return await self.backend.mint(grant, await self.ledger.task(), self.capability)

    async def issue(self, prepared: Prepared | None = None) -> tuple[Grant, Minted]:
        """Take steps 4 to 6."""
        grant = await self.reserve(prepared)
        minted = await self.mint(grant)
        return await self.ledger.activate(grant, minted), minted

    async def works(self, minted: Minted) -> bool:
        """Use a credential at its target."""
        return await self.target.works(revealed(minted))

    async def dead(self, grant: Grant, minted: Minted) -> bool:
        """Whether the backend says that it is gone, and it works no more.

        Of what can't be revoked at its target the first has to do.
        """
        if await self.backend.is_live(grant):
            return False
        return self.capability.revocability is not Revocability.INSTANT or not (
            await self.works(minted)
        )

    async def end_handle(self, task: Task, handle: str, lost: Grant) -> None:
        """End a handle, with a grant whose lease was never learnt, and wait until it is gone."""
        await self.backend.revoke_handle(task, handle)

        async def gone() -> bool:
            return not await self.backend.handle_is_live(task, handle, [lost])

        await wait_until(gone, "the handle is gone, and what hangs from it")


async def wait_until(ask: Callable[[], Awaitable[bool]], what: str) -> None:
    """Ask until the answer is yes; fail when that takes too long."""
    clock = SystemClock()
    deadline = clock.monotonic() + WITHIN_S
    while not await ask():
        assert clock.monotonic() < deadline, f"not within {WITHIN_S:g} s: {what}"
        await asyncio.sleep(_POLL_S)


def revealed(minted: Minted) -> dict[str, str]:
    """Return a credential as it is delivered."""
    return {k: v.reveal() if isinstance(v, Secret) else v for k, v in minted.fields.items()}


def secrets_of(minted: Minted) -> list[str]:
    """Return what of a credential is secret."""
    return [v.reveal() for v in minted.fields.values() if isinstance(v, Secret)]
