"""``broker task``: the unit of work, and of revocation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import App, Parameter

from broker.cli import output, unsettled
from broker.cli.connection import DEFAULT, FIRST, Connection, Paging, duration
from broker.cli.limits import NONE, TaskLimits, shown
from broker.cli.pairs import parse_pairs
from broker.cli.text import ago, plural, when
from broker.cli.watching import watchable
from broker.clock import SystemClock

if TYPE_CHECKING:
    from broker.client import Task
    from broker.client.calls import Outcome

TaskId = Annotated[str, Parameter(help="The task's id.", metavar="TASK", name="task")]
Summary = Annotated[str | None, Parameter(help="What came of it, for the log.", metavar="TEXT")]
State = Literal[
    "pending_approval",
    "active",
    "completed",
    "failed",
    "cancelled",
    "expired",
    "revoked",
    "denied",
]

_OPEN: Final = """\
Examples:

  broker task open --agent report-writer --purpose "nightly report" \\
      --capability orders-read --ttl 15m

  broker task open --agent helper --purpose "fetch page 2" \\
      --capability web-get --parent tsk_… --heartbeat 30s --json

  broker task open --agent payer --purpose "pay the March invoices" \\
      --capability pay-out --parameter pay-out.to=acme \\
      --budget calls=10 --budget amount=250.00 --delegate-to checker
"""
_LIST: Final = """\
Examples:

  broker task list --state active
  broker task list --search invoices --owner data@example.com --watch
  broker task list --agent report-writer --limit 500 --json
"""
_END: Final = """\
Every credential under the task and its children is revoked. Some may not be \
confirmed dead yet: `broker grant list --task TASK` follows them.

Examples:

  broker task complete tsk_… --summary "41 orders counted"
  broker task fail tsk_… --summary "no such table" --json
  broker task cancel tsk_…
"""
_POWER: Final = """\
Show what a task and its chain can do now, taken together, and why.

Example: broker task power tsk_…
"""
_STORY: Final = """\
The same as `broker audit show`.

Example: broker task story tsk_…
"""
_SHOW: Final = """\
Example: broker task show tsk_… --watch
"""
_HEARTBEAT: Final = """\
Example: broker task heartbeat tsk_…
"""
_TREE: Final = """\
Each task is drawn with its power (what it can do with all below it), the \
effects it has had, and below it its live grants with the time they have left, \
elevations, and what waits for approval.

Examples:

  broker task tree tsk_…
  broker task tree tsk_… --whole --watch
  broker task tree tsk_… --json | jq '.nodes[].grants[].grant_id'
