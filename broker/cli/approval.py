"""``broker approval``: what agents ask humans for."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from broker.cli import output
from broker.cli.agent import confirm
from broker.cli.connection import DEFAULT, FIRST, Connection, Paging
from broker.cli.text import ago, when
from broker.clock import SystemClock

if TYPE_CHECKING:
    from broker.client import Approval, Client

ApprovalId = Annotated[
    str, Parameter(help="The approval's id.", metavar="APPROVAL", name="approval")
]
Reason = Annotated[str, Parameter(help="Why, for the log.", metavar="TEXT")]
Yes = Annotated[
    bool, Parameter(help="Don't show it first and ask.", negative="", show_default=False)
]
State = Literal["pending", "approved", "denied", "expired", "cancelled", "used"]
_APART_S: Final = 2.0
_SHOWN: Final = 100
"""How many of the newest `watch` looks at."""

_LIST: Final = """\
Examples:

  broker approval list
  broker approval list --state pending --json
  broker approval list --task tsk_… --state denied
"""
_APPROVE: Final = """\
It is a yes to exactly what `broker approval show` shows: once, for a while, and not beyond its \
task. Nobody approves what they asked for, and some of it takes several people.

Example: broker approval approve apr_… --reason "ticket 7, rollback is ready"
"""
_DENY: Final = """\
One no is enough. The same request is answered with it until the approval's time is up.

Example: broker approval deny apr_… --reason "not before the freeze ends"
"""
_WATCH: Final = """\
Prints what starts to wait for a human, and what becomes of it, until interrupted. \
With --json a JSON document a line.
"""

app = App(
    name="approval", group_commands="Commands", help="Approve or deny what agents ask humans for."
)


@app.command(name="list", help_epilogue=_LIST)
def list_approvals(
    *,
    state: Annotated[State | None, Parameter(help="Only those in this state.")] = None,
    task: Annotated[str | None, Parameter(help="Only this task's.", metavar="TASK")] = None,
    paging: Paging = FIRST,
    connection: Connection = DEFAULT,
) -> None:
    """List what waits for a human yes, or did, newest first."""
    page = connection.ask(
        task,
        lambda broker: paging.collect(
            lambda cursor, limit: broker.list_approvals(
                state=state, task_id=task, cursor=cursor, limit=limit
            )
        ),
    )
    if connection.json:
        output.page_document(page)
        return
    now = SystemClock().now()
    output.rows(
        ("approval", "state", "who", "asks for", "purpose", "asked", "ends", "votes"),
        (
            (
                a.approval_id,
                a.state,
                a.requester,
                _what(a),
                a.purpose,
                ago(a.created_at, now),
                ago(a.expires_at, now) if a.state in ("pending", "approved") else "-",
                _votes(a),
            )
            for a in page.items
        ),
        empty="Nobody waits for an approval.",
    )
    output.more(page)


@app.command(name="show")
def show_approval(approval: ApprovalId, /, *, connection: Connection = DEFAULT) -> None:
    """Show exactly what is asked for, and who may say yes.

    Example: broker approval show apr_…
    """
    found = connection.ask(None, lambda broker: broker.get_approval(approval))
    if connection.json:
        output.model(found)
    else:
        _show(found)


@app.command(name="approve", help_epilogue=_APPROVE)
def approve(
    approval: ApprovalId,
    /,
    *,
    reason: Reason,
    yes: Yes = False,
    connection: Connection = DEFAULT,
) -> None:
    """Say yes to exactly this request."""
    _vote(approval, reason, connection, approve=True, yes=yes)


@app.command(name="deny", help_epilogue=_DENY)
def deny(
    approval: ApprovalId,
    /,
    *,
    reason: Reason,
    yes: Yes = False,
    connection: Connection = DEFAULT,
) -> None:
    """Say no to it."""
    _vote(approval, reason, connection, approve=False, yes=yes)


@app.command(name="withdraw")
def withdraw(
    approval: ApprovalId,
    /,
    *,
    task: Annotated[
        str | None, Parameter(help="The task that it is for; an agent says so.", metavar="TASK")
    ] = None,
    connection: Connection = DEFAULT,
) -> None:
    """Take back what you asked for.

    Example: broker approval withdraw apr_…
    """
    done = connection.ask(task, lambda broker: broker.withdraw_approval(approval))
    _told(done, connection)


@app.command(name="watch", help_epilogue=_WATCH)
def watch(*, connection: Connection = DEFAULT) -> None:
    """Follow what waits for a human, until interrupted."""
    seen: dict[str, str] = {}
    with connection.client() as broker:
        first = True
        while True:
            for approval in _changes(broker, seen):
                if not first or approval.state == "pending":
                    _line(approval, json_lines=connection.json)
            first = False
            time.sleep(_APART_S)


def _changes(broker: Client, seen: dict[str, str]) -> list[Approval]:
    """Return the newest approvals that aren't as they were seen, oldest first."""
    found = broker.list_approvals(limit=_SHOWN).items
    changed = [a for a in found if seen.get(a.approval_id) != f"{a.state}{_votes(a)}"]
    seen.clear()
    seen.update({a.approval_id: f"{a.state}{_votes(a)}" for a in found})
    return changed[::-1]


