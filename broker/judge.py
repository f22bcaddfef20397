"""Step 3: each request is decided with what is known at that moment, and the decision has an id.

Whatever is decided is logged with the question it answers. What is allowed is logged with the write
that it allows, which names the version of the chain that was decided on: if another request has
changed the chain meanwhile, it is decided again (``Changed``).
"""

from __future__ import annotations

import asyncio
import weakref
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from broker.approvals import Yeses
from broker.consents import Wanted
from broker.elevations import elevated_to
from broker.errors import AccessDenied
from broker.ids import shard_of, timed_id
from broker.logs import get_logger
from broker.policy import Action, Effect, OpenContext, UseContext, decide_issue, decide_open
from broker.policy.decision import Decision
from broker.policy.policies import POLICY_ERROR
from broker.policy.question import Moment, Use, opening, operating, using
from broker.policy.rules import clamp
from broker.power import PRIVATE
from broker.refusals import advised, refusal
from broker.rulings import Ruling, consent, marked, step_of
from broker.tracing import note, span
from broker.trail import Signals, Step, Survey
from broker.visibility import is_own

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from broker.access import Caller
    from broker.catalog import Catalog
    from broker.clock import Clock
    from broker.consents import Consents
    from broker.elevations import Elevation
    from broker.ledger.actions import Actions
    from broker.ledger.models import Idempotency
    from broker.ledger.redis import RedisLedger
    from broker.metrics import Metrics
    from broker.policy.policies import Policies
    from broker.policy.question import Question
    from broker.rulings import Health
    from broker.tasks import Task
    from broker.tracing import Attributes
    from broker.wire import OpenTask, RequestGrant

log = get_logger("judge")


