"""``broker owner``: who answers for the principals, and what happens when they leave."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter

from broker.cli import output, unsettled
from broker.cli.agent import Reason, Yes, confirm
from broker.cli.connection import DEFAULT, Connection
from broker.cli.text import plural
from broker.cli.watching import watchable

if TYPE_CHECKING:
    from broker.client import Owner

Who = Annotated[str, Parameter(help="The owner, as the principals name them.", metavar="OWNER")]

_RETIRE: Final = """\
Without --hand-over-to every principal of theirs stops, and all that those have \
is revoked. With it nothing is revoked.

Examples:

  broker owner retire alice@example.com --reason "left" --hand-over-to bob@example.com
  broker owner retire alice@example.com --reason "left" --yes
"""

app = App(
    name="owner",
    group_commands="Commands",
    help="List who answers for principals; say who left, and who takes over.",
)


@app.command(name="list")
@watchable
def list_owners(*, connection: Connection = DEFAULT) -> None:
    """List the owners, and what is theirs.

    Example: broker owner list --json
    """
    with connection.client() as broker:
        page = broker.list_owners()
    if connection.json:
        output.page_document(page)
        return
    output.rows(
        ("owner", "state", "principals", "live grants", "handed over to"),
        (
            (o.owner, o.state, ", ".join(o.principals), str(o.live_grants), o.handed_over_to)
            for o in page.items
        ),
        empty="No owners.",
    )


@app.command(help_epilogue=_RETIRE)
def retire(
    owner: Who,
    /,
    *,
    reason: Reason,
    hand_over_to: Annotated[
        str | None, Parameter(help="Who answers for theirs from now on.", metavar="OWNER")
    ] = None,
    yes: Yes = False,
    connection: Connection = DEFAULT,
) -> None:
    """An owner leaves, and takes all of theirs along unless it is handed over."""
    if hand_over_to is None:
        confirm(f"This stops every principal of {owner}, and revokes all they have.", yes=yes)
    with connection.client() as broker:
        gone = broker.retire_owner(owner, reason, hand_over_to=hand_over_to)
    if connection.json:
        output.model(gone)
        return
    if hand_over_to is not None:
        output.line(f"{owner}: left, theirs is {hand_over_to}'s now")
        return
    grants = gone.grants
    output.line(
        f"{owner}: left, {plural(len(gone.principals), 'principal')} stopped, "
        f"{plural(grants.revoked, 'grant')} revoked"
    )
    unsettled.tell(grants)


@app.command
def reinstate(owner: Who, /, *, reason: Reason, connection: Connection = DEFAULT) -> None:
    """An owner is back: what is still theirs may work again.

    Example: broker owner reinstate alice@example.com --reason "back from leave"
    """
    with connection.client() as broker:
        back = broker.reinstate_owner(owner, reason)
    _show(back, connection)


def _show(owner: Owner, connection: Connection) -> None:
    if connection.json:
        output.model(owner)
    else:
        output.line(f"{owner.owner}: {owner.state}, {plural(len(owner.principals), 'principal')}")
