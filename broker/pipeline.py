"""The pipeline: the one way a credential is issued, and the one way it is revoked.

 1. Authenticate   who calls, by proof          (``access.py``)
 2. Resolve        task, principal, capability
 3. Decide         by policy, with what is known now; logged whatever it is
 4. Reserve        the grant is written as pending, with what can kill it, before a secret exists
 5. Mint           at the backend
 6. Activate       the lease is written; only now does the grant count as issued
 7. Deliver        once; nothing keeps the secret
 8. Watch          expiry, heartbeat, task       (``reaper.py``)
 9. Revoke         at the backend; "already gone" is success
10. Confirm        look it up at the backend; only then is it revoked

``docs/issuance.md`` says what a crash before and after each step leaves behind.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Final

from broker.errors import (
    AccessDenied,
    AlreadyDelivered,
    ApprovalRequired,
    BackendRefused,
    BackendUnavailable,
    BrokerError,
    LedgerUnavailable,
    RequestInProgress,
    Unavailable,
)
from broker.grants import Grant, GrantState
from broker.ids import new_id, shard_of
from broker.lanes import Lanes
from broker.ledger.redis import HandleRetired, is_dead
from broker.logs import get_logger
from broker.policy import Effect, IssueContext, decide_issue

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
    from typing import Any

    from broker.access import Caller
    from broker.backends.protocol import Backend, Minted, Prepared
    from broker.catalog import Capability, Catalog
    from broker.clock import Clock
    from broker.ledger.queries import Queries
    from broker.ledger.redis import Claimed, Idempotency, RedisLedger
    from broker.policy import Decision
    from broker.tasks import Task
    from broker.wire import RequestGrant

log = get_logger("service")
_ACTOR: Final = "broker"


class Step(IntEnum):
    """The numbered steps, for whoever watches the pipeline."""

    RESOLVE = 2
    DECIDE = 3
    RESERVE = 4
    MINT = 5
    ACTIVATE = 6
    DELIVER = 7
    REVOKE = 9
    CONFIRM = 10


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of the pipeline; times in milliseconds."""

    attempts: int = 6
    backoff_ms: int = 1000
    max_backoff_ms: int = 30_000
    stuck_limit: int = 50
    wait_ms: int = 10_000
    lane_width: int = 16


