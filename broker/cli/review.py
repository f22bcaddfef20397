"""``broker review``: what was done with the glass broken, and who has looked at it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter

from broker.cli import confirming, output
from broker.cli.connection import DEFAULT, FIRST, Connection, Paging
from broker.cli.elevate import show
from broker.cli.text import ago
from broker.cli.watching import watchable
from broker.clock import SystemClock

if TYPE_CHECKING:
    from broker.client import Elevation

_CLOSE: Final = """\
For an operator who didn't break it. `broker audit show TASK` tells what was done.

Example: broker review close elv_… --findings "restarted the shop, password rotated, no data read"
"""

app = App(
    name="review", group_commands="Commands", help="Look at what was done with the glass broken."
)


@app.command(name="list")
@watchable
def list_reviews(
    *,
    closed: Annotated[
        bool, Parameter(help="Those that were looked at.", negative="", show_default=False)
    ] = False,
    paging: Paging = FIRST,
    connection: Connection = DEFAULT,
) -> None:
    """List the break-glasses that nobody has looked at yet, newest first.

    Example: broker review list --closed --json
    """
    state = "closed" if closed else "open"
    with connection.client() as broker:
        page = paging.collect(
            lambda cursor, limit: broker.list_reviews(state=state, cursor=cursor, limit=limit)
        )
    if connection.json:
        output.page_document(page)
        return
    now = SystemClock().now()
    output.rows(
        ("review", "state", "agent", "capability", "by", "intent", "broken", "rotated", "findings"),
        (
            (
                e.elevation_id,
                e.state if e.review == "open" else "closed",
                e.agent,
                e.capability,
                e.by,
                e.intent or "",
                ago(e.started_at, now),
                _rotated(e),
                e.findings or "-",
            )
            for e in page.items
        ),
        empty="No review is closed." if closed else "No review is open.",
    )
    output.more(page)


@app.command(name="close", help_epilogue=_CLOSE)
def close_review(
    review: Annotated[str, Parameter(help="The elevation's id.", metavar="REVIEW", name="review")],
    /,
    *,
    findings: Annotated[
        str | None,
        Parameter(help="What you found; asked for at a terminal.", metavar="TEXT"),
    ] = None,
    connection: Connection = DEFAULT,
) -> None:
    """Close the review of a break-glass with what you found."""
    ask = confirming.person_is_there()
    said = confirming.said(findings, "--findings", "What did you find? (for the log)", ask=ask)
    with connection.client() as broker:
        done = broker.close_review(review, said)
    show(done, connection)


def _rotated(elevation: Elevation) -> str:
    states = [str(state) for state in (elevation.rotation or {}).values()]
    return ", ".join(f"{states.count(state)} {state}" for state in sorted({*states})) or "-"
