"""What each type of event says, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, cast

from broker.clock import to_rfc3339
from broker.durations import format_duration

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.events import Event

Data = Mapping[str, Any]


class Stage(StrEnum):
    """Which part of the story a line belongs to."""

    INTENT = "intent"
    DECISION = "decision"
    GRANT = "grant"
    EXECUTION = "execution"
    REVOCATION = "revocation"
    DEAD = "dead"
    NOTE = "note"


def sentences(event: Event) -> list[tuple[Stage, str]]:
    """Return what an event says, and to which part of a story that belongs.

    What callers wrote stands in quotes, as a JSON string. A decision says two things: what was
    wanted, and what policy said of it.
    """
    if event.type == "decision":
        return [(Stage.INTENT, _wish(event.data)), (Stage.DECISION, _ruling(event.data))]
    stage, sentence = _SENTENCES.get(event.type, (Stage.NOTE, None))
    return [(stage, sentence(event.data) if sentence else _plain(event))]


def allows_call(decision: Event) -> bool:
    """Whether a decision allows a tool call, so that a report of it is due."""
    action = str(decision.data.get("action", "")).partition(":")[0]
    return decision.data.get("effect") == "allow" and action in ("call_tool", "call")


def _wish(data: Data) -> str:
    """Say what somebody wanted."""
    action = str(data.get("action") or "issue_grant").partition(":")[0].replace("_", " ")
    names = ("tool", "capability", "capabilities", "resource", "operation")
    what = next((str(data[name]) for name in names if data.get(name)), "")
    return " ".join(filter(None, ["wants to", action, what])) + _quoted(": ", data.get("intent"))


def _ruling(data: Data) -> str:
    """Say what policy said of it, and why."""
    obligations: Data = data.get("obligations") or {}
    because = {
        "": data.get("reasons"),
        "by ": _list(data, "policies"),
        "approvals needed: ": obligations.get("approvals"),
        "effects ": _list(data, "effects"),
        "signals ": _list(data, "signals"),
    }
    why = "; ".join(f"{word}{value}" for word, value in because.items() if value)
    return str(data.get("effect", "?")) + (f" ({why})" if why else "")


def _opened(data: Data) -> str:
    many = _list(data, "capabilities")
    return (
        f"task opened for {data.get('agent', '?')}"
        + _quoted(": ", data.get("purpose"))
        + (f", may use {many}" if many else "")
        + _until(data)
    )


def _executed(data: Data) -> str:
    lasted = data.get("duration_ms")
    effects = _list(data, "effects")
    return (
        f"reported: {data.get('outcome', '?')}"
        + (f" after {format_duration(int(lasted))}" if lasted is not None else "")
        + (f", left {effects}" if effects else "")
        + _because(data, "error_type")
    )


def _revoked(data: Data) -> str:
    return "credential confirmed dead" + _took(data) + _because(data, "evidence")


def _ended(data: Data) -> str:
    return (
        f"task {data.get('state', 'ended')}" + _because(data) + _quoted(": ", data.get("summary"))
    )


def _asked(data: Data) -> str:
    action = str(data.get("action", "")).replace("_", " ")
    named = " ".join(filter(None, [action, str(data.get("capability") or "")]))
    return f"a human is asked: {named}" + _until(data)


def _voted(data: Data) -> str:
    return f"a human says {data.get('vote', '?')}" + _quoted(": ", data.get("reason"))


def _settled(data: Data) -> str:
    kinds = [
        f"{data[kind]['returned']} of {data[kind]['given']} {kind}"
        for kind in ("grants", "calls", "amount")
        if kind in data
    ]
    return "budget given back: " + ", ".join(kinds)


def _stuck(data: Data) -> str:
    return f"revocation stuck after {data.get('attempts', '?')} attempts" + _because(data, "error")


def _took(data: Data) -> str:
    took = data.get("time_to_dead_ms")
    return f" {format_duration(int(took))} later" if took is not None else ""


def _because(data: Data, name: str = "reason") -> str:
    return f" ({data[name]})" if data.get(name) else ""


def _until(data: Data) -> str:
    ends = data.get("expires_at")
    return f", until {to_rfc3339(int(ends))}" if isinstance(ends, int | float) else ""


def _list(data: Data, name: str) -> str:
    found: object = data.get(name)
    if not isinstance(found, list):  # Lua writes an empty list as an object
        return ""
    return ", ".join(map(str, cast("list[object]", found)))


def _quoted(before: str, value: object) -> str:
    return before + json.dumps(value, ensure_ascii=False) if value else ""


def _of(text: str, *names: str) -> Callable[[Data], str]:
    """Make a sentence of a text, the reason, and some of what the data says."""

    def sentence(data: Data) -> str:
        said = [str(data[name]) for name in names if data.get(name)]
        return " ".join([text, *said]) + _until(data) + _because(data)

    return sentence


_SENTENCES: Final[Mapping[str, tuple[Stage, Callable[[Data], str]]]] = {
    "task.opened": (Stage.INTENT, _opened),
    "task.refused": (Stage.DECISION, _of("task refused")),
    "grant.refused": (Stage.DECISION, _of("refused by the ledger:", "capability")),
    "call.refused": (Stage.DECISION, _of("refused by the ledger:", "capability")),
    "grant.reserved": (Stage.GRANT, _of("reserved, nothing issued yet:", "capability")),
    "grant.activated": (Stage.GRANT, _of("credential live")),
    "grant.failed": (Stage.GRANT, lambda data: "not issued" + _because(data, "error")),
    "grant.late": (Stage.GRANT, _of("credential came when nobody wanted it any more")),
    "grant.wrapped": (Stage.GRANT, _of("delivered in a wrapping token")),
    "grant.unwrapped": (Stage.GRANT, _of("opened for the task's agent")),
    "grant.intercepted": (Stage.GRANT, _of("intercepted on its way:", "how")),
    "grant.renewed": (Stage.GRANT, _of("renewed")),
    "grant.rotated": (Stage.GRANT, _of("replaced by", "replaced_by")),
    "token.issued": (Stage.GRANT, _of("token issued")),
    "token.refused": (Stage.DECISION, _of("token refused", "mark")),
    "reconcile.applied": (Stage.REVOCATION, _of("found by reconciling:", "kind", "place")),
    "signal.set": (Stage.NOTE, _of("signal on", "selector", "verdict")),
    "signal.cleared": (Stage.NOTE, _of("signal taken back from", "selector")),
    "approval.requested": (Stage.DECISION, _asked),
    "approval.escalated": (Stage.DECISION, lambda data: f"asked as well: {_list(data, 'groups')}"),
    "approval.voted": (Stage.DECISION, _voted),
    "approval.approved": (Stage.DECISION, lambda _: "approved: good for exactly that, once"),
    "approval.denied": (Stage.DECISION, lambda _: "denied: that is the answer to repeats"),
    "approval.used": (Stage.DECISION, lambda _: "the approval is used up"),
    "approval.expired": (Stage.DECISION, lambda _: "the approval is over: its time was up"),
    "approval.cancelled": (Stage.DECISION, _of("the approval is void")),
    "handle.record": (Stage.NOTE, _of("holds a token for its credentials at", "backend")),
    "handle.retire": (Stage.NOTE, _of("its token is used for nothing new at", "backend")),
    "handle.drop": (Stage.DEAD, _of("its token is confirmed dead at", "backend")),
    "execution": (Stage.EXECUTION, _executed),
    "execution.missing": (Stage.EXECUTION, _of("never reported what became of it")),
    "token.revoked": (Stage.REVOCATION, _of("token revoked")),
    "grant.revoking": (Stage.REVOCATION, _of("revocation begins")),
    "grant.stuck": (Stage.REVOCATION, _stuck),
    "grant.retried": (Stage.REVOCATION, _of("to be tried again now")),
    "task.ended": (Stage.REVOCATION, _ended),
    "grant.revoked": (Stage.DEAD, _revoked),
    "grant.abandoned": (
        Stage.DEAD,
        lambda data: f"given up, not confirmed dead: {data.get('statement', '')}",
    ),
    "budget.settled": (Stage.NOTE, _settled),
    "task.closed": (Stage.DEAD, lambda data: "everything of it confirmed dead" + _took(data)),
}


def _plain(event: Event) -> str:
    """Say of an event that has no sentence what it is and what is in it."""
    data = json.dumps(event.data, separators=(",", ":"), sort_keys=True) if event.data else ""
    return f"{event.type} {data}".rstrip()
