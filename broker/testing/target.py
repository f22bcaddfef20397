"""What the contract suite has to be told of a backend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from broker.backends import BackendContext
from broker.clock import SystemClock
from broker.secret import Secret
from broker.testing.ledger import Ledger, MemoryLedger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.backends import Backend
    from broker.catalog import Capability
    from broker.grants import Grant

Session = Callable[[], Awaitable[bool]]
"""Whether what was opened with a credential still answers."""


class Target(ABC):
    """A backend, a capability of it, and the place that its credentials are for."""

    capability: Capability

    def ledger(self) -> Ledger:
        """Return the ledger, with a task that has the capability. In memory, if not said else."""
        return MemoryLedger(self.capability)

    def context(self, ledger: Ledger, **options: object) -> BackendContext:
        """Return what the broker would call a factory with; a file is given as its ``Path``."""
        return BackendContext(
            name=self.capability.backend,
            options=options,
            clock=SystemClock(),
            handles=ledger,
            read=lambda path: Secret(path.read_text("utf-8").rstrip("\r\n")),
        )

    @abstractmethod
    def backend(self, ledger: Ledger) -> Backend:
        """Make the backend as one replica has it. Called again it is another replica's."""

    @abstractmethod
    def cut_off(self, ledger: Ledger) -> Backend:
        """Make the backend with a server that doesn't answer; making it asks nothing of that."""

    @abstractmethod
    async def works(self, fields: Mapping[str, str]) -> bool:
        """Use a credential where it is for, by a connection of its own. Not by the backend."""

    async def session(self, fields: Mapping[str, str]) -> Session | None:  # noqa: ARG002
        """Open a session that stays open, for kinds that have such."""
        return None

    async def lose(self, grant: Grant, fields: Mapping[str, str]) -> bool:  # noqa: ARG002
        """Have the target lose a credential by another hand; whether that can be done."""
        return False

    def unknown_lease(self, grant: Grant) -> str:
        """Return a lease in the form of a grant's, of nothing that ever was."""
        return grant.lease[:-8] + grant.lease[-8:][::-1]
