"""What the broker answers about a chain as a graph."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from broker.client.approvals import Approval, Elevation
    from broker.client.models import Grant

_mapping = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerLevel:
    """A power, and why it is that one; None where nothing is live."""

    level: str | None = None
    why: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainDone:
    """What all tasks of a chain have done, and the power that decisions see in it.

    ``amount`` is a decimal.
    """

    power: PowerLevel = PowerLevel()
    effects: tuple[str, ...] = ()
    data_classes: tuple[str, ...] = ()
    grants: int = 0
    calls: int = 0
    amount: str = ""
    tasks: int = 0
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TreeNode:
    """A task, what it can do with all below it, what it has done itself, and what it holds."""

    task_id: str
    state: str
    parent_task_id: str | None = None
    agent: str = ""
    owner: str = ""
    purpose: str = ""
    capabilities: tuple[str, ...] = ()
    created_by: str | None = None
    on_behalf_of: str | None = None
    created_at: datetime | None = None
    expires_at: datetime | None = None
    heartbeat_due_at: datetime | None = None
    ended_at: datetime | None = None
    closed_at: datetime | None = None
    reason: str | None = None
    budget: Mapping[str, Any] | None = None
    depth: int = 0
    power: PowerLevel = PowerLevel()
    effects: tuple[str, ...] = ()
    data_classes: tuple[str, ...] = ()
    grants: tuple[Grant, ...] = ()
    elevations: tuple[Elevation, ...] = ()
    approvals: tuple[Approval, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskTree:
    """A task and all below it, parents first; ``edges`` are ``{"from": …, "to": …}``.

    Countdowns count from ``at``, the broker's time. Where it is ``truncated`` there is more than
    is shown. An agent isn't told of the ``chain``.
    """

    root_task_id: str
    task_id: str
    at: datetime | None = None
    chain: ChainDone | None = None
    nodes: tuple[TreeNode, ...] = ()
    edges: tuple[Mapping[str, Any], ...] = ()
    truncated: bool = False
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)
