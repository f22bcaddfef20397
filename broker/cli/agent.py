"""``broker agent``: the principals, that is agents and whoever else may call."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cyclopts import App, Parameter

from broker.cli import output, unsettled
from broker.cli.connection import DEFAULT, FIRST, Connection, Paging, duration
from broker.cli.pairs import parse_pairs
from broker.cli.refusals import CommandFailed, UsageError
from broker.cli.text import ago, plural, when
from broker.cli.watching import watchable
from broker.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.client import MovedPrincipal, Principal

Name = Annotated[str, Parameter(help="The principal's name.", metavar="NAME", name="name")]
Reason = Annotated[str, Parameter(help="Why, for the log.", metavar="TEXT")]
Yes = Annotated[bool, Parameter(help="Don't ask.", negative="", show_default=False)]
Addable = Literal["agent", "orchestrator", "resource_server"]
Role = Literal["agent", "orchestrator", "resource_server", "operator", "auditor"]
State = Literal["active", "suspended", "retired"]

_ADD: Final = """\
Examples:

  broker agent add report-writer --owner data@example.com \\
      --purpose "writes the weekly report" --capability orders-read \\
      --issuer cluster --subject system:serviceaccount:agents:report-writer

  broker agent add nightly --role orchestrator --owner data@example.com \\
      --purpose "opens the nightly tasks" --issuer ci \\
      --claim repository_id=4711 --match "ref=refs/heads/release-.*"

  broker agent add billing --role resource_server --owner pay@example.com \\
      --purpose "takes tokens for invoices" --jwks billing-jwks.json \\
      --resource https://billing.example.com --review-by 2027-06-30
"""
_LIST: Final = """\
Examples:

  broker agent list --due
  broker agent list --owner data@example.com --state suspended --json
"""
_SUSPEND: Final = """\
Its tasks end, with all below them; its tokens are dead at once, everywhere. An \
orchestrator's are the tasks that it opened.

Example:

  broker agent suspend report-writer --reason "prompt injection"
"""
_RETIRE: Final = """\
Example:

  broker agent retire report-writer --reason "replaced by report-bot" --yes
"""
_REVIEW: Final = """\
Example:

  broker agent review report-writer --next 2027-06-30 --note "still needed"
"""
_UNUSED: Final = """\
List agents that are allowed what they didn't use, and what would be enough.

One marked ? wasn't allowed, or watched, for that long: that says nothing yet.

