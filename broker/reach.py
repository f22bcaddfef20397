"""What tasks and agents can do now, read from the ledger: see ``power.py`` for the rule."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from broker.catalog import Capability, Power
from broker.elevations import elevations_of
from broker.power import effective_power, power_of_trail
from broker.tasks import TaskState
from broker.trail import Trail

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from broker.grants import Grant
    from broker.ledger.chains import Member
    from broker.pipeline import Pipeline
    from broker.power import EffectivePower
    from broker.tasks import Task


class Reach:
    """Computes effective power, of what is live."""

    def __init__(self, pipeline: Pipeline) -> None:
        """Read what the pipeline writes."""
        self._queries = pipeline.queries
        self._catalog = pipeline.catalog
        self._private = pipeline.judge.private

    async def of_task(self, task: Task, *, whole: bool) -> dict[str, Any]:
        """Return the power of a task with its ``whole`` chain, or with what is below it alone."""
        chains = self._queries.chains
        # The root may be forgotten already, and its child not yet.
        members = await chains.below([task.root_id, task.id] if whole else [task.id])
        grants = await chains.grants(m.task.id for m in members)
        usable = self._usable(members, grants, await self._queries.now())
        root = next((m for m in members if m.task.id == task.root_id), None)
        trail = root.chain if whole and root is not None else together(m.trail for m in members)
        now = effective_power(usable, trail, self._private)
        mine = next((m.trail for m in members if m.task.id == task.id), Trail())
        chain = {"root_task_id": task.root_id, "tasks": root.tasks if root else len(members)}
        return {
            "task_id": task.id,
            **power_json(now if _is_alive(members, grants) else None),
            "exposure": {
                "private": now.exposure.private,
                "untrusted": now.exposure.untrusted,
                "egress": now.exposure.egress,
            },
            "usable": sorted({c.name for c in usable}),
            "own": self._trail_json(mine),
            "chain": {**chain, **self._trail_json(trail)} if whole else None,
        }

    async def of_agent(self, agent: str) -> EffectivePower | None:
        """Return the most that an agent can do in any live task, by its chain; None without one."""
        chains = self._queries.chains
        ids = await chains.run_by(agent)
        roots = [member.task.root_id for member in await chains.members(ids)]
        members = await chains.below([*roots, *ids])
        grants = await chains.grants(m.task.id for m in members)
        by_chain: defaultdict[str, list[Member]] = defaultdict(list)
        for member in members:
            by_chain[member.task.root_id].append(member)
        held: defaultdict[str, list[Grant]] = defaultdict(list)
        for grant in grants:
            held[grant.task_id].append(grant)
        now = await self._queries.now()
        found: list[EffectivePower] = []
        for root_id, chain in by_chain.items():
            mine = [m for m in chain if m.task.agent == agent]
            if not _is_alive(mine, [grant for m in mine for grant in held[m.task.id]]):
                continue
            live = [grant for m in chain for grant in held[m.task.id]]
            usable = self._usable(chain, live, now)
            trail = next((m.chain for m in chain if m.task.id == root_id), None)
            trail = trail or together(m.trail for m in chain)
            found.append(effective_power(usable, trail, self._private))
        return max(found, key=lambda power: power.power.rank, default=None)

    def of_each(
        self, members: Sequence[Member], grants: Sequence[Grant], now_ms: int
    ) -> dict[str, EffectivePower | None]:
        """Return by id what each task can do with what is below it; None where nothing is live.

        ``members`` are given parents first, with what they hold.
        """
        below: defaultdict[str, list[Member]] = defaultdict(list)
        held: defaultdict[str, list[Grant]] = defaultdict(list)
        for grant in grants:
            held[grant.task_id].append(grant)
        found: dict[str, EffectivePower | None] = {}
        for member in reversed(members):
            task = member.task
            part = [member, *below.pop(task.id, [])]
            if task.parent_id:
                below[task.parent_id] += part
            theirs = [grant for m in part for grant in held[m.task.id]]
            usable, trail = self._usable(part, theirs, now_ms), together(m.trail for m in part)
            power = effective_power(usable, trail, self._private)
            found[task.id] = power if _is_alive(part, theirs) else None
        return found

    def of_trail(self, trail: Trail) -> EffectivePower:
        """Return the power that decisions see in what was done."""
        return power_of_trail(trail, self._private)

    def _usable(
        self, members: Sequence[Member], grants: Sequence[Grant], now_ms: int
    ) -> list[Capability]:
        """Return the capabilities of what isn't confirmed dead, and the tools that may be called.

        What is being revoked may still work.
        """
        found = {grant.capability: self._capability(grant) for grant in grants}
        for task in (m.task for m in members if m.task.state is TaskState.ACTIVE):
            agent = self._catalog.principals.get(task.agent)
            more = {e.capability for e in elevations_of(task) if e.live(now_ms)}
            able = more.union(task.capabilities)
            for name in able & (agent.capabilities if agent else frozenset()):
                capability = self._catalog.capabilities.get(name)
                if capability is not None and capability.is_tool:
                    found[name] = capability
        return list(found.values())

    def _capability(self, grant: Grant) -> Capability:
        # One that the configuration has lost is at least what its grant says.
        known = self._catalog.capabilities.get(grant.capability)
        return known or Capability(grant.capability, Power(grant.power), grant.backend, 0, 0)

    def _trail_json(self, trail: Trail) -> dict[str, Any]:
        """What was done, and the power that decisions see in it."""
        return {
            "effects": sorted(trail.effects),
            "data_classes": sorted(trail.data_classes),
            "grants": trail.grants,
            "calls": trail.calls,
            **power_json(self.of_trail(trail)),
        }


def power_json(power: EffectivePower | None) -> dict[str, Any]:
    """A power and why it is that one; without any where nothing is live."""
    if power is None:
        return {"power": None, "because": ["nothing is live"]}
    return {"power": power.power, "because": list(power.because)}


def together(trails: Iterable[Trail]) -> Trail:
    """Return what several did."""
    found = list(trails)
    return Trail(
        effects=frozenset[str]().union(*(t.effects for t in found)),
        data_classes=frozenset[str]().union(*(t.data_classes for t in found)),
        ways=frozenset[str]().union(*(t.ways for t in found)),
        grants=sum(t.grants for t in found),
        calls=sum(t.calls for t in found),
        amount=sum(t.amount for t in found),
        rank=max((t.rank for t in found), default=0),
    )


def _is_alive(members: Iterable[Member], grants: Sequence[Grant]) -> bool:
    return bool(grants) or any(m.task.state is TaskState.ACTIVE for m in members)
