"""``broker elevate``: a task has a capability more, for a window of time."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter

from broker.cli import output
from broker.cli.connection import DEFAULT, Connection, duration
from broker.cli.text import ago, when
from broker.cli.waiting import Wait, approved
from broker.cli.watching import watchable
from broker.clock import SystemClock

if TYPE_CHECKING:
    from broker.client import Elevation

TaskId = Annotated[str, Parameter(help="The task's id.", metavar="TASK", name="task")]
CapabilityName = Annotated[
    str, Parameter(help="What it is to have.", metavar="CAPABILITY", name="capability")
]
Intent = Annotated[str, Parameter(help="What for; whoever approves reads it.", metavar="TEXT")]

_START: Final = """\
A human has to approve it as a rule. The window ends with its time, with the task, when the task \
is silent for longer than its heartbeat, or when somebody ends it; all issued in it is \
revoked then.

Examples:

  broker elevate tsk_… orders-admin --intent "mend order 7" --ttl 10m --wait 15m
  broker elevate list tsk_…
  broker elevate end tsk_… elv_…
"""
_END: Final = """\
Example: broker elevate end tsk_… elv_…
"""

app = App(
    name="elevate",
    group_commands="Commands",
    help="Give a task a capability for a while.",
    help_epilogue=_START,
)


@app.default
def elevate(
    task: TaskId,
    capability: CapabilityName,
    /,
    *,
    intent: Intent,
    ttl: Annotated[
        str | None,
        Parameter(help="How long, such as 10m.", validator=duration, metavar="TIME"),
    ] = None,
    heartbeat: Annotated[
        str | None,
        Parameter(
            help="End it when the task is silent so long.", validator=duration, metavar="TIME"
        ),
    ] = None,
    wait: Wait = None,
    connection: Connection = DEFAULT,
) -> None:
    """Ask that a task has a capability for a window of time."""
    started = approved(
        connection,
        task,
        lambda broker: broker.elevate(
            task, capability, intent=intent, ttl=ttl, heartbeat=heartbeat
        ),
        wait,
    )
    show(started, connection)
    if not connection.json and started.heartbeat:
        output.note(f"within {started.heartbeat} each: broker task heartbeat {task}")


@app.command(name="list")
@watchable
def list_elevations(task: TaskId, /, *, connection: Connection = DEFAULT) -> None:
    """List a task's elevations, newest first.

    Example: broker elevate list tsk_…
    """
    page = connection.ask(task, lambda broker: broker.list_elevations(task))
    if connection.json:
        output.page_document(page)
        return
    output.rows(
        ("elevation", "state", "capability", "by", "intent", "ends", "review"),
        (row(elevation) for elevation in page.items),
        empty="No elevations.",
    )


@app.command(name="end", help_epilogue=_END)
def end(
    task: TaskId,
    elevation: Annotated[
        str, Parameter(help="The elevation's id.", metavar="ELEVATION", name="elevation")
    ],
    /,
    *,
    connection: Connection = DEFAULT,
) -> None:
    """End an elevation now; all that was issued under it is revoked."""
    show(connection.ask(task, lambda broker: broker.end_elevation(task, elevation)), connection)


def row(elevation: Elevation) -> tuple[str, str, str, str, str, str, str]:
    """Return an elevation as a table shows it."""
    now = SystemClock().now()
    return (
        elevation.elevation_id,
        elevation.state,
        elevation.capability,
        elevation.by,
        elevation.intent or "",
        elevation.reason or ago(elevation.expires_at, now),
        elevation.review or "-",
    )


def show(elevation: Elevation, connection: Connection) -> None:
    """Print an elevation."""
    if connection.json:
        output.model(elevation)
        return
    now = SystemClock().now()
    rotation = elevation.rotation or {}
    output.record(
        {
            "elevation": elevation.elevation_id,
            "state": elevation.state,
            "reason": elevation.reason,
            "task": elevation.task_id,
            "agent": elevation.agent,
            "capability": f"{elevation.capability} ({elevation.power})",
            "by": elevation.by,
            "intent": elevation.intent,
            "break-glass": "yes: somebody has to look at it afterwards"
            if elevation.break_glass
            else "",
            "started": when(elevation.started_at, now),
            "ends": when(elevation.expires_at, now),
            "ended": when(elevation.ended_at, now) if elevation.ended_at else "",
            "heartbeat": f"every {elevation.heartbeat}" if elevation.heartbeat else "",
            "approval": elevation.approval_id,
            "rotation": ", ".join(f"{path}: {state}" for path, state in rotation.items()),
            "review": elevation.review,
            "findings": elevation.findings,
            "reviewed by": elevation.reviewed_by,
        }
    )
