"""What operators look at first, in one answer: what lives, what dies next, what is wrong.

It is put together at most once a second, however many look: from counts and the heads of indexes,
so that ten thousand live grants cost what ten do.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

from broker.clock import to_rfc3339
from broker.errors import LedgerUnavailable
from broker.grants import GrantState
from broker.ledger.glance import UNSETTLED
from broker.measures import POWERS
from broker.visibility import must_see_all
from broker.wire import freeze_json, grant_json

if TYPE_CHECKING:
    from collections import Counter
    from collections.abc import Awaitable, Callable, Mapping

    from broker.access import Caller
    from broker.clock import Clock
    from broker.gauges import Gauges
    from broker.ledger.glance import Glance
    from broker.metrics import LedgerReadings, Metrics
    from broker.pipeline import Pipeline

FRESH_S: Final = 1.0
"""How long an answer serves whoever else looks."""
SHOWN: Final = 20
"""Grants in each list; the counts are of all."""


class Overviews:
    """Puts it together."""

    def __init__(
        self,
        pipeline: Pipeline,
        gauges: Gauges,
        glance: Glance,
        metrics: Metrics,
        clock: Clock,
        ready: Callable[[], Awaitable[Mapping[str, str]]],
    ) -> None:
        """``ready`` says in a word how each part of the broker is."""
        self._pipeline = pipeline
        self._gauges = gauges
        self._glance = glance
        self._metrics = metrics
        self._clock = clock
        self._ready = ready
        self._looking = asyncio.Lock()
        self._last: dict[str, Any] = {}
        self._stale_at = float("-inf")

    async def now(self, caller: Caller) -> dict[str, Any]:
        """Return the overview, as ``GET /v1/overview`` answers it; not to be changed.

        Raises:
            LedgerUnavailable: the ledger doesn't say what there is.
        """
        must_see_all(caller)
        async with self._looking:
            if self._clock.monotonic() >= self._stale_at:
                self._last = await self._look()
                self._stale_at = self._clock.monotonic() + FRESH_S
            return self._last

    async def _look(self) -> dict[str, Any]:
        pipeline, queries = self._pipeline, self._pipeline.queries
        counts = await self._gauges.read()
        if counts is None:
            raise LedgerUnavailable("The ledger doesn't answer. Try again shortly.", retry_after=2)
        now, unsettled = await queries.now(), await self._glance.unsettled()
        freezes = await queries.freezes()
        next_ids = await self._glance.soonest(SHOWN)
        kinds = [
            (state, name)
            for state in UNSETTLED
            for name in pipeline.backends
            if unsettled[state, name]
        ]
        late_ids = await self._glance.oldest(kinds, SHOWN) if kinds else []
        rows = {g.id: g for g in await queries.chains.grant_rows({*next_ids, *late_ids})}
        return {
            "at": to_rfc3339(now),
            "live": _live(counts),
            "unsettled": {
                **{s.value: sum(unsettled[s, b] for b in pipeline.backends) for s in UNSETTLED},
                "overdue": counts.overdue,
                "unknown": counts.unknown,
            },
            "next_to_die": [
                grant_json(rows[i])
                for i in next_ids
                if i in rows and rows[i].state is GrantState.ACTIVE
            ],
            "not_dead": [
                grant_json(rows[i]) for i in late_ids if i in rows and rows[i].state in UNSETTLED
            ],
            "time_to_dead": _time_to_dead(list(self._metrics.times_to_dead)),
            "backends": [self._backend(name, counts, unsettled) for name in pipeline.backends],
            "freezes": [freeze_json(field, row) for field, row in sorted(freezes.items())],
            "approvals": counts.approvals,
            "reviews": counts.reviews,
            "checks": dict(await self._ready()),
        }

    def _backend(
        self,
        name: str,
        counts: LedgerReadings,
        unsettled: Counter[tuple[GrantState, str]],
    ) -> dict[str, Any]:
        """How a backend is: ``stopped`` if nothing is issued there, ``failing`` if some revokes."""
        pipeline = self._pipeline
        failing, shut = pipeline.failing.get(name, 0), pipeline.lanes.shut(name)
        stuck = unsettled[GrantState.STUCK, name]
        state, why = "ok", None
        if pipeline.circuits.is_down(name):
            state, why = "stopped", "it can't be reached"
        elif pipeline.behind(name):
            state, why = "stopped", "too much waits to be revoked there"
        elif stuck:
            state, why = "failing", "credentials are stuck"
        elif failing or shut:
            state, why = "failing", "some revocations get no answer or fail"
        return {
            "backend": name,
            "state": state,
            "why": why,
            "live": sum(n for (backend, _), n in counts.live.items() if backend == name),
            "revoking": unsettled[GrantState.REVOKING, name],
            "stuck": stuck,
            "failing": failing,
            "shut_lanes": shut,
        }


def _live(counts: LedgerReadings) -> dict[str, Any]:
    powers: dict[str, int] = dict.fromkeys(POWERS, 0)
    for (_, power), count in counts.live.items():
        powers[power] = powers.get(power, 0) + count
    return {
        "total": sum(counts.live.values()) + counts.unknown,
        "by_power": powers,
        "by": [
            {"backend": backend, "power": power, "live": count}
            for (backend, power), count in sorted(counts.live.items())
            if count
        ],
    }


def _time_to_dead(last: list[int]) -> dict[str, int | None]:
    """Of the last deaths that this replica has confirmed: from the asking until confirmed dead."""
    ordered = sorted(last)

    def at(share: float) -> int | None:
        return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None

    return {"last": len(ordered), "p50_ms": at(0.5), "p95_ms": at(0.95), "max_ms": at(1)}
