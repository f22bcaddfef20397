"""What the broker answers about power: what tasks and agents can do, and what they have used."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

_mapping = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """A power and why it is that one; None where nothing is live."""

    power: str | None = None
    because: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrailPower(Power):
    """What was done so far, and the power that decisions see in it."""

    effects: tuple[str, ...] = ()
    data_classes: tuple[str, ...] = ()
    grants: int = 0
    calls: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainPower(TrailPower):
    """What all tasks of a chain have done."""

    root_task_id: str
    tasks: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskPower(Power):
    """What a task and its chain can do now, taken together.

    ``usable`` are the capabilities of live credentials, and the tools that may be called. What a
    task itself has done is its ``own``; an agent isn't told of the ``chain``.
    """

    task_id: str
    exposure: Mapping[str, Any] = field(default_factory=_mapping)
    usable: tuple[str, ...] = ()
    own: TrailPower = TrailPower()
    chain: ChainPower | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CapabilityUse:
    """A capability of an agent's, and what was asked of it: its last use, for one.

    With ``too_new`` it wasn't allowed or watched for long enough for no use to say something;
    ``watched_since`` is from when on a use would have been seen.
    """

    capability: str
    power: str | None = None
    last_used_at: datetime | None = None
    watched_since: datetime | None = None
    too_new: bool | None = None
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerRange:
    """The highest power that is allowed, and the highest that was used."""

    allowed: str | None = None
    used: str | None = None
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentPower:
    """What an agent is allowed against what it used; ``least`` would have been enough."""

    agent: str
    owner: str = ""
    state: str = ""
    allowed: tuple[CapabilityUse, ...] = ()
    used: tuple[CapabilityUse, ...] = ()
    unused: tuple[CapabilityUse, ...] = ()
    least: tuple[str, ...] = ()
    power: PowerRange = PowerRange()
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnusedPower:
    """Agents by name. Uses count from ``since``, and are known from ``recorded_since``."""

    items: tuple[AgentPower, ...]
    since: datetime | None = None
    recorded_since: datetime | None = None
    next: str | None = None
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)
