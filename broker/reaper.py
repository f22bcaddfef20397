"""Step 8: what is due is claimed and revoked. Knows no scheduler; each sweep returns a report."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from broker.logs import get_logger
from broker.tracing import begin

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.audit_log import AuditLog
    from broker.elevating import Elevations
    from broker.ledger.models import Claimed
    from broker.metrics import Metrics
    from broker.pipeline import Pipeline
    from broker.principals import Principals
    from broker.signals import Detections

log = get_logger("reaper")
BATCH: Final = 100
"""Items claimed per shard and round."""
MAX_IN_FLIGHT: Final = 1000
"""Revocations under way in this process before it leaves the rest to others, or to later.

Nothing else counts: those who ask for credentials can't keep the sweep from ending them.
"""
SILENT: Final = "heartbeat_lost"
"""Why a task ended whose heartbeat was missed."""
_LATER_MS: Final = 100
"""Until then some of these are over."""


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What one sweep took on. ``wait_ms`` is until the next is needed, or None.

    By the ledger's clock: this replica's may say something else.
    """

    tasks: int
    grants: int
    wait_ms: int | None


class Reaper:
    """Sweeps over the ledger. Any number of replicas may sweep at once: claims don't overlap."""

    def __init__(
        self,
        pipeline: Pipeline,
        principals: Principals,
        detections: Detections,
        elevations: Elevations,
        metrics: Metrics,
        audit: AuditLog | None = None,
    ) -> None:
        """Revoke through the same pipeline as everybody else."""
        self._pipeline = pipeline
        self._principals = principals
        self._detections = detections
        self._elevations = elevations
        self._metrics = metrics
        self._audit = audit

    async def sweep(self, *, horizon_ms: int | None = None) -> SweepReport:
        """Claim what is due now, or would be at ``horizon_ms``, and set about revoking it.

        Returns once everything is claimed, not once it is dead: ``Work.drain`` waits for that.
        """
        tasks = grants = 0
        before: dict[int, int] = {}
        while True:
            due = await self._pipeline.queries.next_due()
            now = await self._pipeline.queries.now()
            shards = [shard for shard, at in due.items() if at <= (horizon_ms or now)]
            if not shards:
                wait_ms = min(due.values()) - now if due else None
                return SweepReport(tasks, grants, wait_ms)
            room = MAX_IN_FLIGHT - self._pipeline.work.ending
            # A cluster's node may be behind the clock that was asked: nothing is due there yet.
            if due == before or room <= 0:
                return SweepReport(tasks, grants, _LATER_MS)
            # What ends by itself belongs to no request: it has a trace of its own.
            with begin("sweep"):
                # What is claimed and can't be begun would be claimed again when its claim runs out.
                limit = min(BATCH, math.ceil(room / len(shards)))
                claimed = await self._pipeline.ledger.claim_due(
                    shards, limit=limit, horizon_ms=horizon_ms
                )
                # The claim of one that waits here for its turn has run out: once is enough.
                under_way = self._pipeline.under_way
                fresh = tuple(g for g in claimed.grants if g.id not in under_way)
                nothing_new = len(fresh) < len(claimed.grants) and not (
                    fresh or claimed.tasks or claimed.elevations
                )
                claimed = replace(claimed, grants=fresh)
                self._set_about(claimed)
            # One that comes back, since it could not be closed, has been silent once.
            silent = [t for t in claimed.tasks if t.reason == SILENT and t.ended_at >= now]
            self._metrics.silent(len(silent))
            before = due
            tasks += len(claimed.tasks)
            grants += len(claimed.grants)
            if nothing_new:
                return SweepReport(tasks, grants, _LATER_MS)

    def _set_about(self, claimed: Claimed) -> None:
        self._metrics.claimed(tasks=len(claimed.tasks), grants=len(claimed.grants))
        spawn = self._pipeline.work.spawn
        for grant in claimed.grants:
            spawn(self._pipeline.revoke_claimed(grant), ends=True)
        for task in claimed.tasks:
            spawn(self._pipeline.close(task), ends=True)
        for task_id, elevation_id in claimed.elevations:
            spawn(self._elevations.finish(task_id, elevation_id), ends=True)

    async def look(self) -> dict[str, int]:
        """Notice new principals, finish reports left undone, and count what could not be revoked.

        The count is by capability, of what used up its budget: it counts until it is dead, also
        while it is being retried, and issuing takes it into account. So it does of what failed at
        least once, by backend.
        """
        await self._principals.keep_up()
        await self._detections.finish()
        capabilities = self._pipeline.catalog.capabilities.values()
        stuck = await self._counts("gx|", {c.name: f"{c.backend}|{c.name}|" for c in capabilities})
        backends = self._pipeline.backends
        self._pipeline.failing = await self._counts("gr|", {name: f"{name}|" for name in backends})
        self._pipeline.stuck = stuck
        return stuck

    async def _counts(self, kind: str, each: Mapping[str, str]) -> dict[str, int]:
        """Count what is listed of a kind, by name. Mostly that is nothing, and one look says so."""
        count = self._pipeline.queries.count
        if not await count(kind):
            return dict.fromkeys(each, 0)
        return {name: await count(kind + rest) for name, rest in each.items()}

    async def tend(self) -> None:
        """Make the places that quotas count those of the live grants."""
        await self._pipeline.quotas.tend()

    async def prune(self) -> int:
        """Forget what ended longer ago than is kept; events only once they are in the log."""
        drained = await self._audit.drained() if self._audit is not None else None
        return await self._pipeline.ledger.prune(drained=drained)

    async def review(self) -> list[str]:
        """Put right what the shards know of principals, and suspend whom nobody reviewed.

        A ledger in quarantine may have forgotten that somebody did.
        """
        if await self._pipeline.queries.quarantined():
            return []
        return await self._principals.sweep()
