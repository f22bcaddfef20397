"""What an event of the log means to a person: the news of it, in words of ours.

Only what is named here goes into a message, whatever else an event holds. What callers wrote is
kept apart (``said``), so that a message can do without it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, cast

from broker.audit.record import TYPE_PREFIX
from broker.clock import to_rfc3339
from broker.notify.tame import raw, word

if TYPE_CHECKING:
    from collections.abc import Callable

Data = Mapping[str, Any]


class Kind(StrEnum):
    """Kinds of news, which a channel's ``events`` choose from."""

    APPROVAL = "approval"
    RESULT = "approval_result"
    BREAK_GLASS = "break_glass"
    REVIEW = "review"
    ROTATION = "rotation"
    STUCK = "stuck"
    INTERCEPTED = "intercepted"
    DECISION = "decision"


class Severity(StrEnum):
    """How much it matters; critical news are told however late it is."""

    INFO = "info"
    WARNING = "warning"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class News:
    """One thing to tell. ``at`` and ``over_at`` are epoch milliseconds.

    ``title``, ``todo`` (what to do) and ``facts``, pairs of a label and names or numbers, are
    harmless as they are; ``said``, pairs of a label and what a caller wrote, is as it came.
    ``data`` is the same for programs. After ``over_at`` nobody can do anything about it.
    ``groups`` and ``channels`` say who is to be told, ``late_s`` how late it is, if it is late.
    """

    type: str
    kind: Kind
    id: str
    at: int
    severity: Severity
    title: str
    facts: tuple[tuple[str, str], ...] = ()
    said: tuple[tuple[str, str], ...] = ()
    todo: tuple[str, ...] = ()
    link: str = ""
    over_at: int | None = None
    groups: frozenset[str] = frozenset()
    channels: frozenset[str] = frozenset()
    data: Mapping[str, Any] | None = None
    late_s: int = 0

    def bare(self) -> News:
        """Return it without what callers wrote."""
        data = {name: value for name, value in (self.data or {}).items() if name not in SAID}
        return replace(self, said=(), data=data)


@dataclass(frozen=True, slots=True)
class _Form:
    kind: Kind
    severity: Severity
    title: Callable[[Data], str]
    todo: tuple[str, ...] = ()
    place: str = ""


SAID: Final[Mapping[str, str]] = {
    "purpose": "Purpose",
    "intent": "Intent",
    "reason": "Reason",
    "findings": "Findings",
    "error": "Error",
    "statement": "Statement",
}
"""Members of events that are texts of somebody's making, and what they are called."""

_FACTS: Final[Mapping[str, str]] = {
    "agent": "Agent",
    "action": "Action",
    "capability": "Capability",
    "backend": "Backend",
    "capabilities": "Capabilities",
    "tool": "Tool",
    "power": "Power",
    "requester": "Asked by",
    "by": "By",
    "effect": "Decision",
    "needs": "Needs",
    "groups": "Groups",
    "path": "Path",
    "attempts": "Attempts",
    "expires_at": "Until",
    "until": "Until",
    "approval": "Approval",
    "elevation": "Elevation",
    "task": "Task",
    "grant": "Grant",
    "decision": "Decision id",
}
_NAMED: Final = ("approval", "elevation", "task", "grant")
_TIMES: Final = frozenset({"expires_at", "until"})
_MAX_ITEMS: Final = 20
_ID: Final = re.compile(r"[a-z]{3}_[0-9a-z]{1,64}")
_LATEST: Final = 253_402_300_799_999
"""The last millisecond of the year 9999."""


