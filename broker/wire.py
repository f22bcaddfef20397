"""What goes over the wire: requests as the broker accepts them, answers as it gives them.

Requests refuse unknown fields by name. Times are RFC 3339 UTC, durations strings like ``"15m"``.
"""

from __future__ import annotations

import json
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    Final,
    Literal,
    Protocol,
    Self,
    TypeVar,
    cast,
)

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    WithJsonSchema,
    model_validator,
)

from broker.clock import to_rfc3339
from broker.durations import format_duration, parse_duration
from broker.grants import GrantState
from broker.secret import Secret
from broker.wire_limits import Limits, budget_json, limits_json
from broker.wire_parts import EffectLabel, Name, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from broker.events import Event
    from broker.grants import Grant
    from broker.tasks import Task

MAX_CONTEXT = 4096
MAX_DEPTH = 32
"""Levels of nesting: an answer that repeats the context must be writable by every encoder."""


def _duration(value: object) -> int:
    try:
        if isinstance(value, str):
            return parse_duration(value)
    except ValueError:
        pass  # its message repeats the value, which may be anything, put here by mistake
    msg = 'must be a duration string: a number and a unit, such as "30s", "15m", "1h30m", "7d"'
    raise ValueError(msg)


def _printable(value: str) -> str:
    # Lone surrogates can't be written as UTF-8, so no answer could carry them.
    odd = any((ord(c) < 32 and c not in "\n\t") or "\ud800" <= c <= "\udfff" for c in value)  # noqa: PLR2004
    if odd or not value.strip():
        msg = "must be text without control characters"
        raise ValueError(msg)
    return value


def _small(value: dict[str, Any]) -> dict[str, Any]:
    try:
        size = len(json.dumps(value, allow_nan=False, ensure_ascii=False).encode())
    except (ValueError, RecursionError):
        msg = "must be plain JSON: finite numbers, and text that is valid Unicode"
        raise ValueError(msg) from None
    if size > MAX_CONTEXT:
        msg = f"must be at most {MAX_CONTEXT} bytes of JSON"
        raise ValueError(msg)
    if _depth(value) > MAX_DEPTH:
        msg = f"must be nested at most {MAX_DEPTH} levels deep"
        raise ValueError(msg)
    return value


def _depth(value: object) -> int:
    depth, level = 0, [value]
    while level := [inner for outer in level for inner in _inside(outer)]:
        depth += 1
    return depth


def _inside(value: object) -> Iterable[object]:
    match value:
        case dict():
            return cast("dict[str, object]", value).values()
        case list():
            return cast("list[object]", value)
        case _:
            return ()


DURATION: Final[dict[str, Any]] = {
    "type": "string",
    "pattern": "^([0-9]{1,9}d)?([0-9]{1,9}h)?([0-9]{1,9}m)?([0-9]{1,9}s)?([0-9]{1,9}ms)?$",
    "minLength": 2,
    "description": 'Such as "15m"; more than zero, at most 3650d.',
}
"""How the API's document describes a duration."""
_PLAIN: Final = r"[^\x00-\x08\x0b-\x1f]*"
_PRINTABLE: Final[dict[str, Any]] = {"pattern": rf"^{_PLAIN}[^\x00-\x1f\s]{_PLAIN}$"}

Duration = Annotated[int, BeforeValidator(_duration), WithJsonSchema(DURATION)]
"""A duration string on the wire, milliseconds inside."""
Text = Annotated[
    str,
    Field(min_length=1, max_length=1000, json_schema_extra=_PRINTABLE),
    AfterValidator(_printable),
]
LongText = Annotated[
    str,
    Field(min_length=1, max_length=4000, json_schema_extra=_PRINTABLE),
    AfterValidator(_printable),
]
SmallObject = Annotated[dict[str, Any], AfterValidator(_small)]


Delivery = Literal["inline", "wrapped", "voucher"]


class OpenTask(Request):
    """``POST /v1/tasks``.

    ``on_behalf_of`` is a JWT of a configured issuer that proves the person, never a bare name.
    """

    agent: Name
    purpose: Text
    capabilities: Annotated[list[Name], Field(min_length=1, max_length=50)]
    ttl: Duration | None = None
    parent_task_id: Annotated[str, Field(max_length=64)] | None = None
    on_behalf_of: Annotated[str, Field(min_length=1, max_length=16384)] | None = None
    context: SmallObject | None = None
    heartbeat: Duration | None = None
    limits: Limits | None = None


