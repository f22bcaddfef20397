"""Reports for whoever reviews what agents may do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from broker.catalog import PrincipalState
from broker.clock import to_rfc3339
from broker.identity.models import Role
from broker.power import Allowed, provision
from broker.visibility import must_see_all
from broker.wire import page_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.access import Caller
    from broker.catalog import Principal
    from broker.pipeline import Pipeline
    from broker.power import Provision
    from broker.register import Register
    from broker.standing import Standing


class Reports:
    """The reports."""

    def __init__(self, *, standing: Standing, pipeline: Pipeline) -> None:
        """``standing`` knows who there is."""
        self._standing = standing
        self._registry = standing.roster.registry
        self._queries = pipeline.queries
        self._capabilities = pipeline.catalog.capabilities

    async def unused_power(
        self, caller: Caller, *, since_ms: int, everybody: bool, limit: int, cursor: str
    ) -> dict[str, Any]:
        """Return a page of the agents that were allowed what they didn't use in ``since_ms``.

        With ``everybody`` the others too. ``recorded_since`` is from when on uses were written
        down: of what was before, nothing is known.
        """
        must_see_all(caller)
        await self._standing.roster.write_down()
        register = await self._registry.load()
        start = await self._queries.now() - since_ms
        rows: list[dict[str, Any]] = []
        for name, agent in sorted(self._standing.people(register).items()):
            if name <= cursor or not _is_working(agent):
                continue
            found = provision(self._allowed(agent, register), start)
            if found.unused or everybody:
                rows.append(provision_json(agent, found))
        shown = rows[:limit]
        more = str(shown[-1]["agent"]) if len(rows) > limit else None
        return {
            "since": to_rfc3339(start),
            "recorded_since": _time(register.recorded_since),
            **page_json(shown, more),
        }

    def _allowed(self, agent: Principal, register: Register) -> Iterable[Allowed]:
        for name in agent.capabilities:
            pair, capability = (agent.name, name), self._capabilities.get(name)
            if capability is None:
                continue  # allowed in name only: it is no longer in the catalogue
            since = (register.allowed.get(pair, 0), register.recorded_since)
            yield Allowed(
                capability=capability,
                since=max(since) if all(since) else 0,
                used_at=register.uses.get(pair, 0),
            )


def provision_json(agent: Principal, found: Provision) -> dict[str, Any]:
    """What an agent was allowed, what it used, and what would have been enough."""
    return {
        "agent": agent.name,
        "owner": agent.owner,
        "state": agent.state,
        "allowed": [
            {
                "capability": row.capability.name,
                "power": row.capability.power,
                "watched_since": _time(row.since),
            }
            for row in sorted((*found.used, *found.unused), key=lambda row: row.capability.name)
        ],
        "used": [_use_json(row) for row in found.used],
        "unused": [
            {**_use_json(row), "too_new": row.capability.name in found.too_new}
            for row in found.unused
        ],
        "least": [row.capability.name for row in found.used],
        "power": {"allowed": found.highest_allowed, "used": found.highest_used},
    }


def _use_json(row: Allowed) -> dict[str, Any]:
    return {
        "capability": row.capability.name,
        "power": row.capability.power,
        "last_used_at": _time(row.used_at),
    }


def _is_working(principal: Principal) -> bool:
    return principal.role is Role.AGENT and principal.state is not PrincipalState.RETIRED


def _time(milliseconds: int) -> str | None:
    return to_rfc3339(milliseconds) if milliseconds else None
