"""``broker keys``: the keys that the broker signs its tokens with."""

from __future__ import annotations

import sys
from typing import Annotated, Final

from cyclopts import App, Parameter

from broker.cli import output
from broker.cli.connection import DEFAULT, Connection
from broker.cli.refusals import CommandFailed, UsageError
from broker.cli.text import plural, when
from broker.cli.watching import watchable
from broker.clock import SystemClock

_ROTATE: Final = """\
Examples:

  broker keys rotate --reason "before the audit"
  broker keys rotate --now --reason "a backup of the keys got out" --yes
"""

app = App(
    name="keys",
    group_commands="Commands",
    help="List and rotate the broker's signing keys. They rotate by themselves, too.",
)


@app.command(name="list")
@watchable
def list_keys(*, connection: Connection = DEFAULT) -> None:
    """List the signing keys, newest first: next, signing, retiring.

    Example: broker keys list --json
    """
    with connection.client() as broker:
        page = broker.list_keys()
    if connection.json:
        output.page_document(page)
        return
    now = SystemClock().now()
    output.rows(
        ("key", "algorithm", "state", "made", "signs from", "retires"),
        (
            (
                key.kid,
                key.algorithm,
                key.state,
                when(key.created_at, now),
                when(key.signs_from, now),
                when(key.retires_at, now),
            )
            for key in page.items
        ),
        empty="There are no keys.",
    )


@app.command(help_epilogue=_ROTATE)
def rotate(
    *,
    reason: Annotated[
        str | None, Parameter(help="Why, for the log; --now needs one.", metavar="TEXT")
    ] = None,
    now: Annotated[
        bool,
        Parameter(
            help="A key has leaked: every token signed so far is dead at once.",
            negative="",
            show_default=False,
        ),
    ] = False,
    yes: Annotated[
        bool, Parameter(help="Don't ask before --now.", negative="", show_default=False)
    ] = False,
    connection: Connection = DEFAULT,
) -> None:
    """Make the next signing key: published at once, it signs once nobody can have missed it."""
    if now:
        if not reason:
            raise UsageError("--now needs --reason")
        _confirm(yes=yes)
    with connection.client() as broker:
        key = broker.rotate_keys(reason=reason, now=now)
    if connection.json:
        output.model(key)
        return
    since = when(key.signs_from, SystemClock().now())
    output.line(f"{key.kid}: {key.state}, signs from {since}")
    if now:
        output.line(f"{plural(len(key.removed), 'key')} removed; every earlier token is dead")


def _confirm(*, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("--now needs --yes where nobody can be asked")
    output.note("This kills every token of every agent and operator. Type yes to go on:")
    if sys.stdin.readline().strip().lower() != "yes":
        raise CommandFailed("Not confirmed: nothing was done", code="not_confirmed")
