"""Renewal and rotation: how a credential lives longer, within its task's life and by policy.

A renewal is decided as issuing is, and lets the same credential live longer: no longer than its
task, nor than the catalogue, its agent and policy let one live from its issue. A rotation issues
another in its place; the old one ends when the new one is delivered and an overlap is over. A grant
has one successor, and once it has one it isn't renewed: nothing forks.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from broker.backends.protocol import Renewable
from broker.backends.vault_wrapping import VaultWrapping
from broker.clock import to_rfc3339
from broker.errors import (
    BackendUnavailable,
    LedgerUnavailable,
    NotRenewable,
    Unavailable,
)
from broker.grants import GrantState
from broker.ledger.lives import Lives, ended
from broker.ledger.models import Changed
from broker.logs import get_logger
from broker.policy.rules import clamp
from broker.rulings import TRIES, too_busy
from broker.steps import counted
from broker.visibility import must_run
from broker.wire import RequestGrant
from broker.wrapping import Wrapping

if TYPE_CHECKING:
    from broker.access import Caller
    from broker.backends.vault_api import VaultApi
    from broker.catalog import Capability
    from broker.clock import Clock
    from broker.grants import Grant
    from broker.ledger.connection import Connection
    from broker.ledger.models import Idempotency
    from broker.pipeline import Pipeline
    from broker.rulings import Ruling
    from broker.steps import Issued
    from broker.tasks import Task
    from broker.wire import Delivery
    from broker.wire_grants import RenewGrant, RotateGrant

log = get_logger("renewing")
_MARGIN_MS: Final = 5000
"""So much longer it is to live at the backend than in the ledger, by which it ends."""
_OVERLAP_MS: Final = 30_000
_ROTATE: Final = "Rotate it instead: that issues another in its place."


class Renewals:
    """Renews and rotates grants."""

    def __init__(self, pipeline: Pipeline, wrapping: Wrapping, lives: Lives) -> None:
        """Decide and issue through the pipeline; deliver successors as ``wrapping`` does."""
        self.wrapping = wrapping
        self._pipeline = pipeline
        self._lives = lives

    @classmethod
    def over(
        cls,
        pipeline: Pipeline,
        connection: Connection,
        vault: VaultApi | None,
        clock: Clock,
        url: str,
    ) -> Renewals:
        """Make them with the tables and the wrapping that they need; ``url`` is the broker's."""
        lives = Lives(connection, pipeline.ledger.times)
        wraps = VaultWrapping(vault) if vault is not None else None
        return cls(pipeline, Wrapping(pipeline, lives, wraps, clock, url), lives)

    async def renew(
        self, caller: Caller, task: Task, grant: Grant, ask: RenewGrant
    ) -> tuple[Grant, tuple[str, ...]]:
        """Let a grant live longer; returns it as it is then, and what was shortened.

        Raises:
            NotRenewable: it lives as long as it may.
            ApprovalRequired: a human has to say yes first, and is asked.
            BrokerError: as issuing. Nothing has changed then but what the backend alone knows.
        """
        must_run(caller, task)
        if grant.state is not GrantState.ACTIVE:
            raise ended(grant.state)
        pipeline = self._pipeline
        capability = pipeline.catalog.capabilities.get(grant.capability)
        if capability is None:
            raise NotRenewable("Its capability is in the catalogue no more.")
        self._renewable(grant)
        self._room(grant, task, capability)  # before anybody is asked
        wanted = _again(grant, ask.ttl)
        async with pipeline.judge.chain(task.root_id):
            for _ in range(TRIES):
                health = pipeline.health(grant.capability)
                ruling = await pipeline.judge.issue(caller, task, wanted, health)
                try:
                    return await self._renew(caller, task, grant, capability, ruling)
                except Changed:
                    continue
        raise too_busy()

    async def _renew(
        self, caller: Caller, task: Task, grant: Grant, capability: Capability, ruling: Ruling
    ) -> tuple[Grant, tuple[str, ...]]:
        """Renew on a decision: at the backend first, where it is needed."""
        if (ruling.elevation.id if ruling.elevation else "") != grant.elevation_id:
            msg = "It was issued under another elevation than there is now, or under none. "
            raise NotRenewable(msg + _ROTATE)
        longest_ms = self._longest_ms(grant, capability, ruling.decision.obligations.max_ttl_ms)
        left_ms = self._room(grant, task, capability, longest_ms)
        ttl_ms, notes = clamp(ruling.decision.ttl_ms, left_ms, "the longest it may live")
        renewed = await self._lives.renew(
            grant,
            ttl_ms=ttl_ms,
            longest_ms=longest_ms,
            lives_ms=await self._at_backend(grant, ttl_ms),
            decision={**ruling.about, "renews": grant.id},
            seen=ruling.survey.version,
            step=ruling.step,
            tokens=caller.lineage,
            actor=caller.name,
            approval=ruling.approval,
            approvals=counted(ruling.yeses),
        )
        self._pipeline.judge.used(task.agent, capability.name)
        return renewed, ruling.decision.notes + notes

    def _renewable(self, grant: Grant) -> Renewable:
        backend = self._pipeline.closing.backend(grant.backend)
        if not isinstance(backend, Renewable):
            raise NotRenewable(
                f"What backend {grant.backend!r} makes has its end inside. {_ROTATE}"
            )
        return backend

    async def _at_backend(self, grant: Grant, ttl_ms: int) -> int:
        """Return for how long the backend lets it live from now, 0 if it does so long anyway."""
        now_ms = self._pipeline.judge.now_ms
        asked_at, needed_ms = now_ms(), ttl_ms + _MARGIN_MS
        if asked_at + needed_ms <= grant.lives_until or not grant.lives_until:
            return 0
        if grant.dies_at:
            # An answer that is lost would leave it alive when the ledger has it dead by itself.
            msg = "It can't be revoked at its target, so it isn't made to live longer there. "
            raise NotRenewable(msg + _ROTATE)
        try:
            lives_ms = await self._renewable(grant).renew(grant, needed_ms)
            return max(lives_ms - (now_ms() - asked_at), 1)
        except Unavailable as error:
            log.warning("cannot renew", backend=grant.backend, error=error.detail)
            msg = f"Backend {grant.backend!r} can't renew right now; nothing has changed."
            raise BackendUnavailable(msg, retry_after=error.retry_after or 5) from error

    def _longest_ms(self, grant: Grant, capability: Capability, by_policy_ms: int = 0) -> int:
        """Return how long a grant may live from its issue, in milliseconds."""
        agent = self._pipeline.catalog.principals.get(grant.agent)
        bounds = (
            capability.renewable_ms or capability.max_ttl_ms,
            agent.max_ttl_ms if agent else 0,
            by_policy_ms,
        )
        return min(bound for bound in bounds if bound)

    def _room(self, grant: Grant, task: Task, capability: Capability, longest_ms: int = 0) -> int:
        """Return for how long from now it may live at most.

        Raises:
            NotRenewable: that is no longer than it does anyway.
        """
        longest_ms = longest_ms or self._longest_ms(grant, capability)
        end = min(grant.created_at + longest_ms, task.expires_at)
        if end <= grant.expires_at:
            what = "its task" if end == task.expires_at else "the longest it may live"
            until = to_rfc3339(grant.expires_at)
            raise NotRenewable(f"It lives until {until} already, the end of {what}. {_ROTATE}")
        return max(end - self._pipeline.judge.now_ms(), 1)

    async def rotate(
        self,
        caller: Caller,
        task: Task,
        grant: Grant,
        ask: RotateGrant,
        idempotency: Idempotency | None,
    ) -> Issued:
        """Issue another credential in a grant's place, and let the old one end a while later.

        Raises:
            Conflict: it has ended, or has a successor.
            BrokerError: as issuing; the old one is as it was.
        """
        must_run(caller, task)
        if grant.state is not GrantState.ACTIVE and not grant.replaced_by:
            raise ended(grant.state)
        wanted = _again(grant, ask.ttl, delivery=ask.delivery, wrap_ttl=ask.wrap_ttl)
        # Finished even if the caller hangs up: of two that live one has to end.
        work = self._rotate(
            caller, task, grant, wanted.replacing(grant.id), ask.overlap or _OVERLAP_MS, idempotency
        )
        return await asyncio.shield(self._pipeline.work.spawn(work))

    async def _rotate(
        self,
        caller: Caller,
        task: Task,
        grant: Grant,
        wanted: RequestGrant,
        overlap_ms: int,
        idempotency: Idempotency | None,
    ) -> Issued:
        issued = await self.wrapping.issue(caller, task, wanted, idempotency)
        try:
            await self._lives.supersede(
                grant.id, by=issued.grant.id, overlap_ms=overlap_ms, actor=caller.name
            )
        except LedgerUnavailable:
            until = to_rfc3339(grant.expires_at)
            note = f"the ledger didn't answer: {grant.id} lives until {until}, unless revoked"
            return replace(issued, notes=(*issued.notes, note))
        return issued


def _again(
    grant: Grant,
    ttl_ms: int | None,
    *,
    delivery: Delivery = "inline",
    wrap_ttl: int | None = None,
) -> RequestGrant:
    """Return the request that a grant answers, to ask once more."""
    return RequestGrant.model_construct(
        capability=grant.capability,
        ttl=ttl_ms,
        parameters=dict(grant.parameters) or None,
        intent=grant.intent or None,
        delivery=delivery,
        wrap_ttl=wrap_ttl,
    )
