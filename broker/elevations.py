"""An elevation: for a window of time a task has a capability more, or need not ask each time.

It is the task's alone: what is below the task gets nothing of it. It ends with its window, when
its heartbeat is missed, with its task, or when somebody ends it; all that was issued under it is
revoked then. A break-glass is an elevation that no human had to approve, so one has to look at it
afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from broker.tasks import Task


class ReviewState(StrEnum):
    """Whether somebody has looked at a break-glass."""

    OPEN = "open"
    CLOSED = "closed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Elevation:
    """An elevation as its task's row holds it. Times are epoch milliseconds, 0 for none.

    ``by`` asked for it, ``approvals`` are the human yeses it has, by group (empty for all), by
    ``approval_id``. ``rotation`` is what has to be rotated afterwards: a path of the backend's to
    ``pending``, ``done`` or ``failed``. ``settled_at`` is when nothing was left to do after its
    end. ``method`` and ``bound`` are how whoever asked had proved who it is.
    """

    id: str
    task_id: str
    capability: str
    power: str
    by: str
    started_at: int = 0
    expires_at: int = 0
    heartbeat_ms: int = 0
    heartbeat_due: int = 0
    ended_at: int = 0
    settled_at: int = 0
    reason: str = ""
    intent: str = ""
    decision_id: str = ""
    approval_id: str = ""
    approvals: Mapping[str, int] = field(default_factory=dict[str, int])
    break_glass: bool = False
    rotation: Mapping[str, str] = field(default_factory=dict[str, str])
    review: str = ""
    findings: str = ""
    reviewed_by: str = ""
    reviewed_at: int = 0

    def live(self, now_ms: int) -> bool:
        """Say whether it is in force; what the ledger says then is what counts."""
        silent = self.heartbeat_due and self.heartbeat_due <= now_ms
        return not self.ended_at and self.expires_at > now_ms and not silent


_FIELDS = frozenset(Elevation.__dataclass_fields__) - {"id", "task_id"}


def read_elevation(task_id: str, elevation_id: str, row: Mapping[str, Any]) -> Elevation:
    """Read a row of a task's ``elevations``; newer fields are left alone."""
    known = {name: value for name, value in row.items() if name in _FIELDS}
    return Elevation(id=elevation_id, task_id=task_id, **known)


def elevations_of(task: Task) -> Iterator[Elevation]:
    """Yield the elevations of a task, oldest first."""
    found = (read_elevation(task.id, name, row) for name, row in task.elevations.items())
    yield from sorted(found, key=lambda elevation: (elevation.started_at, elevation.id))


def elevated_to(
    task: Task, capability: str, now_ms: int, *, by_its_agent: bool
) -> Elevation | None:
    """Return the elevation under which a task has a capability now, if there is one.

    Where the glass is broken it is for the task's own agent: what is above doesn't use it.
    """
    for elevation in elevations_of(task):
        theirs = by_its_agent or not elevation.break_glass
        if elevation.capability == capability and elevation.live(now_ms) and theirs:
            return elevation
    return None