def news_of(event: Mapping[str, Any], *, issuer: str) -> News | None:
    """Return what a CloudEvent of the log is to people; None if it is nothing to tell.

    ``issuer`` is the broker's URL, below which the console is.
    """
    kind = str(event.get("type", "")).removeprefix(TYPE_PREFIX)
    form = FORMS.get(kind)
    data = _table(event, "data")
    ids = {name: event[name] for name in ("task", "grant", "decision") if event.get(name)}
    # Of what needs an approval the request for it is told: repeats of it ask again and again. That
    # a static secret can't be revoked was known when it was issued.
    if (
        form is None
        or (kind == "decision" and data.get("effect") == "needs_approval")
        or (kind == "grant.abandoned" and event.get("principal") == "broker")
    ):
        return None
    told = {**data, **ids}
    if kind == "decision":
        told.setdefault("by", event.get("principal"))
    title = form.title(told)
    return News(
        type=kind,
        kind=form.kind,
        id=str(event.get("id", "")),
        at=_moment(event),
        severity=form.severity,
        title=title,
        facts=tuple(_facts(told)),
        said=tuple((label, str(told[name])) for name, label in SAID.items() if told.get(name)),
        todo=tuple(line.format(**_ids(told)) for line in form.todo),
        link=_link(issuer, form.place, told),
        over_at=_millis(told.get("expires_at")) if form.kind is Kind.APPROVAL else None,
        groups=_names(data, "groups"),
        channels=_names(data, "channels") | _names(_table(data, "obligations"), "notify"),
        data=_for_programs(told),
    )


def trial(issuer: str, now_ms: int) -> News:
    """Return news of nothing, by which a person sees that a channel works."""
    return News(
        type="test",
        kind=Kind.RESULT,
        id=f"test-{now_ms}",
        at=now_ms,
        severity=Severity.INFO,
        title=f"Test from {issuer}: this channel works",
        facts=(("Broker", issuer),),
        link=f"{issuer}/console",
        data={},
    )


def _facts(told: Data) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, label in _FACTS.items():
        text = _written(name, told.get(name))
        if text:
            found.append((label, text))
    return found


def _written(name: str, value: object) -> str:
    """Write a fact for people; empty if there is none."""
    if name in _TIMES:
        return _time(value)
    if name == "needs" and isinstance(value, dict):
        needs = cast("Mapping[str, object]", value)
        each = [f"{word(n)} of {word(group) if group else 'any'}" for group, n in needs.items()]
        return ", ".join(each[:_MAX_ITEMS])
    if isinstance(value, list):
        return ", ".join(word(item) for item in cast("list[object]", value)[:_MAX_ITEMS])
    return word(value) if isinstance(value, str | int) and value != "" else ""


def _for_programs(told: Data) -> dict[str, Any]:
    """Return the members that may be told, with times as the API has them."""
    found: dict[str, Any] = {}
    for name in (*_FACTS, *SAID):
        value: object = told.get(name)
        if name in _TIMES:
            value = _time(value) or None
        if isinstance(value, str):
            value = raw(value)
        elif isinstance(value, list):
            value = [raw(str(item)) for item in cast("list[object]", value)[:_MAX_ITEMS]]
        elif name == "needs" and isinstance(value, dict):
            needs = list(cast("Mapping[object, object]", value).items())[:_MAX_ITEMS]
            value = {raw(str(key)): count for key, count in needs if isinstance(count, int)}
        elif not isinstance(value, int):
            continue
        found[name] = value
    return found


def _table(data: Data, name: str) -> Data:
    value: object = data.get(name)
    return cast("Data", value) if isinstance(value, dict) else {}


def _names(data: Data, name: str) -> frozenset[str]:
    value: object = data.get(name)
    if not isinstance(value, list):  # Lua writes an empty list as an object
        return frozenset()
    return frozenset(str(item) for item in cast("list[object]", value) if item)


def _millis(value: object) -> int | None:
    """Read epoch milliseconds, which Lua may have written with a point."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 < value <= _LATEST else None


def _time(value: object) -> str:
    millis = _millis(value)
    return "" if millis is None else to_rfc3339(millis)


def _moment(event: Mapping[str, Any]) -> int:
    try:
        return int(datetime.fromisoformat(event["time"]).timestamp() * 1000)
    except (KeyError, TypeError, ValueError, OverflowError):
        return 0


def _ids(told: Data) -> dict[str, str]:
    """Return the ids that may stand in a command or a link: nothing that isn't one."""
    found = ((name, str(told.get(name, ""))) for name in _NAMED)
    return {name: value if _ID.fullmatch(value) else "ID" for name, value in found}


