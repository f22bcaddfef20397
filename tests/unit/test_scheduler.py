"""The chain of sweeps: each run asks for the next, and none is ever the last."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any, cast

from broker.clock import SystemClock
from broker.metrics import Metrics
from broker.reaper import SweepReport
from broker.scheduler import Scheduler
from tests.waiting import wait_until

if TYPE_CHECKING:
    from broker.keys import KeyRotation
    from broker.ledger.schema import Schema
    from broker.policing import Policing
    from broker.reaper import Reaper


class Jobs:
    """What the scheduler calls; a sweep always finds more that is due."""

    def __init__(self) -> None:
        self.sweeps = 0
        self.rules: Any = self
        self.every_ms = None

    async def sweep(self) -> SweepReport:
        self.sweeps += 1
        return SweepReport(0, 0, 0)

    def __getattr__(self, name: str) -> Any:
        async def nothing() -> None: ...

        return nothing


class Adjusted(SystemClock):
    """A machine's clock that is ahead, until somebody sets it right."""

    ahead_s = 3600.0

    def now(self) -> float:
        return super().now() + self.ahead_s


def scheduler_of(jobs: Any, clock: SystemClock) -> Scheduler:
    return Scheduler(
        cast("Reaper", jobs),
        clock,
        keys=cast("KeyRotation", jobs),
        metrics=Metrics(clock, backends=set()),
        policing=cast("Policing", jobs),
        policy_s=60,
        reconcile=jobs,
        schema=cast("Schema", jobs),
    )


async def test_sweeps_go_on_however_late_the_loop_notices_that_one_is_over() -> None:
    jobs = Jobs()
    scheduler = scheduler_of(jobs, SystemClock())
    scheduler.start()
    try:
        for _ in range(200):
            time.sleep(0.012)  # noqa: ASYNC251  the loop is held up
            await asyncio.sleep(0)
        seen = jobs.sweeps

        async def more() -> bool:
            return jobs.sweeps > seen + 3

        await wait_until(more, "sweeps go on")
    finally:
        scheduler.stop()


async def test_sweeps_go_on_when_the_clock_is_set_back() -> None:
    jobs, clock = Jobs(), Adjusted()
    scheduler = scheduler_of(jobs, clock)
    scheduler.start()
    try:

        async def first() -> bool:
            return jobs.sweeps == 1

        async def more() -> bool:
            return jobs.sweeps > 3

        await wait_until(first, "the next sweep is an hour away, by the clock of then")
        clock.ahead_s = 0
        await wait_until(more, "sweeps go on")
    finally:
        scheduler.stop()
