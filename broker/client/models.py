"""What the broker answers, as frozen objects.

Members that a newer broker adds are kept in ``extra``, and states are plain text, so an old client
still reads a new broker's answers.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from broker.client.credential import Credential
    from broker.client.power import CapabilityUse, Power

_mapping = dict[str, Any]
Selector: TypeAlias = "Mapping[str, Any]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """The unit of work, and of revocation. ``notes`` say what the broker changed, and why."""

    task_id: str
    state: str
    agent: str = ""
    owner: str = ""
    purpose: str = ""
    capabilities: tuple[str, ...] = ()
    created_at: datetime | None = None
    expires_at: datetime | None = None
    parent_task_id: str | None = None
    root_task_id: str = ""
    created_by: str = ""
    on_behalf_of: str = ""
    heartbeat: str | None = None
    heartbeat_due_at: datetime | None = None
    ended_at: datetime | None = None
    reason: str | None = None
    summary: str | None = None
    limits: Mapping[str, Any] = field(default_factory=_mapping)
    budget: Mapping[str, Any] | None = None
    notes: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuedGrant:
    """A grant just made, with its credential. The broker has forgotten the credential by now."""

    grant_id: str
    state: str
    credential: Credential
    capability: str = ""
    expires_at: datetime | None = None
    replaces: str | None = None
    notes: tuple[str, ...] = ()
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """One credential under one task, as the ledger knows it: never the credential itself."""

    grant_id: str
    state: str
    task_id: str = ""
    agent: str = ""
    capability: str = ""
    backend: str = ""
    power: str = ""
    created_at: datetime | None = None
    expires_at: datetime | None = None
    revoke_requested_at: datetime | None = None
    ended_at: datetime | None = None
    ends_by_itself_at: datetime | None = None
    account: str | None = None
    revocability: str | None = None
    evidence: str | None = None
    statement: str | None = None
    time_to_dead_ms: int | None = None
    attempts: int = 0
    next_attempt_at: datetime | None = None
    reason: str | None = None
    error: str | None = None
    intent: str | None = None
    replaces: str | None = None
    replaced_by: str | None = None
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The signed receipt of a grant that has ended, and what it says: ``confirmed``, ``evidence``.

    Keep ``receipt``, a JWS, with the broker's key set of the time; the claims are there to be read.
    """

    receipt: str
    claims: Mapping[str, Any]
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RenewedGrant(Grant):
    """A grant that lives longer now; ``notes`` say what was shortened."""

    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class GrantCounts:
    """How many grants are confirmed dead, are being killed, and were given up unconfirmed."""

    revoked: int = 0
    revoking: int = 0
    abandoned: int = 0
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskEnd:
    """What ending a task did."""

    state: str
    grants: GrantCounts = GrantCounts()
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Revocation:
    """What a revocation matched. ``revoking`` ones are on their way, not yet confirmed dead.

    Nobody confirms that an ``abandoned`` one works no more.
    """

    revocation_id: str
    matched: int = 0
    revoked: int = 0
    revoking: int = 0
    abandoned: int = 0
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """A standing order: nothing that the selector matches is issued until it is thawed."""

    selector: Selector
    reason: str | None = None
    by: str = ""
    at: datetime | None = None
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """A limit of live credentials, or with a ``window`` of how many are issued in each.

    ``limit`` says of what ``name`` is the name: ``max_live_per_agent``. Of a rate, ``used`` is what
    isn't there again yet.
    """

    limit: str
    name: str
    most: int = 0
    window: str | None = None
    used: int = 0
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """What is reported of a task, an agent or an owner; without ``expires_at`` until taken back."""

    selector: Selector
    risk: int = 0
    verdict: str = "clean"
    by: str = ""
    reason: str | None = None
    at: datetime | None = None
    expires_at: datetime | None = None
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedSignal(Signal):
    """A signal just reported, and what became of the grants that policy doesn't allow any more."""

    reviewed: GrantCounts = GrantCounts()


@dataclass(frozen=True, slots=True, kw_only=True)
class SigningKey:
    """A signing key of the broker's: ``next``, ``signing`` or ``retiring``."""

    kid: str
    state: str
    algorithm: str = ""
    created_at: datetime | None = None
    signs_from: datetime | None = None
    retires_at: datetime | None = None
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class RotatedKey(SigningKey):
    """A signing key just made; ``removed`` are those that it has killed."""

    reason: str | None = None
    removed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A workload or person that may call. ``state`` is its own; ``owner_left`` stops it as well.

    ``due`` says why somebody must look at it: ``unused``, ``review``.
    """

    name: str
    role: str
    state: str
    state_reason: str | None = None
    state_changed_at: datetime | None = None
    state_changed_by: str | None = None
    owner: str = ""
    owner_left: bool = False
    purpose: str | None = None
    identity: Mapping[str, Any] | None = None
    capabilities: tuple[str, ...] = ()
    resource: str | None = None
    max_ttl: str | None = None
    delegates_to: tuple[str, ...] | None = None
    registered: bool = False
    since: datetime | None = None
    added_by: str | None = None
    review_by: datetime | None = None
    reviewed_at: datetime | None = None
    reviewed_by: str | None = None
    review_note: str | None = None
    last_used_at: datetime | None = None
    due: tuple[str, ...] = ()
    overdue_at: datetime | None = None
    live_grants: int = 0
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownPrincipal(Principal):
    """A principal asked for by name: of an agent also what it can do now, and what it has used."""

    effective_power: Power | None = None
    granted: tuple[CapabilityUse, ...] = ()
    used: tuple[CapabilityUse, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedPrincipal(Principal):
    """A principal in its new state, and what became of its grants."""

    grants: GrantCounts = GrantCounts()


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """Who answers for some principals; ``state`` is ``active`` or ``left``."""

    owner: str
    state: str
    changed_at: datetime | None = None
    changed_by: str | None = None
    reason: str | None = None
    handed_over_to: str | None = None
    principals: tuple[str, ...] = ()
    live_grants: int = 0
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class MovedOwner(Owner):
    """An owner who left, and what became of the grants of those who were theirs."""

    grants: GrantCounts = GrantCounts()


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEvent:
    """One line of the tamper-evident log."""

    id: str
    type: str
    time: datetime | None = None
    task_id: str | None = None
    grant_id: str | None = None
    principal: str | None = None
    data: Mapping[str, Any] = field(default_factory=_mapping)
    extra: Mapping[str, Any] = field(default_factory=_mapping, repr=False)
