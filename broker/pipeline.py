"""The pipeline: the one way a credential is issued, and the one way it is revoked.

 1. Authenticate   who calls, by proof          (``access.py``)
 2. Resolve        task, principal, capability
 3. Decide         by policy, with what is known now; logged whatever it is
 4. Reserve        the grant is written as pending, with what can kill it, before a secret exists
 5. Mint           at the backend
 6. Activate       the lease is written; only now does the grant count as issued
 7. Deliver        once; nothing keeps the secret
 8. Watch          expiry, heartbeat, task       (``reaper.py``)
 9. Revoke         shut out at its target, then at the backend; "already gone" is success
10. Confirm        look it up at the backend; only then is it revoked

``docs/issuance.md`` says what a crash before and after each step leaves behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from broker.again import still_allowed
from broker.catalog import Revocability
from broker.closing import STATIC, Closing
from broker.errors import (
    AccessDenied,
    BackendDown,
    BackendRefused,
    BackendUnavailable,
    BrokerError,
    LedgerUnavailable,
    Unavailable,
)
from broker.grants import GrantState
from broker.lanes import LONGEST_S, Circuits, Lanes
from broker.ledger.models import Changed, HandleRetired
from broker.logs import get_logger
from broker.refusals import cannot_issue, not_asked, replayed
from broker.rulings import TRIES, Health, too_busy
from broker.steps import Issued, Limits, Outcome, Step, Steps, Work, pending_grant

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from broker.access import Caller
    from broker.backends.protocol import Backend, Prepared
    from broker.catalog import Capability, Catalog
    from broker.clock import Clock
    from broker.elevations import Elevation
    from broker.grants import Grant
    from broker.judge import Judge
    from broker.ledger.models import Claimed, Idempotency
    from broker.ledger.queries import Queries
    from broker.ledger.redis import RedisLedger
    from broker.lockout import Lockout
    from broker.quotas import Quotas
    from broker.rulings import Ruling
    from broker.tasks import Task
    from broker.wire import RequestGrant

log = get_logger("service")
_ACTOR: Final = "broker"


class Pipeline:
    """Issues and revokes. HTTP, CLI, console and reaper all come through here."""

    def __init__(  # noqa: PLR0913  the parts that it is made of
        self,
        *,
        ledger: RedisLedger,
        queries: Queries,
        backends: Mapping[str, Backend],
        catalog: Catalog,
        judge: Judge,
        clock: Clock,
        quotas: Quotas,
        lockout: Lockout,
        limits: Limits | None = None,
        steps: Steps,
    ) -> None:
        """``steps`` takes each numbered step."""
        self.ledger = ledger
        self.queries = queries
        self.backends = backends
        self.catalog = catalog
        self.judge = judge
        self.quotas = quotas
        self.lockout = lockout
        self.limits = limits or Limits()
        self.ledger_durable = True
        self.stuck: Mapping[str, int] = {}  # by capability
        self.failing: Mapping[str, int] = {}  # by backend
        self.steps = steps
        self.work = Work()
        self.under_way: set[str] = set()  # grants that are being revoked, or wait for it, here
        longest_s = min(self.limits.max_backoff_ms / 1000, LONGEST_S)
        self.lanes = Lanes(clock, width=self.limits.lane_width, longest_s=longest_s)
        self.circuits = Circuits(clock, longest_s=longest_s, back=self._drain)
        self.closing = Closing(
            ledger=ledger,
            queries=queries,
            backends=backends,
            limits=self.limits,
            steps=steps,
            lanes=self.lanes,
            circuits=self.circuits,
        )

    # Issue: steps 2 to 7.

    async def issue(
        self, caller: Caller, task: Task, ask: RequestGrant, idempotency: Idempotency | None
    ) -> Issued:
        """Issue a credential under a task the caller was found to be concerned with."""
        with self.steps.take(Step.RESOLVE, task=task.id):
            capability = self.catalog.capabilities.get(ask.capability)
        ruling = await self._decide(caller, task, ask, idempotency)
        assert capability is not None  # noqa: S101  policy allows no unknown capability
        # What follows is finished even if the caller hangs up: a half-made credential is worse.
        with self.steps.metrics.issuing(capability.backend):
            work = self._issue(caller, task, capability, ask, ruling, idempotency)
            return await asyncio.shield(self.work.spawn(work))

    async def _decide(
        self, caller: Caller, task: Task, ask: RequestGrant, idempotency: Idempotency | None
    ) -> Ruling:
        with self.steps.take(Step.DECIDE, task=task.id):
            health = self.health(ask.capability)
            return await self.judge.issue(caller, task, ask, health, idempotency)

    def health(self, capability: str) -> Health:
        """Return what is known of the broker that a decision about a capability looks at."""
        limits, known = self.limits, self.catalog.capabilities.get(capability)
        backlog, limit = self.stuck.get(capability, 0), limits.stuck_limit
        if known is not None and self.behind(known.backend):
            backlog, limit = self.failing[known.backend], limits.backlog_limit
        return Health(durable=self.ledger_durable, backlog=backlog, backlog_limit=limit)

    def behind(self, backend: str) -> bool:
        """Say whether so much waits to be revoked at a backend that nothing is issued there."""
        return self.failing.get(backend, 0) >= self.limits.backlog_limit

    def refuses(self, backend: str) -> bool:
        """Say whether nothing is issued on a backend at the moment, whoever asks."""
        return self.behind(backend) or self.circuits.is_down(backend)

    async def would_issue(self, caller: Caller, task: Task, ask: RequestGrant) -> Ruling:
        """Say what would be decided if a credential were asked for."""
        return await self.judge.would_issue(caller, task, ask, self.health(ask.capability))

    async def _issue(
        self,
        caller: Caller,
        task: Task,
        capability: Capability,
        ask: RequestGrant,
        ruling: Ruling,
        idempotency: Idempotency | None,
    ) -> Issued:
        backend = self.backends[capability.backend]
        if shut_for := self.circuits.shut_for(backend.name, capability.name):
            raise not_asked(backend.name, shut_for)
        grant, ruling = await self._reserve(caller, task, capability, ask, ruling, idempotency)
        decision = ruling.decision
        watched = self.circuits.watch(backend.name, capability.name)
        try:
            with self.steps.take(Step.MINT, grant=grant.id), watched:
                minted = await backend.mint(grant, task, capability)
        except BackendRefused as error:
            await self.ledger.fail(grant, error=error.detail, actor=_ACTOR)
            raise cannot_issue(backend.name, error) from error
        except BrokerError as error:
            # Nobody knows whether a credential exists, or will. What can kill it is on record: a
            # sweep does, once nothing can come of it any more.
            await self._give_up(grant)
            raise cannot_issue(backend.name, error) from error
        longest_ms = minted.lifetime_ms or decision.ttl_ms
        lifetime_ms = min(longest_ms, decision.ttl_ms)
        try:
            with self.steps.take(Step.ACTIVATE, grant=grant.id):
                active = await self.ledger.activate(
                    grant,
                    lease=minted.lease,
                    account=minted.account,
                    lifetime_ms=lifetime_ms,
                    lives_ms=longest_ms,
                    revocability=Revocability.TTL_ONLY
                    if minted.withheld
                    else capability.revocability,
                    actor=_ACTOR,
                )
        except LedgerUnavailable:
            # The lease is known here and perhaps nowhere else: end it while we know it. The grant
            # stays on record, and a sweep comes to the same end without us.
            self.work.spawn(backend.revoke(replace(grant, lease=minted.lease)), ends=True)
            raise
        if active.state is not GrantState.ACTIVE:
            await self.revoke_claimed(active)
            msg = "The task ended while its credential was being made; it was revoked undelivered."
            raise AccessDenied(msg, grant_id=grant.id)
        if minted.withheld:
            await self._take_back(active, minted.withheld)
            raise cannot_issue(backend.name, BackendRefused(minted.withheld))
        if decision.generation != self.judge.policies.loaded.generation:
            # Other policies came into force; their review may have missed a grant in the making.
            await self._review_one(active)
        self.judge.used(task.agent, capability.name)
        with self.steps.take(Step.DELIVER, grant=grant.id):
            return Issued(active, minted, decision.notes)

    async def _review_one(self, grant: Grant) -> None:
        if await still_allowed(self.judge, grant, durable=self.ledger_durable):
            return
        await self._take_back(grant, "policy_changed")
        msg = "Policy changed while the credential was being made; it was revoked undelivered."
        raise AccessDenied(msg, grant_id=grant.id)

    async def _take_back(self, grant: Grant, reason: str) -> None:
        marked = await self.ledger.begin_revoke([grant.id], reason=reason, actor=_ACTOR)
        await self.revoke(marked)

    async def _reserve(
        self,
        caller: Caller,
        task: Task,
        capability: Capability,
        ask: RequestGrant,
        ruling: Ruling,
        idempotency: Idempotency | None,
    ) -> tuple[Grant, Ruling]:
        """Write the grant on the state of the chain that was decided on; else decide again."""
        backend = self.backends[capability.backend]
        backend.check(capability, ask.parameters or {})
        prepared = await self._prepare(backend, task, capability, ruling.elevation)
        retired = False
        async with self.judge.chain(task.root_id):
            for _ in range(TRIES):
                grant = pending_grant(caller, task, capability, ask, prepared, ruling)
                try:
                    async with self.quotas.place(grant) as place:
                        with self.steps.take(Step.RESERVE, task=task.id, grant=grant.id):
                            reserved = await self.ledger.reserve(
                                grant,
                                ttl_ms=ruling.decision.ttl_ms,
                                max_live=capability.max_live,
                                decision=ruling.about,
                                actor=caller.name,
                                seen=ruling.survey.version,
                                step=ruling.step,
                                approved=ruling.approval.digest if ruling.approval else "",
                                place=place,
                                idempotency=idempotency,
                            )
                        if reserved.id != grant.id:
                            raise replayed(reserved)
                        return reserved, ruling
                except Changed:
                    before = ruling.elevation
                    ruling = await self._decide(caller, task, ask, idempotency)
                    if ruling.elevation != before:  # what it is minted with ends with that
                        prepared = await self._prepare(backend, task, capability, ruling.elevation)
                    continue
                except HandleRetired:
                    backend.forget(task.id)
                    if retired:
                        raise BackendUnavailable("Try again.", retry_after=1) from None
                    retired = True
                    prepared = await self._prepare(backend, task, capability, ruling.elevation)
                    continue
        raise too_busy()

    async def _prepare(
        self, backend: Backend, task: Task, capability: Capability, elevation: Elevation | None
    ) -> Prepared:
        try:
            # It may be kept from before: only that it fails says anything.
            with self.circuits.watch(backend.name, capability.name, answers=False):
                if elevation is None:
                    prepared = await backend.prepare(task, capability)
                else:
                    until_ms = elevation.expires_at
                    prepared = await backend.prepare(task, capability, elevation.id, until_ms)
        except (BackendRefused, BackendUnavailable) as error:
            raise cannot_issue(backend.name, error) from error
        if not (prepared.handle or prepared.lease):
            error = BackendRefused("it names nothing that could end what it would make")
            raise cannot_issue(backend.name, error)
        return prepared

    def prefetch(self, task: Task) -> None:
        """Make ready in the background for what a task's agent is about to ask."""
        known = (self.catalog.capabilities.get(name) for name in task.capabilities)
        for name, capability in {c.backend: c for c in known if c is not None}.items():
            if name in self.backends:  # nothing is made for tools
                self.work.spawn(self.backends[name].prepare(task, capability))

    async def _give_up(self, grant: Grant) -> None:
        with contextlib.suppress(LedgerUnavailable):
            for marked in await self.ledger.begin_revoke(
                [grant.id], reason="outcome_unknown", actor=_ACTOR
            ):
                self.work.spawn(self.revoke_claimed(marked), ends=True)

    # Revoke: steps 9 and 10.

    async def revoke(self, grants: Iterable[Grant]) -> Outcome:
        """Revoke claimed grants; answer after ``wait_ms`` at most, the rest goes on behind it."""
        jobs = [self.work.spawn(self.revoke_claimed(grant), ends=True) for grant in grants]
        if not jobs:
            return Outcome()
        done, _ = await asyncio.wait(jobs, timeout=self.limits.wait_ms / 1000)
        over = [job.result() for job in done if not job.exception()]
        return Outcome.of(over) + Outcome(revoking=len(jobs) - len(over))

    async def revoke_and_close(self, claimed: Claimed) -> Outcome:
        """Revoke what ended tasks held; closing them catches what nobody was ever given.

        The answer waits for the grants alone: closing goes on behind it, and a sweep sees to it
        if this process can't.
        """
        outcome = await self.revoke(claimed.grants)
        for task in claimed.tasks:
            self.work.spawn(self.close(task), ends=True)
        return outcome

    async def revoke_claimed(self, grant: Grant) -> GrantState:
        """Take a claimed grant through steps 9 and 10; what it counts as then."""
        self.under_way.add(grant.id)
        try:
            return await self._revoke_claimed(grant)
        finally:
            self.under_way.discard(grant.id)

    async def _revoke_claimed(self, grant: Grant) -> GrantState:
        if not grant.lease:
            return await self.closing.lost(grant)
        await self.lockout.shut(grant)
        lane = self.lanes.of(grant.backend, grant.capability)
        async with lane.turns.of(grant.task_id):
            if shut_for := lane.shut_for:
                return await self.closing.later(
                    grant, "the backend doesn't answer", least_ms=int(shut_for * 1000)
                )
            before, most_ms = lane.failures, None
            try:
                backend = self.closing.backend(grant.backend)
                with self.steps.metrics.revoking(grant.backend):
                    with self.steps.take(Step.REVOKE, grant=grant.id):
                        await backend.revoke(grant)
                    with self.steps.take(Step.CONFIRM, grant=grant.id):
                        if await backend.is_live(grant):
                            raise BackendUnavailable("revoked, and still there when looked up")
            except LedgerUnavailable:
                return GrantState.REVOKING  # its claim runs out and a sweep takes it up again
            except Unavailable as error:
                if isinstance(error, BackendDown):
                    self.circuits.down(grant.backend)
                nobody = isinstance(error, BackendUnavailable) or error.retry_after
                if nobody and lane.failed(before):
                    most_ms = math.ceil(lane.left * 1000)  # it is the next probe
                return await self.closing.later(grant, error.detail, most_ms=most_ms)
            self.circuits.reached(grant.backend, grant.capability)
            if lane.answered():
                self.work.spawn(self.ledger.hasten(grant.backend, grant.capability))
            return await self._settle(grant, backend)

    def _drain(self, backend: str) -> None:
        """A backend is back: what waits for it is due now."""
        for capability in self.lanes.reopen(backend):
            self.work.spawn(self.ledger.hasten(backend, capability))

    async def _settle(self, grant: Grant, backend: Backend) -> GrantState:
        """Say what a grant is whose lease is gone; what it gave may work on at the target."""
        if grant.revocability == Revocability.NEVER:
            return await self.closing.abandon(grant, STATIC)
        try:  # by the clock that says when that is
            left_ms = grant.dies_at - await self.queries.now() if grant.dies_at else 0
        except LedgerUnavailable:
            return GrantState.REVOKING
        if left_ms > 0:
            waiting = "it can't be revoked at its target; it ends when its time is up there"
            return await self.closing.later(grant, waiting, least_ms=left_ms, counts=False)
        evidence = "expired" if grant.dies_at else backend.evidence(grant)
        return await self.closing.confirm(grant, evidence)

    async def close(self, task: Task) -> bool:
        """Close an ended task: end its handles, and with them whatever was never delivered."""
        return await self.closing.close(task)

    async def disconnect(self) -> None:
        """Close connections to targets and backends."""
        await self.lockout.close()
        for backend in self.backends.values():
            await backend.close()
