"""What policy would say of a request, for operators: nothing is issued, asked for or logged.

The same builders and policies decide as for a real request, at this moment, with what the task and
its chain have done so far, as if its token were bound to no key. That an agent would be refused
anyhow, since its token has ended or a selector is frozen, isn't policy's to say.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from broker.access import Caller
from broker.durations import format_duration
from broker.errors import InvalidRequest, NotFound
from broker.policy.explain import explain
from broker.policy.who_can import who_can
from broker.trail import Signals
from broker.visibility import must_see_all
from broker.wire import RequestGrant
from broker.wire_authzen import Evaluation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.catalog import Capability
    from broker.decisions import DecisionPoint
    from broker.pipeline import Pipeline
    from broker.policy.decision import Decision
    from broker.wire_previews import DryRun


class DryRuns:
    """Asks, as whoever would ask."""

    def __init__(self, pipeline: Pipeline, decisions: DecisionPoint) -> None:
        """Decide by what both decide by."""
        self._pipeline = pipeline
        self._judge = pipeline.judge
        self._decisions = decisions

    async def run(self, caller: Caller, ask: DryRun) -> dict[str, Any]:
        """Return the answer of ``POST /v1/policy/dry-run``.

        Raises:
            NotFound: there is no such task, agent or capability.
        """
        must_see_all(caller)
        catalog = self._judge.catalog
        known = catalog.capabilities.get(ask.capability) or catalog.tools.get(ask.capability)
        if known is None:
            raise NotFound("There is no such capability or tool.")
        if ask.agent is not None:
            return await self._plain(caller, known, ask.agent)
        return await self._in_task(known, ask)

    async def _plain(self, caller: Caller, known: Capability, agent: str) -> dict[str, Any]:
        moment = self._judge.moment(caller, Signals())
        enforced = self._judge.policies.loaded.enforced
        found = await asyncio.to_thread(who_can, enforced, self._judge.catalog, known, moment)
        who = next((each for each in found if each.agent == agent), None)
        if who is None:
            raise NotFound("There is no such agent.")
        return _answer("", agent, known, who.decision, left_out=who.arguments)

    async def _in_task(self, known: Capability, ask: DryRun) -> dict[str, Any]:
        task = await self._pipeline.queries.task(ask.task_id or "")
        agent = self._judge.catalog.principals.get(task.agent) if task else None
        if task is None or agent is None:
            raise NotFound("There is no such task.")
        asker = Caller(principal=agent, task=task)
        if known.is_tool:
            evaluation = Evaluation(
                subject=("task", task.id),
                action="call_tool",
                resource=("tool", known.tool or known.name),
                arguments=ask.arguments or {},
                destination=ask.destination,
                effects=frozenset(ask.effects),
                intent=ask.intent or "",
                task_id=task.id,
            )
            ruling = await self._decisions.would_call(asker, task, evaluation)
        elif ask.arguments or ask.destination or ask.effects:
            raise InvalidRequest("Only tools have arguments, a destination and effects.")
        else:
            wanted = RequestGrant.model_construct(
                capability=known.name, ttl=ask.ttl, parameters=ask.parameters, intent=ask.intent
            )
            ruling = await self._pipeline.would_issue(asker, task, wanted)
        explanation = None
        if ruling.question is not None:
            enforced = self._judge.policies.loaded.enforced
            found = await asyncio.to_thread(explain, enforced, ruling.question, ruling.decision)
            explanation = found.as_json()
        return _answer(task.id, agent.name, known, ruling.decision, explanation=explanation)


def _answer(
    task_id: str,
    agent: str,
    known: Capability,
    decision: Decision,
    *,
    left_out: Sequence[str] = (),
    explanation: dict[str, Any] | None = None,
) -> dict[str, Any]:
    return {
        "task_id": task_id or None,
        "agent": agent,
        "capability": known.name,
        "effect": decision.effect,
        "reasons": list(decision.reasons),
        "ttl": format_duration(decision.ttl_ms) if decision.ttl_ms else None,
        "notes": list(decision.notes),
        "policies": list(decision.policies),
        "obligations": decision.obligations.as_json(),
        "depends_on_arguments": list(left_out),
        "explanation": explanation,
    }
