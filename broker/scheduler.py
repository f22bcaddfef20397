"""APScheduler around the reaper: thin jobs, and a sweep exactly when the next item is due.

APScheduler goes by the machine's clock. Where that is set back, what is scheduled would be as late
as it was set back: all jobs are run then, and go on from there.
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from apscheduler.schedulers.asyncio import AsyncIOScheduler
from apscheduler.triggers.date import DateTrigger
from apscheduler.triggers.interval import IntervalTrigger

from broker.errors import BrokerError
from broker.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from broker.audit_log import AuditLog
    from broker.clock import Clock
    from broker.keys import KeyRotation
    from broker.ledger.schema import Schema
    from broker.metrics import Metrics
    from broker.policing import Policing
    from broker.reaper import Reaper
    from broker.reconcile.desk import ReconcileDesk

log = get_logger("scheduler")
POLL_MS: Final = 1000
"""How late at most this replica notices what another replica has scheduled."""
_SOONEST_MS: Final = 10
_HEED_S: Final = 1.0
"""How often the clock is looked at, and by how much less than before it was set back."""
_PRUNE_S: Final = 600
_REVIEW_S: Final = 60
_TEND_S: Final = 30
_LOOK_S: Final = 2
_DRAIN_S: Final = 0.2
_DRAIN_IDLE_S: Final = 1.0
"""Where nothing happens, or events can't be drained, that is looked at less often."""


class Scheduler:
    """Runs the reaper's sweeps inside the event loop it is started in."""

    def __init__(  # noqa: PLR0913  what it runs
        self,
        reaper: Reaper,
        clock: Clock,
        *,
        keys: KeyRotation,
        metrics: Metrics,
        policing: Policing,
        policy_s: int,
        reconcile: ReconcileDesk,
        schema: Schema,
        audit: AuditLog | None = None,
    ) -> None:
        """Nothing runs before ``start``. Policies are looked at every ``policy_s`` seconds."""
        self._reaper = reaper
        self._keys = keys
        self._metrics = metrics
        self._policing = policing
        self._policy_s = policy_s
        self._reconcile = reconcile
        self._schema = schema
        self._audit = audit
        self._clock = clock
        # APScheduler has no types.
        self._jobs: Any = AsyncIOScheduler(timezone=UTC)
        self._ahead_s = 0.0
        self._heeding: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Start the jobs; the first sweep runs at once."""
        once: dict[str, Any] = {"max_instances": 1, "coalesce": True, "misfire_grace_time": None}
        self._jobs.add_job(self._sweep, id="sweep", **once)
        # A limit that is new counts what was issued before it.
        self._jobs.add_job(self._guarded("quotas", self._reaper.tend), id="places", **once)
        jobs: list[tuple[str, int, Callable[[], Awaitable[object]]]] = [
            ("look", _LOOK_S, self._reaper.look),
            ("schema", _LOOK_S, self._schema.look),
            ("prune", _PRUNE_S, self._reaper.prune),
            ("review", _REVIEW_S, self._reaper.review),
            ("quotas", _TEND_S, self._reaper.tend),
            ("keys", _LOOK_S, self._keys.tend),
            ("policy", self._policy_s, self._policing.keep_up),
        ]
        if self._audit is not None:
            # By itself: whether issuing may go on mustn't depend on how the other jobs fare.
            jobs.append(("audit", _LOOK_S, self._audit.look))
            self._jobs.add_job(self._drain, id="drain", **once)
        if self._reconcile.rules.every_ms is not None:
            look, every_s = self._reconcile.look, self._reconcile.rules.every_ms // 1000
            jobs.append(("reconcile", every_s, look))
            if self._audit is None:  # no log tells whether the ledger was set back
                self._jobs.add_job(self._guarded("reconcile", look), id="reconcile_first", **once)
        for job in ("sweep", *(["drain"] if self._audit else []), *(name for name, _, _ in jobs)):
            self._metrics.follow_job(job)
        for job, seconds, what in jobs:
            self._jobs.add_job(
                self._guarded(job, what),
                IntervalTrigger(seconds=seconds, timezone=UTC),
                id=job,
                **once,
            )
        self._jobs.start()
        self._ahead_s = self._clock.now() - self._clock.monotonic()
        self._heed()

    def _heed(self) -> None:
        now = self._clock.now()
        before, self._ahead_s = self._ahead_s, now - self._clock.monotonic()
        if (back_s := before - self._ahead_s) > _HEED_S:
            log.warning("the clock was set back: all jobs are run now", seconds=round(back_s))
            for job in self._jobs.get_jobs():
                job.modify(next_run_time=datetime.fromtimestamp(now, UTC))
        self._heeding = asyncio.get_running_loop().call_later(_HEED_S, self._heed)

    async def _sweep(self) -> None:
        delay_ms = POLL_MS
        try:
            report = await self._reaper.sweep()
            self._metrics.job_done("sweep")
            if report.wait_ms is not None:
                delay_ms = min(POLL_MS, report.wait_ms)
        except BrokerError as error:
            self._metrics.job_failed("sweep")
            log.warning("sweep failed", error=error.detail)
        except Exception:
            self._metrics.job_failed("sweep")
            log.exception("sweep failed")
        self._again("sweep", self._sweep, max(delay_ms, _SOONEST_MS) / 1000)

    async def _drain(self) -> None:
        delay_s = _DRAIN_IDLE_S
        try:
            if self._audit is not None and (await self._audit.drain()).drained:
                delay_s = _DRAIN_S
            self._metrics.job_done("drain")
        except BrokerError as error:
            self._metrics.job_failed("drain")
            log.warning("events were not drained", error=error.detail)
        except Exception:
            self._metrics.job_failed("drain")
            log.exception("events were not drained")
        # Once it is over, however long a disk takes: runs don't pile up.
        self._again("drain", self._drain, delay_s)

    def _again(self, job: str, what: Callable[[], Awaitable[None]], delay_s: float) -> None:
        at = self._clock.now() + delay_s
        self._jobs.add_job(
            what,
            DateTrigger(datetime.fromtimestamp(at, UTC), timezone=UTC),
            id=job,
            replace_existing=True,
            misfire_grace_time=None,
            # The run that asks for the next is as good as over. Where the loop is held up, its end
            # is noticed after the next is due: with one instance that would be skipped, for good.
            max_instances=2,
        )

    def stop(self) -> None:
        """Start no further job."""
        if self._heeding is not None:
            self._heeding.cancel()
        if self._jobs.running:
            self._jobs.shutdown(wait=False)

    def _guarded(
        self, name: str, what: Callable[[], Awaitable[object]]
    ) -> Callable[[], Awaitable[None]]:
        async def run() -> None:
            try:
                await what()
                self._metrics.job_done(name)
            except BrokerError as error:
                self._metrics.job_failed(name)
                log.warning("job failed", job=name, error=error.detail)
            except Exception:
                self._metrics.job_failed(name)
                log.exception("job failed", job=name)

        return run
