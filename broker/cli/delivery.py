"""The one place where the command line prints a credential."""

from __future__ import annotations

import re
import shlex
import sys
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from broker.cli import output
from broker.cli.refusals import CommandFailed, UsageError
from broker.cli.text import when
from broker.clock import SystemClock

if TYPE_CHECKING:
    from broker.client import IssuedGrant


Field = Annotated[
    str | None, Parameter(help="Print this member alone, such as dsn.", metavar="NAME")
]
Env = Annotated[
    bool, Parameter(help="Print export lines for a shell.", negative="", show_default=False)
]


def check(field: str | None, *, env: bool, json: bool) -> None:
    """Refuse to print in two ways, before anything is asked for."""
    if (field is not None) + env + json > 1:
        raise UsageError("--field, --env and --json exclude each other")


def printed(issued: IssuedGrant, field: str | None, *, env: bool, json: bool) -> None:
    """Print a credential in the way that was chosen."""
    if json:
        output.model(issued, reveal=True)
    elif field is not None:
        one_field(issued, field)
    elif env:
        exports(issued)
    else:
        table(issued)


def table(issued: IssuedGrant) -> None:
    """Print the grant and its credential for a person to read."""
    output.record(
        {
            "grant": issued.grant_id,
            "state": issued.state,
            "capability": issued.capability,
            "expires": when(issued.expires_at, SystemClock().now()),
        }
    )
    output.line("")
    # Not in a table: a value that wraps can't be copied.
    members = _members(issued)
    width = max(map(len, members), default=0)
    for name, value in members.items():
        output.line(f"{name:{width}}  {value}")
    for text in issued.notes:
        output.note(f"note: {text}")
    if issued.credential.type == "wrapped":
        output.note(f"Its agent opens it once: broker grant unwrap {issued.grant_id} --token-stdin")
    output.note("This credential isn't shown again.")


def one_field(issued: IssuedGrant, name: str) -> None:
    """Print one member as it is, for a script."""
    value = issued.credential.get(name)
    if value is None:
        raise CommandFailed(
            f"{issued.grant_id} was issued, and its credential has no {name!r}: it has "
            + ", ".join(issued.credential.names),
            code="no_such_field",
            hint=f"`broker grant revoke {issued.grant_id}`, then ask again",
        )
    sys.stdout.write(value.reveal() + "\n")


def exports(issued: IssuedGrant) -> None:
    """Print ``export`` lines for a POSIX shell to evaluate."""
    lines = {"BROKER_GRANT_ID": issued.grant_id}
    for name, value in _members(issued).items():
        lines[f"BROKER_CREDENTIAL_{re.sub('[^A-Z0-9_]', '_', name.upper())}"] = value
    for name, value in lines.items():
        sys.stdout.write(f"export {name}={shlex.quote(value)}\n")


def _members(issued: IssuedGrant) -> dict[str, str]:
    found = {name: issued.credential.get(name) for name in issued.credential.names}
    return {name: secret.reveal() for name, secret in found.items() if secret is not None}
