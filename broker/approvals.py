"""Approvals: a human yes to one exact request. Who may say it, when it is enough, how it ends.

An approval is bound to a digest of the exact request: who asks, under which task, for what, with
which parameters. It is good once, for a while, and not beyond its task. It is not a grant: policy
decides again when it is used, on what is known then.

Pure: nothing here reads a clock, the ledger or a configuration.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

ANYBODY: Final = ""
"""In place of a group: any operator."""


class ApprovalState(StrEnum):
    """Where an approval is in its life."""

    PENDING = "pending"
    APPROVED = "approved"
    DENIED = "denied"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    USED = "used"


S = ApprovalState

APPROVAL_MOVES: Final[dict[ApprovalState, frozenset[ApprovalState]]] = {
    S.PENDING: frozenset({S.APPROVED, S.DENIED, S.EXPIRED, S.CANCELLED}),
    S.APPROVED: frozenset({S.USED, S.EXPIRED, S.CANCELLED}),
    S.DENIED: frozenset(),
    S.EXPIRED: frozenset(),
    S.CANCELLED: frozenset(),
    S.USED: frozenset(),
}
"""Every legal move. The ledger's scripts are given this table and refuse any other."""


@dataclass(frozen=True, slots=True)
class Vote:
    """What one operator said. ``at`` is epoch milliseconds; a no counts for nothing."""

    by: str
    at: int
    reason: str
    yes: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A request for a human yes, as the ledger holds it. Times are epoch milliseconds.

    ``requester`` asks, ``subject`` is on whose behalf the task runs. ``action`` and ``capability``
    are what for, ``request`` is all of it, as JSON text for whoever has to decide; it is dropped
    when the approval has ended. ``needs`` says how many have to say yes, by group (``ANYBODY`` for
    any operator). ``ladder`` are the groups that are asked as well while nothing happens, each with
    the milliseconds after which; ``escalated`` are those asked already. ``channels`` are told.

    It waits until ``expires_at``; a yes is good for ``use_ms``. ``version`` counts its changes,
    ``used_by`` is what became of it.
    """

    id: str
    task_id: str
    agent: str
    owner: str
    orchestrator: str
    requester: str
    action: str
    digest: str
    needs: Mapping[str, int]
    use_ms: int
    decision_id: str = ""
    state: ApprovalState = ApprovalState.PENDING
    version: int = 0
    subject: str = ""
    capability: str = ""
    power: str = ""
    request: str = field(default="", repr=False)
    intent: str = ""
    purpose: str = ""
    votes: tuple[Vote, ...] = ()
    ladder: tuple[tuple[int, str], ...] = ()
    escalated: tuple[str, ...] = ()
    channels: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    created_at: int = 0
    expires_at: int = 0
    ended_at: int = 0
    reason: str = ""
    used_by: str = ""


@dataclass(frozen=True, slots=True)
class Yeses:
    """How many human yeses to exactly one request there are: in all, and by group.

    Without ``groups`` they are taken to be from whoever it takes: for requests that are imagined.
    ``waived`` says that nobody has to be asked: the glass is broken.
    """

    total: int = 0
    groups: Mapping[str, int] | None = None
    waived: bool = False

    def meet(self, needs: Mapping[str, int]) -> bool:
        """Say whether they are as many as are needed, of each group."""
        return self.waived or all(self._of(group) >= count for group, count in needs.items())

    def _of(self, group: str) -> int:
        if self.groups is None or group == ANYBODY:
            return self.total
        return self.groups.get(group, 0)


@dataclass(frozen=True, slots=True)
class Group:
    """Operators who may say yes. ``escalate_to`` is asked as well after ``escalate_ms``."""

    name: str
    members: frozenset[str]
    escalate_to: str = ""
    escalate_ms: int = 0


class Groups:
    """The groups that there are."""

    def __init__(self, groups: Iterable[Group] = ()) -> None:
        """Names are unique, and those that are escalated to exist: the configuration has looked."""
        self._groups = {group.name: group for group in groups}

    def ladder(self, needs: Mapping[str, int]) -> tuple[tuple[int, str], ...]:
        """Return who is asked as well, each with the milliseconds after which, soonest first."""
        found: dict[str, int] = {}
        for name in needs:
            after, group, seen = 0, self._groups.get(name), {name}
            while group is not None and group.escalate_to and group.escalate_to not in seen:
                after += group.escalate_ms
                seen.add(group.escalate_to)
                found[group.escalate_to] = min(after, found.get(group.escalate_to, after))
                group = self._groups.get(group.escalate_to)
        return tuple(sorted((after, name) for name, after in found.items()))

    def may_vote(self, name: str, needs: Mapping[str, int], escalated: Container[str]) -> bool:
        """Say whether an operator's yes could count for anything that is needed."""
        return any(name in self._voters(group, escalated, {name}) for group in needs)

    def count(
        self, votes: Sequence[Vote], needs: Mapping[str, int], escalated: Container[str]
    ) -> Yeses:
        """Count votes; each counts for every group that the voter is in or stands in for."""
        names = {vote.by for vote in votes if vote.yes}
        by_group = {g: len(self._voters(g, escalated, names)) for g in needs if g != ANYBODY}
        return Yeses(len(names), by_group)

    def _voters(self, group: str, escalated: Container[str], names: set[str]) -> frozenset[str]:
        """Return which of some operators are in a group, or in one that it was escalated to."""
        if group == ANYBODY:
            return frozenset(names)
        found: frozenset[str] = frozenset()
        seen: set[str] = set()
        known = self._groups.get(group)
        while known is not None and known.name not in seen:
            seen.add(known.name)
            found |= known.members & names
            following = known.escalate_to
            known = self._groups.get(following) if following in escalated else None
        return found


def needed(approvals: int, approvers: Iterable[tuple[str, int]]) -> Mapping[str, int]:
    """Return how many yeses are needed by group; those of the groups count for all."""
    groups = {name: count for name, count in sorted(approvers) if count}
    most = max(groups.values(), default=0)
    return groups if groups and approvals <= most else {**groups, ANYBODY: approvals}


def digest_of(request: Mapping[str, Any]) -> str:
    """Name an exact request: the same members and values have the same digest, nothing else has.

    Values are JSON; numbers are compared as they are written, 1 and 1.0 differ.
    """
    text = json.dumps(request, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