class Judge:
    """Asks the policies, and says no in words."""

    def __init__(  # noqa: PLR0913  all that a decision looks at
        self,
        *,
        catalog: Catalog,
        policies: Policies,
        actions: Actions,
        ledger: RedisLedger,
        clock: Clock,
        metrics: Metrics,
        consents: Consents,
        environment: str = "",
        private: frozenset[str] = PRIVATE,
        used: Callable[[str, str], None] = lambda _agent, _capability: None,
        admit: Callable[[], None] = lambda: None,
    ) -> None:
        """``environment`` is told to policies; ``private`` are the data classes that are.

        ``used`` is told which agent has used which capability. ``admit`` raises while nothing may
        be allowed to anybody, such as when the audit log can't be written.
        """
        self.catalog = catalog
        self.policies = policies
        self.actions = actions
        self.private = private
        self.used = used
        self.admit = admit
        self.consents = consents
        self._ledger = ledger
        self._clock = clock
        self._metrics = metrics
        self._environment = environment
        self._chains: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    def chain(self, root_id: str) -> asyncio.Lock:
        """Return the lock under which this replica decides again for a chain, one at a time."""
        lock = self._chains.get(root_id)
        if lock is None:
            lock = self._chains[root_id] = asyncio.Lock()
        return lock

    def now_ms(self) -> int:
        """Return the time that decisions are made at, in epoch milliseconds."""
        return int(self._clock.now() * 1000)

    def moment(self, caller: Caller, signals: Signals, approvals: Yeses | None = None) -> Moment:
        """Return the circumstances of a caller's request."""
        return self.then(
            caller.method, bound=bool(caller.cnf), signals=signals, yeses=approvals or Yeses()
        )

    def then(self, method: str, *, bound: bool, signals: Signals, yeses: Yeses) -> Moment:
        """Return the circumstances of a request by whoever had proved itself so."""
        return Moment(
            now_ms=self.now_ms(),
            environment=self._environment,
            method=method,
            bound=bound,
            private=self.private,
            signals=signals,
            approvals=yeses,
        )

    async def ask(
        self, question: Question, floor: Decision, about: Attributes | None = None
    ) -> Decision:
        """Have the policies decide what the catalogue allows; ``about`` is for the span."""
        with span("policy", about), self._metrics.deciding(question.action):
            decision = await self.policies.decide(question, floor)
        if decision.reasons == (POLICY_ERROR,):
            self._metrics.policy_failed()
        return decision

    async def ask_elevated(
        self,
        question: Question,
        floor: Decision,
        elevation: Elevation | None,
        about: Attributes | None = None,
    ) -> Decision:
        """Decide what may be asked for under an elevation.

        Where the glass is broken nobody has to approve. All else holds, and what is said of
        breaking it must allow this use too, for whoever broke it.
        """
        decision = await self.ask(question, floor, about)
        if elevation is None or not elevation.break_glass or not decision.allowed:
            return decision
        breaker = self.catalog.principals.get(elevation.by)
        if breaker is None:
            return decision.denied("agent_not_registered")
        glass = await self.ask(question.breaking_glass(breaker.role, breaker.name), decision)
        return replace(
            glass,
            policies=decision.policies + glass.policies,
            obligations=decision.obligations | glass.obligations,
        )

    # Credentials.

    async def issue(
        self,
        caller: Caller,
        task: Task,
        ask: RequestGrant,
        health: Health,
        idempotency: Idempotency | None = None,
    ) -> Ruling:
        """Decide whether a credential is issued, and for how long.

        Raises:
            ApprovalRequired: a human has to say yes first, and is asked.
            BrokerError: policy refused, and it is logged.
            AuditUnavailable: nothing is issued at all.
        """
        self.admit()
        task, survey = await self.actions.survey(task.id)

        async def decide(yeses: Yeses) -> Ruling:
            return await self._judged_issue(caller, task, ask, health, survey, yeses)

        capability = self.catalog.capabilities.get(ask.capability)
        wanted = Wanted(
            action=Action.ISSUE_GRANT,
            task=task,
            requester=caller.name,
            capability=ask.capability,
            power=capability.power if capability else "",
            details={"parameters": ask.parameters or {}, "ttl_ms": ask.ttl or 0},
            intent=ask.intent or "",
        )
        ruling = await self.consents.settle(
            caller, wanted, await decide(Yeses()), decide, idempotency
        )
        if ruling.decision.allowed:
            return ruling
        await self.refuse(caller, task.id, ruling)
        raise refusal(ruling)

    async def would_issue(
        self, caller: Caller, task: Task, ask: RequestGrant, health: Health
    ) -> Ruling:
        """Decide as ``issue`` does, and do nothing about it."""
        task, survey = await self.actions.survey(task.id)
        return await self._judged_issue(caller, task, ask, health, survey, Yeses())

    async def _judged_issue(
        self,
        caller: Caller,
        task: Task,
        ask: RequestGrant,
        health: Health,
        survey: Survey,
        yeses: Yeses,
    ) -> Ruling:
        own = is_own(caller, task)
        elevation = elevated_to(task, ask.capability, self.now_ms(), by_its_agent=own)
        capability = self.catalog.capabilities.get(ask.capability)
        agent = self.catalog.principals.get(task.agent)
        step = step_of(capability) if capability else Step(frozenset())
        floor = decide_issue(
            UseContext(
                caller=caller.principal,
                agent=agent,
                task=task,
                capability=capability,
                asked_ttl_ms=ask.ttl or 0,
                now_ms=self.now_ms(),
                backlog=health.backlog,
                backlog_limit=health.backlog_limit,
                bound=bool(caller.cnf),
                narrowed_to=caller.capabilities,
                elevated=elevation.capability if elevation else "",
                given=ask.parameters or {},
                short_of=survey.short_of(step),
            )
        )
        intent = ask.intent or ""
        if elevation is not None and floor.allowed:
            left_ms = elevation.expires_at - self.now_ms()
            ttl_ms, notes = clamp(floor.ttl_ms, left_ms, "what is left of the elevation")
            floor = replace(floor, ttl_ms=max(ttl_ms, 1), notes=floor.notes + notes)
            intent = intent or elevation.intent
        question = None
        if floor.allowed and capability is not None and agent is not None:
            use = Use(
                caller=caller.principal.role,
                asker=caller.name,
                ttl_ms=floor.ttl_ms,
                intent=intent,
                ledger_durable=health.durable,
                elevated=elevation is not None,
                glass_broken=elevation is not None and elevation.break_glass,
            )
            moment = self.moment(caller, survey.signals, consent(yeses, elevation))
            question = using(agent, capability, task, survey, step, use, moment)
            floor = await self.ask_elevated(question, floor, elevation)
        about = {"capability": ask.capability, "intent": intent, **marked(elevation)}
        ruling = self.ruled(
            Action.ISSUE_GRANT, task.id, floor, survey, step, question=question, about=about
        )
        return replace(ruling, elevation=elevation)

    # Tasks.

    async def open(
        self,
        caller: Caller,
        ask: OpenTask,
        context: OpenContext,
        *,
        task_id: str,
        on_behalf_of: str,
    ) -> Ruling:
        """Decide whether a task is opened, and for how long. The caller logs a refusal.

        Raises:
            AuditUnavailable: nothing is issued at all.
        """
        self.admit()
        parent, agent = context.parent, context.agent
        names = [f"agent:{ask.agent}", f"agent:{caller.name}"]
        names += [f"owner:{agent.owner}"] if agent else []
        shard = shard_of(task_id, "tsk") or 0
        survey = await self.actions.survey_below(shard, parent.id if parent else "", names)
        decision, question = decide_open(context), None
        if decision.allowed and agent is not None:
            question = opening(
                caller.principal,
                agent,
                [c for c in context.capabilities if c is not None],
                purpose=ask.purpose,
                on_behalf_of=on_behalf_of,
                ttl_ms=decision.ttl_ms,
                parent=parent,
                survey=survey,
                moment=self.moment(caller, survey.signals),
            )
            decision = await self.ask(question, decision)
        about: dict[str, Any] = {"agent": ask.agent, "capabilities": ",".join(ask.capabilities)}
        if ask.limits is not None:
            about["limits"] = ask.limits.model_dump(exclude_none=True)
        return self.ruled(
            Action.OPEN_TASK if parent is None else Action.DELEGATE,
            task_id,
            decision,
            survey,
            Step(frozenset()),
            question=question,
            about=about,
        )

    # Operators.

    async def operate(
        self, caller: Caller, operation: str, selector: str = "", *, always: bool = False
    ) -> None:
        """Refuse what policy doesn't let this operator do; a refusal is logged.

        ``always`` says that policies that can't be evaluated don't stop it: what revokes goes
        ahead.

        Raises:
            AccessDenied: policy says no.
        """
        question = operating(caller.principal, operation, selector, self.moment(caller, Signals()))
        decision = await self.ask(question, Decision(Effect.ALLOW, ("role",)))
        if decision.allowed:
            self._metrics.decided(Action.OPERATE, decision.effect)
            return
        if always and decision.reasons == (POLICY_ERROR,):
            log.error("policies can't be evaluated; going ahead", operation=operation)
            return
        ruling = self.ruled(
            Action.OPERATE,
            "",
            decision,
            Survey(""),
            Step(frozenset()),
            question=question,
            about={"operation": operation, "selector": selector},
        )
        await self.log(caller, "", ruling)
        msg = "Policy doesn't allow this to you."
        raise AccessDenied(msg, decision_id=ruling.id, **advised(decision))

    # What is decided is logged.

    def ruled(
        self,
        action: str,
        task_id: str,
        decision: Decision,
        survey: Survey,
        step: Step,
        *,
        question: Question | None,
        about: Mapping[str, Any],
    ) -> Ruling:
        """Give a decision its id and the data of its event."""
        decision_id = timed_id("dec", shard_of(task_id, "tsk") or 0, self.now_ms())
        self._metrics.decided(action, decision.effect)
        note(decision=decision_id)
        asked = {"question": question.as_json()} if question is not None else {}
        signals = {"signals": list(survey.signals.sources)} if survey.signals.sources else {}
        data = decision.for_audit(id=decision_id, action=action, **about, **signals, **asked)
        return Ruling(decision_id, decision, data, survey, step, question)

    async def refuse(self, caller: Caller, task_id: str, ruling: Ruling) -> None:
        """Log what isn't allowed; what waits for approval is logged with asking for that."""
        if ruling.decision.effect is not Effect.NEEDS_APPROVAL:
            await self.log(caller, task_id, ruling)

    async def log(self, caller: Caller, task_id: str, ruling: Ruling) -> None:
        """Log a decision that no write goes with: a refusal."""
        await self._ledger.record(
            "decision",
            shard=shard_of(ruling.id, "dec") or 0,
            task_id=task_id,
            actor=caller.name,
            data=ruling.about,
            decision_id=ruling.id,
        )
