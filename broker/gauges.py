"""What is so right now, found out when somebody looks at the metrics, and not more often."""

from __future__ import annotations

import asyncio
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Final

from broker.errors import LedgerUnavailable
from broker.metrics import LedgerReadings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.clock import Clock
    from broker.metrics import Metrics
    from broker.pipeline import Pipeline

FRESH_S: Final = 1.0
"""How long a reading serves whoever else looks."""


def revocation_state(pipeline: Pipeline) -> str:
    """Say in a few words how revoking goes, for readiness: what is stuck, and what that stops."""
    stuck = sum(pipeline.stuck.values())
    shut = [name for name in pipeline.backends if pipeline.refuses(name)]
    found = [f"{stuck} credentials are stuck"] if stuck else []
    found += [f"nothing is issued on {name}" for name in shut]
    return f"warning: {', '.join(found)}" if found else "ok"


class Gauges:
    """Reads this replica and the ledger; a ledger that doesn't answer is a reading too."""

    def __init__(self, pipeline: Pipeline, metrics: Metrics, clock: Clock) -> None:
        """Count what the ledger holds by the backends and powers of the pipeline's catalogue."""
        self._queries = pipeline.queries
        self._catalog = pipeline.catalog
        self._metrics = metrics
        metrics.follow("work_in_flight", lambda: pipeline.work.in_flight)
        metrics.follow("ledger_durable", lambda: pipeline.ledger_durable)
        for name in pipeline.backends:
            metrics.follow("shut_lanes", partial(pipeline.lanes.shut, name), name)
            metrics.follow("circuits_open", partial(pipeline.refuses, name), name)
            metrics.follow("failing_grants", partial(self._failing, pipeline, name), name)
        metrics.follow("policy_generation", lambda: pipeline.judge.policies.loaded.generation)
        self._clock = clock
        self._reading = asyncio.Lock()
        self._stale_at = float("-inf")
        self._last: LedgerReadings | None = None

    @staticmethod
    def _failing(pipeline: Pipeline, backend: str) -> int:
        return pipeline.failing.get(backend, 0)

    async def read(self) -> LedgerReadings | None:
        """Read the ledger, unless that was done a moment ago; one at a time, for all who ask.

        None if it doesn't answer.
        """
        async with self._reading:
            if self._clock.monotonic() < self._stale_at:
                return self._last
            try:
                self._last = await self._count()
            except LedgerUnavailable:
                self._last = None
            self._metrics.ledger_read(self._last)
            self._stale_at = self._clock.monotonic() + FRESH_S
            return self._last

    async def _count(self) -> LedgerReadings:
        issued = [c for c in self._catalog.capabilities.values() if not c.is_tool]
        found = await self._queries.inventory({c.name: c.backend for c in issued})
        first = min((await self._queries.next_due()).values(), default=None)
        lag_ms = 0 if first is None else max(0, await self._queries.now() - first)
        return LedgerReadings(
            live=self._by_power(found.live),
            stuck=self._by_power(found.stuck),
            unknown=found.unknown,
            unreported=found.unreported,
            approvals=found.approvals,
            reviews=found.reviews,
            scheduled=found.scheduled,
            due=found.due,
            overdue=found.overdue,
            lag_ms=lag_ms,
            quarantined=await self._queries.quarantined(),
        )

    def _by_power(self, counts: Mapping[str, int]) -> Counter[tuple[str, str]]:
        summed: Counter[tuple[str, str]] = Counter()
        for name, count in counts.items():
            capability = self._catalog.capabilities[name]
            summed[capability.backend, str(capability.power)] += count
        return summed
