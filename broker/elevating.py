"""Elevations: a task gets a capability for a window of time, by approval or by breaking the glass.

 1. The catalogue, and the task above, say what a task may have at most
 2. Policy decides; a human says yes to exactly this, or policy names who may do without
 3. The window is in the task's row; inside it each use is decided again
 4. It ends: what was issued under it is revoked, and what it hung from at the backends
 5. After a break-glass: what it touched is rotated where the backend can, and somebody closes the
    review with what they found

A crash after the end leaves its rest on the due list, and any replica's sweep finishes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from broker.approvals import Yeses
from broker.broken_glass import PENDING, BrokenGlass
from broker.consents import Wanted
from broker.elevations import Elevation, ReviewState, elevations_of, read_elevation
from broker.errors import (
    AccessDenied,
    BrokerError,
    Conflict,
    NotFound,
    Unavailable,
)
from broker.identity.models import Role
from broker.ids import new_id, shard_of
from broker.ledger import keys
from broker.ledger.models import Changed
from broker.logs import get_logger
from broker.policy import Action, UseContext, decide_elevate
from broker.policy.question import Use, using
from broker.refusals import refusal
from broker.rulings import TRIES, Ruling, step_of, too_busy
from broker.steps import counted
from broker.trail import Step
from broker.visibility import concerns, is_own, must_run
from broker.wire import page_json
from broker.wire_approvals import elevation_json

if TYPE_CHECKING:
    from broker.access import Caller
    from broker.catalog import Capability
    from broker.ledger.elevations import ElevationTable
    from broker.pipeline import Pipeline
    from broker.tasks import Task
    from broker.trail import Survey
    from broker.wire_approvals import BreakGlass, Elevate

log = get_logger("elevations")
_ACTOR: Final = "broker"
_AGAIN_MS: Final = 1000
_LATER_MS: Final = 30_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ElevationLimits:
    """Bounds of elevations; times in milliseconds."""

    ttl_ms: int = 600_000
    max_ttl_ms: int = 1_800_000
    glass_ms: int = 300_000
    heartbeat_ms: int = 60_000


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What is asked for, with its defaults."""

    capability: str
    intent: str
    ttl_ms: int
    heartbeat_ms: int
    glass: bool

    @property
    def action(self) -> Action:
        return Action.BREAK_GLASS if self.glass else Action.ELEVATE