@dataclass(frozen=True, slots=True)
class Issued:
    """A grant with its credential, on its way to the one who asked."""

    grant: Grant
    minted: Minted
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of revoking some grants."""

    revoked: int = 0
    revoking: int = 0

    @property
    def matched(self) -> int:
        """How many there were."""
        return self.revoked + self.revoking


class Pipeline:
    """Issues and revokes. HTTP, CLI, console and reaper all come through here."""

    def __init__(  # noqa: PLR0913
        self,
        *,
        ledger: RedisLedger,
        queries: Queries,
        backends: Mapping[str, Backend],
        catalog: Catalog,
        clock: Clock,
        limits: Limits | None = None,
        before_step: Callable[[Step], None] = lambda step: None,
    ) -> None:
        """``before_step`` is called before each numbered step: for tracing, and to stop there."""
        self.ledger = ledger
        self.queries = queries
        self.backends = backends
        self.catalog = catalog
        self.limits = limits or Limits()
        self.ledger_durable = True
        self.stuck: Mapping[str, int] = {}
        self._clock = clock
        self._before = before_step
        self._lanes = Lanes(
            clock, width=self.limits.lane_width, longest_s=self.limits.max_backoff_ms / 1000
        )
        self._working: set[asyncio.Task[Any]] = set()

    # Issue: steps 2 to 7.

    async def issue(
        self, caller: Caller, task: Task, ask: RequestGrant, idempotency: Idempotency | None
    ) -> Issued:
        """Issue a credential under a task the caller was found to be concerned with."""
        self._before(Step.RESOLVE)
        capability = self.catalog.capabilities.get(ask.capability)
        decision, decision_id = await self._decide(caller, task, capability, ask)
        assert capability is not None  # noqa: S101  policy allows no unknown capability
        # What follows is finished even if the caller hangs up: a half-made credential is worse.
        work = self._issue(caller, task, capability, ask, decision, decision_id, idempotency)
        return await asyncio.shield(self.spawn(work))

    async def _decide(
        self, caller: Caller, task: Task, capability: Capability | None, ask: RequestGrant
    ) -> tuple[Decision, str]:
        self._before(Step.DECIDE)
        context = IssueContext(
            caller=caller.principal,
            agent=self.catalog.principals.get(task.agent),
            task=task,
            capability=capability,
            asked_ttl_ms=ask.ttl or 0,
            now_ms=int(self._clock.now() * 1000),
            ledger_durable=self.ledger_durable,
            backlog=self.stuck.get(capability.backend, 0) if capability else 0,
            backlog_limit=self.limits.stuck_limit,
        )
        decision = decide_issue(context)
        shard = shard_of(task.id, "tsk") or 0
        decision_id = new_id("dec", shard)
        if decision.effect is Effect.ALLOW:
            return decision, decision_id  # logged with the reservation, in one write
        await self.ledger.record(
            "decision",
            shard=shard,
            task_id=task.id,
            actor=caller.name,
            data=decision.for_audit(id=decision_id, capability=ask.capability, intent=ask.intent or ""),
        )
        raise _refusal(decision, decision_id)

    async def _issue(  # noqa: PLR0913
        self,
        caller: Caller,
        task: Task,
        capability: Capability,
        ask: RequestGrant,
        decision: Decision,
        decision_id: str,
        idempotency: Idempotency | None,
    ) -> Issued:
        backend = self.backends[capability.backend]
        about = decision.for_audit(
            id=decision_id, capability=capability.name, intent=ask.intent or ""
        )
        grant = await self._reserve(
            caller, task, capability, ask, decision, about, idempotency
        )
        try:
            self._before(Step.MINT)
            minted = await backend.mint(grant, task, capability)
        except BackendRefused as error:
            await self.ledger.fail(grant, error=error.detail, actor=_ACTOR)
            raise _cannot_issue(backend.name, error) from error
        except BrokerError as error:
            # Nobody knows whether a credential exists. What can kill it is on record; do it now
            # if nothing else hangs from it, or leave it to the sweep.
            await self._give_up(grant)
            raise _cannot_issue(backend.name, error) from error
        self._before(Step.ACTIVATE)
        lifetime_ms = min(minted.lifetime_ms or decision.ttl_ms, decision.ttl_ms)
        active = await self.ledger.activate(
            grant, lease=minted.lease, lifetime_ms=lifetime_ms, actor=_ACTOR
        )
        if active.state is not GrantState.ACTIVE:
            await self.revoke_claimed(active)
            msg = "The task ended while its credential was being made; it was revoked undelivered."
            raise AccessDenied(msg, grant_id=grant.id)
        self._before(Step.DELIVER)
        return Issued(active, minted, decision.notes)

    async def _reserve(  # noqa: PLR0913
        self,
        caller: Caller,
        task: Task,
        capability: Capability,
        ask: RequestGrant,
        decision: Decision,
        about: Mapping[str, Any],
        idempotency: Idempotency | None,
    ) -> Grant:
        backend = self.backends[capability.backend]
        shard = shard_of(task.id, "tsk") or 0
        for last in (False, True):
            prepared = await self._prepare(backend, task, capability)
            grant = _pending(new_id("grt", shard), task, capability, ask, prepared)
            self._before(Step.RESERVE)
            try:
                reserved = await self.ledger.reserve(
                    grant,
                    ttl_ms=decision.ttl_ms,
                    max_live=capability.max_live,
                    decision=about,
                    actor=caller.name,
                    idempotency=idempotency,
                )
            except HandleRetired:
                backend.forget(task.id)
                if last:
                    raise BackendUnavailable("Try again.", retry_after=1) from None
                continue
            if reserved.id != grant.id:
                raise _replayed(reserved)
            return reserved
        raise AssertionError  # pragma: no cover  the loop returns or raises

    async def _prepare(self, backend: Backend, task: Task, capability: Capability) -> Prepared:
        try:
            return await backend.prepare(task, capability)
        except (BackendRefused, BackendUnavailable) as error:
            raise _cannot_issue(backend.name, error) from error

    def prefetch(self, task: Task) -> None:
        """Make ready in the background for what a task's agent is about to ask."""
        for name in {
            self.catalog.capabilities[c].backend
            for c in task.capabilities
            if c in self.catalog.capabilities
        }:
            capability = next(
                self.catalog.capabilities[c]
                for c in task.capabilities
                if c in self.catalog.capabilities and self.catalog.capabilities[c].backend == name
            )
            self.spawn(_quietly(self.backends[name].prepare(task, capability)))

    async def _give_up(self, grant: Grant) -> None:
        with contextlib.suppress(LedgerUnavailable):
            for marked in await self.ledger.begin_revoke(
                [grant.id], reason="outcome_unknown", actor=_ACTOR
            ):
                self.spawn(self.revoke_claimed(marked, lost=True))

    # Revoke: steps 9 and 10.

    async def revoke(self, grants: Iterable[Grant]) -> Outcome:
        """Revoke claimed grants; answer after ``wait_ms`` at most, the rest goes on behind it."""
        jobs = [self.spawn(self.revoke_claimed(grant)) for grant in grants]
        if not jobs:
            return Outcome()
        done, _ = await asyncio.wait(jobs, timeout=self.limits.wait_ms / 1000)
        revoked = sum(1 for job in done if not job.exception() and job.result())
        return Outcome(revoked, len(jobs) - revoked)

    async def revoke_and_close(self, claimed: Claimed) -> Outcome:
        """Revoke what an ended task held, then close it and the tasks below it."""
        outcome = await self.revoke(claimed.grants)
        closing = [self.spawn(self.close(task)) for task in claimed.tasks]
        if closing:
            await asyncio.wait(closing, timeout=self.limits.wait_ms / 1000)
        return outcome

    async def revoke_claimed(self, grant: Grant, *, lost: bool = False) -> bool:
        """Take a claimed grant through steps 9 and 10; whether it is confirmed dead."""
        lane = self._lanes.of(grant.backend, grant.capability)
        async with lane.gate:
            if shut_for := lane.shut_for:
                await self._later(grant, "the backend doesn't answer", least_ms=int(shut_for * 1000))
                return False
            try:
                if not grant.lease:
                    return await self._revoke_lost(grant, lost=lost)
                backend = self.backends[grant.backend]
                self._before(Step.REVOKE)
                await backend.revoke(grant)
                self._before(Step.CONFIRM)
                if await backend.is_live(grant):
                    raise BackendUnavailable("revoked, and still there when looked up")
            except LedgerUnavailable:
                return False  # its claim runs out and a sweep takes it up again
            except Unavailable as error:
                if isinstance(error, BackendUnavailable) or error.retry_after:
                    lane.failed()
                await self._later(grant, error.detail)
                return False
            if lane.answered():
                self.spawn(_quietly(self.ledger.hasten(grant.backend, grant.capability)))
            return await self._confirm(grant, "lease_lookup")

    async def _confirm(self, grant: Grant, evidence: str) -> bool:
        with contextlib.suppress(LedgerUnavailable):
            confirmed = await self.ledger.confirm(grant, evidence=evidence, actor=_ACTOR)
            return is_dead(confirmed)
        return False

    async def _later(self, grant: Grant, error: str, *, least_ms: int = 0, counts: bool = True) -> None:
        delay = min(self.limits.backoff_ms * 2**grant.attempts, self.limits.max_backoff_ms)
        with contextlib.suppress(LedgerUnavailable):
            after = await self.ledger.retry_later(
                grant,
                error=error,
                delay_ms=max(delay, least_ms),
                attempts=self.limits.attempts,
                counts=counts,
                actor=_ACTOR,
            )
            if after.state is GrantState.STUCK:
                log.error(
                    "revocation is stuck", grant=grant.id, backend=grant.backend,
                    attempts=after.attempts, error=error,
                )

    async def _revoke_lost(self, grant: Grant, *, lost: bool) -> bool:
        """Revoke a grant whose lease was never learnt, by its handle.

        Its handle goes only when nothing else hangs from it: then, or when its task has ended.
        ``lost`` says that its minting is known to be over.
        """
        task = await self.queries.task(grant.task_id)
        waiting = "its lease is not known; it goes with its task, or when its siblings are gone"
        if task is None or task.ended_at:
            if task is not None:
                await self.ledger.postpone_task(task.id, delay_ms=0)
            await self._later(grant, waiting, counts=False)
            return False
        age_ms = self._clock.now() * 1000 - grant.created_at
        if not lost and grant.reason != "abandoned" and age_ms < self.ledger.times.pending_ms:
            await self._later(grant, "its minting may be under way", counts=False)
            return False
        status = await self.ledger.handle(
            task.id, "retire", grant.handle, backend=grant.backend, actor=_ACTOR
        )
        if status == "in_use":
            await self._later(grant, waiting, counts=False)
            return False
        self.backends[grant.backend].forget(task.id)
        if status != "unknown" and not await self._end_handle(task, grant.handle, [grant]):
            await self._later(grant, "its task token is not confirmed gone")
            return False
        return await self._confirm(grant, "handle_lookup")

    async def _end_handle(self, task: Task, handle: str, lost: Sequence[Grant]) -> bool:
        name = str(task.handles.get(handle, {}).get("backend", "")) or lost[0].backend
        backend = self.backends[name]
        self._before(Step.REVOKE)
        await backend.revoke_handle(task, handle)
        self._before(Step.CONFIRM)
        if await backend.handle_is_live(task, handle, lost):
            return False
        return (
            await self.ledger.handle(task.id, "drop", handle, backend=name, actor=_ACTOR)
            != "too_early"
        )

    async def close(self, task: Task) -> bool:
        """Close an ended task: end its handles, and with them whatever was never delivered."""
        for name in self.backends:
            self.backends[name].forget(task.id)
        try:
            fresh = await self.queries.task(task.id)
            live = await self.queries.grants_of(task.id)
            if fresh is None or any(grant.lease for grant in live):
                return False  # each of these is due by itself, and wakes the task when it is gone
            gone = [
                await self._end_handle(fresh, h, [g for g in live if g.handle == h])
                for h in fresh.handles
            ]
            if not all(gone):
                await self.ledger.postpone_task(task.id, delay_ms=self.limits.backoff_ms)
                return False
            for grant in live:
                await self._confirm(grant, "handle_lookup")
            return await self.ledger.close_task(task.id, actor=_ACTOR) == "closed"
        except Unavailable as error:
            log.warning("task not closed yet", task=task.id, error=error.detail)
            with contextlib.suppress(LedgerUnavailable):
                await self.ledger.postpone_task(task.id, delay_ms=self.limits.max_backoff_ms)
            return False

    # Work that outlives its caller.

    def spawn(self, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run work to its end even if whoever asked for it goes away."""
        job = asyncio.ensure_future(work)
        self._working.add(job)
        job.add_done_callback(self._working.discard)
        return job

    @property
    def in_flight(self) -> int:
        """How many pieces of work are under way."""
        return len(self._working)

    async def drain(self, timeout_s: float) -> None:
        """Wait for the work under way, so that a stopping process leaves little to sweep."""
        if self._working:
            await asyncio.wait(self._working, timeout=timeout_s)


def _pending(
    grant_id: str, task: Task, capability: Capability, ask: RequestGrant, prepared: Prepared
) -> Grant:
    return Grant(
        id=grant_id,
        state=GrantState.PENDING,
        task_id=task.id,
        agent=task.agent,
        capability=capability.name,
        backend=capability.backend,
        power=capability.power,
        path=capability.path,
        handle=prepared.handle,
        lease=prepared.lease,
        created_at=0,
        expires_at=0,
        intent=ask.intent or "",
    )


def _refusal(decision: Decision, decision_id: str) -> BrokerError:
    if decision.effect is Effect.NEEDS_APPROVAL:
        msg = "This capability is privileged and needs an approval, which is not available yet."
        return ApprovalRequired(msg, decision_id=decision_id)
    if "backend_backlog" in decision.reasons:
        msg = (
            "Too many credentials of this backend could not be revoked yet, so nothing new is "
            "issued there until they are."
        )
        return BackendUnavailable(msg, retry_after=30, decision_id=decision_id)
    msg = (
        "Policy refused this request: there is no such capability, or this task or its agent may "
        "not have it. An operator can look the decision up in the audit log."
    )
    return AccessDenied(msg, decision_id=decision_id)


def _replayed(grant: Grant) -> BrokerError:
    if grant.state is GrantState.PENDING:
        return RequestInProgress("The first request with this key is still going on.", retry_after=1)
    msg = (
        f"This Idempotency-Key made grant {grant.id}, now {grant.state}. Its credential was "
        "delivered once and is stored nowhere: if the answer was lost, revoke that grant and ask "
        "again with a new key."
    )
    return AlreadyDelivered(msg, grant_id=grant.id, state=str(grant.state))


def _cannot_issue(backend: str, error: BrokerError) -> BrokerError:
    if not isinstance(error, Unavailable):
        return error
    log.warning("cannot issue", backend=backend, error=error.detail)
    return BackendUnavailable(
        f"Backend {backend!r} can't issue right now; nothing was delivered. Try again shortly.",
        retry_after=error.retry_after or 5,
    )


async def _quietly(work: Coroutine[Any, Any, object]) -> None:
    try:
        await work
    except BrokerError as error:
        log.info("background work failed", error=error.detail)
