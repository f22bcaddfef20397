"""Step 3 once more: whether what exists would be allowed now, by what is known now."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.approvals import Yeses
from broker.elevations import read_elevation
from broker.identity.models import Role
from broker.policy import Effect
from broker.policy.decision import Decision
from broker.policy.question import Use, using
from broker.rulings import consent
from broker.trail import Step

if TYPE_CHECKING:
    from broker.grants import Grant
    from broker.judge import Judge
    from broker.tasks import Task
    from broker.trail import Survey


async def decided_again(
    judge: Judge, grant: Grant, task: Task, survey: Survey, *, durable: bool
) -> Decision | None:
    """Decide a grant that exists once more; None where only the catalogue has changed.

    The human yeses that it was issued with are still there: they were to exactly this.
    """
    capability = judge.catalog.capabilities.get(grant.capability)
    agent = judge.catalog.principals.get(task.agent)
    if capability is None or agent is None:
        return None
    row = task.elevations.get(grant.elevation_id)
    elevation = read_elevation(task.id, grant.elevation_id, row) if row else None
    left_ms = max(grant.expires_at - judge.now_ms(), 1)
    asker = judge.catalog.principals.get(grant.asker)
    use = Use(
        caller=asker.role if asker else Role.AGENT,
        asker=grant.asker or grant.agent,
        ttl_ms=left_ms,
        intent=grant.intent or (elevation.intent if elevation else ""),
        ledger_durable=durable,
        elevated=elevation is not None,
        glass_broken=elevation is not None and elevation.break_glass,
    )
    given = {group: count for group, count in grant.approvals.items() if group}
    yeses = consent(Yeses(grant.approvals.get("", 0), given), elevation)
    moment = judge.then(grant.method, bound=bool(grant.cnf), signals=survey.signals, yeses=yeses)
    step = Step(frozenset())  # it has been taken
    question = using(agent, capability, task, survey, step, use, moment)
    return await judge.ask_elevated(question, Decision(Effect.ALLOW, (), left_ms), elevation)


async def still_allowed(judge: Judge, grant: Grant, *, durable: bool) -> bool:
    """Say whether a grant that exists would be allowed now."""
    task, survey = await judge.actions.survey(grant.task_id)
    decision = await decided_again(judge, grant, task, survey, durable=durable)
    return decision is None or decision.allowed