"""

app = App(name="task", group_commands="Commands", help="Open, watch and end tasks.")
app.command("broker.cli.power:task_power", name="power", help=_POWER)
app.command(
    "broker.cli.audit:show",
    name="story",
    help="Tell a task's story: intent, decisions, credentials, executions, the end.",
    help_epilogue=_STORY,
)
app.command(
    "broker.cli.tree:task_tree",
    name="tree",
    help="Draw a task and all below it.",
    help_epilogue=_TREE,
)


@app.command(name="open", help_epilogue=_OPEN)
def open_task(  # noqa: PLR0913  one option for each member of the request
    *,
    agent: Annotated[str, Parameter(help="The agent that will run it.", metavar="NAME")],
    purpose: Annotated[str, Parameter(help="What it is for, in a sentence.", metavar="TEXT")],
    capability: Annotated[
        tuple[str, ...],
        Parameter(help="What it may be granted; repeat for more.", metavar="NAME", negative=""),
    ],
    ttl: Annotated[
        str | None,
        Parameter(
            help="How long it may last, such as 15m or 1h30m.", validator=duration, metavar="TIME"
        ),
    ] = None,
    parent: Annotated[
        str | None, Parameter(help="The task that it is part of.", metavar="TASK")
    ] = None,
    on_behalf_of: Annotated[
        str | None,
        Parameter(help="A file with a JWT of the person it runs for.", metavar="FILE"),
    ] = None,
    context: Annotated[
        tuple[str, ...],
        Parameter(
            help="A fact for policy; repeat for more.",
            metavar="KEY=VALUE",
            negative="",
            show_default=False,
        ),
    ] = (),
    heartbeat: Annotated[
        str | None,
        Parameter(
            help="End it when it is silent for this long.", validator=duration, metavar="TIME"
        ),
    ] = None,
    limits: TaskLimits = NONE,
    idempotency_key: Annotated[
        str | None, Parameter(help="Opens one task, however often it is used.", metavar="KEY")
    ] = None,
    connection: Connection = DEFAULT,
) -> None:
    """Open a task for an agent."""
    from broker.client import token_file

    facts = parse_pairs(context, "--context")
    limited = limits.document()
    person = token_file(on_behalf_of)() if on_behalf_of else None
    task = connection.ask(
        parent,
        lambda broker: broker.open_task(
            agent,
            purpose,
            capability,
            ttl=ttl,
            parent_task_id=parent,
            on_behalf_of=person,
            context=facts or None,
            heartbeat=heartbeat,
            limits=limited,
            idempotency_key=idempotency_key,
        ),
    )
    _show(task, connection)


@app.command(name="list", help_epilogue=_LIST)
@watchable
def list_tasks(
    *,
    state: Annotated[State | None, Parameter(help="Only those in this state.")] = None,
    agent: Annotated[str | None, Parameter(help="Only this agent's.", metavar="NAME")] = None,
    owner: Annotated[str | None, Parameter(help="Only this owner's.", metavar="WHO")] = None,
    capability: Annotated[
        str | None, Parameter(help="Only those that may have this.", metavar="NAME")
    ] = None,
    search: Annotated[
        str | None,
        Parameter(help="Only with this text in purpose, names or ids.", metavar="TEXT"),
    ] = None,
    paging: Paging = FIRST,
    connection: Connection = DEFAULT,
) -> None:
    """List the tasks that you may see."""
    with connection.client() as broker:
        page = paging.collect(
            lambda cursor, limit: broker.list_tasks(
                state=state,
                agent=agent,
                owner=owner,
                capability=capability,
                text=search,
                cursor=cursor,
                limit=limit,
            )
        )
    if connection.json:
        output.page_document(page)
        return
    now = SystemClock().now()
    output.rows(
        ("task", "state", "agent", "purpose", "expires"),
        ((t.task_id, t.state, t.agent, t.purpose, ago(t.expires_at, now)) for t in page.items),
        empty="No tasks.",
    )
    output.more(page)


@app.command(name="show", help_epilogue=_SHOW)
@watchable
def show_task(task: TaskId, /, *, connection: Connection = DEFAULT) -> None:
    """Show one task."""
    _show(connection.ask(task, lambda broker: broker.get_task(task)), connection)


@app.command(name="complete", help_epilogue=_END)
def complete_task(
    task: TaskId, /, *, summary: Summary = None, connection: Connection = DEFAULT
) -> None:
    """End a task that reached its purpose."""
    _end(task, "completed", summary, connection)


@app.command(name="fail", help_epilogue=_END)
def fail_task(
    task: TaskId, /, *, summary: Summary = None, connection: Connection = DEFAULT
) -> None:
    """End a task that did not reach its purpose."""
    _end(task, "failed", summary, connection)


@app.command(name="cancel", help_epilogue=_END)
def cancel_task(
    task: TaskId, /, *, summary: Summary = None, connection: Connection = DEFAULT
) -> None:
    """End a task that is no longer wanted."""
    _end(task, "cancelled", summary, connection)


@app.command(help_epilogue=_HEARTBEAT)
def heartbeat(task: TaskId, /, *, connection: Connection = DEFAULT) -> None:
    """Say that a task is still being worked on."""
    found = connection.ask(task, lambda broker: broker.heartbeat(task))
    if connection.json:
        output.model(found)
        return
    due = when(found.heartbeat_due_at, SystemClock().now())
    output.line(f"{found.task_id}: {found.state}, next heartbeat due {due}")


def _end(task_id: str, outcome: Outcome, summary: str | None, connection: Connection) -> None:
    end = connection.ask(task_id, lambda broker: broker.complete(task_id, outcome, summary=summary))
    if connection.json:
        output.model(end)
        return
    grants = end.grants
    output.line(f"{task_id}: {end.state}, {plural(grants.revoked, 'grant')} revoked")
    unsettled.tell(grants, f"broker grant list --task {task_id}")


def _show(task: Task, connection: Connection) -> None:
    if connection.json:
        output.model(task)
        return
    now = SystemClock().now()
    output.record(
        {
            "task": task.task_id,
            "state": task.state,
            "reason": task.reason,
            "agent": task.agent,
            "owner": task.owner,
            "purpose": task.purpose,
            "capabilities": ", ".join(task.capabilities),
            "created": when(task.created_at, now) if task.created_at else "",
            "created by": task.created_by,
            "expires": when(task.expires_at, now),
            "ended": when(task.ended_at, now) if task.ended_at else "",
            "summary": task.summary,
            "parent": task.parent_task_id,
            "on behalf of": task.on_behalf_of,
            "heartbeat": f"every {task.heartbeat}" if task.heartbeat else "",
            **shown(task),
        }
    )
    for text in task.notes:
        output.note(f"note: {text}")
