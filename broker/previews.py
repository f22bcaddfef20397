"""What a revocation would end, said before it is done; and asked again, what of it isn't dead yet.

It reads what would be revoked and changes nothing. What is issued after it was asked is not in it.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from broker.errors import NotFound
from broker.grants import GrantState
from broker.tasks import TaskState
from broker.wire import grant_json

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.grants import Grant
    from broker.ledger.chains import Chains, Member
    from broker.pipeline import Pipeline
    from broker.wire import Selector

_SHOWN: Final = 20
_NAMES: Final = 50
_ORDER: Final = (GrantState.STUCK, GrantState.REVOKING, GrantState.PENDING, GrantState.ACTIVE)
_LIVE: Final = (TaskState.ACTIVE, TaskState.PENDING_APPROVAL)


class Previews:
    """Looks by the same rules as revoking goes by: some selectors take tasks, some grants alone."""

    def __init__(self, pipeline: Pipeline) -> None:
        """Look into the pipeline's ledger."""
        self._queries = pipeline.queries
        self._catalog = pipeline.catalog
        self._backends = tuple(pipeline.backends)

    async def of(self, selector: Selector) -> dict[str, Any]:
        """Return the preview as ``POST /v1/revocations/preview`` answers it.

        Raises:
            NotFound: there is no such grant.
        """
        chains = self._queries.chains
        members, grants = await self._matched(chains, selector)
        live = [m.task for m in members if m.task.state in _LIVE]
        grants.sort(key=lambda g: (_ORDER.index(g.state), g.expires_at, g.id))
        states = Counter(grant.state for grant in grants)
        agents = sorted({grant.agent for grant in grants} | {task.agent for task in live})
        return {
            "selector": selector.field,
            "matched": len(grants),
            "states": {state.value: states[state] for state in _ORDER},
            "tasks": len(live),
            "agents": agents[:_NAMES],
            "agents_in_all": len(agents),
            "by": self._by(grants),
            "grants": [grant_json(grant) for grant in grants[:_SHOWN]],
        }

    async def _matched(
        self, chains: Chains, selector: Selector
    ) -> tuple[Sequence[Member], list[Grant]]:
        kind, value = selector.item
        match kind:
            case "grant_id":
                grant = await self._queries.grant(value)
                if grant is None:
                    raise NotFound("There is no such grant.")
                return (), _not_dead([grant])
            case "task_id" | "agent" | "owner":
                ids = [value]
                if kind != "task_id":
                    prefix = {"agent": "ta", "owner": "to"}[kind]
                    ids = await self._queries.live_under(f"{prefix}|{value}|")
                members = await chains.below(ids)
                grants = await chains.grants(member.task.id for member in members)
                return members, _not_dead(grants)
            case "all":
                members = await chains.members(await self._queries.live_under("ta|"))
                prefixes = ["gc|"]
            case "backend":
                members, prefixes = [], [f"gc|{value}|"]
            case _:
                members, prefixes = [], [f"gc|{name}|{value}|" for name in self._backends]
        ids = [i for prefix in prefixes for i in await self._queries.live_under(prefix)]
        return members, _not_dead(await chains.grant_rows(ids))

    def _by(self, grants: Sequence[Grant]) -> list[dict[str, Any]]:
        """Count by what they are, those first that can do most."""
        counts = Counter((g.backend, g.capability, str(g.power), self._ends(g)) for g in grants)
        rank = {"privileged": 0, "operate": 1, "read": 2}
        return [
            {
                "backend": backend,
                "capability": capability,
                "power": power,
                "revocability": ends,
                "count": count,
            }
            for (backend, capability, power, ends), count in sorted(
                counts.items(), key=lambda item: (rank.get(item[0][2], 3), item[0])
            )
        ]

    def _ends(self, grant: Grant) -> str | None:
        known = self._catalog.capabilities.get(grant.capability)
        return str(grant.revocability or (known.revocability if known else "")) or None


def _not_dead(grants: Sequence[Grant]) -> list[Grant]:
    return [grant for grant in grants if grant.state in _ORDER]
