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


async def test_sweeps_go_on_however_late_the_loop_notices_that_one_is_over() -> None:
    jobs: Any = Jobs()
    clock = SystemClock()
    scheduler = Scheduler(
        cast("Reaper", jobs),
        clock,
        keys=cast("KeyRotation", jobs),
        metrics=Metrics(clock, backends=set()),
        policing=cast("Policing", jobs),
        policy_s=60,
        reconcile=jobs,
    )
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
