"""``broker audit``: the log of every decision and what came of it."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import App, Parameter

from broker.cli import audit_files, audit_proofs, output
from broker.cli.connection import DEFAULT, Connection, Paging, duration
from broker.cli.refusals import CommandFailed, UsageError
from broker.cli.text import plural, when
from broker.cli.watching import watchable
from broker.clock import SystemClock
from broker.durations import parse_duration

if TYPE_CHECKING:
    from broker.audit.story import Story
    from broker.client import AuditEvent

_LIST: Final = """\
Examples:

  broker audit list --task tsk_…
  broker audit list --type grant.revoked --since 1h --search orders
  broker audit list --after 1800000000000-03-0 --limit 500 --json
"""
_EVENT: Final = """\
Example: broker audit event 1800000000000-03-0 --json
"""
_TAIL: Final = """\
Examples:

  broker audit tail --since 1h
  broker audit tail --follow --json | jq .type
"""
_SHOW: Final = """\
Examples:

  broker audit show tsk_…
  broker audit show tsk_… --log .broker/audit
"""

_DATA_WIDTH: Final = 120
_POLL_S: Final = 1.0
_PAGE: Final = 100

app = App(
    name="audit",
    group_commands="Commands",
    help="Read the log, tell a task's story, and prove that nothing was changed.",
)
Kind = Annotated[
    str | None,
    Parameter(
        name="--type",
        help="Only this type, such as grant.revoked, or all of grant.",
        metavar="TYPE",
    ),
]
Who = Annotated[str | None, Parameter(help="Only what they did.", metavar="NAME")]
Search = Annotated[str | None, Parameter(help="Only with this text in them.", metavar="TEXT")]
OfTask = Annotated[str | None, Parameter(help="Only this task's.", metavar="TASK")]


@app.command(name="list", help_epilogue=_LIST)
@watchable
def list_events(
    *,
    task: OfTask = None,
    kind: Kind = None,
    principal: Who = None,
    search: Search = None,
    since: Annotated[
        str | None,
        Parameter(help="Only what is not older, such as 1h.", metavar="TIME", validator=duration),
    ] = None,
    after: Annotated[
        str | None, Parameter(help="Only what follows this event or cursor.", metavar="EVENT")
    ] = None,
    limit: Annotated[int, Parameter(help="Show at most this many.", metavar="N")] = 50,
    connection: Connection = DEFAULT,
) -> None:
    """List events, oldest first."""
    if since is not None and after is not None:
        raise UsageError("--since and --after exclude each other")
    after = _begin(since) if since is not None else after
    with connection.client() as broker:
        page = Paging(limit=limit, cursor=after).collect(
            lambda cursor, size: broker.audit_events(
                task_id=task,
                kind=kind,
                principal=principal,
                text=search,
                after=cursor,
                limit=size,
            )
        )
    if connection.json:
        output.page_document(page)
        return
    if not page.items:
        output.note("No events.")
    for event in page.items:
        _line(event)
    output.more(page, option="--after")


@app.command(help_epilogue=_TAIL)
def tail(
    *,
    task: OfTask = None,
    kind: Kind = None,
    principal: Who = None,
    since: Annotated[
        str, Parameter(help="How far back to begin.", metavar="DURATION", validator=duration)
    ] = "10m",
    follow: Annotated[
        bool, Parameter(help="Go on until interrupted.", negative="", show_default=False)
    ] = False,
    connection: Connection = DEFAULT,
) -> None:
    """Show the latest events, oldest first; with --json one JSON document a line."""
    from broker.client.decoding import encode

    after = _begin(since)
    with connection.client() as broker:
        while True:
            page = broker.audit_events(
                task_id=task, kind=kind, principal=principal, after=after, limit=_PAGE
            )
            for event in page.items:
                if connection.json:
                    sys.stdout.write(json.dumps(encode(event), default=str) + "\n")
                else:
                    _line(event)
            sys.stdout.flush()
            if page.items:
                after = page.items[-1].id
            if page.next is not None:
                after = page.next
            elif follow:
                time.sleep(_POLL_S)
            else:
                return


@app.command(help_epilogue=_SHOW)
@watchable
def show(
    task: Annotated[str, Parameter(help="The task.", metavar="TASK")],
    *,
    log: Annotated[
        Path | None,
        Parameter(
            help="Tell it from the log in this folder, with all tasks below it.", metavar="DIR"
        ),
    ] = None,
    connection: Connection = DEFAULT,
) -> None:
    """Tell a task's story: intent, decisions, credentials, executions, the end."""
    from broker.audit.reader import read_events
    from broker.audit.story import tell

    story = tell(task, read_events(log) if log is not None else _events_of(task, connection))
    if not story.lines:
        raise CommandFailed(
            f"Nothing is known of task {task}",
            code="not_found",
            hint="the ledger keeps events for a while; --log reads what is in the log's files",
        )
    if connection.json:
        output.document(story.as_json())
    else:
        _tell(story)


@app.command(help_epilogue=_EVENT)
def event(
    event: Annotated[str, Parameter(help="The event's id.", metavar="EVENT", name="event")],
    /,
    *,
    connection: Connection = DEFAULT,
) -> None:
    """Show one event, and all that it says."""
    with connection.client() as broker:
        found = broker.get_audit_event(event)
    if connection.json:
        output.model(found)
        return
    output.record(
        {
            "event": found.id,
            "time": when(found.time, SystemClock().now()),
            "type": found.type,
            "by": found.principal,
            "task": found.task_id,
            "grant": found.grant_id,
            **{str(name): _plain(value) for name, value in found.extra.items() if value},
            **{str(name): _plain(value) for name, value in found.data.items()},
        }
    )


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _begin(since: str) -> str:
    """Return a place in the log: that of an event which would be so old."""
    return f"{max(0, int(SystemClock().now() * 1000) - parse_duration(since))}-00-0"


def _events_of(task: str, connection: Connection) -> Iterable[Mapping[str, Any]]:
    from broker.client.decoding import encode

    with connection.client() as broker:
        for event in broker.iter_audit_events(task_id=task):
            yield encode(event)


def _tell(story: Story) -> None:
    output.line(f"task     {story.task}")
    for name, value in (("agent", story.agent), ("purpose", story.purpose)):
        if value:
            output.line(f"{name:8} {value}")
    output.line("")
    for line in story.lines:
        moment = line.as_json()["time"]
        who = f"  ({line.principal})" if line.principal else ""
        output.line(f"{moment}  {line.stage:10}  {line.text}{who}")
    output.line("")
    if story.live:
        output.line(f"still live: {', '.join(story.live)}")
    else:
        output.line("nothing of it is live")
    if story.unreported:
        count = plural(len(story.unreported), "allowed call")
        output.line(f"{count} of which nobody said what became: {', '.join(story.unreported)}")


def _line(event: AuditEvent) -> None:
    # Two lines: ids and data are too long for columns of a table.
    moment = f"{event.time:%Y-%m-%d %H:%M:%S.%f}"[:-3] + "Z" if event.time else "-"
    output.line(f"{moment:24}  {event.type:16}  {event.principal or ''}".rstrip())
    output.line(f"    {event.grant_id or event.task_id or '-'}  {_short(event.data)}".rstrip())


def _short(data: object) -> str:
    text = json.dumps(data, separators=(",", ":"), default=str) if data else ""
    return text if len(text) <= _DATA_WIDTH else text[: _DATA_WIDTH - 1] + "…"


audit_files.register(app)
audit_proofs.register(app)
