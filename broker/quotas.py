"""Quotas: how many live credentials there may be, and how often one may be issued.

By agent, orchestrator, capability and backend, counted in the ledger, so exact over all replicas.
Only what is configured costs anything. ``docs/quotas.md`` says how they are meant.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from broker.durations import format_duration
from broker.errors import BrokerError, LedgerUnavailable
from broker.identity.models import Role
from broker.ledger.places import Limit, Places
from broker.visibility import must_see_all
from broker.wire import page_json

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator, Mapping

    from broker.access import Caller
    from broker.catalog import Catalog, Rate
    from broker.grants import Grant
    from broker.ledger.connection import Connection
    from broker.ledger.places import Place
    from broker.metrics import Metrics


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one name is bounded by: live grants (0: any number), and their rate (None: any)."""

    max_live: int = 0
    issue_rate: Rate | None = None

    def limits(self, kind: str, name: str) -> Iterator[Limit]:
        """Return the limits that there are."""
        if self.max_live:
            yield Limit(kind, name, self.max_live)
        if self.issue_rate is not None:
            yield Limit(kind, name, self.issue_rate.count, self.issue_rate.window_ms)


@dataclass(frozen=True, slots=True)
class QuotaBounds:
    """``[quotas]`` of the configuration; those of capabilities are in the catalogue."""

    agent: Bounds = Bounds()
    orchestrator: Bounds = Bounds()
    backends: Mapping[str, Bounds] = field(default_factory=dict[str, Bounds])


class Quotas:
    """Says which limits a grant meets, and takes its place under them."""

    def __init__(
        self, bounds: QuotaBounds, catalog: Catalog, connection: Connection, metrics: Metrics
    ) -> None:
        """The connection is the ledger's, which counts."""
        self._bounds = bounds
        self._capabilities = {
            c.name: Bounds(c.max_live_total, c.issue_rate) for c in catalog.capabilities.values()
        }
        self._catalog = catalog
        self._places = Places(connection)
        self._metrics = metrics
        every = (
            *(bounds.agent, bounds.orchestrator, *bounds.backends.values()),
            *self._capabilities.values(),
        )
        live = any(each.max_live for each in every)
        self.places = self._places if live else None
        """Where live grants are limited anywhere: then every grant has a place."""

    @contextlib.asynccontextmanager
    async def place(self, grant: Grant) -> AsyncGenerator[Place | None]:
        """Take a place to reserve a grant on inside; what comes to nothing leaves it again.

        Raises:
            LedgerUnavailable: it doesn't answer. A grant that was being reserved may be there: it
                keeps its place, unless ``tend`` finds that it is not.
        """
        limits = self._limits(grant)
        place = None
        if limits or self.places:
            place = await self._places.take(grant, limits, place=self.places is not None)
        try:
            yield place
        except LedgerUnavailable:
            raise
        except BrokerError as error:
            if place is not None:
                with contextlib.suppress(LedgerUnavailable):
                    await self._places.leave(place)
            if limit := error.extra.get("limit"):
                self._metrics.over_quota(str(limit))
            raise

    async def tend(self) -> None:
        """Make the places those of the live grants."""
        if self.places is not None:
            await self.places.tend()

    async def standing(self, caller: Caller, *, limit: int, cursor: str) -> dict[str, Any]:
        """Return a page of the limits, each with what is used of it now."""
        must_see_all(caller)
        every = {f"{each.key}|{each.name}": each for each in self._all()}
        rest = [mark for mark in sorted(every) if mark > cursor]
        shown = rest[:limit]
        limits = [every[mark] for mark in shown]
        used = await self._places.used(limits) if limits else []
        items = [_limit_json(each, much) for each, much in zip(limits, used, strict=True)]
        return page_json(items, shown[-1] if rest[limit:] else None)

    def _limits(self, grant: Grant) -> tuple[Limit, ...]:
        backend, capability = grant.backend, grant.capability
        return (
            *self._bounds.agent.limits("agent", grant.agent),
            *self._bounds.orchestrator.limits("orchestrator", grant.orchestrator),
            *self._capabilities.get(capability, Bounds()).limits("capability", capability),
            *self._bounds.backends.get(backend, Bounds()).limits("backend", backend),
        )

    def _all(self) -> Iterator[Limit]:
        for principal in self._catalog.principals.values():
            if principal.role is Role.AGENT:
                yield from self._bounds.agent.limits("agent", principal.name)
            if principal.role is Role.ORCHESTRATOR:
                yield from self._bounds.orchestrator.limits("orchestrator", principal.name)
        for name, bounds in self._capabilities.items():
            yield from bounds.limits("capability", name)
        for name, bounds in self._bounds.backends.items():
            yield from bounds.limits("backend", name)


def _limit_json(limit: Limit, used: int) -> dict[str, Any]:
    return {
        "limit": limit.key,
        "name": limit.name,
        "most": limit.most,
        "window": format_duration(limit.window_ms) if limit.window_ms else None,
        "used": used,
    }
