"""Who may see and do what to a task, by role: asked by every operation before anything else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.errors import AccessDenied
from broker.identity.models import Role

if TYPE_CHECKING:
    from broker.access import Caller
    from broker.tasks import Task


def sees_all(caller: Caller) -> bool:
    """Say whether the caller watches over everything."""
    return caller.principal.role in (Role.OPERATOR, Role.AUDITOR)


def concerns(caller: Caller, task: Task) -> bool:
    """Operators see everything; an orchestrator its chains; an agent its task and the children."""
    if sees_all(caller):
        return True
    if caller.task is not None:
        return caller.task.id in (task.id, task.parent_id)
    return caller.principal.role is Role.ORCHESTRATOR and task.orchestrator == caller.name


def is_own(caller: Caller, task: Task) -> bool:
    """Say whether the caller is the task's own agent, by a token of that task."""
    return caller.task is not None and caller.task.id == task.id


def must_run(caller: Caller, task: Task) -> None:
    """Only who runs a task acts for it: its agent, its parent's agent, its orchestrator."""
    if sees_all(caller) or not concerns(caller, task):
        raise AccessDenied("Only the task's agent and its orchestrator may do this.")


def must_operate(caller: Caller) -> None:
    """Refuse whoever is no operator."""
    if caller.principal.role is not Role.OPERATOR:
        raise AccessDenied("This is for operators.")


def must_see_all(caller: Caller) -> None:
    """Refuse whoever doesn't watch over everything."""
    if not sees_all(caller):
        raise AccessDenied("This is for operators and auditors.")
