"""What the broker answers about policies: those in force, who could, and why it decided so."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from broker.client.models import GrantCounts

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

_mapping = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """One policy. ``effect`` is ``permit`` or ``forbid``, ``policy`` its ``@id``."""

    policy: str
    file: str = ""
    effect: str = ""
    advice: str | None = None
    obligations: Mapping[str, Any] = field(default_factory=_mapping)
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySet:
    """Policies that are only tried out."""

    set: str
    policies: tuple[Policy, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Policies:
    """The policies in force. ``problem`` says why those in the folder aren't, if so."""

    digest: str
    problem: str | None = None
    remote: str | None = None
    policies: tuple[Policy, ...] = ()
    observed: tuple[PolicySet, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReloadedPolicies:
    """Whether the policies had changed; ``grants`` are those that they didn't allow any more."""

    changed: bool
    digest: str = ""
    grants: GrantCounts = field(default_factory=GrantCounts)
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """An agent, and what would be decided if it asked."""

    agent: str
    effect: str
    owner: str = ""
    reasons: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    obligations: Mapping[str, Any] = field(default_factory=_mapping)
    depends_on_arguments: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class WhoCan:
    """All agents, those that can have the capability, or call the tool, first."""

    capability: str
    items: tuple[Candidate, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainedDecision:
    """What was decided of which question; and why, by the policies of now.

    ``question`` and ``explanation`` are None where no policy was asked.
    """

    decision_id: str
    time: datetime | None = None
    task_id: str | None = None
    principal: str = ""
    said: Mapping[str, Any] = field(default_factory=_mapping)
    question: Mapping[str, Any] | None = None
    explanation: Mapping[str, Any] | None = None
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)