Example: broker agent unused --since 90d
"""

app = App(
    name="agent",
    group_commands="Commands",
    help="Add, list, suspend, retire and review principals: agents and whoever else may call.",
)
app.command(
    "broker.cli.power:unused",
    name="unused",
    help=_UNUSED,
)


@app.command(help_epilogue=_ADD)
def add(  # noqa: PLR0913  one option for each member of the request
    name: Name,
    /,
    *,
    owner: Annotated[str, Parameter(help="Who answers for it.", metavar="WHO")],
    purpose: Annotated[str, Parameter(help="What it is there for.", metavar="TEXT")],
    role: Annotated[Addable, Parameter(help="What part it plays.")] = "agent",
    issuer: Annotated[
        str | None, Parameter(help="The configured issuer that proves it.", metavar="NAME")
    ] = None,
    subject: Annotated[
        str | None, Parameter(help="Its subject there, exactly.", metavar="TEXT")
    ] = None,
    claim: Annotated[
        tuple[str, ...],
        Parameter(
            help="A claim and its text; repeat for more.",
            metavar="KEY=VALUE",
            negative="",
            show_default=False,
        ),
    ] = (),
    match: Annotated[
        tuple[str, ...],
        Parameter(
            help="A claim and a pattern for the whole of it; repeat for more.",
            metavar="KEY=PATTERN",
            negative="",
            show_default=False,
        ),
    ] = (),
    jwks: Annotated[
        Path | None, Parameter(help="A file with its own public keys instead.", metavar="FILE")
    ] = None,
    capability: Annotated[
        tuple[str, ...],
        Parameter(
            help="What its tasks may be granted; repeat for more.",
            metavar="NAME",
            negative="",
            show_default=False,
        ),
    ] = (),
    resource: Annotated[
        str | None, Parameter(help="The URI a resource server answers for.", metavar="URI")
    ] = None,
    max_ttl: Annotated[
        str | None,
        Parameter(help="No credential of it lives longer.", validator=duration, metavar="TIME"),
    ] = None,
    delegates_to: Annotated[
        tuple[str, ...],
        Parameter(
            help="Whom it may open tasks for, else anybody; repeat for more.",
            metavar="NAME",
            negative="",
            show_default=False,
        ),
    ] = (),
    review_by: Annotated[
        str | None, Parameter(help="When to look at it again: 2027-06-30.", metavar="DATE")
    ] = None,
    connection: Connection = DEFAULT,
) -> None:
    """Register an agent, an orchestrator or a resource server."""
    identity = _identity(issuer, subject, claim, match, jwks)
    with connection.client() as broker:
        added = broker.add_principal(
            name,
            owner,
            purpose,
            identity,
            role=role,
            capabilities=capability,
            resource=resource,
            max_ttl=max_ttl,
            delegates_to=delegates_to or None,
            review_by=review_by,
        )
    _show(added, connection)


def _identity(
    issuer: str | None,
    subject: str | None,
    claim: tuple[str, ...],
    match: tuple[str, ...],
    jwks: Path | None,
) -> dict[str, Any]:
    if jwks is not None:
        if issuer or subject or claim or match:
            raise UsageError("--jwks is a way of its own: leave out --issuer, --subject, --claim")
        return {"jwks": _read(jwks)}
    claims: dict[str, Any] = dict(parse_pairs(claim, "--claim"))
    for name, pattern in parse_pairs(match, "--match").items():
        if name in claims:
            raise UsageError(f"{name!r} has a --claim and a --match")
        claims[name] = {"match": pattern}
    if not issuer or not (subject or claims):
        raise UsageError("Give --issuer with --subject or --claim, or else --jwks")
    rule = {"issuer": issuer, "subject": subject, "claims": claims}
    return {key: value for key, value in rule.items() if value}


def _read(file: Path) -> object:
    try:
        return json.loads(file.read_text("utf-8"))
    except OSError as error:
        raise UsageError(f"{file} can't be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise UsageError(f"{file} is not JSON") from None


@app.command(name="list", help_epilogue=_LIST)
@watchable
def list_principals(
    *,
    due: Annotated[
        bool,
        Parameter(help="Only those it is time to review.", negative="", show_default=False),
    ] = False,
    role: Annotated[Role | None, Parameter(help="Only this role.")] = None,
    owner: Annotated[str | None, Parameter(help="Only this owner's.", metavar="WHO")] = None,
    state: Annotated[State | None, Parameter(help="Only those in this state.")] = None,
    paging: Paging = FIRST,
    connection: Connection = DEFAULT,
) -> None:
    """List the principals."""
    with connection.client() as broker:
        page = paging.collect(
            lambda cursor, limit: broker.list_principals(
                role=role, owner=owner, state=state, due=due, cursor=cursor, limit=limit
            )
        )
    if connection.json:
        output.page_document(page)
        return
    now = SystemClock().now()
    output.rows(
        ("name", "state", "role", "owner", "last used", "due"),
        (
            (
                p.name,
                _state(p),
                p.role,
                p.owner,
                ago(p.last_used_at, now),
                f"{', '.join(p.due)}: {ago(p.overdue_at, now)}" if p.due else "",
            )
            for p in page.items
        ),
        empty="None is due." if due else "No principals.",
    )
    output.more(page)


@app.command
@watchable
def show(name: Name, /, *, connection: Connection = DEFAULT) -> None:
    """Show one principal; of an agent also what it can do now, and what it has used.

    Example: broker agent show report-writer
    """
    from broker.cli.power import of_principal

    with connection.client() as broker:
        found = broker.get_principal(name)
    _show(found, connection, of_principal(found, SystemClock().now()))


@app.command(help_epilogue=_SUSPEND)
def suspend(name: Name, /, *, reason: Reason, connection: Connection = DEFAULT) -> None:
    """Stop a principal and revoke all it has, until it is resumed."""
    with connection.client() as broker:
        _moved(broker.suspend_principal(name, reason), connection)


@app.command
def resume(name: Name, /, *, reason: Reason, connection: Connection = DEFAULT) -> None:
    """Let a suspended principal work again; what was revoked stays so.

    Example: broker agent resume report-writer --reason "prompt fixed, reviewed"
    """
    with connection.client() as broker:
        _moved(broker.resume_principal(name, reason), connection)


@app.command(help_epilogue=_RETIRE)
def retire(
    name: Name, /, *, reason: Reason, yes: Yes = False, connection: Connection = DEFAULT
) -> None:
    """Stop a principal and revoke all it has, for good: its name is never used again."""
    confirm(f"This retires {name} for good, and revokes all it has.", yes=yes)
    with connection.client() as broker:
        _moved(broker.retire_principal(name, reason), connection)


@app.command(help_epilogue=_REVIEW)
def review(
    name: Name,
    /,
    *,
    next_review: Annotated[
        str, Parameter(name="--next", help="When to look at it again.", metavar="DATE")
    ],
    note: Annotated[str | None, Parameter(help="What you found.", metavar="TEXT")] = None,
    connection: Connection = DEFAULT,
) -> None:
    """Note that you looked at a principal, and when to look again."""
    with connection.client() as broker:
        found = broker.review_principal(name, next_review, note=note)
    _show(found, connection)


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that can't be undone; a script has to say ``--yes``."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("this needs --yes where nobody can be asked")
    output.note(f"{question} Type yes to go on:")
    if sys.stdin.readline().strip().lower() != "yes":
        raise CommandFailed("Not confirmed: nothing was done", code="not_confirmed")


def _moved(moved: MovedPrincipal, connection: Connection) -> None:
    if connection.json:
        output.model(moved)
        return
    grants = moved.grants
    # Who is back had everything revoked before.
    ended = moved.state != "active" or grants.revoked
    revoked = f", {plural(grants.revoked, 'grant')} revoked" if ended else ""
    output.line(f"{moved.name}: {_state(moved)}{revoked}")
    unsettled.tell(grants)


def _state(principal: Principal) -> str:
    if principal.state == "active" and principal.owner_left:
        return "owner left"
    return principal.state


def _show(
    principal: Principal, connection: Connection, more: Mapping[str, str | None] | None = None
) -> None:
    if connection.json:
        output.model(principal)
        return
    now = SystemClock().now()
    times = {
        "since": principal.since,
        "last used": principal.last_used_at,
        "review by": principal.review_by,
        "reviewed": principal.reviewed_at,
        "overdue": principal.overdue_at,
    }
    output.record(
        {
            "name": principal.name,
            "state": _state(principal),
            "reason": principal.state_reason,
            "role": principal.role,
            "owner": principal.owner,
            "purpose": principal.purpose,
            "identity": json.dumps(principal.identity) if principal.identity else "",
            "capabilities": ", ".join(principal.capabilities),
            "resource": principal.resource,
            "max ttl": principal.max_ttl,
            "delegates to": ", ".join(principal.delegates_to or ()),
            "added by": principal.added_by,
            **{name: when(moment, now) for name, moment in times.items() if moment},
            "reviewed by": principal.reviewed_by,
            "note": principal.review_note,
            "due": ", ".join(principal.due),
            "live grants": str(principal.live_grants or ""),
            **(more or {}),
        }
    )
