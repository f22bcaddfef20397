"""``broker freeze``, ``thaw`` and ``freezes``: what may not be issued for the time being."""

from __future__ import annotations

from typing import Final

from cyclopts import App

from broker.cli import output
from broker.cli.connection import DEFAULT, FIRST, Connection, Paging
from broker.cli.revoke import Reason, Yes
from broker.cli.selector import NONE, Selector, confirm, describe
from broker.cli.text import when
from broker.cli.watching import watchable
from broker.clock import SystemClock

_FREEZE: Final = """\
Examples:

  broker freeze --agent report-writer --reason "prompt injection"
  broker freeze --backend vault --reason "rotating its root" --json
"""
_THAW: Final = """\
Example:

  broker thaw --agent report-writer --reason "prompt fixed, reviewed"
"""

_FREEZES: Final = """\
Example: broker freezes --watch
"""

freeze_app = App(name="freeze", help_epilogue=_FREEZE)
thaw_app = App(name="thaw", help_epilogue=_THAW)
freezes_app = App(name="freezes", help_epilogue=_FREEZES)


@freeze_app.default
def freeze(
    *,
    selector: Selector = NONE,
    reason: Reason,
    yes: Yes = False,
    connection: Connection = DEFAULT,
) -> None:
    """Issue nothing more that matches, until thawed; what is live stays.

    `broker revoke --freeze` kills what is live as well.
    """
    chosen = selector.as_wire()
    confirm(chosen, "This stops the broker from issuing anything.", yes=yes)
    with connection.client() as broker:
        done = broker.freeze(chosen, reason)
    if connection.json:
        output.document(done)
    else:
        output.line(f"{describe(chosen)}: frozen, until `broker thaw`")


@thaw_app.default
def thaw(*, selector: Selector = NONE, reason: Reason, connection: Connection = DEFAULT) -> None:
    """Lift a freeze: the selector is the one that it was made with."""
    chosen = selector.as_wire()
    with connection.client() as broker:
        done = broker.thaw(chosen, reason)
    if connection.json:
        output.document(done)
    else:
        output.line(f"{describe(chosen)}: thawed")


@freezes_app.default
@watchable
def freezes(*, paging: Paging = FIRST, connection: Connection = DEFAULT) -> None:
    """List the freezes in force."""
    with connection.client() as broker:
        page = paging.collect(lambda cursor, limit: broker.list_freezes(cursor=cursor, limit=limit))
    if connection.json:
        output.page_document(page)
        return
    now = SystemClock().now()
    output.rows(
        ("frozen", "reason", "by", "since"),
        ((describe(f.selector), f.reason, f.by, when(f.at, now)) for f in page.items),
        empty="Nothing is frozen.",
    )
    output.more(page)