def _line(approval: Approval, *, json_lines: bool) -> None:
    if json_lines:
        from broker.client.decoding import encode

        sys.stdout.write(json.dumps(encode(approval), default=str) + "\n")
    else:
        bell = "\a" if approval.state == "pending" and sys.stdout.isatty() else ""
        output.text(bell)
        ends = ago(approval.expires_at, SystemClock().now())
        more = f", {_votes(approval)}, ends {ends}" if approval.state == "pending" else ""
        output.line(
            f"{approval.approval_id}  {approval.state}: {approval.requester} asks for "
            f"{_what(approval)}: {approval.purpose}{more}"
        )
    sys.stdout.flush()


def _vote(
    approval_id: str, reason: str, connection: Connection, *, approve: bool, yes: bool
) -> None:
    with connection.client() as broker:
        if not yes and sys.stdin.isatty() and not connection.json:
            _show(broker.get_approval(approval_id))
            word = "approves" if approve else "denies"
            confirm(f"This {word} exactly that.", yes=False)
        call = broker.approve if approve else broker.deny
        done = call(approval_id, reason)
    _told(done, connection)


def _told(done: Approval, connection: Connection) -> None:
    if connection.json:
        output.model(done)
        return
    output.line(f"{done.approval_id}: {done.state}, {_votes(done)}")
    if done.state == "pending":
        output.note("more have to say yes: broker approval show " + done.approval_id)


def _show(found: Approval) -> None:
    now = SystemClock().now()
    asked: dict[str, Any] = dict(found.request or {})
    output.record(
        {
            "approval": found.approval_id,
            "state": found.state,
            "reason": found.reason,
            "who asks": found.requester,
            "agent": found.agent,
            "owner": found.owner,
            "on behalf of": found.on_behalf_of,
            "task": found.task_id,
            "purpose": found.purpose,
            "asks for": _what(found),
            "intent": found.intent,
            **{_words(k): _value(k, v) for k, v in asked.items() if v not in (None, {}, [], 0)},
            "because of": ", ".join(found.policies),
            "needs": "; ".join(_need(n.group, n.count, n.have) for n in found.needs),
            "escalated to": ", ".join(found.escalated_to),
            "votes": "\n".join(f"{v.by}: {v.reason or ''}" for v in found.votes),
            "asked": when(found.created_at, now),
            "ends": when(found.expires_at, now),
            "used by": found.used_by,
            "decision": found.decision_id,
        }
    )


def _what(approval: Approval) -> str:
    verb = {"call_tool": "call ", "elevate": "elevation to ", "open_task": "a task of "}
    power = f" ({approval.power})" if approval.power else ""
    return f"{verb.get(approval.action, '')}{approval.capability or approval.agent}{power}"


def _words(name: str) -> str:
    return "lasts" if name == "ttl_ms" else name.removesuffix("_ms").replace("_", " ")


def _value(name: str, value: object) -> str:
    from broker.durations import format_duration

    if name.endswith("_ms") and isinstance(value, int):
        return format_duration(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _need(group: str | None, count: int, have: int) -> str:
    return f"{have} of {count} {'of ' + group if group else 'operators'}"


def _votes(approval: Approval) -> str:
    return ", ".join(
        f"{n.have}/{n.count}" + (f" {n.group}" if n.group else "") for n in approval.needs
    )
