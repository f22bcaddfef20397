"""Audit events in the words of OCSF (schema.ocsf.io), for those who collect in its form.

What a credential or token allows is an Authorize Session (3003), what is done to tasks, principals,
keys and freezes is Entity Management (3004), and the rest (decisions, tool calls, signals, gaps) is
API Activity (6003). What OCSF has no place for stays in ``unmapped``.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, cast

import broker
from broker.audit.record import TYPE_PREFIX

if TYPE_CHECKING:
    from collections.abc import Mapping

VERSION: Final = "1.4.0"
"""The version of the schema. Later ones only add to what is used here."""

AUTHORIZE_SESSION: Final = 3003
ENTITY_MANAGEMENT: Final = 3004
API_ACTIVITY: Final = 6003

_CREATE, _READ, _UPDATE, _DELETE, _OTHER = 1, 2, 3, 4, 99
_SUSPEND, _RESUME = 12, 13
_ASSIGN_PRIVILEGES: Final = 1
_SUCCESS, _FAILURE = 1, 2
_INFORMATIONAL, _LOW, _MEDIUM, _HIGH = 1, 2, 3, 4

_ACTIVITIES: Final[Mapping[str, int]] = {
    "task.opened": _CREATE,
    "task.ended": _UPDATE,
    "task.closed": _DELETE,
    "principal.added": _CREATE,
    "principal.suspended": _SUSPEND,
    "principal.resumed": _RESUME,
    "principal.retired": _DELETE,
    "owner.retired": _DELETE,
    "owner.reinstated": _CREATE,
    "key.rotated": _CREATE,
    "key.retired": _DELETE,
    "freeze.set": _CREATE,
    "freeze.cleared": _DELETE,
    "handle.expect": _CREATE,
    "handle.drop": _DELETE,
    "handle.retire": _DELETE,
    "grant.activated": _ASSIGN_PRIVILEGES,
    "grant.renewed": _ASSIGN_PRIVILEGES,
    "token.issued": _ASSIGN_PRIVILEGES,
    "decision": _READ,
    "signal.set": _CREATE,
    "signal.cleared": _DELETE,
    "revocation": _DELETE,
}
_ENTITIES: Final = frozenset({"task", "principal", "owner", "key", "freeze", "handle", "policy"})
_SEVERITIES: Final[Mapping[str, int]] = {
    "audit.gap": _HIGH,
    "audit.malformed": _HIGH,
    "quarantine.set": _HIGH,
    "grant.stuck": _HIGH,
    "grant.intercepted": _HIGH,
    "grant.late": _MEDIUM,
    "execution.missing": _LOW,
    "revocation": _LOW,
    "freeze.set": _LOW,
    "principal.suspended": _LOW,
    "signal.set": _LOW,
}
_NAMES: Final = ("name", "owner", "kid", "selector", "handle", "capability", "tool", "id")


@dataclass(frozen=True, slots=True)
class _Event:
    """A CloudEvent, taken apart."""

    kind: str
    event: Mapping[str, Any]
    data: Mapping[str, Any]

    @property
    def noun(self) -> str:
        """What the type begins with."""
        return self.kind.partition(".")[0]

    def text(self, member: str) -> str:
        """Return an attribute that may be missing."""
        return str(self.event.get(member) or "")

    @property
    def failed(self) -> bool:
        """Whether it says that something was not done, or not allowed."""
        ending = self.kind.rpartition(".")[2]
        return (
            ending in ("refused", "failed", "stuck", "gap", "malformed", "missing")
            or self.data.get("effect") == "deny"
            or str(self.data.get("outcome", "")) in ("failed", "failure", "error")
        )

    @property
    def about(self) -> str:
        """The name of what it is about, as far as it has one."""
        named = (str(self.data[n]) for n in _NAMES if isinstance(self.data.get(n), str))
        return next(named, "") or self.text("grant") or self.text("task")


def ocsf_event(event: Mapping[str, Any]) -> dict[str, Any]:
    """Return a CloudEvent of the log as an OCSF event."""
    data: object = event.get("data")
    kind = str(event["type"]).removeprefix(TYPE_PREFIX)
    parts = _Event(kind, event, cast("Mapping[str, Any]", data) if isinstance(data, dict) else {})
    if parts.noun in ("grant", "token"):
        return {**_base(parts, AUTHORIZE_SESSION, 3), **_authorize(parts)}
    if parts.noun in _ENTITIES:
        return {**_base(parts, ENTITY_MANAGEMENT, 3), **_entity(parts)}
    return {**_base(parts, API_ACTIVITY, 6), **_api(parts)}


def _base(parts: _Event, class_uid: int, category_uid: int) -> dict[str, Any]:
    activity = _ACTIVITIES.get(parts.kind, _OTHER)
    severity = _MEDIUM if parts.failed else _INFORMATIONAL
    named = {"activity_name": parts.kind} if activity == _OTHER else {}
    unmapped = {
        member: parts.event[member]
        for member in ("source", "task", "grant", "decision", "traceparent", "data")
        if parts.event.get(member)
    }
    return {
        "class_uid": class_uid,
        "category_uid": category_uid,
        "activity_id": activity,
        "type_uid": class_uid * 100 + activity,
        **named,
        "time": _millis(parts.event),
        "severity_id": _SEVERITIES.get(parts.kind, severity),
        "status_id": _FAILURE if parts.failed else _SUCCESS,
        "status_detail": str(parts.data.get("reason") or parts.kind),
        "message": f"{parts.kind} {parts.about}".strip(),
        "actor": _actor(parts),
        "metadata": _metadata(parts),
        "unmapped": unmapped,
    }


def _metadata(parts: _Event) -> dict[str, Any]:
    chain = parts.text("chain")
    return {
        "product": {"name": "broker", "vendor_name": "broker", "version": broker.__version__},
        "version": VERSION,
        "uid": parts.text("id"),
        "event_code": parts.kind,
        "log_name": "audit",
        **({"correlation_uid": chain} if chain else {}),
    }


def _actor(parts: _Event) -> dict[str, Any]:
    name = parts.text("principal")
    return {"app_name": "broker", **({"user": {"name": name}} if name else {})}


def _authorize(parts: _Event) -> dict[str, Any]:
    """Say who may do what now, or no longer: the grant or the token is the session."""
    data = parts.data
    what = data.get("capability") or data.get("scope") or data.get("resource") or parts.kind
    holder = str(data.get("agent") or data.get("client_id") or "") or parts.text("principal")
    session = parts.text("grant") or str(data.get("jti") or "") or parts.text("task")
    return {
        "user": {"name": holder or "broker"},
        "privileges": [str(what)],
        **({"session": {"uid": session}} if session else {}),
    }


def _entity(parts: _Event) -> dict[str, Any]:
    uid = parts.text("task") if parts.noun in ("task", "handle") else ""
    name = parts.about or parts.noun
    entity = {"type": parts.noun, "name": name, **({"uid": uid} if uid else {})}
    return {"entity": entity}


def _api(parts: _Event) -> dict[str, Any]:
    target = parts.about
    resource = {"type": parts.noun, "name": target}
    return {
        "api": {"operation": parts.kind, "service": {"name": "broker"}},
        # From where a caller called isn't in the log, but who it was is.
        "src_endpoint": {"name": parts.text("principal") or "broker"},
        **({"resources": [resource]} if target else {}),
    }


def _millis(event: Mapping[str, Any]) -> int:
    return round(datetime.fromisoformat(event["time"]).timestamp() * 1000)
