"""``broker grant``: what was delivered wrapped, and credentials that live on."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypedDict

from cyclopts import App, Parameter

from broker.cli import delivery, output
from broker.cli.connection import DEFAULT, Connection, duration
from broker.cli.refusals import UsageError
from broker.cli.text import when
from broker.cli.waiting import Wait, approved
from broker.clock import SystemClock

if TYPE_CHECKING:
    from broker.secret import Secret

_GrantId = Annotated[str, Parameter(help="The grant's id.", metavar="GRANT", name="grant")]
Ttl = Annotated[
    str | None,
    Parameter(help="How long it should last, such as 5m.", validator=duration, metavar="TIME"),
]
Wrapped = Annotated[
    bool,
    Parameter(
        help="Have it in a wrapping token of Vault's, which only its agent should open.",
        negative="",
        show_default=False,
    ),
]
WrapTtl = Annotated[
    str | None,
    Parameter(help="How long that token lasts, such as 60s.", validator=duration, metavar="TIME"),
]

_UNWRAP: Final = """\
The task's own agent opens it, once. If it was opened before by anybody else, it is revoked, and \
operators are told.

Example: broker grant unwrap grt_… --token-stdin --field dsn < token
"""
_REDEEM: Final = """\
The agent of its task redeems it, once. Nobody else gets anything for it.

Example: broker grant redeem --as-task tsk_… --voucher-stdin --field dsn < voucher
"""
_RENEW: Final = """\
The secret stays as it is. Policy decides as for a new one; at the end of its longest life it can \
only be rotated.

Example: broker grant renew grt_… --ttl 10m
"""
_ROTATE: Final = """\
The new one is there before the old one ends, after the overlap.

Example: broker grant rotate grt_… --overlap 1m --field dsn
"""


class Carried(TypedDict, total=False):
    """How a credential is to be delivered, as the client takes it."""

    delivery: Literal["wrapped"]
    wrap_ttl: str | None


def carried(*, wrapped: bool, wrap_ttl: str | None) -> Carried:
    """Return what the options say of it."""
    if not wrapped and wrap_ttl is not None:
        raise UsageError("--wrap-ttl goes with --wrapped")
    return {"delivery": "wrapped", "wrap_ttl": wrap_ttl} if wrapped else {}


def unwrap(
    grant: _GrantId,
    /,
    *,
    token_stdin: Annotated[
        bool,
        Parameter(
            help="Read the wrapping token from input; else it is asked for.",
            negative="",
            show_default=False,
        ),
    ] = False,
    field: delivery.Field = None,
    env: delivery.Env = False,
    connection: Connection = DEFAULT,
) -> None:
    """Open what was delivered wrapped, and print it."""
    delivery.check(field, env=env, json=connection.json)
    token = _carried("token", from_input=token_stdin)
    with connection.client() as broker:
        issued = broker.unwrap_grant(grant, token)
    delivery.printed(issued, field, env=env, json=connection.json)


def redeem(
    *,
    voucher_stdin: Annotated[
        bool,
        Parameter(
            help="Read the voucher from input; else it is asked for.",
            negative="",
            show_default=False,
        ),
    ] = False,
    field: delivery.Field = None,
    env: delivery.Env = False,
    connection: Connection = DEFAULT,
) -> None:
    """Get what a voucher stands for, and print it."""
    delivery.check(field, env=env, json=connection.json)
    voucher = _carried("voucher", from_input=voucher_stdin)
    with connection.client() as broker:
        issued = broker.redeem(voucher)
    delivery.printed(issued, field, env=env, json=connection.json)


def renew(
    grant: _GrantId,
    /,
    *,
    ttl: Ttl = None,
    wait: Wait = None,
    connection: Connection = DEFAULT,
) -> None:
    """Let a credential live longer."""
    found = approved(connection, "", lambda broker: broker.renew_grant(grant, ttl=ttl), wait)
    if connection.json:
        output.model(found)
        return
    output.line(f"{grant}: lives until {when(found.expires_at, SystemClock().now())}")
    for text in found.notes:
        output.note(f"note: {text}")


def rotate(  # noqa: PLR0913  one option for each member of the request
    grant: _GrantId,
    /,
    *,
    overlap: Annotated[
        str | None,
        Parameter(
            help="How long the old one lives on, 30s unless said.",
            validator=duration,
            metavar="TIME",
        ),
    ] = None,
    ttl: Ttl = None,
    wrapped: Wrapped = False,
    wrap_ttl: WrapTtl = None,
    field: delivery.Field = None,
    env: delivery.Env = False,
    wait: Wait = None,
    connection: Connection = DEFAULT,
) -> None:
    """Ask for another credential in this one's place, and print it."""
    delivery.check(field, env=env, json=connection.json)
    how = carried(wrapped=wrapped, wrap_ttl=wrap_ttl)
    issued = approved(
        connection,
        "",
        lambda broker: broker.rotate_grant(grant, overlap=overlap, ttl=ttl, **how),
        wait,
    )
    delivery.printed(issued, field, env=env, json=connection.json)


def register(app: App) -> None:
    """Add these commands to ``broker grant``."""
    app.command(unwrap, help_epilogue=_UNWRAP)
    app.command(redeem, help_epilogue=_REDEEM)
    app.command(renew, help_epilogue=_RENEW)
    app.command(rotate, help_epilogue=_ROTATE)


def _carried(what: Literal["token", "voucher"], *, from_input: bool) -> Secret:
    """Read what was carried; it is never an argument, which others on this machine could see."""
    import getpass

    from broker.secret import Secret

    name = "wrapping token" if what == "token" else what
    if from_input:
        given = sys.stdin.readline().strip()
    elif sys.stdin.isatty():
        given = getpass.getpass(f"{name.capitalize()}: ").strip()
    else:
        raise UsageError(f"give the {name} on standard input, with --{what}-stdin")
    if not given:
        raise UsageError(f"there is no {name} on standard input")
    return Secret(given)
