"""The model of the state machine: what there is, and how long it lasts if nothing ends it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

CAPABILITIES: Final = {
    "report-writer": ("orders-read", "orders-api"),
    "order-clerk": ("orders-read", "orders-write"),
}
BACKENDS: Final = {"orders-read": "vault", "orders-write": "vault", "orders-api": "token"}
PATHS: Final = ("database/creds/orders-read", "database/creds/orders-write")
MINUTE: Final = 60_000
KINDS: Final = ("all", "owner", "agent", "capability", "backend", "task_id", "grant_id")


@dataclass(eq=False)
class Task:
    json: dict[str, Any]
    agent: str
    capabilities: tuple[str, ...]
    parent: Task | None
    minutes: int
    """When it is over if nothing is heard of it: far apart from each other, and from now."""
    active: bool = True

    @property
    def id(self) -> str:
        return self.json["task_id"]

    def names(self) -> tuple[tuple[str, str], ...]:
        """What a freeze of it, or of one above it, would be called."""
        above = self.parent.names() if self.parent else ()
        return (("task", self.id), ("agent", self.agent), *above)

    def below(self, other: Task) -> bool:
        return self is other or (self.parent is not None and self.parent.below(other))


@dataclass(eq=False)
class Grant:
    id: str
    task: Task
    capability: str
    minutes: int
    credential: dict[str, Any] = field(default_factory=dict[str, Any], repr=False)
    """Empty when the replica died before it could deliver."""
    active: bool = True
