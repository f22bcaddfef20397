"""Where humans say yes or no to what agents ask for, and agents wait for it.

Who may is policy's business (``approve``), besides two things that no policy changes: nobody
approves what they asked for themselves, or what is for them, and a vote counts for the groups
that the voter is in.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from broker.approvals import Approval, ApprovalState, Vote, Yeses
from broker.errors import AccessDenied, Conflict, LedgerUnavailable, NotFound
from broker.ledger.models import Changed
from broker.policy import Action, Effect
from broker.policy.decision import Decision
from broker.policy.question import approving
from broker.refusals import advised
from broker.rulings import TRIES, too_busy
from broker.trail import Signals, Step, Survey
from broker.visibility import concerns, must_operate, must_run, sees_all
from broker.wire import page_json, page_of
from broker.wire_approvals import approval_json

if TYPE_CHECKING:
    from broker.access import Caller
    from broker.ledger.approvals import ApprovalTable
    from broker.pipeline import Pipeline
    from broker.policy.question import Question

MAX_WAIT_MS: Final = 60_000
_LOOK_S: Final = 0.25
_MAX_WAITING: Final = 1000
"""Requests that wait at a time in this process; more are answered at once."""
_NOTHING: Final = Step(frozenset())
_BY_POLICY: Final = "Policy doesn't let you approve this: somebody else has to."


class ApprovalDesk:
    """The operations on approvals."""

    def __init__(self, pipeline: Pipeline) -> None:
        """Decide by the pipeline's judge."""
        self._judge = pipeline.judge
        self._consents = pipeline.judge.consents
        self._table = pipeline.judge.consents.table
        self._queries = pipeline.queries
        self._watching = Watching(self._table)

    @property
    def waiting(self) -> int:
        """How many requests wait for an answer here."""
        return self._watching.count

    async def show(self, caller: Caller, approval_id: str, *, wait_ms: int = 0) -> dict[str, Any]:
        """Return an approval that concerns the caller; with ``wait_ms`` once it is decided.

        Raises:
            NotFound: there is none, or it is none of the caller's business.
        """
        approval = await self._seen(caller, approval_id)
        if approval.state is ApprovalState.PENDING and wait_ms:
            await self._watching.wait(approval, min(wait_ms, MAX_WAIT_MS))
            approval = await self._table.get(approval_id) or approval
        return self._shown(caller, approval)

    async def listed(
        self, caller: Caller, *, state: str, task_id: str, limit: int, cursor: str
    ) -> dict[str, Any]:
        """Return a page of approvals, newest first: all, or those of a task."""
        if task_id or not sees_all(caller):
            mine = task_id or (caller.task.id if caller.task else "")
            task = await self._queries.task(mine) if mine else None
            if task is None or not concerns(caller, task):
                raise NotFound("There is no such task; name one of yours with task_id.")
            found = await self._table.of_task(task.id)
            wanted = [a for a in found if state in ("", a.state)]
            return page_of(wanted, lambda a: self._shown(caller, a), limit, cursor)
        page = await self._table.listed(ApprovalState(state) if state else None, limit, cursor)
        return page_json([self._shown(caller, approval) for approval in page[0]], page[1])

    async def vote(
        self, caller: Caller, approval_id: str, *, yes: bool, reason: str
    ) -> dict[str, Any]:
        """Say yes or no to exactly what is asked for. One no is enough; any operator may say it.

        Raises:
            NotFound: there is no such approval.
            AccessDenied: it isn't the caller's to approve.
            Conflict: it is decided, over, or the caller has said yes before.
        """
        must_operate(caller)
        for _ in range(TRIES):
            approval = await self._table.get(approval_id)
            if approval is None:
                raise NotFound("There is no such approval.")
            if approval.state is not ApprovalState.PENDING:
                raise _decided(approval)
            outcome, have = ApprovalState.DENIED, self._consents.yeses(approval)
            if yes:
                await self._may_approve(caller, approval)
                outcome, have = self._outcome(caller, approval)
            try:
                in_time, now = await self._table.vote(
                    approval,
                    yes=yes,
                    reason=reason,
                    outcome=outcome,
                    have={"": have.total, **(have.groups or {})},
                    actor=caller.name,
                )
            except Changed:
                continue
            if not in_time:
                raise _decided(now)
            self._watching.wake(now.id)
            return self._shown(caller, now)
        raise too_busy()

    def _outcome(self, caller: Caller, approval: Approval) -> tuple[Any, Yeses]:
        """Return what follows if the caller says yes, and the yeses there are then."""
        if any(vote.by == caller.name for vote in approval.votes):
            raise Conflict("You have said yes to this already; others are needed.")
        with_it = (*approval.votes, Vote(caller.name, 0, ""))
        counted = self._consents.count(approval, with_it)
        return ApprovalState.APPROVED if counted.meet(approval.needs) else None, counted

    async def why_not(self, caller: Caller, approval_id: str) -> str:
        """Say why the caller's yes wouldn't be taken, or nothing if it would. Nothing is logged."""
        approval = await self._seen(caller, approval_id)
        try:
            must_operate(caller)
            self._must_be_another(caller, approval)
            self._outcome(caller, approval)
        except (AccessDenied, Conflict) as error:
            return error.detail
        _, decision = await self._asked(caller, approval)
        return "" if decision.allowed else _BY_POLICY

    async def _may_approve(self, caller: Caller, approval: Approval) -> None:
        self._must_be_another(caller, approval)
        question, decision = await self._asked(caller, approval)
        if decision.allowed:
            return
        ruling = self._judge.ruled(
            Action.APPROVE,
            approval.task_id,
            decision,
            Survey(""),
            _NOTHING,
            question=question,
            about={"approval": approval.id},
        )
        await self._judge.log(caller, approval.task_id, ruling)
        raise AccessDenied(_BY_POLICY, decision_id=ruling.id, **advised(decision))

    def _must_be_another(self, caller: Caller, approval: Approval) -> None:
        """Refuse who asked for it, whom it is for, and who isn't among those whose yes counts."""
        name = caller.name
        own = caller.principal.identity is not None and caller.principal.identity.may_be(
            approval.subject
        )
        if own or name in (approval.requester, approval.agent, approval.subject):
            raise AccessDenied("Somebody else has to approve this: it was asked for by you.")
        if not self._consents.groups.may_vote(name, approval.needs, approval.escalated):
            groups = ", ".join(sorted(group for group in approval.needs if group))
            raise AccessDenied(f"This is for others to approve: {groups}.")

    async def _asked(self, caller: Caller, approval: Approval) -> tuple[Question, Decision]:
        """Ask policy whether the caller may approve."""
        about = {
            "requester": approval.requester,
            "agent": approval.agent,
            "owner": approval.owner,
            "orchestrator": approval.orchestrator,
            "subject": approval.subject,
            "action": approval.action,
            "capability": approval.capability,
            "power": approval.power,
        }
        moment = self._judge.moment(caller, Signals())
        question = approving(caller.principal, approval.id, about, moment)
        return question, await self._judge.ask(question, Decision(Effect.ALLOW, ("role",)))

    async def withdraw(self, caller: Caller, approval_id: str) -> dict[str, Any]:
        """Take back what was asked for; what is over stays as it is."""
        approval = await self._seen(caller, approval_id)
        task = await self._queries.task(approval.task_id)
        if task is None:
            raise NotFound("There is no such approval.")
        must_run(caller, task)
        now = await self._table.cancel(approval.id, reason="withdrawn", actor=caller.name)
        self._watching.wake(now.id)
        return self._shown(caller, now)

    async def _seen(self, caller: Caller, approval_id: str) -> Approval:
        approval = await self._table.get(approval_id)
        if approval is not None:
            task = await self._queries.task(approval.task_id)
            if task is not None and concerns(caller, task):
                return approval
        raise NotFound("There is no such approval.")

    def _shown(self, caller: Caller, approval: Approval) -> dict[str, Any]:
        have = self._consents.yeses(approval)
        return approval_json(approval, have, insider=sees_all(caller))


