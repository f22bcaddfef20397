"""What the broker answers those who look: at all of it, at themselves, at what would be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from broker.client.models import Freeze, Grant

_mapping = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Overview:
    """What lives, what dies next, what doesn't die, and how the broker and its backends are.

    ``next_to_die`` and ``not_dead`` are the first of many; ``checks`` has a word on each part.
    """

    at: datetime | None = None
    live: Mapping[str, Any] = field(default_factory=_mapping)
    unsettled: Mapping[str, Any] = field(default_factory=_mapping)
    next_to_die: tuple[Grant, ...] = ()
    not_dead: tuple[Grant, ...] = ()
    time_to_dead: Mapping[str, Any] = field(default_factory=_mapping)
    backends: tuple[Mapping[str, Any], ...] = ()
    freezes: tuple[Freeze, ...] = ()
    approvals: int = 0
    reviews: int = 0
    checks: Mapping[str, Any] = field(default_factory=_mapping)
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationPreview:
    """What a revocation would end, or isn't dead of it yet; ``grants`` are the first of them."""

    selector: str = ""
    matched: int = 0
    states: Mapping[str, Any] = field(default_factory=_mapping)
    tasks: int = 0
    agents: tuple[str, ...] = ()
    agents_in_all: int = 0
    by: tuple[Mapping[str, Any], ...] = ()
    grants: tuple[Grant, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun:
    """What policy would decide of a request, and why."""

    effect: str
    capability: str = ""
    agent: str = ""
    task_id: str | None = None
    reasons: tuple[str, ...] = ()
    ttl: str | None = None
    notes: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    obligations: Mapping[str, Any] = field(default_factory=_mapping)
    depends_on_arguments: tuple[str, ...] = ()
    explanation: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)
