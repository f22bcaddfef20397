"""A ledger in memory, of one task: as much as a backend sees of the real one, and as it answers.

It has no Redis, no policy and no sweeps, and is good for tests alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Protocol

from broker.backends import HandleStore
from broker.clock import SystemClock
from broker.errors import TaskNotActive
from broker.grants import GrantState
from broker.ids import new_id
from broker.steps import bare_grant
from broker.tasks import Task, TaskState

if TYPE_CHECKING:
    from broker.backends import Minted, Prepared
    from broker.catalog import Capability
    from broker.clock import Clock
    from broker.grants import Grant

TASK_MS: Final = 600_000
GRANT_MS: Final = 60_000
GRACE_MS: Final = 30_000
"""How long an answer about a handle may be under way, as the real one has it unless configured."""


class Ledger(HandleStore, Protocol):
    """What the contract suite writes down, of one task. Times are epoch milliseconds."""

    async def task(self) -> Task:
        """Return the task as it stands now."""
        ...

    async def reserve(self, capability: Capability, prepared: Prepared) -> Grant:
        """Write a grant as pending (step 4)."""
        ...

    async def activate(self, grant: Grant, minted: Minted) -> Grant:
        """Write that a grant was issued (step 6)."""
        ...

    async def elevate(self, capability: Capability) -> tuple[str, int]:
        """Give the task a capability for a window: returns its id and its end."""
        ...

    async def end(self) -> None:
        """End the task."""
        ...


class MemoryLedger(Ledger):
    """Implements it for a task that was opened with one capability."""

    def __init__(self, capability: Capability, clock: Clock | None = None) -> None:
        """Open the task; it has ten minutes."""
        self._clock = clock or SystemClock()
        self._grants: dict[str, Grant] = {}
        self._handles: dict[str, dict[str, Any]] = {}
        now, identity = self._now(), new_id("tsk", 0)
        self._task = Task(
            id=identity,
            state=TaskState.ACTIVE,
            agent="report-writer",
            owner="team@example.com",
            created_by="orchestrator",
            orchestrator="orchestrator",
            subject="orchestrator",
            purpose="the contract suite",
            capabilities=(capability.name,),
            parent_id="",
            root_id=identity,
            actors=("report-writer",),
            depth=0,
            created_at=now,
            expires_at=now + TASK_MS,
        )

    async def task(self) -> Task:
        """Return the task as it stands now."""
        return self._task

    async def reserve(self, capability: Capability, prepared: Prepared) -> Grant:
        """Write a grant as pending; it has a minute.

        Raises:
            TaskNotActive: the task has ended.
        """
        if self._task.ended_at:
            raise TaskNotActive
        now = self._now()
        grant = replace(
            bare_grant(self._task, capability, prepared), created_at=now, expires_at=now + GRANT_MS
        )
        self._grants[grant.id] = grant
        return grant

    async def activate(self, grant: Grant, minted: Minted) -> Grant:
        """Write that a grant was issued."""
        active = replace(
            grant,
            state=GrantState.ACTIVE,
            lease=minted.lease,
            account=minted.account,
            lives_until=self._now() + minted.lifetime_ms,
        )
        self._grants[grant.id] = active
        return active

    async def elevate(self, capability: Capability) -> tuple[str, int]:
        """Give the task a capability for a minute."""
        elevation, until = new_id("elv", 0), self._now() + GRANT_MS
        row = {"capability": capability.name, "expires_at": until}
        self._task = replace(self._task, elevations={**self._task.elevations, elevation: row})
        return elevation, until

    async def end(self) -> None:
        """End the task."""
        self._task = replace(self._task, state=TaskState.COMPLETED, ended_at=self._now())

    async def handle(
        self,
        task_id: str,
        op: str,
        handle: str,
        *,
        backend: str,
        actor: str,  # noqa: ARG002
        value: str = "",
        refused: bool = False,
        elevation: str = "",
    ) -> str:
        """Apply ``expect``, ``record``, ``retire`` or ``drop``, and answer as the ledger does."""
        if task_id != self._task.id:
            return "unknown"
        if no := self._refusal(op, handle, elevation, refused=refused):
            return no
        match op:
            case "expect":
                self._handles[handle] = {
                    "backend": backend,
                    "value": "",
                    "at": self._now(),
                    "elevation": elevation,
                }
            case "record":
                self._handles[handle]["value"] = value
            case "retire":
                self._handles[handle]["retired"] = True
            case _:
                self._handles.pop(handle, None)
        self._task = replace(self._task, handles={h: dict(row) for h, row in self._handles.items()})
        if op == "record" and not self._lives(self._handles[handle]["elevation"]):
            return "elevation_ended"
        return self._task.state.value

    def _refusal(self, op: str, handle: str, elevation: str, *, refused: bool) -> str:
        """Return why something isn't done, or nothing."""
        now, known = self._now(), self._handles.get(handle)
        if op == "expect":
            if self._task.ended_at or self._task.expires_at <= now:
                return "task_not_active"
            return "" if self._lives(elevation) else "elevation_ended"
        if op == "drop":
            awaited = known is not None and not known["value"] and not refused
            return "too_early" if known and awaited and now - known["at"] < GRACE_MS else ""
        if known is None:
            return "unknown"
        used = any(g.handle == handle and self._counts(g) for g in self._grants.values())
        return "in_use" if op == "retire" and used else ""

    def _lives(self, elevation: str) -> bool:
        """Whether a window is open; without one there is nothing to end."""
        if not elevation:
            return True
        row = self._task.elevations.get(elevation)
        return row is not None and not self._task.ended_at and row["expires_at"] > self._now()

    @staticmethod
    def _counts(grant: Grant) -> bool:
        return grant.state is GrantState.PENDING or bool(grant.lease)

    def _now(self) -> int:
        return int(self._clock.now() * 1000)
