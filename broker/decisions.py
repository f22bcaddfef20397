"""The decision point: one decision for each tool call, before it is made.

 1. Whose task is it, and may the caller ask for it?
 2. What does the catalogue say of the tool? Are its arguments and destination of their form?
 3. The policies decide, on what the whole chain has done so far
 4. An allowed call is written with its effects, on the state that was decided on, or decided again

A denial is an answer, not an error: whatever is wrong with what is asked for is a reason of it.
What became of an allowed call is reported afterwards (``executions.py``).
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from broker.approvals import Yeses
from broker.consents import Wanted
from broker.elevations import elevated_to
from broker.errors import (
    AccessDenied,
    Frozen,
    PrincipalSuspended,
    QuotaExceeded,
    TaskNotActive,
)
from broker.identity.models import Role
from broker.known import Known
from broker.ledger.models import Changed
from broker.policy import Action, UseContext, decide_call
from broker.policy.arguments import BadArgument, amount_of, canonical
from broker.policy.decision import deny
from broker.policy.destination import destination
from broker.policy.question import Use, using
from broker.rulings import TRIES, Ruling, consent, marked, step_of, too_busy
from broker.tasks import TaskState
from broker.trail import MAX_EFFECTS, Step, Survey
from broker.visibility import concerns, is_own
from broker.wire import RequestGrant

if TYPE_CHECKING:
    from broker.access import Caller
    from broker.catalog import Capability
    from broker.elevations import Elevation
    from broker.errors import BrokerError
    from broker.known import Fingerprints
    from broker.pipeline import Pipeline
    from broker.policy.decision import Decision
    from broker.tasks import Task
    from broker.trail import State
    from broker.wire_authzen import Evaluation

ASKERS: Final = (Role.AGENT, Role.ORCHESTRATOR, Role.RESOURCE_SERVER)
TOOL: Final = "tool"
_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.:/-]{0,63}")
_CAPABILITY: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_NOTHING: Final = Step(frozenset())


class DecisionPoint:
    """Answers before each tool call."""

    def __init__(self, pipeline: Pipeline, fingerprints: Fingerprints, *, report_ms: int) -> None:
        """``report_ms`` is how long an allowed call may stay unreported."""
        self._pipeline = pipeline
        self._judge = pipeline.judge
        self._fingerprints = fingerprints
        self._report_ms = report_ms
        self._known = Known()

    async def evaluate(self, caller: Caller, ask: Evaluation) -> Ruling:
        """Decide; the answer is allow or deny, and it is logged.

        Raises:
            AccessDenied: the caller is nobody who may ask.
            LedgerUnavailable: the decision can't be written, so it isn't made.
        """
        must_ask(caller)
        task = await self._task(caller, ask)
        if task is None:
            return await self._refuse(caller, "", ask, deny("subject_not_found"))
        match ask.action, ask.resource[0]:
            case Action.CALL_TOOL, "tool":
                return await self._call(caller, task, ask)
            case Action.ISSUE_GRANT, "capability":
                return await self._would_issue(caller, task, ask)
            case _:
                return await self._refuse(caller, task.id, ask, deny("action_not_known"))

    async def would_call(self, caller: Caller, task: Task, ask: Evaluation) -> Ruling:
        """Decide of a tool call as ``evaluate`` does, and neither write nor log anything."""
        tool = self._judge.catalog.tools.get(ask.resource[1])
        task, survey = await self._judge.actions.survey(task.id)
        return await self._decide(caller, task, tool, ask, survey, Yeses())

    # 1. Whose task.

    async def _task(self, caller: Caller, ask: Evaluation) -> Task | None:
        """Return the task that is asked about: an agent's own, or one that concerns the caller."""
        kind, name = ask.subject
        if caller.task is not None:
            own = {"task": caller.task.id, "agent": caller.name}
            named = own.get(kind) == name and ask.task_id in ("", caller.task.id)
            return caller.task if named else None
        task_id = name if kind == "task" else ask.task_id
        task = await self._pipeline.queries.task(task_id) if task_id else None
        if task is None or ask.task_id not in ("", task.id):
            return None
        if kind not in ("task", "agent") or (kind == "agent" and task.agent != name):
            return None
        if caller.principal.role is Role.RESOURCE_SERVER:
            return task if self._is_served_by(caller, ask) else None
        return task if concerns(caller, task) else None

    def _is_served_by(self, caller: Caller, ask: Evaluation) -> bool:
        """Say whether it is about a tool that names the caller; of others it is told nothing."""
        tool = self._judge.catalog.tools.get(ask.resource[1])
        if tool is None or (ask.action, ask.resource[0]) != (Action.CALL_TOOL, TOOL):
            return False
        return caller.principal.resource in tool.resources

    # 2. to 4. A tool call.

    async def _call(self, caller: Caller, task: Task, ask: Evaluation) -> Ruling:
        self._judge.admit()
        tool = self._judge.catalog.tools.get(ask.resource[1])
        known = self._known.get(task.id)
        if known and not self._counts(tool, known[1]):
            # Those that leave nothing new behind get by each other, so none waits for another.
            ruling = await self._try(caller, task, tool, ask)
            if ruling is not None:
                return ruling
        async with self._judge.chain(task.root_id):
            for _ in range(TRIES):
                ruling = await self._try(caller, task, tool, ask)
                if ruling is not None:
                    return ruling
        raise too_busy()

    async def _try(
        self, caller: Caller, task: Task, tool: Capability | None, ask: Evaluation
    ) -> Ruling | None:
        """Decide and write it, or None if that was on what isn't so any more."""
        known = self._known.get(task.id)
        task, survey = known or await self._judge.actions.survey(task.id)
        counts = self._counts(tool, survey)  # before anything is waited for: policies can change
        ruling = await self._decide(caller, task, tool, ask, survey, Yeses())
        if known is not None and not ruling.decision.allowed:
            self._known.drop(task.id)  # nobody is refused on a guess
            return None
        ruling = await self._settle(caller, task, tool, ask, ruling)
        if not ruling.decision.allowed or tool is None:
            await self._judge.refuse(caller, task.id, ruling)
            return ruling
        seen = survey.version if counts or ruling.approval else survey.growth
        try:
            state = await self._write(caller, task, tool, ruling, seen)
        except Changed:
            self._known.drop(task.id)
            return None
        except (Frozen, PrincipalSuspended, QuotaExceeded, TaskNotActive) as error:
            self._known.drop(task.id)
            ruling = self._stopped(task, tool, ask, ruling, error)
            await self._judge.log(caller, task.id, ruling)
            return ruling
        self._known.keep(task, survey.after(ruling.step, state))
        return ruling

    def _counts(self, tool: Capability | None, survey: Survey) -> bool:
        """Say whether it matters how often or how much was done, and not only what."""
        amounts = tool is not None and tool.amount
        return bool(amounts or survey.left or self._judge.policies.counting)

    async def _settle(
        self, caller: Caller, task: Task, tool: Capability | None, ask: Evaluation, ruling: Ruling
    ) -> Ruling:
        """Find the human yes to exactly this call, or ask for it."""
        if tool is None:
            return ruling

        async def again(yeses: Yeses) -> Ruling:
            return await self._decide(caller, task, tool, ask, ruling.survey, yeses)

        wanted = Wanted(
            action=Action.CALL_TOOL,
            task=task,
            requester=caller.name,
            capability=tool.name,
            power=tool.power,
            details={
                "arguments": dict(ask.arguments),
                "destination": ask.destination,
                "effects": sorted(ask.effects),
            },
            intent=ask.intent,
        )
        return await self._judge.consents.settle(caller, wanted, ruling, again)

    async def _decide(
        self,
        caller: Caller,
        task: Task,
        tool: Capability | None,
        ask: Evaluation,
        survey: Survey,
        yeses: Yeses,
    ) -> Ruling:
        elevation = self._elevation(caller, task, tool)
        decision, step, question = self._floor(caller, task, tool, ask, elevation), _NOTHING, None
        agent = self._judge.catalog.principals.get(task.agent)
        if decision.allowed and tool is not None and agent is not None:
            try:
                use, step = _use(caller, tool, ask, survey)
            except _Refused as error:
                decision = error.decision
            else:
                if elevation is not None:
                    intent = use.intent or elevation.intent
                    broken = elevation.break_glass
                    use = replace(use, elevated=True, glass_broken=broken, intent=intent)
                moment = self._judge.moment(caller, survey.signals, consent(yeses, elevation))
                question = using(agent, tool, task, survey, step, use, moment)
                about = {
                    "gen_ai.operation.name": "execute_tool",
                    "gen_ai.tool.name": tool.tool or tool.name,
                    "gen_ai.agent.name": task.agent,
                }
                decision = await self._judge.ask_elevated(question, decision, elevation, about)
        about = {**self._about(tool, ask, decision), **marked(elevation)}
        ruling = self._judge.ruled(
            Action.CALL_TOOL, task.id, decision, survey, step, question=question, about=about
        )
        return replace(ruling, elevation=elevation)

    def _elevation(self, caller: Caller, task: Task, tool: Capability | None) -> Elevation | None:
        if tool is None:
            return None
        own = is_own(caller, task) or caller.principal.role is Role.RESOURCE_SERVER
        return elevated_to(task, tool.name, self._judge.now_ms(), by_its_agent=own)

    def _stopped(
        self, task: Task, tool: Capability, ask: Evaluation, ruling: Ruling, error: BrokerError
    ) -> Ruling:
        """Return the denial in the place of what was allowed, and can't be any more."""
        decision = ruling.decision.denied(str(error.extra.get("reason", error.code)))
        return self._judge.ruled(
            Action.CALL_TOOL,
            task.id,
            decision,
            ruling.survey,
            _NOTHING,
            question=ruling.question,
            about=self._about(tool, ask, decision),
        )

    def _floor(
        self,
        caller: Caller,
        task: Task,
        tool: Capability | None,
        ask: Evaluation,
        elevation: Elevation | None,
    ) -> Decision:
        if task.state is not TaskState.ACTIVE:
            return deny("task_over")
        return decide_call(
            UseContext(
                caller=caller.principal,
                agent=self._judge.catalog.principals.get(task.agent),
                task=task,
                capability=tool,
                asked_ttl_ms=0,
                now_ms=self._judge.now_ms(),
                bound=bool(caller.cnf),
                narrowed_to=caller.capabilities,
                elevated=elevation.capability if elevation else "",
                effects=ask.effects,
                given=ask.arguments,
            )
        )

    def _about(
        self, tool: Capability | None, ask: Evaluation, decision: Decision
    ) -> dict[str, Any]:
        """Return what the log says of a call: arguments by fingerprint, unless policy says more."""
        whole = decision.obligations.log_arguments
        arguments = {
            name: value if whole else self._fingerprints.of_value(value)
            for name, value in sorted(ask.arguments.items())
            if tool is not None and name in tool.arguments
        }
        found: dict[str, Any] = {
            "capability": tool.name if tool else "",
            "tool": ask.resource[1] if tool else self._named(ask.resource[1]),
            "intent": ask.intent,
            "effects": sorted(ask.effects.union(tool.effects if tool else ())),
            "arguments": arguments,
            "arguments_logged": whole,
            "notes": list(decision.notes),
        }
        return {name: value for name, value in found.items() if value}

    def _named(self, text: str) -> str:
        """Return a name for the log: what can be none may be anything, put there by mistake."""
        return text if _NAME.fullmatch(text) else self._fingerprints.of_value(text)

    async def _write(
        self, caller: Caller, task: Task, tool: Capability, ruling: Ruling, seen: str
    ) -> State:
        state = await self._judge.actions.call(
            task,
            capability=tool.name,
            decision=ruling.about,
            seen=seen,
            step=ruling.step,
            report_ms=self._report_ms,
            tokens=caller.lineage,
            actor=caller.name,
            approval=(ruling.approval.id, ruling.approval.digest) if ruling.approval else None,
            elevation=ruling.elevation.id if ruling.elevation else "",
        )
        self._judge.used(task.agent, tool.name)
        return state

    # A credential: what would be decided, without asking for it.

    async def _would_issue(self, caller: Caller, task: Task, ask: Evaluation) -> Ruling:
        if not _CAPABILITY.fullmatch(ask.resource[1]):
            return await self._refuse(caller, task.id, ask, deny("capability_not_allowed"))
        wanted = RequestGrant.model_construct(
            capability=ask.resource[1],
            ttl=None,
            parameters=dict(ask.arguments) or None,
            intent=ask.intent or None,
        )
        ruling = await self._pipeline.would_issue(caller, task, wanted)
        await self._judge.log(caller, task.id, ruling)
        return ruling

    async def _refuse(
        self, caller: Caller, task_id: str, ask: Evaluation, decision: Decision
    ) -> Ruling:
        about = {
            "tool" if ask.resource[0] == TOOL else "resource": self._named(ask.resource[1]),
            "asked": self._named(ask.action),
        }
        ruling = self._judge.ruled(
            Action.CALL_TOOL, task_id, decision, Survey(""), _NOTHING, question=None, about=about
        )
        await self._judge.log(caller, task_id, ruling)
        return ruling


