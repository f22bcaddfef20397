"""``broker quota``: the limits of live credentials and their rate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cyclopts import App

from broker.cli import output
from broker.cli.connection import DEFAULT, FIRST, Connection, Paging
from broker.cli.watching import watchable

if TYPE_CHECKING:
    from broker.client import Quota

app = App(
    name="quota",
    group_commands="Commands",
    help="List the quotas of the configuration, and what is used of them.",
)


@app.command(name="list")
@watchable
def list_quotas(*, paging: Paging = FIRST, connection: Connection = DEFAULT) -> None:
    """List the limits that are configured, each with what is used of it now.

    Example: broker quota list --json
    """
    with connection.client() as broker:
        page = paging.collect(lambda cursor, limit: broker.list_quotas(cursor=cursor, limit=limit))
    if connection.json:
        output.page_document(page)
        return
    output.rows(
        ("limit", "of", "used", "most", ""),
        ((q.limit, q.name, str(q.used), _most(q), _mark(q)) for q in page.items),
        empty="No quotas are configured.",
    )
    output.more(page)


def _most(quota: Quota) -> str:
    return f"{quota.most}/{quota.window}" if quota.window else str(quota.most)


def _mark(quota: Quota) -> str:
    return "reached" if quota.used >= quota.most else ""