def _link(issuer: str, place: str, told: Data) -> str:
    ids = _ids(told)
    for name, folder in (("approval", "approvals"), ("elevation", "reviews"), ("task", "tasks")):
        if name in (place, "task") and ids[name] != "ID":
            return f"{issuer}/console/{folder}/{ids[name]}"
    return f"{issuer}/console"


# ── what each type says ──────────────────────────────────────────────────────────────────────────


def _whose(data: Data) -> str:
    """Name an agent and what it is about, as far as the event says."""
    what = data.get("capability") or data.get("tool") or data.get("action")
    power = data.get("power")
    names = [word(found) for found in (data.get("agent") or data.get("by"), what) if found]
    if not names:
        names = [word(data.get("approval") or data.get("elevation") or data.get("task") or "?")]
    return " → ".join(names) + (f" ({word(power)})" if power else "")


def _saying(text: str) -> Callable[[Data], str]:
    return lambda data: f"{text}: {_whose(data)}"


def _escalated(data: Data) -> str:
    groups = ", ".join(sorted(map(word, _names(data, "groups"))))
    return f"Still no answer{f', now up to {groups}' if groups else ''}: {_whose(data)}"


def _decided(data: Data) -> str:
    return f"{'Allowed' if data.get('effect') == 'allow' else 'Denied'}: {_whose(data)}"


_ANSWER: Final = (
    "broker approval approve {approval} --reason …",
    "broker approval deny {approval} --reason …",
)
_CLOSE: Final = ("broker review close {elevation} --findings …",)
_END: Final = ("broker revoke --task {task} --reason …",)

_STUCK: Final = ("broker grant show {grant}", "broker grant retry {grant}")

FORMS: Final[Mapping[str, _Form]] = {
    "approval.requested": _Form(
        Kind.APPROVAL, Severity.WARNING, _saying("Approval wanted"), _ANSWER, "approval"
    ),
    "approval.escalated": _Form(Kind.APPROVAL, Severity.WARNING, _escalated, _ANSWER, "approval"),
    "approval.approved": _Form(Kind.RESULT, Severity.INFO, _saying("Approved"), (), "approval"),
    "approval.denied": _Form(Kind.RESULT, Severity.INFO, _saying("Denied"), (), "approval"),
    "approval.expired": _Form(
        Kind.RESULT, Severity.INFO, _saying("Approval expired"), (), "approval"
    ),
    "approval.cancelled": _Form(
        Kind.RESULT, Severity.INFO, _saying("Approval no longer wanted"), (), "approval"
    ),
    "glass.broken": _Form(
        Kind.BREAK_GLASS,
        Severity.CRITICAL,
        _saying("Glass broken, without approval"),
        _END,
        "elevation",
    ),
    "review.opened": _Form(
        Kind.REVIEW, Severity.WARNING, _saying("Review wanted"), _CLOSE, "elevation"
    ),
    "review.closed": _Form(Kind.REVIEW, Severity.INFO, _saying("Review closed"), (), "elevation"),
    "rotation.failed": _Form(
        Kind.ROTATION, Severity.CRITICAL, _saying("Not rotated after break-glass"), (), "elevation"
    ),
    "grant.stuck": _Form(Kind.STUCK, Severity.CRITICAL, _saying("Can't be revoked"), _STUCK),
    "grant.abandoned": _Form(Kind.STUCK, Severity.WARNING, _saying("Given up, may still be alive")),
    "grant.intercepted": _Form(
        Kind.INTERCEPTED, Severity.CRITICAL, _saying("Credential intercepted on its way"), _END
    ),
    "decision": _Form(Kind.DECISION, Severity.INFO, _decided),
}
"""By the type of the event, all that anybody is told of."""