class RequestGrant(Request):
    """``POST /v1/tasks/{id}/grants``; ``wrap_ttl`` goes with all but inline delivery."""

    capability: Name
    ttl: Duration | None = None
    parameters: SmallObject | None = None
    intent: Text | None = None
    delivery: Delivery = "inline"
    wrap_ttl: Duration | None = None
    _replaces: str = PrivateAttr("")

    @property
    def replaces(self) -> str:
        """The grant that this one is to take the place of; no caller can say that."""
        return self._replaces

    def replacing(self, grant_id: str) -> Self:
        """Return it as the request for a grant's successor."""
        self._replaces = grant_id
        return self


class ReportExecution(Request):
    """``POST /v1/tasks/{id}/executions``: what became of a call that was allowed.

    ``result_digest`` names the result without telling it; ``effects`` are those it really had, on
    top of what was decided on.
    """

    decision_id: Annotated[str, Field(min_length=1, max_length=64)]
    outcome: Literal["succeeded", "failed", "not_executed"]
    duration: Duration | None = None
    result_digest: Annotated[str, Field(pattern="^sha256:[0-9a-f]{64}$")] | None = None
    error_type: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.:-]{1,100}$")] | None = None
    effects: Annotated[list[EffectLabel], Field(max_length=20)] = []  # noqa: RUF012  pydantic copies it

    def told(self) -> dict[str, Any]:
        """Return what the log says of it."""
        found: dict[str, Any] = {
            "outcome": self.outcome,
            "duration_ms": self.duration,
            "result_digest": self.result_digest,
            "error_type": self.error_type,
            "effects": sorted(set(self.effects)),
        }
        return {name: value for name, value in found.items() if value}


class CompleteTask(Request):
    """``POST /v1/tasks/{id}/complete``."""

    outcome: Literal["completed", "failed", "cancelled"] = "completed"
    summary: Text | None = None


def _one_member(schema: dict[str, Any]) -> None:
    """Say of a schema of optional members that it takes one of them, and no null."""
    schema |= {"minProperties": 1, "maxProperties": 1}
    for name, member in schema["properties"].items():
        schema["properties"][name] = member["anyOf"][0]


Who = Annotated[
    str,
    Field(min_length=1, max_length=320, json_schema_extra=_PRINTABLE),
    AfterValidator(_printable),
]
"""An owner, in a selector."""
Id = Annotated[str, Field(min_length=1, max_length=64)]


class OneOf(Request):
    """Exactly one of its members."""

    model_config = ConfigDict(json_schema_extra=_one_member)

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(self.model_fields_set) != 1 or self.item[1] is None:
            names = ", ".join(type(self).model_fields)
            msg = f"must name exactly one of {names}"
            raise ValueError(msg)
        return self

    @property
    def item(self) -> tuple[str, Any]:
        """The one field that is set, and its value."""
        name = next(iter(self.model_fields_set))
        return name, getattr(self, name)

    @property
    def field(self) -> str:
        """The selector as the ledger's frozen table and the log write it: ``agent:NAME``."""
        name, value = self.item
        return name if name == "all" else f"{name.removesuffix('_id')}:{value}"


class Selector(OneOf):
    """Exactly one of these."""

    grant_id: Id | None = None
    task_id: Id | None = None
    agent: Name | None = None
    owner: Who | None = None
    capability: Name | None = None
    backend: Name | None = None
    all: Literal[True] | None = None


class Revoke(Request):
    """``POST /v1/revocations``."""

    selector: Selector
    reason: Text
    freeze: bool = False


class Freeze(Request):
    """``POST`` and ``DELETE /v1/freezes``."""

    selector: Selector
    reason: Text