class Watching:
    """Waits for approvals to be decided, however many, with one trip to the ledger at a time."""

    def __init__(self, table: ApprovalTable) -> None:
        """Look into the ledger's table."""
        self._table = table
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._looking: asyncio.Task[None] | None = None

    @property
    def count(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiting.values()))

    async def wait(self, approval: Approval, wait_ms: int) -> None:
        """Return once the approval isn't pending any more, or after ``wait_ms``."""
        if self.count >= _MAX_WAITING:
            return
        decided = asyncio.Event()
        self._waiting.setdefault(approval.id, set()).add(decided)
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look())
        try:
            async with asyncio.timeout(wait_ms / 1000):
                await decided.wait()
        except TimeoutError:
            pass
        finally:
            left = self._waiting.get(approval.id, set())
            left.discard(decided)
            if not left:
                self._waiting.pop(approval.id, None)

    def wake(self, approval_id: str) -> None:
        """It is decided: who waits here needn't wait for the next look."""
        for decided in self._waiting.get(approval_id, ()):
            decided.set()

    async def _look(self) -> None:
        """Look at all that is waited for, until nobody waits."""
        while self._waiting:
            await asyncio.sleep(_LOOK_S)
            ids = list(self._waiting)
            try:
                rows = await self._table.rows(ids)
            except LedgerUnavailable:
                continue  # whoever waits is answered in time all the same
            for approval_id, row in zip(ids, rows, strict=True):
                if row is None or row.state is not ApprovalState.PENDING:
                    self.wake(approval_id)


def _decided(approval: Approval) -> Conflict:
    msg = f"This isn't to be decided any more: it is {approval.state}."
    return Conflict(msg, state=str(approval.state), approval_id=approval.id)
