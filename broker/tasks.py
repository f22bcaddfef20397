"""A task: the unit of work, and the unit of revocation."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, TypedDict

if TYPE_CHECKING:
    from collections.abc import Mapping


class TaskState(StrEnum):
    """Where a task is in its life."""

    PENDING_APPROVAL = "pending_approval"
    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    REVOKED = "revoked"
    DENIED = "denied"


S = TaskState

TASK_MOVES: Final[dict[TaskState, frozenset[TaskState]]] = {
    S.PENDING_APPROVAL: frozenset({S.ACTIVE, S.DENIED, S.CANCELLED, S.EXPIRED, S.REVOKED}),
    S.ACTIVE: frozenset({S.COMPLETED, S.FAILED, S.CANCELLED, S.EXPIRED, S.REVOKED}),
    S.COMPLETED: frozenset(),
    S.FAILED: frozenset(),
    S.CANCELLED: frozenset(),
    S.EXPIRED: frozenset(),
    S.REVOKED: frozenset(),
    S.DENIED: frozenset(),
}
"""Every legal move. The ledger's scripts are given this table and refuse any other."""

ENDED: Final = frozenset(state for state, moves in TASK_MOVES.items() if not moves)


@dataclass(frozen=True, slots=True)
class Task:
    """A task as the ledger holds it. Times are epoch milliseconds by the ledger's clock.

    ``parent_id`` is empty for a root; ``root_id`` is then the task itself. ``created_by`` opened
    it, ``orchestrator`` opened the root of its chain. ``subject`` is on whose behalf it runs,
    ``actors`` the agents of the chain, newest first. ``heartbeat_ms`` is 0 when none is asked for.
    ``via`` are the ids of the agent's tokens it was opened with: it ends with any of them.
    ``closed_at`` is 0 until everything below the task is confirmed dead. ``handles`` is what can
    kill its credentials at a backend: for Vault, by nonce, the accessor of each token made for the
    task (empty while the answer is not known), and the elevation it ends with, if any.
    ``elevations`` are its windows with more, by id, as ``elevations.py`` reads them.

    ``limits`` is JSON that ``delegation.Scope`` reads, empty for none. ``budget`` is what the task
    was given for itself and all below it, by kind: ``given``, ``spent`` and ``reserved``, whole
    numbers as text. ``keep_budget`` says that what is left of it doesn't go back to whom it is of.
    """

    id: str
    state: TaskState
    agent: str
    owner: str
    created_by: str
    orchestrator: str
    subject: str
    purpose: str
    capabilities: tuple[str, ...]
    parent_id: str
    root_id: str
    actors: tuple[str, ...]
    depth: int
    created_at: int
    expires_at: int
    heartbeat_ms: int = 0
    heartbeat_due: int = 0
    ended_at: int = 0
    closed_at: int = 0
    reason: str = ""
    summary: str = ""
    context: str = "{}"
    via: tuple[str, ...] = ()
    handles: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Any])
    elevations: Mapping[str, Mapping[str, Any]] = field(default_factory=dict[str, Any])
    limits: str = ""
    budget: Mapping[str, Mapping[str, str]] = field(default_factory=dict[str, Any])
    keep_budget: bool = False

    def handles_under(self, elevation: str) -> tuple[str, ...]:
        """Return the handles that end with an elevation."""
        return tuple(h for h, row in self.handles.items() if row.get("elevation") == elevation)


class Sought(TypedDict, total=False):
    """What tasks are looked for by; what is empty or left out doesn't matter.

    ``text`` is looked for in their purpose, names and ids.
    """

    state: str
    agent: str
    owner: str
    capability: str
    text: str


def fits(task: Task, sought: Sought) -> bool:
    """Say whether a task is one that is looked for."""
    exact = {"state": task.state, "agent": task.agent, "owner": task.owner}
    if any(sought.get(name) not in ("", None, value) for name, value in exact.items()):
        return False
    if (capability := sought.get("capability")) and capability not in task.capabilities:
        return False
    text = sought.get("text", "").casefold()
    named = (task.id, task.purpose, task.agent, task.owner, task.created_by, task.subject)
    return any(text in said.casefold() for said in (*named, *task.capabilities))
