"""``broker approval``: what agents ask humans for."""

from __future__ import annotations

import json
import sys
import time
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import App, Parameter

from broker.cli import approval_view, confirming, output
from broker.cli.approval_view import outcome, votes, what, who
from broker.cli.connection import DEFAULT, FIRST, Connection, Paging
from broker.cli.refusals import CommandFailed
from broker.cli.text import ago
from broker.cli.watching import watchable
from broker.clock import SystemClock

if TYPE_CHECKING:
    from broker.client import Approval

ApprovalId = Annotated[
    str, Parameter(help="The approval's id.", metavar="APPROVAL", name="approval")
]
Reason = Annotated[
    str | None,
    Parameter(help="Why, for the log; asked for at a terminal.", metavar="TEXT"),
]
Yes = Annotated[
    bool, Parameter(help="Don't show it first and ask.", negative="", show_default=False)
]
OfTask = Annotated[str | None, Parameter(help="Only this task's.", metavar="TASK")]
State = Literal["pending", "approved", "denied", "expired", "cancelled", "used"]

_LIST: Final = """\
Examples:

  broker approval list --state pending
  broker approval list --task tsk_… --state denied --json
"""
_SHOW: Final = """\
An agent sees its own, under its task, and not who voted.

Examples:

  broker approval show apr_…
  broker approval show apr_… --as-task tsk_…
"""
_APPROVE: Final = """\
It is a yes to exactly what `broker approval show` shows: once, for a while, and not beyond its \
task. At a terminal it is shown, and you are asked. Nobody approves what they asked for, and some \
of it takes several people.

Examples:

  broker approval approve apr_…
  broker approval approve apr_… --reason "ticket 7, rollback is ready" --yes
"""
_DENY: Final = """\
One no is enough. The same request is answered with it until the approval's time is up.

Example: broker approval deny apr_… --reason "not before the freeze ends"
"""
_WITHDRAW: Final = """\
Example: broker approval withdraw apr_… --task tsk_…
"""
_WATCH: Final = """\
Prints what waits for a human, each vote, and what becomes of it, until interrupted; a terminal's \
bell rings for what is new. With --json it is a JSON document a line.

Examples:

  broker approval watch
  broker approval watch --json | jq .approval_id
"""

app = App(
    name="approval", group_commands="Commands", help="Approve or deny what agents ask humans for."
)


@app.command(name="list", help_epilogue=_LIST)
@watchable
def list_approvals(
    *,
    state: Annotated[State | None, Parameter(help="Only those in this state.")] = None,
    task: OfTask = None,
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
                who(a),
                what(a),
                a.purpose,
                ago(a.created_at, now),
                ago(a.expires_at, now) if a.state in ("pending", "approved") else "-",
                votes(a),
            )
            for a in page.items
        ),
        empty="No approvals." if state != "pending" else "Nothing waits for a human.",
    )
    output.more(page)


@app.command(name="show", help_epilogue=_SHOW)
@watchable
def show_approval(approval: ApprovalId, /, *, connection: Connection = DEFAULT) -> None:
    """Show exactly what is asked for, why it needs a human, and who may say yes."""
    with connection.client() as broker:
        found = broker.get_approval(approval)
    if connection.json:
        output.model(found)
    else:
        approval_view.show(found)


@app.command(name="approve", help_epilogue=_APPROVE)
def approve(
    approval: ApprovalId,
    /,
    *,
    reason: Reason = None,
    yes: Yes = False,
    connection: Connection = DEFAULT,
) -> None:
    """Say yes to exactly this request."""
    _vote(approval, "approve", reason, connection, yes=yes)


@app.command(name="deny", help_epilogue=_DENY)
def deny(
    approval: ApprovalId,
    /,
    *,
    reason: Reason = None,
    yes: Yes = False,
    connection: Connection = DEFAULT,
) -> None:
    """Say no to exactly this request."""
    _vote(approval, "deny", reason, connection, yes=yes)


@app.command(name="withdraw", help_epilogue=_WITHDRAW)
def withdraw(
    approval: ApprovalId,
    /,
    *,
    task: Annotated[
        str | None, Parameter(help="The task that it is for; an agent says so.", metavar="TASK")
    ] = None,
    connection: Connection = DEFAULT,
) -> None:
    """Take back what you asked for; what is over stays as it is."""
    done = connection.ask(task, lambda broker: broker.withdraw_approval(approval))
    _told(done, connection)


@app.command(name="watch", help_epilogue=_WATCH)
def watch(*, connection: Connection = DEFAULT) -> None:
    """Follow what waits for a human, until interrupted."""
    from broker.cli.approval_watch import PASSING, Watch

    looks, watching, down = 0, Watch(), False
    with connection.client() as broker:
        while True:
            try:
                for approval in watching.look(broker):
                    _line(approval, json_lines=connection.json)
                if not looks and not connection.json:
                    output.note("watching; Ctrl-C ends it")
                looks, down = looks + 1, False
            except PASSING as error:
                if not looks:
                    raise
                if not down:
                    output.note(f"{error.detail} Trying again until it answers.")
                down = True
                watching.failed(error)
            time.sleep(watching.pause_s)


def _line(approval: Approval, *, json_lines: bool) -> None:
    if json_lines:
        from broker.client.decoding import encode

        sys.stdout.write(json.dumps(encode(approval), default=str) + "\n")
    else:
        pending = approval.state == "pending"
        if pending and sys.stdout.isatty():
            output.text("\a")
        words = [f"{approval.approval_id}  {who(approval)}: {what(approval)}", outcome(approval)]
        if pending:
            words += [
                f"for {approval.purpose!r}",
                f"ends {ago(approval.expires_at, SystemClock().now())}",
            ]
        output.line(", ".join(words))
    sys.stdout.flush()


def _vote(
    approval_id: str,
    how: Literal["approve", "deny"],
    reason: str | None,
    connection: Connection,
    *,
    yes: bool,
) -> None:
    ask = confirming.person_is_there() and not yes
    if not ask:
        reason = confirming.said(reason, "--reason", "", ask=False)
    with connection.client() as broker:
        if ask:
            found = broker.get_approval(approval_id)
            approval_view.show(found, aside=True)
            if found.state != "pending":
                msg = f"There is nothing to {how} any more: it is {found.state}"
                raise CommandFailed(msg, code="conflict")
            reason = confirming.said(reason, "--reason", f"Why {how} it? (for the log)", ask=True)
            confirming.must_type("yes", f"{how.capitalize()} exactly that, because {reason!r}?")
        call = broker.approve if how == "approve" else broker.deny
        done = call(approval_id, str(reason))
    _told(done, connection)


def _told(done: Approval, connection: Connection) -> None:
    if connection.json:
        output.model(done)
        return
    output.line(f"{done.approval_id}: {outcome(done)}")
    if done.state == "pending":
        output.note(f"it still needs {approval_view.deciders(done)}")
