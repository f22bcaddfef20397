"""Principals and owners over the wire: requests as the broker accepts them, answers as it gives."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, time
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from broker.catalog import PrincipalState
from broker.clock import to_rfc3339
from broker.durations import format_duration
from broker.register import written_rule
from broker.wire import Duration, Name, Request, Text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.catalog import Capability, Principal
    from broker.register import OwnerEntry, Register

MAX_KEYS_CHARS = 16 * 1024


def _owner(value: str) -> str:
    if "|" in value or value != value.strip() or not value.isprintable():
        msg = "must be one line of text without '|', and without spaces around it"
        raise ValueError(msg)
    return value


def _end_of_day(value: object) -> int:
    try:
        day = date.fromisoformat(value) if isinstance(value, str) else None
    except ValueError:
        day = None
    if day is None or str(day) != value:  # fromisoformat() reads more than one way of writing it
        msg = 'must be a date such as "2027-06-30"'
        raise ValueError(msg)
    return int(datetime.combine(day, time.max, UTC).timestamp() * 1000)


def _keys(value: dict[str, Any]) -> dict[str, Any]:
    try:
        size = len(json.dumps(value, allow_nan=False))
    except (ValueError, RecursionError):
        msg = "must be plain JSON"
        raise ValueError(msg) from None
    if size > MAX_KEYS_CHARS:
        msg = f"must be at most {MAX_KEYS_CHARS} characters of JSON"
        raise ValueError(msg)
    return value


Owner = Annotated[
    str,
    Field(min_length=1, max_length=320, json_schema_extra={"pattern": r"^[^\s|]([^|]*[^\s|])?$"}),
    AfterValidator(_owner),
]
"""Who answers for a principal: a person or a team, written the same way everywhere."""
Day = Annotated[
    int, BeforeValidator(_end_of_day), WithJsonSchema({"type": "string", "format": "date"})
]
"""A date on the wire; inside, the end of that day in UTC, in epoch milliseconds."""
Rule = Annotated[
    str | int | bool | list[str | int | bool] | dict[str, str],
    Field(description='A value, a list of values, or {"match": "pattern"}.'),
]


class ProvedBy(Request):
    """How a principal proves itself: by an issuer's token, or with a key of its own.

    ``issuer`` is a configured name, of an issuer or a trust domain; ``subject`` and ``claims`` are
    rules, at least one of them. ``jwks`` is a JWK Set of public keys, for ``private_key_jwt``.
    """

    issuer: Name | None = None
    subject: Rule | None = None
    claims: Annotated[dict[str, Rule], Field(min_length=1, max_length=50)] | None = None
    jwks: Annotated[dict[str, Any], AfterValidator(_keys)] | None = None

    @model_validator(mode="after")
    def _one_kind(self) -> ProvedBy:
        named = self.issuer is not None
        ruled = self.subject is not None or self.claims is not None
        if (self.jwks is not None) == (named or ruled) or named != ruled:
            msg = "must have an issuer and a subject or claims, or else jwks"
            raise ValueError(msg)
        return self


class AddPrincipal(Request):
    """``POST /v1/principals``. Operators and auditors are for the configuration alone."""

    name: Name
    role: Literal["agent", "orchestrator", "resource_server"] = "agent"
    owner: Owner
    purpose: Text
    identity: ProvedBy
    capabilities: Annotated[list[Name], Field(max_length=200, default_factory=list[str])]
    resource: Annotated[str, Field(min_length=1, max_length=1024)] | None = None
    max_ttl: Duration | None = None
    delegates_to: Annotated[list[Name], Field(max_length=200)] | None = None
    review_by: Day | None = None


class Because(Request):
    """``POST /v1/principals/{name}/suspend``, ``resume`` and ``retire``."""

    reason: Text


class Review(Request):
    """``POST /v1/principals/{name}/review``: somebody looked, and says when to look again."""

    next: Day
    note: Text | None = None


class RetireOwner(Request):
    """``POST /v1/owners/retire``; with ``hand_over_to`` nothing is revoked."""

    owner: Owner
    reason: Text
    hand_over_to: Owner | None = None


class ReinstateOwner(Request):
    """``POST /v1/owners/reinstate``."""

    owner: Owner
    reason: Text


def principal_json(
    principal: Principal,
    register: Register,
    *,
    due: Sequence[str] = (),
    overdue_at: int = 0,
    live_grants: int = 0,
) -> dict[str, Any]:
    """A principal as operators and auditors see it.

    ``state`` is its own; ``owner_left`` stops it all the same. ``since`` is when it was added, or
    when a broker first saw it in the configuration.
    """
    entry = register.entry(principal.name)
    own = entry.state
    return {
        "name": principal.name,
        "role": principal.role,
        "state": own,
        "state_reason": entry.state_reason or None,
        "state_changed_at": _time(entry.state_at),
        "state_changed_by": entry.state_by or None,
        "owner": principal.owner,
        "owner_left": register.has_left(principal.owner),
        "purpose": principal.purpose or None,
        "identity": identity_json(principal),
        "capabilities": sorted(principal.capabilities),
        "resource": principal.resource or None,
        "max_ttl": format_duration(principal.max_ttl_ms) if principal.max_ttl_ms else None,
        "delegates_to": _sorted(principal.delegates_to),
        "registered": principal.registered,
        "since": _time(entry.added_at or register.seen.get(principal.name, 0)),
        "added_by": entry.added_by or None,
        "review_by": _time(principal.review_at),
        "reviewed_at": _time(entry.reviewed_at),
        "reviewed_by": entry.reviewed_by or None,
        "review_note": entry.review_note or None,
        "last_used_at": _time(register.used.get(principal.name, 0)),
        "due": list(due),
        "overdue_at": _time(overdue_at),
        "live_grants": live_grants,
    }


def usage_json(
    principal: Principal, register: Register, capabilities: Mapping[str, Capability]
) -> dict[str, Any]:
    """What an agent may be granted, and what it has used, each when last."""
    known = (capabilities[c] for c in sorted(principal.capabilities) if c in capabilities)
    used = {c: at for (agent, c), at in register.uses.items() if agent == principal.name}
    return {
        "granted": [{"capability": c.name, "power": c.power} for c in known],
        "used": [{"capability": c, "last_used_at": to_rfc3339(used[c])} for c in sorted(used)],
    }


def identity_json(principal: Principal) -> dict[str, Any] | None:
    """How a principal proves itself; None for one that was retired."""
    if principal.identity is not None:
        return written_rule(principal.identity)
    if principal.jwks:
        return {"jwks": json.loads(principal.jwks)}
    return {"jwks_file": str(principal.jwks_file)} if principal.jwks_file else None


def owner_json(
    owner: str,
    known: OwnerEntry | None,
    principals: Sequence[Principal],
    grants: Mapping[str, int],
) -> dict[str, Any]:
    """An owner, and what is theirs. ``grants`` are the live ones by agent."""
    return {
        "owner": owner,
        "state": "left" if known is not None and known.left else "active",
        "changed_at": _time(known.at) if known else None,
        "changed_by": (known.by or None) if known else None,
        "reason": (known.reason or None) if known else None,
        "handed_over_to": (known.handed_to or None) if known else None,
        "principals": sorted(p.name for p in principals if p.state is not PrincipalState.RETIRED),
        "live_grants": sum(grants.get(p.name, 0) for p in principals),
    }


def _sorted(names: frozenset[str] | None) -> list[str] | None:
    return None if names is None else sorted(names)


def _time(milliseconds: int) -> str | None:
    return to_rfc3339(milliseconds) if milliseconds else None
