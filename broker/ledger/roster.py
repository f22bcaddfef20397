"""Who there is, kept up to date in this replica: the configuration and the register together.

Only what is newly allowed waits for this to notice; what is forbidden the scripts know by the marks
of ``register.py``, whatever a replica believes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from broker.errors import LedgerUnavailable
from broker.logs import get_logger
from broker.register import Register, view

if TYPE_CHECKING:
    from broker.catalog import Catalog
    from broker.clock import Clock
    from broker.ledger.registry import Registry
    from broker.register import Pair

log = get_logger("roster")
_AT_MOST_EVERY_S: Final = 1.0
"""How often strangers can make a replica look into the register."""


class Roster:
    """Keeps the catalogue's principals in step with the register, and notes who is used."""

    def __init__(self, catalog: Catalog, registry: Registry, clock: Clock) -> None:
        """``catalog`` holds the principals of the configuration, and from now on all there are."""
        self.catalog = catalog
        self.registry = registry
        self.configured = dict(catalog.principals)
        self.register = Register()
        self._clock = clock
        self._looked_at = float("-inf")
        self._looking = asyncio.Lock()
        self._used: set[str] = set()
        self._uses: set[Pair] = set()
        self._recording = False

    def adopt(self, register: Register) -> None:
        """Take this for the register."""
        self.register = register
        self.catalog.replace(view(self.configured.values(), register).values())

    async def reload(self) -> bool:
        """Look into the register; says whether it had changed."""
        async with self._looking:
            version = await self.registry.version()
            if version == self.register.version:
                return False
            if version < self.register.version:
                log.warning("the register has lost changes", had=self.register.version, has=version)
            self.adopt(await self.registry.load())
            return True

    async def reread(self) -> Register:
        """Read the register again, also what its version doesn't tell, and return it."""
        async with self._looking:
            self.adopt(await self.registry.load())
            return self.register

    async def refresh(self) -> bool:
        """Look for somebody this replica doesn't know; says whether anything has changed.

        Anybody can cause this by asking, so it is done once a second at most. Without a ledger
        nobody new is found.
        """
        if self._clock.monotonic() - self._looked_at < _AT_MOST_EVERY_S:
            return False
        self._looked_at = self._clock.monotonic()
        try:
            return await self.reload()
        except LedgerUnavailable:
            return False

    def used(self, name: str) -> None:
        """Note that a principal got a token; ``keep_up`` writes it down."""
        if name in self.catalog.principals:
            self._used.add(name)

    def used_capability(self, agent: str, capability: str) -> None:
        """Note that an agent got a credential for a capability, or called a tool."""
        self._uses.add((agent, capability))

    async def keep_up(self) -> None:
        """Write down who and what was used, and look into the register; call it often."""
        await self.write_down()
        await self.reload()

    async def write_down(self) -> None:
        """Write down who was used, and what, since the last time."""
        if self._recording and not self._used and not self._uses:
            return
        used, self._used = self._used, set()
        uses, self._uses = self._uses, set()
        try:
            await self.registry.note(used=used, uses=uses)
            self._recording = True  # as of now, if nobody did before
        except LedgerUnavailable:
            self._used |= used
            self._uses |= uses
            raise
