"""``broker break-glass``: a capability at once, with nobody asked, and a review afterwards."""

from __future__ import annotations

from typing import Annotated, Final

from cyclopts import App, Parameter

from broker.cli import confirming, output
from broker.cli.connection import DEFAULT, Connection, duration
from broker.cli.elevate import CapabilityName, TaskId, show
from broker.cli.refusals import UsageError

_EXAMPLES: Final = """\
For whom policy names, and with a token that is bound to a key (--dpop, or mutual TLS). People \
are alarmed at once, the window is short, what it touched is rotated where that can be done, and \
somebody else has to look at it afterwards: `broker review`.

Example: broker break-glass tsk_… orders-admin --intent "the shop is down" --dpop --yes
"""

app = App(name="break-glass", help_epilogue=_EXAMPLES)


@app.default
def break_glass(
    task: TaskId,
    capability: CapabilityName,
    /,
    *,
    intent: Annotated[str, Parameter(help="What has happened.", metavar="TEXT")],
    ttl: Annotated[
        str | None, Parameter(help="How long, such as 5m.", validator=duration, metavar="TIME")
    ] = None,
    yes: Annotated[
        bool, Parameter(help="Don't ask first.", negative="", show_default=False)
    ] = False,
    connection: Connection = DEFAULT,
) -> None:
    """Take a capability for a task at once, with nobody asked."""
    if not yes:
        if not confirming.person_is_there():
            raise UsageError("break-glass needs --yes where nobody can be asked")
        alarm = "This alarms people at once, and somebody will look at what is done with it."
        confirming.must_type(capability, alarm)
    broken = connection.ask(
        task, lambda broker: broker.break_glass(task, capability, intent=intent, ttl=ttl)
    )
    show(broken, connection)
    if not connection.json:
        output.note(f"end it as soon as you can: broker elevate end {task} {broken.elevation_id}")
