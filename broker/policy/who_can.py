"""Who can have a capability or call a tool, by the catalogue and the policies together.

Each agent is asked about as if it had a plain task for just that: nothing done so far, nothing
reported of it, no approval, and no arguments where it is a tool.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from broker.catalog import PrincipalState
from broker.identity.models import Role
from broker.policy.decision import Decision, Effect
from broker.policy.explain import without_arguments
from broker.policy.policies import conclude
from broker.policy.question import Use, using
from broker.policy.rules import UseContext, decide_call, decide_issue
from broker.tasks import Task, TaskState
from broker.trail import Step, Survey

if TYPE_CHECKING:
    from broker.catalog import Capability, Catalog, Principal
    from broker.policy.cedar import CedarPolicies
    from broker.policy.question import Moment

_TASK_MS: Final = 900_000
_RANK: Final = {Effect.ALLOW: 0, Effect.NEEDS_APPROVAL: 1, Effect.DENY: 2}
NOT_ACTIVE: Final = "principal_not_active"


@dataclass(frozen=True, slots=True)
class Who:
    """An agent, and whether it can. ``arguments`` are policies that depend on those of a call."""

    agent: str
    owner: str
    decision: Decision
    arguments: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "agent": self.agent,
            "owner": self.owner,
            "effect": self.decision.effect,
            "reasons": list(self.decision.reasons),
            "policies": list(self.decision.policies),
            "obligations": self.decision.obligations.as_json(),
            "depends_on_arguments": list(self.arguments),
        }


def who_can(
    policies: CedarPolicies, catalog: Catalog, capability: Capability, moment: Moment
) -> tuple[Who, ...]:
    """Say of each agent whether it can, those that can first."""
    agents = [p for p in catalog.principals.values() if p.role is Role.AGENT]
    found = [_who(policies, agent, capability, moment) for agent in agents]
    return tuple(sorted(found, key=lambda who: (_RANK[who.decision.effect], who.agent)))


def _who(policies: CedarPolicies, agent: Principal, capability: Capability, moment: Moment) -> Who:
    task = _plain_task(agent, capability, moment.now_ms)
    context = UseContext(
        caller=agent,
        agent=agent,
        task=task,
        capability=capability,
        asked_ttl_ms=0,
        now_ms=moment.now_ms,
        bound=moment.bound,
    )
    floor = decide_call(context) if capability.is_tool else decide_issue(context)
    if agent.state is not PrincipalState.ACTIVE:
        floor = floor.denied(NOT_ACTIVE)
    if not floor.allowed:
        return Who(agent.name, agent.owner, floor)
    step = Step(
        effects=capability.effects,
        data_class=capability.data_class,
        lasting=not capability.is_tool,
        rank=capability.power.rank,
    )
    use = Use(caller=Role.AGENT, ttl_ms=floor.ttl_ms)
    survey = Survey("", tasks=1)
    question = using(agent, capability, task, survey, step, use, moment)
    asked, asking, left_out = without_arguments(policies, question)
    return Who(agent.name, agent.owner, conclude(asked, floor, asking.ask(asked)), left_out)


def _plain_task(agent: Principal, capability: Capability, now_ms: int) -> Task:
    return Task(
        id="tsk_0",
        state=TaskState.ACTIVE,
        agent=agent.name,
        owner=agent.owner,
        created_by="orchestrator",
        orchestrator="orchestrator",
        subject="orchestrator",
        purpose="",
        capabilities=(capability.name,),
        parent_id="",
        root_id="tsk_0",
        actors=(agent.name,),
        depth=0,
        created_at=now_ms,
        expires_at=now_ms + _TASK_MS,
    )
