"""What the broker answers about reconciling: what ledger, backends and targets disagree on."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

_mapping = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """One finding. ``place`` is a backend or a target, ``subject`` what it is about there.

    ``action`` is what applying does, ``outcome`` what became of it.
    """

    kind: str
    place: str
    subject: str
    evidence: str = ""
    action: str = ""
    outcome: str = ""
    task_id: str | None = None
    grant_id: str | None = None
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quarantine:
    """Since when nothing is issued, and why."""

    since: datetime | None = None
    why: str = ""
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconciliation:
    """What a run found; ``found`` and ``outcomes`` count, ``omitted`` are for the next run.

    ``problems`` are sides that could not be looked at. ``agreement`` says that nothing is left.
    """

    at: datetime | None = None
    applied: bool = False
    backend: str | None = None
    agreement: bool = False
    findings: tuple[Disagreement, ...] = ()
    found: Mapping[str, Any] = field(default_factory=_mapping)
    outcomes: Mapping[str, Any] = field(default_factory=_mapping)
    omitted: int = 0
    problems: tuple[str, ...] = ()
    quarantine: Quarantine | None = None
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)
