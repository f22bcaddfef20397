"""What a human is asked, and the power that a task has for a while; as in ``models``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

_mapping = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovalNeed:
    """How many have to say yes, and how many have; without a ``group`` any operator counts."""

    group: str | None = None
    count: int = 1
    have: int = 0
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One person's yes or no, and why."""

    by: str
    at: datetime | None = None
    reason: str | None = None
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A question to humans about one exact request, and what became of it.

    ``pending``, then ``approved``, ``denied``, ``expired`` or ``cancelled``; an approved one is
    ``used`` once the same request is made again. ``request`` is what they say yes to, gone when
    it is over. Whoever asked isn't told who voted: ``votes`` is empty, ``needs`` has the counts.
    """

    approval_id: str
    state: str
    task_id: str = ""
    agent: str = ""
    owner: str = ""
    requester: str = ""
    on_behalf_of: str | None = None
    action: str = ""
    capability: str | None = None
    power: str | None = None
    digest: str = ""
    request: Mapping[str, Any] | None = None
    intent: str | None = None
    purpose: str = ""
    needs: tuple[ApprovalNeed, ...] = ()
    votes: tuple[Vote, ...] = ()
    created_at: datetime | None = None
    expires_at: datetime | None = None
    ended_at: datetime | None = None
    escalated_to: tuple[str, ...] = ()
    decision_id: str | None = None
    policies: tuple[str, ...] = ()
    reason: str | None = None
    used_by: str | None = None
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Elevation:
    """A capability that a task has for a window: approved, or by ``break_glass``.

    ``reason`` is why it ended. A broken glass has a ``review``, ``open`` until somebody closes it
    with ``findings``, and ``rotation`` says of each path that was read what became of changing it.
    """

    elevation_id: str
    state: str
    task_id: str = ""
    agent: str = ""
    owner: str = ""
    capability: str = ""
    power: str = ""
    break_glass: bool = False
    started_at: datetime | None = None
    expires_at: datetime | None = None
    heartbeat: str | None = None
    heartbeat_due_at: datetime | None = None
    ended_at: datetime | None = None
    settled_at: datetime | None = None
    reason: str | None = None
    intent: str | None = None
    by: str = ""
    approval_id: str | None = None
    rotation: Mapping[str, Any] | None = None
    review: str | None = None
    findings: str | None = None
    reviewed_by: str | None = None
    reviewed_at: datetime | None = None
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)
