"""``broker reconcile``: what is really alive, and an end to what nobody has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final

from cyclopts import App, Parameter

from broker.cli import confirming, output
from broker.cli.connection import DEFAULT, Connection
from broker.cli.refusals import UsageError
from broker.cli.text import plural, when
from broker.clock import SystemClock

if TYPE_CHECKING:
    from broker.client import Reconciliation

_HELP: Final = """\
Without --apply nothing is changed: it shows what the ledger, the backends and \
the targets disagree on, with the evidence, and what applying would do.

A ledger that was lost or restored from a backup is in quarantine: it issues \
nothing until `broker reconcile --apply` finds nothing more, or --release says \
that it may.

Examples:

  broker reconcile
  broker reconcile --apply
  broker reconcile --last --json
  broker reconcile --release --reason "restored to 12:00, the rest is known"
"""

app = App(name="reconcile", help_epilogue=_HELP)


@app.default
def reconcile(
    *,
    apply: Annotated[
        bool, Parameter(help="End what is found.", negative="", show_default=False)
    ] = False,
    backend: Annotated[
        str | None, Parameter(help="Only what has to do with this backend.", metavar="NAME")
    ] = None,
    release: Annotated[
        bool,
        Parameter(
            help="End a quarantine, whatever is left; needs --reason.",
            negative="",
            show_default=False,
        ),
    ] = False,
    reason: Annotated[str | None, Parameter(help="Why, for the log.", metavar="TEXT")] = None,
    last: Annotated[
        bool,
        Parameter(
            help="Show what the last run found, the job's too.", negative="", show_default=False
        ),
    ] = False,
    yes: Annotated[
        bool, Parameter(help="Don't ask before --apply.", negative="", show_default=False)
    ] = False,
    connection: Connection = DEFAULT,
) -> None:
    """Compare ledger, backends and targets."""
    if last and (apply or release or backend):
        raise UsageError("--last shows what was found, and does nothing")
    if release and not reason:
        raise UsageError("--release needs --reason")
    if apply and not yes and (connection.json or not confirming.person_is_there()):
        raise UsageError("--apply needs --yes where nobody can be asked")
    shown = None
    with connection.client() as broker:
        if last:
            _show(broker.last_reconciliation(), connection)
            return
        if apply:
            # What is ended is what was shown; whatever comes up in between waits for the next time.
            shown = broker.reconcile(backend=backend)
            doable = [finding for finding in shown.findings if finding.action != "none"]
            if not yes and doable:
                _table(shown, aside=True)
                confirming.must_type("yes", f"This ends {plural(len(doable), 'of them')}.")
        found = broker.reconcile(
            apply=apply, shown=shown, backend=backend, release=release, reason=reason
        )
    _show(found, connection)


def _show(found: Reconciliation, connection: Connection) -> None:
    if connection.json:
        output.model(found)
        return
    _table(found)
    for problem in found.problems:
        output.note(f"not looked at: {problem}")
    if found.omitted:
        output.note(f"{found.omitted} more are left for the next run")
    if not found.applied and any(finding.action != "none" for finding in found.findings):
        output.note("to end them: broker reconcile --apply")
    if found.quarantine is not None:
        since = when(found.quarantine.since, SystemClock().now())
        output.note(f"in quarantine since {since}, nothing is issued: {found.quarantine.why}")


def _table(found: Reconciliation, *, aside: bool = False) -> None:
    output.rows(
        ("subject", "found", "at", "evidence", "action", "outcome"),
        ((f.subject, f.kind, f.place, f.evidence, f.action, f.outcome) for f in found.findings),
        empty="Ledger, backends and targets agree." if found.agreement else "Nothing was found.",
        aside=aside,
    )
