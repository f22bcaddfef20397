"""Step 3, where a human has to say yes: whether there is a yes to exactly this, and asking for one.

 1. A live approval for the digest of the request? It answers repeats, so nobody is asked twice
 2. Approved: policy decides again, with the yeses that still count
 3. Denied: that is the answer, until the request's time is up
 4. Else it is asked for, or waited for

An approval is used up by the script that does what was approved, and by nothing else.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from broker.approvals import Approval, ApprovalState, Groups, Yeses, digest_of
from broker.catalog import PrincipalState
from broker.identity.models import Role
from broker.ids import new_id, shard_of
from broker.policy import Effect
from broker.refusals import replayed

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping

    from broker.access import Caller
    from broker.approvals import Vote
    from broker.catalog import Catalog
    from broker.ledger.approvals import ApprovalTable
    from broker.ledger.models import Idempotency
    from broker.rulings import Ruling
    from broker.tasks import Task

DENIED = "approval_denied"
_VOID = "votes_void"
_ASKED = 10
"""How often a task may fill what it may wait for, all in all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConsentLimits:
    """Bounds of approvals; times in milliseconds."""

    wait_ms: int = 3_600_000
    use_ms: int = 900_000
    max_pending: int = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """An exact request. ``details`` are all that whoever approves has to know of it.

    Its intent is shown and not bound to: a repeat may word it in another way.
    """

    action: str
    task: Task
    requester: str
    capability: str
    power: str
    details: Mapping[str, Any] = field(repr=False)
    intent: str = ""

    @property
    def digest(self) -> str:
        """Its name: who wants what, under which task."""
        return digest_of(
            {
                "action": self.action,
                "task": self.task.id,
                "requester": self.requester,
                "capability": self.capability,
                **self.details,
            }
        )


class Consents:
    """Finds and asks for human yeses."""

    def __init__(
        self, table: ApprovalTable, groups: Groups, catalog: Catalog, limits: ConsentLimits
    ) -> None:
        """``catalog`` knows who is an operator, and still is."""
        self.table = table
        self.groups = groups
        self.limits = limits
        self._catalog = catalog

    async def settle(
        self,
        caller: Caller,
        wanted: Wanted,
        ruling: Ruling,
        again: Callable[[Yeses], Awaitable[Ruling]],
        idempotency: Idempotency | None = None,
    ) -> Ruling:
        """Return what follows for a request that may need approval; ``again`` decides it once more.

        The ruling that still needs approval names the one that it waits for, and is logged.

        Raises:
            BrokerError: it can't be asked for, or the request was carried out before.
        """
        if ruling.decision.effect is not Effect.NEEDS_APPROVAL:
            return ruling
        approval = await self.table.live(wanted.task.id, wanted.digest)
        if approval is not None and approval.state is ApprovalState.DENIED:
            return ruling.by(approval).denied(DENIED)
        if approval is not None and approval.state is ApprovalState.APPROVED:
            yeses = self.yeses(approval)
            ruled = await again(yeses)
            if ruled.decision.effect is not Effect.NEEDS_APPROVAL:
                return ruled.by(approval, yeses)
            # Policy wants more by now, or somebody who said yes may say so no more.
            await self.table.cancel(approval.id, reason=_VOID, actor="broker")
        asked = await self.table.ask(
            self.request(wanted, ruling),
            wait_ms=self.limits.wait_ms,
            max_pending=self.limits.max_pending,
            max_asked=_ASKED * self.limits.max_pending,
            decision=ruling.about,
            actor=caller.name,
            idempotency=idempotency,
        )
        if not isinstance(asked, Approval):
            raise replayed(asked)
        return ruling.by(asked)

    def yeses(self, approval: Approval) -> Yeses:
        """Count the yeses of those who are operators, and active, now."""
        return self.count(approval, approval.votes)

    def count(self, approval: Approval, votes: Iterable[Vote]) -> Yeses:
        """Count some votes for an approval; those of who isn't an active operator count nothing."""
        people = self._catalog.principals
        valid = [vote for vote in votes if _may_still(people.get(vote.by))]
        return self.groups.count(valid, approval.needs, approval.escalated)

    def request(self, wanted: Wanted, ruling: Ruling) -> Approval:
        """Return the approval that is asked for."""
        task, needs = wanted.task, ruling.decision.obligations.needs
        return Approval(
            id=new_id("apr", shard_of(task.id, "tsk") or 0),
            task_id=task.id,
            agent=task.agent,
            owner=task.owner,
            orchestrator=task.orchestrator,
            subject=task.subject,
            requester=wanted.requester,
            action=wanted.action,
            capability=wanted.capability,
            power=wanted.power,
            digest=wanted.digest,
            request=json.dumps(wanted.details, ensure_ascii=False),
            intent=wanted.intent,
            purpose=task.purpose,
            needs=needs,
            ladder=self.groups.ladder(needs),
            use_ms=self.limits.use_ms,
            channels=tuple(sorted(ruling.decision.obligations.notify)),
            policies=ruling.decision.policies,
            decision_id=ruling.id,
        )


def _may_still(principal: Any) -> bool:  # noqa: ANN401  a Principal, or None
    return (
        principal is not None
        and principal.role is Role.OPERATOR
        and principal.state is PrincipalState.ACTIVE
    )
