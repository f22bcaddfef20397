"""What became of allowed calls: each is reported once, which closes its decision.

What is never reported shows: a sweep logs it as ``execution.missing``, and it can still be reported
while the task is kept.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from broker.errors import Conflict, InvalidRequest, NotFound
from broker.identity.models import Role
from broker.ids import shard_of
from broker.trail import MAX_EFFECTS, Step
from broker.visibility import concerns, must_run

if TYPE_CHECKING:
    from broker.access import Caller
    from broker.ledger.actions import Actions
    from broker.ledger.queries import Queries
    from broker.tasks import Task
    from broker.wire import ReportExecution


class Executions:
    """Takes the reports."""

    def __init__(self, actions: Actions, queries: Queries) -> None:
        """Write through ``actions``."""
        self._actions = actions
        self._queries = queries

    async def report(self, caller: Caller, task_id: str, ask: ReportExecution) -> dict[str, Any]:
        """Close an allowed call. The effects it really had count from now on.

        Raises:
            NotFound: there is no such task or decision that concerns the caller.
            AccessDenied: the caller only watches.
            Conflict: the decision was reported before, or allowed no call.
            InvalidRequest: the chain has left too many different effects.
        """
        task, survey = await self._actions.survey(task_id)
        asked_only = caller.principal.role is Role.RESOURCE_SERVER
        if not asked_only:
            if not concerns(caller, task):
                raise NotFound("There is no such task.")
            must_run(caller, task)
        if shard_of(ask.decision_id, "dec") is None:
            raise _unknown()
        effects = frozenset(ask.effects)
        if len(survey.chain.effects | effects) > MAX_EFFECTS:
            raise InvalidRequest("effects: the chain has too many different ones", field="effects")
        closed = await self._actions.report(
            task.id,
            ask.decision_id,
            {"decision": ask.decision_id, **ask.told()},
            step=Step(effects, reported=True) if effects else None,
            only_own=asked_only,
            actor=caller.name,
        )
        if not closed:
            await self._say_why(caller, task, ask.decision_id)
        return {"task_id": task.id, "decision_id": ask.decision_id, "outcome": ask.outcome}

    async def _say_why(self, caller: Caller, task: Task, decision_id: str) -> None:
        event = await self._queries.decision(decision_id)
        if event is None or event.task_id != task.id:
            raise _unknown()
        if caller.principal.role is Role.RESOURCE_SERVER and event.principal != caller.name:
            raise _unknown()
        raise Conflict("The decision is closed: it was reported, or it allowed no call.")


def _unknown() -> NotFound:
    return NotFound("There is no such decision of this task.")