class Elevations:
    """The operations on elevations."""

    def __init__(self, pipeline: Pipeline, table: ElevationTable, limits: ElevationLimits) -> None:
        """Revoke and close through the one pipeline."""
        self._pipeline = pipeline
        self._judge = pipeline.judge
        self._queries = pipeline.queries
        self._limits = limits
        self.table = table
        self.glass = BrokenGlass(pipeline, table)

    async def elevate(self, caller: Caller, task_id: str, ask: Elevate) -> dict[str, Any]:
        """Give a task a capability for a while.

        Raises:
            ApprovalRequired: a human has to say yes first, and is asked.
            BrokerError: it isn't allowed, or can't be.
        """
        task = await self._task(caller, task_id)
        must_run(caller, task)
        asked = _Asked(
            capability=ask.capability,
            intent=ask.intent,
            # As it would be used, so that whoever approves sees just that.
            ttl_ms=min(ask.ttl or self._limits.ttl_ms, self._limits.max_ttl_ms),
            heartbeat_ms=ask.heartbeat or self._limits.heartbeat_ms,
            glass=False,
        )
        return await self._start(caller, task, asked)

    async def break_glass(self, caller: Caller, task_id: str, ask: BreakGlass) -> dict[str, Any]:
        """Give a task a capability at once, with nobody asked.

        Raises:
            Conflict: the agent's glass is broken already.
            BrokerError: it isn't allowed, or can't be.
        """
        task = await self._task(caller, task_id)
        if caller.principal.role is not Role.OPERATOR and not is_own(caller, task):
            raise AccessDenied("Only the task's own agent, or an operator, may break the glass.")
        asked = _Asked(
            capability=ask.capability,
            intent=ask.intent,
            ttl_ms=ask.ttl or self._limits.glass_ms,
            heartbeat_ms=self._limits.heartbeat_ms,
            glass=True,
        )
        return await self._start(caller, task, asked)

    async def _start(self, caller: Caller, task: Task, asked: _Asked) -> dict[str, Any]:
        self._judge.admit()
        capability = self._judge.catalog.capabilities.get(asked.capability)
        for _ in range(TRIES):
            task, survey = await self._judge.actions.survey(task.id)
            ruling = await self._ruling(caller, task, capability, asked, survey)
            if not ruling.decision.allowed or capability is None:
                await self._judge.refuse(caller, task.id, ruling)
                raise refusal(ruling)
            elevation = _elevation(caller, task, capability, asked, ruling)
            try:
                started = await self._write(caller, task, elevation, ruling)
            except Changed:
                continue
            return elevation_json(task, started, live=True)
        raise too_busy()

    async def _ruling(
        self,
        caller: Caller,
        task: Task,
        capability: Capability | None,
        asked: _Asked,
        survey: Survey,
    ) -> Ruling:
        """Decide, and find or ask for the human yes; where the glass is broken nobody is asked."""
        parent = await self._queries.task(task.parent_id) if task.parent_id else None

        async def decide(yeses: Yeses) -> Ruling:
            return await self._decide(caller, task, capability, asked, survey, parent, yeses)

        ruling = await decide(Yeses(waived=asked.glass))
        wanted = Wanted(
            action=asked.action,
            task=task,
            requester=caller.name,
            capability=asked.capability,
            power=capability.power if capability else "",
            details={"ttl_ms": asked.ttl_ms, "heartbeat_ms": asked.heartbeat_ms},
            intent=asked.intent,
        )
        return await self._judge.consents.settle(caller, wanted, ruling, decide)

    async def _decide(
        self,
        caller: Caller,
        task: Task,
        capability: Capability | None,
        asked: _Asked,
        survey: Survey,
        parent: Task | None,
        yeses: Yeses,
    ) -> Ruling:
        agent = self._judge.catalog.principals.get(task.agent)
        health = self._pipeline.health(asked.capability)
        decision = decide_elevate(
            UseContext(
                caller=caller.principal,
                agent=agent,
                task=task,
                capability=capability,
                asked_ttl_ms=asked.ttl_ms,
                now_ms=self._judge.now_ms(),
                backlog=health.backlog,
                backlog_limit=health.backlog_limit,
                bound=bool(caller.cnf),
                narrowed_to=caller.capabilities,
            ),
            parent,
            self._limits.max_ttl_ms,
        )
        question, step = None, Step(frozenset())
        if decision.allowed and capability is not None and agent is not None:
            use = Use(
                caller=caller.principal.role,
                asker=caller.name,
                ttl_ms=decision.ttl_ms,
                intent=asked.intent,
                elevate=not asked.glass,
                break_glass=asked.glass,
                ledger_durable=health.durable,
            )
            moment = self._judge.moment(caller, survey.signals, yeses)
            # What it would add if it were used; asking for it adds nothing yet.
            question = using(agent, capability, task, survey, step_of(capability), use, moment)
            decision = await self._judge.ask(question, decision)
        about = {"capability": asked.capability, "intent": asked.intent}
        return self._judge.ruled(
            asked.action, task.id, decision, survey, step, question=question, about=about
        )

    async def _write(
        self, caller: Caller, task: Task, elevation: Elevation, ruling: Ruling
    ) -> Elevation:
        ttl_ms = ruling.decision.ttl_ms
        if elevation.break_glass:
            # Until its end is seen to: what it gave may be alive a little longer than it.
            mark = keys.glass(task.agent)
            holder = await self.table.hold(mark, elevation.id, ttl_ms + _LATER_MS)
            if holder != elevation.id:
                msg = f"{task.agent!r} has broken the glass already: {holder}. One at a time."
                raise Conflict(msg, elevation_id=holder)
        try:
            return await self.table.start(
                elevation,
                ttl_ms=ttl_ms,
                approval=ruling.approval,
                decision=ruling.about,
                seen=ruling.survey.version,
                tokens=caller.lineage,
                actor=caller.name,
            )
        except Unavailable:
            # It may have been written: the mark stays, and goes with its time.
            raise
        except BrokerError:
            if elevation.break_glass:
                await self.table.release(keys.glass(task.agent), elevation.id)
            raise

    # What there is, and its end.

    async def of_task(self, caller: Caller, task_id: str) -> dict[str, Any]:
        """Return the elevations of a task, newest first."""
        task = await self._task(caller, task_id)
        now = await self._queries.now()
        rows = [elevation_json(task, e, live=e.live(now)) for e in elevations_of(task)]
        return page_json(rows[::-1], None)

    async def end(self, caller: Caller, task_id: str, elevation_id: str) -> dict[str, Any]:
        """End an elevation now; all that was issued under it is revoked."""
        task = await self._task(caller, task_id)
        if caller.principal.role is not Role.OPERATOR:
            must_run(caller, task)
        elevation, grants = await self.table.end(
            task.id, elevation_id, reason="ended", actor=caller.name
        )
        await self._pipeline.revoke(grants)
        await self.finish(task.id, elevation_id)
        task = await self._queries.task(task.id) or task
        row = task.elevations.get(elevation_id)
        known = read_elevation(task.id, elevation_id, row) if row else elevation
        return elevation_json(task, known, live=False)

    async def finish(self, task_id: str, elevation_id: str) -> bool:
        """Steps 4 and 5, after the end of an elevation; whether nothing is left to do."""
        task = await self._queries.task(task_id)
        row = task.elevations.get(elevation_id) if task is not None else None
        if task is None or row is None:
            return True
        elevation = read_elevation(task_id, elevation_id, row)
        try:
            return await self._finish(task, elevation)
        except Unavailable as error:
            log.warning("elevation not settled yet", elevation=elevation_id, error=error.detail)
            await self.table.postpone(elevation, delay_ms=_LATER_MS, actor=_ACTOR)
            return False

    async def _finish(self, task: Task, elevation: Elevation) -> bool:
        held = await self._queries.grants_of(task.id)
        # What was never delivered goes with what it hangs from.
        alive = any(grant.elevation_id == elevation.id and grant.lease for grant in held)
        if alive or not await self._pipeline.closing.close_elevation(task, elevation.id):
            await self.table.postpone(elevation, delay_ms=_AGAIN_MS, actor=_ACTOR)
            return False
        if elevation.break_glass:
            await self.table.release(keys.glass(task.agent), elevation.id)
            if not await self.glass.rotate(elevation):
                await self.table.postpone(elevation, delay_ms=_LATER_MS, actor=_ACTOR)
                return False
        await self.table.settle(elevation, actor=_ACTOR)
        return True

    async def _task(self, caller: Caller, task_id: str) -> Task:
        task = await self._queries.task(task_id)
        if task is None or not concerns(caller, task):
            raise NotFound("There is no such task.")
        return task


def _elevation(
    caller: Caller, task: Task, capability: Capability, asked: _Asked, ruling: Ruling
) -> Elevation:
    rotated = [capability.rotate] if asked.glass and capability.rotate else []
    return Elevation(
        id=new_id("elv", shard_of(task.id, "tsk") or 0),
        task_id=task.id,
        capability=capability.name,
        power=capability.power,
        by=caller.name,
        heartbeat_ms=asked.heartbeat_ms,
        intent=asked.intent,
        decision_id=ruling.id,
        approval_id=ruling.approval.id if ruling.approval else "",
        approvals=counted(ruling.yeses),
        break_glass=asked.glass,
        rotation=dict.fromkeys(rotated, PENDING),
        review=ReviewState.OPEN if asked.glass else "",
    )
