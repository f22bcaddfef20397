"""``broker revoke``: kill every credential that matches, now."""

from __future__ import annotations

from typing import Annotated, Final

from cyclopts import App, Parameter

from broker.cli import doomed, output, unsettled
from broker.cli.connection import DEFAULT, Connection
from broker.cli.refusals import UsageError
from broker.cli.selector import NONE, Selector, describe
from broker.cli.text import plural

Reason = Annotated[str, Parameter(help="Why, for the log.", metavar="TEXT")]
Yes = Annotated[bool, Parameter(help="Don't ask before it.", negative="", show_default=False)]

_EXAMPLES: Final = """\
Examples:

  broker revoke --task tsk_… --reason "wrong customer"
  broker revoke --agent report-writer --reason "prompt injection" --freeze
  broker revoke --owner data@example.com --preview
  broker revoke --all --freeze --reason "incident 12" --yes --wait 5m
"""

app = App(name="revoke", help_epilogue=_EXAMPLES)


@app.default
def revoke(
    *,
    selector: Selector = NONE,
    reason: Annotated[
        str | None, Parameter(help="Why, for the log; needed to revoke.", metavar="TEXT")
    ] = None,
    freeze: Annotated[
        bool,
        Parameter(
            help="Also issue nothing more, until `broker thaw`.", negative="", show_default=False
        ),
    ] = False,
    preview: Annotated[
        bool,
        Parameter(help="Only say what would be revoked.", negative="", show_default=False),
    ] = False,
    wait: Annotated[
        bool | str,
        Parameter(
            help="Wait, at most TIME, until all of it is confirmed dead.",
            negative="",
            show_default=False,
            metavar="[TIME]",
        ),
    ] = False,
    yes: Yes = False,
    connection: Connection = DEFAULT,
) -> None:
    """Revoke every credential that matches; a task's children are part of it.

    At a terminal it says what will die, and asks.
    """
    chosen, until_s = selector.as_wire(), doomed.waiting(wait)
    with connection.client() as broker:
        if preview:
            doomed.show(broker.preview_revocation(chosen), json=connection.json)
            return
        if reason is None or not reason.strip():
            raise UsageError("Give --reason, and not empty")
        doomed.confirm(broker, chosen, freeze=freeze, yes=yes)
        done = broker.revoke(chosen, reason, freeze=freeze)
        if until_s is not None:
            doomed.follow(broker, chosen, until_s, quiet=connection.json)
    if connection.json:
        output.model(done)
        return
    output.line(
        f"{describe(chosen)}: {plural(done.matched, 'grant')} matched, "
        f"{done.revoked} revoked, {done.revoking} being revoked ({done.revocation_id})"
    )
    if freeze:
        output.line(f"{describe(chosen)}: frozen, until `broker thaw`")
    if until_s is not None:
        output.line(f"{describe(chosen)}: all of it is confirmed dead")
    else:
        unsettled.tell(done)