def task_json(task: Task, notes: Sequence[str] = ()) -> dict[str, Any]:
    """A task as its readers see it."""
    return {
        "task_id": task.id,
        "state": task.state,
        "agent": task.agent,
        "owner": task.owner,
        "purpose": task.purpose,
        "capabilities": list(task.capabilities),
        "created_at": to_rfc3339(task.created_at),
        "expires_at": to_rfc3339(task.expires_at),
        "created_by": task.created_by,
        "on_behalf_of": task.subject,
        "parent_task_id": task.parent_id or None,
        "root_task_id": task.root_id,
        "heartbeat": format_duration(task.heartbeat_ms) if task.heartbeat_ms else None,
        "heartbeat_due_at": _time(task.heartbeat_due),
        "context": json.loads(task.context),
        "ended_at": _time(task.ended_at),
        "closed_at": _time(task.closed_at),
        "reason": task.reason or None,
        "summary": task.summary or None,
        "limits": limits_json(task),
        "budget": budget_json(task),
        "notes": list(notes),
    }


def grant_json(grant: Grant) -> dict[str, Any]:
    """A grant as its readers see it; there is no secret to leave out."""
    dead, given_up = grant.state is GrantState.REVOKED, grant.state is GrantState.ABANDONED
    return {
        "grant_id": grant.id,
        "task_id": grant.task_id,
        "agent": grant.agent,
        "capability": grant.capability,
        "backend": grant.backend,
        "power": grant.power,
        "state": grant.state,
        "created_at": to_rfc3339(grant.created_at),
        "expires_at": to_rfc3339(grant.expires_at),
        "revoke_requested_at": _time(grant.revoke_at),
        "ended_at": _time(grant.ended_at),
        "ends_by_itself_at": _time(grant.dies_at),
        "account": grant.account or None,
        "revocability": grant.revocability or None,
        "evidence": (grant.evidence or None) if dead else None,
        "statement": (grant.evidence or None) if given_up else None,
        "time_to_dead_ms": grant.ended_at - grant.revoke_at if dead else None,
        "attempts": grant.attempts,
        "next_attempt_at": _time(grant.due_at) if grant.revoke_at and not dead else None,
        "reason": grant.reason or None,
        "error": grant.error or None,
        "intent": grant.intent or None,
        "replaces": grant.replaces or None,
        "replaced_by": grant.replaced_by or None,
    }


def delivery_json(
    grant: Grant, kind: str, fields: Mapping[str, str | Secret], notes: Sequence[str]
) -> dict[str, Any]:
    """The one answer that carries a secret."""
    credential = {
        key: value.reveal() if isinstance(value, Secret) else value for key, value in fields.items()
    }
    return {
        **grant_json(grant),
        "credential": {**credential, "type": kind},
        "notes": list(notes),
    }


def event_json(event: Event) -> dict[str, Any]:
    """An audit event."""
    return {
        "id": event.id,
        "time": to_rfc3339(event.at),
        "type": event.type,
        "task_id": event.task_id or None,
        "grant_id": event.grant_id or None,
        "principal": event.principal or None,
        "chain": event.chain or None,
        "decision": event.decision or None,
        "traceparent": event.trace or None,
        "data": event.data,
    }


def freeze_json(field: str, row: Mapping[str, Any]) -> dict[str, Any]:
    """A freeze: what, by whom, since when, why."""
    return {"selector": field, **row, "at": to_rfc3339(row["at"])}


def page_json(items: Sequence[Mapping[str, Any]], cursor: str | None) -> dict[str, Any]:
    """A page of a list."""
    return {"items": list(items), "next": cursor}


class Stamped(Protocol):
    """A row that lists are ordered by: when it was made (epoch milliseconds), then its id."""

    @property
    def id(self) -> str: ...  # noqa: D102

    @property
    def created_at(self) -> int: ...  # noqa: D102


Row = TypeVar("Row", bound=Stamped)


def page_of(
    rows: Sequence[Row], show: Callable[[Row], dict[str, Any]], limit: int, cursor: str
) -> dict[str, Any]:
    """Page a short list, newest first, by the same cursors as the long ones."""
    marked = {f"{row.created_at:013d}|{row.id}": row for row in rows}
    rest = [mark for mark in sorted(marked, reverse=True) if not cursor or mark < cursor]
    shown = rest[:limit]
    return page_json([show(marked[mark]) for mark in shown], shown[-1] if rest[limit:] else None)


def _time(milliseconds: int) -> str | None:
    return to_rfc3339(milliseconds) if milliseconds else None
