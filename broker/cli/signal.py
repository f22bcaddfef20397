"""``broker signal``: what is reported of tasks, agents and owners."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final, Literal

from cyclopts import App, Group, Parameter
from cyclopts.validators import Number

from broker.cli import output, unsettled
from broker.cli.connection import DEFAULT, FIRST, Connection, Paging, duration
from broker.cli.refusals import UsageError
from broker.cli.selector import describe
from broker.cli.text import ago, plural, when
from broker.cli.watching import watchable
from broker.clock import SystemClock

Reason = Annotated[str, Parameter(help="Why, for the log.", metavar="TEXT")]
Verdict = Literal["clean", "suspicious", "compromised"]
_MOST: Final = 100

_SET: Final = """\
What is reported counts at once, for all tasks of theirs and all below them, and takes the place \
of what was reported before. Live credentials that policy doesn't allow any more are revoked.

Examples:

  broker signal set --agent report-writer --verdict compromised --reason "injected"
  broker signal set --task tsk_… --risk 60 --ttl 1h --reason "odd hours"
"""
_CLEAR: Final = """\
Example:

  broker signal clear --agent report-writer --reason "prompt fixed, reviewed"
"""

app = App(
    name="signal",
    group_commands="Commands",
    help="Report risks and verdicts of tasks, agents and owners.",
)


@Parameter(name="*", group=Group("Selector (exactly one)", sort_key=1))
@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """Exactly one of these."""

    task: Annotated[str | None, Parameter(help="A task and its children.", metavar="TASK")] = None
    agent: Annotated[
        str | None, Parameter(help="An agent or an orchestrator, by name.", metavar="NAME")
    ] = None
    owner: Annotated[str | None, Parameter(help="Whoever owns the agents.", metavar="WHO")] = None

    def as_wire(self) -> dict[str, str | bool]:
        """Return the selector as the API takes it.

        Raises:
            UsageError: none is given, or several, or an empty one, as from an unset variable.
        """
        given = {"task_id": self.task, "agent": self.agent, "owner": self.owner}
        chosen: dict[str, str | bool] = {k: v for k, v in given.items() if v is not None}
        if len(chosen) != 1 or not all(chosen.values()):
            raise UsageError("Give exactly one of --task, --agent and --owner, and not empty")
        return chosen


_NONE: Final = About()


@app.command(name="set", help_epilogue=_SET)
def set_signal(
    *,
    about: About = _NONE,
    risk: Annotated[
        int | None,
        Parameter(help="From 0 to 100.", metavar="N", validator=Number(gte=0, lte=_MOST)),
    ] = None,
    verdict: Annotated[Verdict | None, Parameter(help="What you think of them.")] = None,
    reason: Reason,
    ttl: Annotated[
        str | None,
        Parameter(help="For how long; until cleared if not given.", validator=duration),
    ] = None,
    connection: Connection = DEFAULT,
) -> None:
    """Report a risk, a verdict, or both."""
    if risk is None and verdict is None:
        raise UsageError("Give --risk, --verdict, or both")
    chosen = about.as_wire()
    with connection.client() as broker:
        done = broker.report_signal(chosen, reason, risk=risk, verdict=verdict, ttl=ttl)
    if connection.json:
        output.model(done)
        return
    until = when(done.expires_at, SystemClock().now()) if done.expires_at else "cleared"
    grants = done.reviewed
    output.line(
        f"{describe(done.selector)}: risk {done.risk}, {done.verdict}, until {until}; "
        f"{plural(grants.revoked, 'grant')} revoked"
    )
    unsettled.tell(grants)


@app.command(name="list")
@watchable
def list_signals(*, paging: Paging = FIRST, connection: Connection = DEFAULT) -> None:
    """List what is reported and counts now.

    Example: broker signal list --json
    """
    with connection.client() as broker:
        page = paging.collect(lambda cursor, limit: broker.list_signals(cursor=cursor, limit=limit))
    if connection.json:
        output.page_document(page)
        return
    now = SystemClock().now()
    output.rows(
        ("about", "risk", "verdict", "reason", "by", "since", "until"),
        (
            (
                describe(s.selector),
                str(s.risk),
                s.verdict,
                s.reason,
                s.by,
                ago(s.at, now),
                ago(s.expires_at, now) if s.expires_at else "cleared",
            )
            for s in page.items
        ),
        empty="Nothing is reported.",
    )
    output.more(page)


@app.command(name="clear", help_epilogue=_CLEAR)
def clear_signal(*, about: About = _NONE, reason: Reason, connection: Connection = DEFAULT) -> None:
    """Take back what is reported; what was revoked stays so."""
    chosen = about.as_wire()
    with connection.client() as broker:
        done = broker.clear_signal(chosen, reason)
    if connection.json:
        output.document(done)
    else:
        output.line(f"{describe(chosen)}: nothing is reported any more")
