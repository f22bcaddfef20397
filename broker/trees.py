"""A chain as a graph: its tasks, what each can do and has done, and what is live below it."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from broker.approvals import APPROVAL_MOVES
from broker.clock import to_rfc3339
from broker.elevations import elevations_of
from broker.errors import AccessDenied
from broker.reach import power_json, together
from broker.visibility import sees_all
from broker.wire import grant_json, task_json
from broker.wire_approvals import approval_json, elevation_json
from broker.wire_limits import amount_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from broker.access import Caller
    from broker.approvals import Approval
    from broker.ledger.chains import Member
    from broker.pipeline import Pipeline
    from broker.power import EffectivePower
    from broker.reach import Reach
    from broker.tasks import Task

MOST_TASKS: Final = 500
"""Tasks in one answer."""
_EACH: Final = 4
"""Grants in one answer for each of those tasks, on average; and approvals."""
_OF_TASK: Final = (
    *("task_id", "parent_task_id", "state", "agent", "owner", "purpose", "capabilities"),
    *("created_by", "on_behalf_of", "created_at", "expires_at", "heartbeat_due_at"),
    *("ended_at", "closed_at", "reason", "budget"),
)


class Trees:
    """Reads chains as graphs."""

    def __init__(self, pipeline: Pipeline, reach: Reach, *, most: int = MOST_TASKS) -> None:
        """Read what the pipeline writes; ``most`` tasks in one answer."""
        self._queries = pipeline.queries
        self._consents = pipeline.judge.consents
        self._reach = reach
        self._most = most

    async def of_task(
        self, caller: Caller, task: Task, *, whole: bool, limit: int = MOST_TASKS
    ) -> dict[str, Any]:
        """Return a task that concerns the caller, and all below it; or its ``whole`` chain.

        A node's power is what it can do together with all below it. ``chain`` is what the whole
        chain has done; an agent isn't told of that. ``limit`` makes it fewer tasks, and leaves
        these all that they hold.

        Raises:
            AccessDenied: an agent asks for the whole chain.
        """
        if whole and caller.task is not None:
            raise AccessDenied("An agent is shown its own task and what is below it.")
        tasks, most = min(limit, self._most), self._most * _EACH
        members = await self._members(task, tasks, whole=whole)
        shown = members[:tasks]
        ids = [m.task.id for m in shown]
        grants = await self._queries.chains.grants(ids, most=most)
        approvals = await self._queries.chains.approvals(ids, most=most)
        now = await self._queries.now()
        powers = self._reach.of_each(shown, grants[:most], now)
        of_grants = _by_task((g.task_id, grant_json(g)) for g in grants[:most])
        of_approvals = _by_task(
            (a.task_id, self._approval(a, insider=sees_all(caller)))
            for a in approvals[:most]
            if APPROVAL_MOVES[a.state]  # one that is denied is kept to answer repeats
        )
        return {
            "root_task_id": task.root_id,
            "task_id": task.id,
            "at": to_rfc3339(now),
            "chain": None if caller.task is not None else await self._chain(task, shown),
            "nodes": [
                {
                    **_node(member, powers[member.task.id]),
                    "grants": of_grants[member.task.id],
                    "elevations": _elevations(member.task, now),
                    "approvals": of_approvals[member.task.id],
                }
                for member in shown
            ],
            "edges": _edges(shown),
            "truncated": len(members) > len(shown) or max(len(grants), len(approvals)) > most,
        }

    async def _members(self, task: Task, most: int, *, whole: bool) -> list[Member]:
        chains = self._queries.chains
        found = await chains.below([task.root_id], most=most) if whole else []
        # The root may be forgotten already, and what is below it not yet.
        return found or await chains.below([task.id], most=most)

    async def _chain(self, task: Task, members: Sequence[Member]) -> dict[str, Any]:
        """What the chain has done, and the power that decisions see in it."""
        root = next((m for m in members if m.task.id == task.root_id), None)
        if root is None:
            root = next(iter(await self._queries.chains.members([task.root_id])), None)
        trail = root.chain if root else together(m.trail for m in members)
        return {
            "power": _power(self._reach.of_trail(trail)),
            "effects": sorted(trail.effects),
            "data_classes": sorted(trail.data_classes),
            "grants": trail.grants,
            "calls": trail.calls,
            "amount": amount_text(trail.amount),
            "tasks": root.tasks if root else len(members),
        }

    def _approval(self, approval: Approval, *, insider: bool) -> dict[str, Any]:
        # Not what was asked in detail: a reader above sees several levels down here.
        have = self._consents.yeses(approval)
        return approval_json(replace(approval, request=""), have, insider=insider)


def _node(member: Member, power: EffectivePower | None) -> dict[str, Any]:
    found = task_json(member.task)
    return {
        **{name: found[name] for name in _OF_TASK},
        "depth": member.task.depth,
        "power": _power(power),
        "effects": sorted(member.trail.effects),
        "data_classes": sorted(member.trail.data_classes),
    }


def _elevations(task: Task, now: int) -> list[dict[str, Any]]:
    return [elevation_json(task, e, live=True) for e in elevations_of(task) if e.live(now)]


def _edges(members: Sequence[Member]) -> list[dict[str, str]]:
    known = {m.task.id for m in members}
    return [
        {"from": m.task.parent_id, "to": m.task.id} for m in members if m.task.parent_id in known
    ]


def _power(power: EffectivePower | None) -> dict[str, Any]:
    found = power_json(power)
    return {"level": found["power"], "why": found["because"]}


def _by_task(rows: Iterable[tuple[str, dict[str, Any]]]) -> Mapping[str, list[dict[str, Any]]]:
    found: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    for task_id, row in rows:
        found[task_id].append(row)
    return found
