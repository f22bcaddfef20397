"""Closing: the end of what credentials hang from at a backend, and of whatever was never delivered.

A handle (the accessor of a task's token) kills all that was made with it, known to the ledger or
not. It is revoked and looked up like a grant, by steps 9 and 10 of ``pipeline.py``, and dropped
from its task's row only when it is confirmed gone.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from broker.errors import (
    BackendDown,
    BackendRefused,
    BackendUnavailable,
    LedgerUnavailable,
    Unavailable,
)
from broker.grants import GrantState
from broker.logs import get_logger
from broker.steps import Limits, Step, Steps

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.backends.protocol import Backend
    from broker.grants import Grant
    from broker.lanes import Circuits, Lanes
    from broker.ledger.queries import Queries
    from broker.ledger.redis import RedisLedger
    from broker.tasks import Task

log = get_logger("service")
_ACTOR: Final = "broker"
STATIC: Final = "a static secret works at its target until it is changed there"
_MAKING: Final = "its minting may be under way"
_OUTLIVES: Final = "nobody knows whether it was made; if it was, it ends when its time is up there"


class Closing:
    """Ends handles, and confirms what is gone with them."""

    def __init__(
        self,
        *,
        ledger: RedisLedger,
        queries: Queries,
        backends: Mapping[str, Backend],
        limits: Limits,
        steps: Steps,
        lanes: Lanes,
        circuits: Circuits,
    ) -> None:
        """All of these are the pipeline's."""
        self._ledger = ledger
        self._queries = queries
        self._backends = backends
        self._limits = limits
        self._steps = steps
        self._lanes = lanes
        self._circuits = circuits

    def backend(self, name: str) -> Backend:
        """Return a backend.

        Raises:
            BackendUnavailable: there is none of that name.
        """
        if name not in self._backends:
            raise BackendUnavailable(f"backend {name!r} is not in the configuration any more")
        return self._backends[name]

    async def confirm(self, grant: Grant, evidence: str) -> GrantState:
        """Write down that a grant is gone; what it counts as now."""
        with contextlib.suppress(LedgerUnavailable):
            confirmed = await self._ledger.confirm(grant, evidence=evidence, actor=_ACTOR)
            self._steps.over(confirmed)
            return confirmed.state
        return GrantState.REVOKING

    async def abandon(self, grant: Grant, statement: str) -> GrantState:
        """Write down that a grant is given up, although it may work on; what it counts as now."""
        with contextlib.suppress(LedgerUnavailable):
            given_up = await self._ledger.abandon(grant, statement=statement, actor=_ACTOR)
            self._steps.over(given_up)
            return given_up.state
        return GrantState.REVOKING

    async def later(
        self,
        grant: Grant,
        error: str,
        *,
        least_ms: int = 0,
        most_ms: int | None = None,
        counts: bool = True,
    ) -> GrantState:
        """Put a revocation off that didn't work, longer each time; what the grant counts as now."""
        limits = self._limits
        longest_ms = limits.max_backoff_ms if most_ms is None else most_ms
        delay = min(limits.backoff_ms * 2**grant.attempts, longest_ms)
        with contextlib.suppress(LedgerUnavailable):
            after = await self._ledger.retry_later(
                grant,
                error=error,
                delay_ms=max(delay, least_ms),
                attempts=limits.attempts,
                counts=counts,
                actor=_ACTOR,
            )
            if after.state is GrantState.STUCK:
                log.error(
                    "revocation is stuck",
                    grant=grant.id,
                    backend=grant.backend,
                    attempts=after.attempts,
                    error=error,
                )
            return after.state
        return GrantState.REVOKING

    async def lost(self, grant: Grant) -> GrantState:
        """Revoke a grant whose lease was never learnt, by its handle; what it counts as now."""
        try:
            return await self._end_lost(grant)
        except LedgerUnavailable:
            return GrantState.REVOKING  # its claim runs out and a sweep takes it up again
        except Unavailable as error:
            return await self.later(grant, error.detail)

    async def _end_lost(self, grant: Grant) -> GrantState:
        """End its handle when nothing else hangs from it, or leave that to the end of its task."""
        if left_ms := await self._making_ms([grant]):
            return await self.later(grant, _MAKING, least_ms=left_ms, counts=False)
        task = await self._queries.task(grant.task_id)
        waiting = "its lease is not known; it goes with its task, or when its siblings are gone"
        if task is None or task.ended_at:
            if task is not None:
                await self._ledger.postpone_task(task.id, delay_ms=0)
            return await self.later(grant, waiting, counts=False)
        status = await self._ledger.handle(
            task.id, "retire", grant.handle, backend=grant.backend, actor=_ACTOR
        )
        if status == "in_use":
            return await self.later(grant, waiting, counts=False)
        self.backend(grant.backend).forget(task.id)
        if status != "unknown" and not await self.end_handle(task, grant.handle, [grant]):
            return await self.later(grant, "its task token is not confirmed gone")
        return await self.settle_lost(grant)

    async def _making_ms(self, lost: Sequence[Grant]) -> int:
        """Return for how long one of the ``lost`` may still be made, whoever gave it up.

        A handle isn't ended before: what a backend finishes after that would hang from nothing.
        """
        # One that a sweep gave up is as old as that already.
        young = [grant.created_at for grant in lost if grant.reason != "abandoned"]
        if not young:
            return 0
        return max(0, max(young) + self._ledger.times.pending_ms - await self._queries.now())

    async def end_handle(self, task: Task, handle: str, lost: Sequence[Grant]) -> bool:
        """End a handle, and the ``lost`` grants whose leases were never learnt; whether it is gone.

        Raises:
            Unavailable: a backend or the ledger doesn't answer.
        """
        name = str(task.handles.get(handle, {}).get("backend", "")) or lost[0].backend
        lane = self._lanes.of(name)
        async with lane.turns.of(task.id):
            if lane.shut_for:
                raise BackendRefused(f"backend {name!r} doesn't answer")  # so it isn't asked
            before = lane.failures
            try:
                gone = await self._handle_gone(name, task, handle, lost)
            except LedgerUnavailable:
                raise
            except Unavailable as error:
                if isinstance(error, BackendDown):
                    self._circuits.down(name)
                if isinstance(error, BackendUnavailable) or error.retry_after:
                    lane.failed(before)
                raise
            if lane.answered():
                await self._ledger.hasten(name, "")
        self._circuits.reached(name)
        return (
            gone
            and await self._ledger.handle(task.id, "drop", handle, backend=name, actor=_ACTOR)
            != "too_early"
        )

    async def _handle_gone(self, name: str, task: Task, handle: str, lost: Sequence[Grant]) -> bool:
        backend = self.backend(name)
        with self._steps.take(Step.REVOKE, task=task.id):
            await backend.revoke_handle(task, handle)
        with self._steps.take(Step.CONFIRM, task=task.id):
            return not await backend.handle_is_live(task, handle, lost)

    async def settle_lost(self, grant: Grant) -> GrantState:
        """Say what a grant is whose handle is gone and whose lease was never learnt.

        What didn't hang from the handle may have been made, and then ends by itself.
        """
        left_ms = self.backend(grant.backend).outlives(grant)
        if left_ms is None:
            return await self.abandon(grant, STATIC)
        if left_ms > 0:
            return await self.later(grant, _OUTLIVES, least_ms=left_ms, counts=False)
        return await self.confirm(grant, "handle_lookup")

    async def close(self, task: Task) -> bool:
        """Close an ended task: end its handles, and with them whatever was never delivered."""
        for name in self._backends:
            self._backends[name].forget(task.id)
        try:
            fresh = await self._queries.task(task.id)
            live = await self._queries.grants_of(task.id)
            if fresh is None or any(grant.lease for grant in live):
                return False  # each of these is due by itself, and wakes the task when it is gone
            if left_ms := await self._making_ms(live):
                await self._ledger.postpone_task(task.id, delay_ms=left_ms)
                return False
            gone = [
                await self.end_handle(fresh, h, [g for g in live if g.handle == h])
                for h in fresh.handles
            ]
            if not all(gone):
                await self._ledger.postpone_task(task.id, delay_ms=self._limits.backoff_ms)
                return False
            for grant in live:
                await self.settle_lost(grant)
            return await self._ledger.close_task(task.id, actor=_ACTOR) == "closed"
        except Unavailable as error:
            log.warning("task not closed yet", task=task.id, error=error.detail)
            with contextlib.suppress(LedgerUnavailable):
                await self._ledger.postpone_task(task.id, delay_ms=self._limits.max_backoff_ms)
            return False

    async def close_elevation(self, task: Task, elevation: str) -> bool:
        """End what was made for an elevation that is over; whether nothing of it is left.

        Its grants are the caller's to revoke, and while one of them lives its token does too: call
        this again then, as after an answer that didn't come.
        """
        try:
            fresh = await self._queries.task(task.id)
            handles = fresh.handles_under(elevation) if fresh is not None else ()
            if fresh is None or not handles:
                return True
            live = [g for g in await self._queries.grants_of(task.id) if g.handle in handles]
            if any(grant.lease for grant in live) or await self._making_ms(live):
                return False
            gone = [
                await self.end_handle(fresh, h, [g for g in live if g.handle == h]) for h in handles
            ]
            if not all(gone):
                return False
            for grant in live:
                await self.settle_lost(grant)
        except Unavailable as error:
            log.warning("elevation not closed yet", elevation=elevation, error=error.detail)
            return False
        return True
