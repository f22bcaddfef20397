"""What the register says of principals, and what follows from it; no I/O.

The register is what changed since the configuration was written: principals added at run time, and
for every principal its state, its owner after a hand-over, and its reviews. Configuration and
register together are who there is (``view``).

What must hold in every shard at once is written there as *marks*, which the scripts look at:

=================  ==========================================================================
``suspended:NAME`` nothing for this principal, and no token of its own is good
``left:OWNER``     nothing for anybody of this owner
``owned:NAME``     whose the principal is now, where a task or a token may still say otherwise
``since:NAME``     when it came back: tokens from before stay dead
=================  ==========================================================================

Marks follow from the register alone, so a change that was cut short can be finished by anybody.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final, cast

from broker.catalog import Principal, PrincipalState
from broker.identity.models import Role
from broker.identity.rules import IdentityRule, Rule
from broker.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

log = get_logger("register")
MARKS: Final = ("suspended", "left", "owned", "since")
"""The kinds of marks; no freeze of an operator's has a name like these."""
Mark = tuple[str, str | None]
"""A mark's name, and what it says; None where there must be none."""
Pair = tuple[str, str]
"""An agent and a capability."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """What the register says of one principal. Times are epoch milliseconds, 0 for never.

    ``owner`` is empty unless it was handed over or added at run time. ``back_at`` is when it was
    last resumed. ``added`` defines one that was added at run time, and is empty for others.
    """

    name: str
    state: PrincipalState = PrincipalState.ACTIVE
    state_at: int = 0
    state_by: str = ""
    state_reason: str = ""
    back_at: int = 0
    owner: str = ""
    handed_over_at: int = 0
    review_at: int = 0
    reviewed_at: int = 0
    reviewed_by: str = ""
    review_note: str = ""
    added_at: int = 0
    added_by: str = ""
    added: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnerEntry:
    """What the register says of an owner: whether they left, and when that changed."""

    owner: str
    left: bool
    at: int
    by: str = ""
    reason: str = ""
    handed_to: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Register:
    """All of it at one time. ``version`` counts changes.

    ``used`` is when a principal last got a token, ``seen`` when one of the configuration was first
    met. ``todo`` are changes whose effects may not have reached every shard and task yet, with the
    version and the time they were made at.

    ``uses`` is when an agent last used a capability, ``allowed`` since when a broker has seen that
    it may. Uses are written down since ``recorded_since``; 0 if they never were.
    """

    version: int = 0
    entries: Mapping[str, Entry] = field(default_factory=dict[str, Entry])
    owners: Mapping[str, OwnerEntry] = field(default_factory=dict[str, OwnerEntry])
    used: Mapping[str, int] = field(default_factory=dict[str, int])
    seen: Mapping[str, int] = field(default_factory=dict[str, int])
    todo: Mapping[str, tuple[int, int]] = field(default_factory=dict[str, tuple[int, int]])
    uses: Mapping[Pair, int] = field(default_factory=dict[Pair, int])
    allowed: Mapping[Pair, int] = field(default_factory=dict[Pair, int])
    recorded_since: int = 0

    def entry(self, name: str) -> Entry:
        """Return what it says of a principal; an entry without news if it says nothing."""
        return self.entries.get(name) or Entry(name=name)

    def has_left(self, owner: str) -> bool:
        """Say whether an owner is gone."""
        known = self.owners.get(owner)
        return known is not None and known.left

    def changed(self, entries: Iterable[Entry], owners: Iterable[OwnerEntry]) -> Register:
        """Return it with these entries in place of those of the same names, one version on."""
        return replace(
            self,
            version=self.version + 1,
            entries={**self.entries, **{entry.name: entry for entry in entries}},
            owners={**self.owners, **{owner.owner: owner for owner in owners}},
        )


def written(entry: Entry | OwnerEntry) -> dict[str, Any]:
    """Return an entry as it is stored: what is empty is left out."""
    return {key: value for key, value in asdict(entry).items() if value not in ("", 0, {})}


def read_entry(name: str, row: Mapping[str, Any]) -> Entry:
    """Read a stored entry. What a newer broker added to it is left alone."""
    known = {f.name for f in fields(Entry)}
    values: dict[str, Any] = {key: value for key, value in row.items() if key in known}
    values["state"] = PrincipalState(values.get("state", PrincipalState.ACTIVE))
    values["name"] = name
    return Entry(**values)


def read_owner(owner: str, row: Mapping[str, Any]) -> OwnerEntry:
    """Read a stored owner; as ``read_entry``."""
    known = {f.name for f in fields(OwnerEntry)}
    values: dict[str, Any] = {"left": False, "at": 0}
    values |= {key: value for key, value in row.items() if key in known}
    values["owner"] = owner
    return OwnerEntry(**values)


def view(configured: Iterable[Principal], register: Register) -> dict[str, Principal]:
    """Return everybody there is, as they are now.

    The configuration wins where it has a name that was added at run time as well. A principal whose
    owner left counts as suspended. A retired one keeps its name and nothing by which to prove it.
    """
    found = {principal.name: principal for principal in configured}
    for entry in register.entries.values():
        if entry.added and entry.name not in found:
            try:
                found[entry.name] = _defined(entry)
            except (KeyError, ValueError, TypeError) as error:
                # Written by a broker that knew more than this one: it stays unknown here.
                log.error("principal left out", principal=entry.name, error=type(error).__name__)  # noqa: TRY400  its values stay out of the log
    return {name: _as_now(principal, register) for name, principal in found.items()}


def _as_now(principal: Principal, register: Register) -> Principal:
    entry = register.entry(principal.name)
    owner = entry.owner or principal.owner
    state = entry.state
    if state is PrincipalState.ACTIVE and register.has_left(owner):
        state = PrincipalState.SUSPENDED
    now = replace(
        principal, owner=owner, state=state, review_at=entry.review_at or principal.review_at
    )
    if state is PrincipalState.RETIRED:
        return replace(now, identity=None, jwks="", jwks_file=None, resource="")
    return now


def _defined(entry: Entry) -> Principal:
    """Return a principal that was added at run time, as it was then."""
    added: dict[str, Any] = dict(entry.added)
    return Principal(
        name=entry.name,
        role=Role(added["role"]),
        owner=entry.owner,
        identity=read_rule(added["identity"]) if "identity" in added else None,
        jwks=added.get("jwks", ""),
        purpose=added.get("purpose", ""),
        review_at=added.get("review_at", 0),
        capabilities=frozenset(added.get("capabilities", ())),
        resource=added.get("resource", ""),
        max_ttl_ms=added.get("max_ttl_ms", 0),
        delegates_to=frozenset(added["delegates_to"]) if "delegates_to" in added else None,
        registered=True,
    )


def read_rule(row: Mapping[str, Any]) -> IdentityRule:
    """Read an identity rule as ``written_rule`` writes it."""
    subject = row.get("subject")
    claims = cast("dict[str, object]", row.get("claims", {}))
    return IdentityRule(
        str(row["issuer"]),
        None if subject is None else Rule.parse(subject),
        {name: Rule.parse(rule) for name, rule in claims.items()},
    )


def written_rule(rule: IdentityRule) -> dict[str, Any]:
    """Return a rule as it stands in a request, an answer and the register."""
    row: dict[str, Any] = {"issuer": rule.issuer_name}
    if rule.subject is not None:
        row["subject"] = rule.subject.written
    if rule.claims:
        row["claims"] = {name: claim.written for name, claim in rule.claims.items()}
    return row


def marks_of(register: Register, name: str, owner: str) -> list[Mark]:
    """Return the marks of a principal, which is ``owner``'s."""
    entry = register.entry(name)
    known = register.owners.get(owner)
    left = known is not None and known.left
    back_at = entry.back_at
    if known is not None and not left and known.at > entry.handed_over_at:
        back_at = max(back_at, known.at)  # the owner came back, and the principal with them
    stopped = entry.state is not PrincipalState.ACTIVE
    return [
        (f"suspended:{name}", "" if stopped else None),
        (f"owned:{name}", owner if left or entry.handed_over_at else None),
        (f"since:{name}", str(back_at) if back_at else None),
    ]


def marks_of_owner(register: Register, owner: str) -> list[Mark]:
    """Return the mark of an owner."""
    return [(f"left:{owner}", "" if register.has_left(owner) else None)]


def all_marks(register: Register, principals: Mapping[str, Principal]) -> dict[str, str]:
    """Return every mark there must be, and no other may."""
    owners = {name: entry.owner for name, entry in register.entries.items()}
    owners |= {name: principal.owner for name, principal in principals.items()}
    marks = [mark for name, owner in owners.items() for mark in marks_of(register, name, owner)]
    marks += [mark for owner in register.owners for mark in marks_of_owner(register, owner)]
    return {name: said for name, said in marks if said is not None}
