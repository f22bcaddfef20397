"""A backend of somebody else's that does odd things when it is told to."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from broker.backends import Backend, Minted, Prepared
from broker.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from broker.backends import BackendContext
    from broker.catalog import Capability
    from broker.grants import Grant
    from broker.tasks import Task

SECRET: Final = "hunter2-of-the-odd-one"
PREPARED: Final = Prepared(lease="odd-1")
MINTED: Final = Minted("odd-1", 60_000, "key", {"id": "1", "key": Secret(SECRET)})


class OddBackend(Backend):
    """Accounts in memory. ``odd`` says of a call what happens instead, once it was done."""

    def __init__(self, name: str = "odd") -> None:
        self.name = name
        self.odd: dict[str, Callable[[], Any]] = {}
        self.accounts: set[str] = set()
        self._made = 0

    def check(self, capability: Capability, parameters: Mapping[str, Any]) -> None:
        if "check" in self.odd:
            self.odd["check"]()
        super().check(capability, parameters)

    async def prepare(
        self, task: Task, capability: Capability, elevation: str = "", until_ms: int = 0
    ) -> Prepared:
        self._made += 1
        return await self._does("prepare", replace(PREPARED, lease=f"odd-{self._made}"))

    async def mint(self, grant: Grant, task: Task, capability: Capability) -> Minted:
        self.accounts.add(grant.lease)
        return await self._does("mint", replace(MINTED, lease=grant.lease))

    async def revoke(self, grant: Grant) -> None:
        await self._does("revoke", None)
        self.accounts.discard(grant.lease)

    async def is_live(self, grant: Grant) -> bool:
        return await self._does("is_live", grant.lease in self.accounts)

    def evidence(self, grant: Grant) -> str:
        return self.odd["evidence"]() if "evidence" in self.odd else "odd_lookup"

    async def rotate(self, capability: Capability) -> bool:
        return await self._does("rotate", answer=True)

    def outlives(self, grant: Grant) -> int | None:
        return self.odd["outlives"]() if "outlives" in self.odd else len(grant.lease)

    def forget(self, task_id: str) -> None:
        if "forget" in self.odd:
            self.odd["forget"]()

    async def health(self) -> str:
        return await self._does("health", "ok")

    async def close(self) -> None:
        await self._does("close", None)

    async def _does(self, call: str, answer: object) -> Any:
        made = self.odd[call]() if call in self.odd else answer
        return await made if asyncio.iscoroutine(made) else made


def leak() -> Any:
    """Fail as code does that puts what it works with into its errors."""
    raise RuntimeError(f"can't use {SECRET}")


class Hanging:
    """Never answers until it is let go, and heeds no cancelling."""

    def __init__(self) -> None:
        self._go = asyncio.Event()
        self.over = asyncio.Event()

    async def __call__(self) -> None:
        while not self._go.is_set():
            try:
                await self._go.wait()
            except asyncio.CancelledError:
                continue
        self.over.set()

    async def let_go(self) -> None:
        self._go.set()
        await self.over.wait()


def backend(context: BackendContext) -> Backend:
    """The factory of its entry point."""
    return OddBackend(context.name)
