"""``broker audit``: the log of every decision and what came of it."""

from __future__ import annotations

import json
from typing import Annotated, Final

from cyclopts import App, Parameter

from broker.cli import output
from broker.cli.connection import DEFAULT, Connection, Paging

_LIST: Final = """\
Examples:

  broker audit list --task tsk_…
  broker audit list --after evt_… --limit 1000 --json
"""

_DATA_WIDTH: Final = 120

app = App(name="audit", group_commands="Commands", help="Read the log.")


@app.command(name="list", help_epilogue=_LIST)
def list_events(
    *,
    task: Annotated[str | None, Parameter(help="Only this task's.", metavar="TASK")] = None,
    after: Annotated[
        str | None, Parameter(help="Only what follows this event or cursor.", metavar="EVENT")
    ] = None,
    limit: Annotated[int, Parameter(help="Show at most this many.", metavar="N")] = 50,
    connection: Connection = DEFAULT,
) -> None:
    """List events, oldest first."""
    with connection.client() as broker:
        page = Paging(limit=limit, cursor=after).collect(
            lambda cursor, size: broker.audit_events(task_id=task, after=cursor, limit=size)
        )
    if connection.json:
        output.page_document(page)
        return
    if not page.items:
        output.note("No events.")
    for event in page.items:
        # Two lines: ids and data are too long for columns of a table.
        time = f"{event.time:%Y-%m-%d %H:%M:%S.%f}"[:-3] + "Z" if event.time else "-"
        output.line(f"{time:24}  {event.type:16}  {event.principal or ''}".rstrip())
        output.line(f"    {event.grant_id or event.task_id or '-'}  {_short(event.data)}".rstrip())
    output.more(page, option="--after")


def _short(data: object) -> str:
    text = json.dumps(data, separators=(",", ":"), default=str) if data else ""
    return text if len(text) <= _DATA_WIDTH else text[: _DATA_WIDTH - 1] + "…"
