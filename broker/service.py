"""What orchestrators, agents and operators ask of the broker; each call takes the caller first.

What is unknown and what is none of the caller's business look the same from outside.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Unpack

from broker.delegation import Scope, attenuate
from broker.durations import format_duration
from broker.errors import Conflict, InvalidRequest, NotFound, QuotaExceeded
from broker.grants import Grant, GrantState
from broker.identity.models import Role
from broker.ids import new_id, shard_of
from broker.ledger.keys import shard_for
from broker.ledger.models import Changed, Idempotency
from broker.operators import Operators
from broker.policy import OpenContext
from broker.refusals import not_opened
from broker.rulings import TRIES, too_busy
from broker.secret import Secret
from broker.steps import Outcome
from broker.tasks import Sought, Task, TaskState, fits
from broker.visibility import concerns, must_run, sees_all
from broker.wire import grant_json, page_json, page_of, task_json

if TYPE_CHECKING:
    from broker.access import Access, Caller
    from broker.approval_desk import ApprovalDesk
    from broker.decisions import DecisionPoint
    from broker.elevating import Elevations
    from broker.exchange import Exchange
    from broker.executions import Executions
    from broker.introspection import Introspection
    from broker.pipeline import Pipeline
    from broker.receipts import Receipts
    from broker.renewing import Renewals
    from broker.rulings import Ruling
    from broker.steps import Issued
    from broker.wire import CompleteTask, OpenTask, RequestGrant
    from broker.wire_grants import RenewGrant, RotateGrant, UnwrapGrant


@dataclass(frozen=True, slots=True)
class TaskLimits:
    """Bounds on tasks: ``[tasks]`` of the configuration; times in milliseconds."""

    default_ttl_ms: int = 900_000
    max_ttl_ms: int = 86_400_000
    min_heartbeat_ms: int = 1000
    max_depth: int = 5
    max_children: int = 20
    max_live_per_agent: int = 1000
    cycles: bool = False


class Broker:
    """The broker's operations. Transport-free: HTTP, console and tests call the same methods."""

    def __init__(  # noqa: PLR0913  the parts that it is made of
        self,
        *,
        pipeline: Pipeline,
        access: Access,
        exchange: Exchange,
        introspection: Introspection,
        decisions: DecisionPoint,
        executions: Executions,
        approvals: ApprovalDesk,
        elevations: Elevations,
        receipts: Receipts,
        renewals: Renewals,
        limits: TaskLimits,
        shards: int,
    ) -> None:
        """``shards`` is the ledger's."""
        self.pipeline = pipeline
        self.access = access
        self.exchange = exchange
        self.introspection = introspection
        self.decisions = decisions
        self.executions = executions
        self.approvals = approvals
        self.elevations = elevations
        self.renewals = renewals
        self.operators = Operators(pipeline, shards)
        self._receipts = receipts
        self._ledger = pipeline.ledger
        self._queries = pipeline.queries
        self._limits = limits
        self._shards = shards

    # Tasks.

    async def open_task(
        self, caller: Caller, ask: OpenTask, idempotency_key: str | None = None
    ) -> tuple[Task, tuple[str, ...]]:
        """Open a task; an agent opens a child of the task its token is for."""
        parent = await self._parent(caller, ask)
        if ask.agent not in self.pipeline.catalog.principals:
            await self.access.directory.refresh()  # it may have been added by another replica
        shard, idempotency = self._place(caller, ask, parent, idempotency_key)
        task_id = new_id("tsk", shard)
        subject = await self._subject(caller, ask, parent)
        for _ in range(TRIES):
            ruling = await self._decide_open(caller, ask, parent, task_id, subject)
            await self._check_agent_quota(ask.agent)
            try:
                task, new = await self._ledger.open_task(
                    self._new_task(caller, ask, parent, task_id, subject, ruling),
                    ttl_ms=ruling.decision.ttl_ms,
                    max_children=self._limits.max_children,
                    decision=ruling.about,
                    actor=caller.name,
                    seen=ruling.survey.version,
                    idempotency=idempotency,
                )
            except Changed:
                continue
            notes = ruling.decision.notes
            if new and parent is not None and task.expires_at == parent.expires_at:
                notes = (*notes, "ttl shortened to what is left of the parent task")
            return task, notes
        raise too_busy()

    async def _parent(self, caller: Caller, ask: OpenTask) -> Task | None:
        if ask.parent_task_id is None:
            return None
        parent = await self._queries.task(ask.parent_task_id)
        mine = parent is not None and (
            caller.task.id == parent.id
            if caller.task is not None
            else parent.orchestrator == caller.name and caller.principal.role is Role.ORCHESTRATOR
        )
        if not mine:
            raise NotFound("There is no such parent task.")
        return parent

    async def _decide_open(
        self, caller: Caller, ask: OpenTask, parent: Task | None, task_id: str, subject: str
    ) -> Ruling:
        if ask.heartbeat is not None and ask.heartbeat < self._limits.min_heartbeat_ms:
            least = format_duration(self._limits.min_heartbeat_ms)
            raise InvalidRequest(f"heartbeat: at least {least}", field="heartbeat")
        if unknown := ask.limits.unknown(ask.capabilities) if ask.limits else "":
            msg = f"limits.parameters: {unknown!r} is not a capability of this task"
            raise InvalidRequest(msg, field="limits.parameters")
        catalog, judge = self.pipeline.catalog, self.pipeline.judge
        context = OpenContext(
            caller=caller.principal,
            agent=catalog.principals.get(ask.agent),
            capabilities=tuple(catalog.capabilities.get(c) for c in ask.capabilities),
            ttl_ms=ask.ttl or min(self._limits.default_ttl_ms, self._limits.max_ttl_ms),
            max_ttl_ms=self._limits.max_ttl_ms,
            parent=parent,
            narrowed_to=caller.capabilities,
            max_depth=self._limits.max_depth,
            limits=ask.limits.rows() if ask.limits else {},
            cycles=self._limits.cycles,
        )
        ruling = await judge.open(caller, ask, context, task_id=task_id, on_behalf_of=subject)
        if not ruling.decision.allowed:
            await judge.log(caller, task_id, ruling)
            raise not_opened(ruling)
        return ruling

    def _place(
        self, caller: Caller, ask: OpenTask, parent: Task | None, key: str | None
    ) -> tuple[int, Idempotency | None]:
        """A child is in its chain's shard; a root anywhere, but a retry where it was before."""
        scope = f"task:{caller.name}:{parent.id if parent else ''}"
        idempotency = None
        if key is not None:
            idempotency = Idempotency(scope, key, _digest(ask.model_dump(mode="json")))
        if parent is not None:
            return shard_of(parent.id, "tsk") or 0, idempotency
        if key is not None:
            return shard_for(scope, key, self._shards), idempotency
        return secrets.randbelow(self._shards), None

    async def _check_agent_quota(self, agent: str) -> None:
        live = await self._queries.count(f"ta|{agent}|")
        if live >= self._limits.max_live_per_agent:
            msg = f"Agent {agent!r} has {live} tasks that are not closed yet, the most allowed."
            raise QuotaExceeded(msg, retry_after=10)

    async def _subject(self, caller: Caller, ask: OpenTask, parent: Task | None) -> str:
        """Return on whose behalf a new task runs: its opener's, unless a proof says otherwise."""
        if ask.on_behalf_of is None:
            return parent.subject if parent else caller.name
        if parent is not None:
            msg = "on_behalf_of: a child task runs on behalf of whom its root does"
            raise InvalidRequest(msg, field="on_behalf_of")
        return await self.access.person(ask.on_behalf_of)

    def _new_task(
        self,
        caller: Caller,
        ask: OpenTask,
        parent: Task | None,
        task_id: str,
        subject: str,
        ruling: Ruling,
    ) -> Task:
        agent = self.pipeline.catalog.principals[ask.agent]
        asked = Scope.read(frozenset(), 0, ask.limits.rows() if ask.limits else {})
        budget = ask.limits.budget if ask.limits else None
        return Task(
            id=task_id,
            state=TaskState.ACTIVE,
            agent=ask.agent,
            owner=agent.owner,
            created_by=caller.name,
            orchestrator=parent.orchestrator if parent else caller.name,
            subject=subject,
            purpose=ask.purpose,
            capabilities=tuple(dict.fromkeys(ask.capabilities)),
            parent_id=parent.id if parent else "",
            root_id=parent.root_id if parent else task_id,
            actors=(ask.agent, *(parent.actors if parent else ())),
            depth=parent.depth + 1 if parent else 0,
            created_at=0,
            expires_at=0,
            heartbeat_ms=ask.heartbeat or 0,
            context=json.dumps(ask.context or {}),
            # An orchestrator's tokens come and go, its tasks stay.
            via=caller.lineage if caller.task is not None else (),
            limits=(attenuate(Scope.of(parent), asked) if parent else asked).limits(),
            budget=budget.rows() if budget else {},
            keep_budget=ruling.decision.obligations.keep_budget,
        )

    async def task(self, caller: Caller, task_id: str) -> Task:
        """Step 2: return a task that concerns the caller."""
        if caller.task is not None and caller.task.id == task_id:
            return caller.task
        task = await self._queries.task(task_id)
        if task is None or not concerns(caller, task):
            raise NotFound("There is no such task.")
        return task

    async def tasks(
        self, caller: Caller, *, limit: int, cursor: str, **sought: Unpack[Sought]
    ) -> dict[str, Any]:
        """Return a page of the tasks that concern the caller and are looked for, newest first."""

        def keep(task: Task) -> bool:
            return fits(task, sought)

        if caller.task is not None:
            ids = [caller.task.id, *await self._queries.children_of(caller.task.id)]
            found = [task for i in ids if (task := await self._queries.task(i)) and keep(task)]
            return page_of(found, task_json, limit, cursor)
        if not sees_all(caller) and caller.principal.role is not Role.ORCHESTRATOR:
            return page_json([], None)
        page = await self._queries.tasks(
            keep,
            limit=limit,
            cursor=cursor,
            orchestrator="" if sees_all(caller) else caller.name,
        )
        return page_json([task_json(task) for task in page.items], page.next)

    async def heartbeat(self, caller: Caller, task_id: str) -> Task:
        """The task's agent or its orchestrator says that it is alive."""
        task = await self.task(caller, task_id)
        must_run(caller, task)
        return await self._ledger.heartbeat(task.id)

    async def complete(
        self, caller: Caller, task_id: str, ask: CompleteTask
    ) -> tuple[str, Outcome]:
        """End a task and revoke all that it and its children hold."""
        task = await self.task(caller, task_id)
        must_run(caller, task)
        state, claimed = await self._ledger.end_task(
            task.id,
            TaskState(ask.outcome),
            reason=f"{ask.outcome} by {caller.name}",
            summary=ask.summary or "",
            actor=caller.name,
        )
        if state != ask.outcome:
            raise Conflict(f"The task has already ended: it is {state}.", state=state)
        if not claimed.tasks:
            # Asked again: say where things stand.
            grants = await self._queries.grants_of(task.id, dead=True)
            return state, Outcome.of(grant.state for grant in grants)
        return state, await self.pipeline.revoke_and_close(claimed)

    # Grants.

    async def request_grant(
        self, caller: Caller, task_id: str, ask: RequestGrant, idempotency_key: str | None = None
    ) -> Issued:
        """Issue a credential to the task's agent or its orchestrator."""
        task = await self.task(caller, task_id)
        must_run(caller, task)
        idempotency = None
        if idempotency_key is not None:
            scope = f"grant:{caller.name}:{task.id}"
            digest = _digest(ask.model_dump(mode="json"))
            idempotency = Idempotency(scope, idempotency_key, digest)
        return await self.renewals.wrapping.issue(caller, task, ask, idempotency)

    async def grant(self, caller: Caller, grant_id: str) -> Grant:
        """Return a grant that concerns the caller."""
        grant = await self._queries.grant(grant_id)
        if grant is not None:
            task = await self._queries.task(grant.task_id)
            if task is not None and concerns(caller, task):
                return grant
        raise NotFound("There is no such grant.")

    async def receipt(self, caller: Caller, grant_id: str) -> dict[str, Any]:
        """Return the receipt of a grant that concerns the caller and has ended."""
        return await self._receipts.of(await self.grant(caller, grant_id))

    async def grants(
        self, caller: Caller, *, task_id: str, agent: str, state: str, limit: int, cursor: str
    ) -> dict[str, Any]:
        """Return a page of the grants that concern the caller, newest first."""
        wanted = _grant_state(state)

        def keep(grant: Grant) -> bool:
            return state in ("", grant.state) and agent in ("", grant.agent)

        if task_id or caller.task is not None:
            task = await self.task(caller, task_id or (caller.task.id if caller.task else ""))
            found = await self._queries.grants_of(task.id, dead=True)
            return page_of([grant for grant in found if keep(grant)], grant_json, limit, cursor)
        if not sees_all(caller) and caller.principal.role is not Role.ORCHESTRATOR:
            return page_json([], None)
        page = await self._queries.grants(
            keep,
            limit=limit,
            cursor=cursor,
            state=wanted,
            orchestrator="" if sees_all(caller) else caller.name,
        )
        return page_json([grant_json(grant) for grant in page.items], page.next)

    async def unwrap(self, caller: Caller, grant_id: str, ask: UnwrapGrant) -> Issued:
        """Open what was delivered wrapped, for the task's own agent."""
        grant = await self.grant(caller, grant_id)
        task = await self.task(caller, grant.task_id)
        return await self.renewals.wrapping.unwrap(caller, task, grant, Secret(ask.token))

    async def renew(
        self, caller: Caller, grant_id: str, ask: RenewGrant
    ) -> tuple[Grant, tuple[str, ...]]:
        """Let a grant live longer; returns it, and what was shortened."""
        grant = await self.grant(caller, grant_id)
        task = await self.task(caller, grant.task_id)
        return await self.renewals.renew(caller, task, grant, ask)

    async def rotate(
        self, caller: Caller, grant_id: str, ask: RotateGrant, idempotency_key: str | None = None
    ) -> Issued:
        """Issue another credential in a grant's place."""
        grant = await self.grant(caller, grant_id)
        task = await self.task(caller, grant.task_id)
        idempotency = None
        if idempotency_key is not None:
            scope = f"rotate:{caller.name}:{grant.id}"
            digest = _digest(ask.model_dump(mode="json"))
            idempotency = Idempotency(scope, idempotency_key, digest)
        return await self.renewals.rotate(caller, task, grant, ask, idempotency)

    async def revoke_grant(self, caller: Caller, grant_id: str) -> Grant:
        """Revoke one grant now; the answer says whether it is confirmed dead."""
        grant = await self.grant(caller, grant_id)
        if caller.principal.role is not Role.OPERATOR:
            must_run(caller, await self.task(caller, grant.task_id))
        marked = await self._ledger.begin_revoke(
            [grant.id], reason=f"revoked by {caller.name}", actor=caller.name
        )
        await self.pipeline.revoke(marked)
        return await self._queries.grant(grant.id) or grant


def _grant_state(state: str) -> GrantState | None:
    try:
        return GrantState(state) if state else None
    except ValueError:
        msg = f"state: one of {', '.join(GrantState)}"
        raise InvalidRequest(msg, field="state") from None


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:32]
