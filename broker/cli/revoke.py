"""``broker revoke``: kill every credential that matches, now."""

from __future__ import annotations

from typing import Annotated, Final

from cyclopts import App, Parameter

from broker.cli import output, unsettled
from broker.cli.connection import DEFAULT, Connection
from broker.cli.selector import NONE, Selector, confirm, describe
from broker.cli.text import plural

Reason = Annotated[str, Parameter(help="Why, for the log.", metavar="TEXT")]
Yes = Annotated[bool, Parameter(help="Don't ask before --all.", negative="", show_default=False)]

_EXAMPLES: Final = """\
Examples:

  broker revoke --task tsk_… --reason "wrong customer"
  broker revoke --agent report-writer --reason "prompt injection" --freeze
  broker revoke --all --reason "incident 12" --yes
"""

app = App(name="revoke", help_epilogue=_EXAMPLES)


@app.default
def revoke(
    *,
    selector: Selector = NONE,
    reason: Reason,
    freeze: Annotated[
        bool,
        Parameter(
            help="Also issue nothing more, until `broker thaw`.", negative="", show_default=False
        ),
    ] = False,
    yes: Yes = False,
    connection: Connection = DEFAULT,
) -> None:
    """Revoke every credential that matches; a task's children are part of it."""
    chosen = selector.as_wire()
    confirm(chosen, "This revokes every live credential of every task.", yes=yes)
    with connection.client() as broker:
        done = broker.revoke(chosen, reason, freeze=freeze)
    if connection.json:
        output.model(done)
        return
    output.line(
        f"{describe(chosen)}: {plural(done.matched, 'grant')} matched, "
        f"{done.revoked} revoked, {done.revoking} being revoked ({done.revocation_id})"
    )
    if freeze:
        output.line(f"{describe(chosen)}: frozen, until `broker thaw`")
    unsettled.tell(done)
