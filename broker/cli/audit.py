"""``broker audit``: the log of every decision and what came of it."""

from __future__ import annotations

import json
from typing import Annotated, Final

from cyclopts import App, Parameter

from broker.cli import output
from broker.cli.connection import DEFAULT, Connection, Paging
from broker.cli.text import when
from broker.clock import SystemClock

_LIST: Final = """\
Examples:

  broker audit list --task tsk_…
  broker audit list --after evt_… --limit 1000 --json
"""

_DATA_WIDTH: Final = 120

app = App(name="audit", help="Read the log.")


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
    now = SystemClock().now()
    output.rows(
        ("time", "event", "principal", "about", "data"),
        (
            (when(e.time, now), e.type, e.principal, e.grant_id or e.task_id, _short(e.data))
            for e in page.items
        ),
        empty="No events.",
    )
    output.more(page, option="--after")


def _short(data: object) -> str:
    text = json.dumps(data, separators=(",", ":"), default=str) if data else ""
    return text if len(text) <= _DATA_WIDTH else text[: _DATA_WIDTH - 1] + "…"