class _Refused(Exception):
    """What is asked for can't be, whatever policy says of it."""

    def __init__(self, decision: Decision) -> None:
        super().__init__(decision.reasons)
        self.decision = decision


def must_ask(caller: Caller) -> None:
    """Refuse whoever has no business with decisions."""
    if caller.principal.role not in ASKERS:
        raise AccessDenied("Decisions are for agents, orchestrators and resource servers.")


def _use(caller: Caller, tool: Capability, ask: Evaluation, survey: Survey) -> tuple[Use, Step]:
    """Read what is to be called, and say what it would add to the trail.

    Raises:
        _Refused: it isn't of its form.
    """
    try:
        arguments = canonical(tool, ask.arguments)
        amount = amount_of(tool, ask.arguments, so_far=survey.chain.amount)
    except BadArgument as error:
        refused = replace(deny(error.reason), notes=(f"argument {error.name}",))
        raise _Refused(refused) from None
    try:
        where = None if ask.destination is None else destination(ask.destination)
    except ValueError:
        raise _Refused(deny("destination_not_plain")) from None
    step = step_of(tool, effects=ask.effects, amount=amount)
    if len(survey.chain.effects | step.effects) > MAX_EFFECTS:
        raise _Refused(deny("too_many_effects"))
    if short := survey.short_of(step):
        raise _Refused(replace(deny("budget_exhausted"), notes=(f"budget {short}",)))
    use = Use(
        caller=caller.principal.role,
        asker=caller.name,
        ttl_ms=0,
        intent=ask.intent,
        destination=where,
        arguments=arguments,
    )
    return use, step
