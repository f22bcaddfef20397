"""``broker login``, ``logout`` and ``whoami``: people, and who anybody is to the broker."""

from __future__ import annotations

import os
import webbrowser
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from cyclopts import App, Group, Parameter

from broker.cli import output
from broker.cli.connection import DEFAULT, Connection
from broker.cli.refusals import CommandFailed
from broker.cli.text import when
from broker.cli.watching import watchable
from broker.clock import SystemClock

if TYPE_CHECKING:
    from broker.client.login import Login, Logins
    from broker.client.login_flows import DeviceCode

Server = Annotated[
    str | None,
    Parameter(
        env_var="BROKER_URL",
        help="The broker's URL, http://127.0.0.1:8700 unless set.",
        metavar="URL",
        group=Group("Connection", sort_key=30),
    ),
]
Json = Annotated[
    bool,
    Parameter(
        negative="",
        show_default=False,
        help="Print one JSON document.",
        group=Group("Connection", sort_key=30),
    ),
]

_LOGIN: Final = """\
The broker says at which issuer people log in: [login] in its configuration. \
The tokens stay in the keyring of the operating system; without one, --keep file \
keeps them in a file that only you can read. They are used by every command \
where no other identity is given.

Examples:

  broker login --server https://broker.example.com
  broker login --device
  broker login --keep file --json
"""
_LOGOUT: Final = """\
Examples:

  broker logout --server https://broker.example.com
  broker logout --all --json
"""
_WHOAMI: Final = """\
Examples:

  broker whoami
  broker whoami --json | jq -r .role
"""

login_app = App(name="login", help_epilogue=_LOGIN)
logout_app = App(name="logout", help_epilogue=_LOGOUT)
whoami_app = App(name="whoami", help_epilogue=_WHOAMI)


@login_app.default
def login(
    *,
    device: Annotated[
        bool,
        Parameter(
            help="Log in in a browser elsewhere: a code is shown.", negative="", show_default=False
        ),
    ] = False,
    browser: Annotated[
        bool,
        Parameter(
            negative="--no-browser", help="Open the browser, or only say what to open in it."
        ),
    ] = True,
    keep: Annotated[
        Literal["keyring", "file"], Parameter(help="Where the tokens are kept.")
    ] = "keyring",
    server: Server = None,
    json: Json = False,
) -> None:
    """Log in as a person, at the issuer that the broker names."""
    from broker.client.login import Logins
    from broker.client.login_flows import LoginFlows
    from broker.client.login_keyring import Keyring

    if keep == "keyring" and (why := Keyring().missing()):
        raise CommandFailed(
            f"The tokens can't be kept in a keyring: {why}",
            code="no_keyring",
            hint="--keep file keeps them in a file that only you can read",
        )
    logins, flows = Logins(), LoginFlows()
    at = flows.where(_url(server))
    if device:
        found = flows.elsewhere(at, _tell_code)
    else:
        found = flows.in_browser(at, _open if browser else _tell_url)
    logins.keep(found, keep)
    _logged_in(found, logins, keep, json=json)


def _logged_in(found: Login, logins: Logins, keep: str, *, json: bool) -> None:
    if json:
        output.document(
            {
                "server": found.server,
                "issuer": found.issuer,
                "kept": keep,
                "expires_at": _moment(found.expires_at),
                "renewable": bool(found.refresh_token.reveal()),
            }
        )
        return
    output.line(f"Logged in at {found.server}, by {found.issuer}")
    where = "the keyring" if keep == "keyring" else str(logins.file)
    output.note(f"The tokens are kept in {where}; `broker logout` deletes them.")
    if not found.refresh_token.reveal():
        output.note(f"It ends {_until(found.expires_at)}: the issuer gave no refresh token.")


@logout_app.default
def logout(
    *,
    everywhere: Annotated[
        bool, Parameter(name="--all", help="At every broker.", negative="", show_default=False)
    ] = False,
    server: Server = None,
    json: Json = False,
) -> None:
    """Delete the tokens of a login, and tell its issuer. Not to be logged in is no error."""
    from broker.client.errors import BrokerClientError
    from broker.client.login import Logins
    from broker.client.login_flows import LoginFlows

    logins, flows = Logins(), LoginFlows()
    servers = logins.servers() if everywhere else [_url(server)]
    done: list[dict[str, Any]] = []
    for each in servers:
        told = False
        try:
            if (found := logins.get(each)) is not None:
                told = flows.revoke(found)
        except BrokerClientError as error:
            output.note(f"The issuer wasn't told: {error.detail}")
        done.append({"server": each, "was_logged_in": logins.forget(each), "issuer_told": told})
    if json:
        output.document({"items": done})
        return
    if not done:
        output.note("You are logged in nowhere.")
    for row in done:
        words = "logged out" if row["was_logged_in"] else "you weren't logged in"
        output.line(f"{row['server']}: {words}")


@whoami_app.default
@watchable
def whoami(*, connection: Connection = DEFAULT) -> None:
    """Show who you are to the broker, and by what you prove it."""
    from broker.client.decoding import encode

    with connection.client() as broker:
        found = broker.whoami()
    server, proof = _url(connection.server), _proof(connection)
    if connection.json:
        output.document({**encode(found), "server": server, "identity": proof})
        return
    output.record(
        {
            "principal": found.principal,
            "role": found.role,
            "owner": found.owner,
            "task": found.task_id,
            "capabilities": "all of them"
            if found.capabilities is None
            else ", ".join(found.capabilities),
            "broker": server,
            "identity": proof,
            "token until": when(found.expires_at, SystemClock().now()),
        }
    )


def _proof(connection: Connection) -> str:
    """Say where the identity comes from, in the order in which it is looked for."""
    from broker.client import environment as known
    from broker.client.login import Logins

    if connection.token_file:
        return f"token file {connection.token_file}"
    for name in (known.TOKEN, known.COMMAND, known.AGENT, known.GITHUB_URL):
        if os.environ.get(name):
            return name
    if known.PROJECTED.exists():
        return f"token file {known.PROJECTED}"
    kept = Logins().kept(_url(connection.server))
    return f"login, kept in {'the keyring' if kept == 'keyring' else 'a file'}" if kept else "-"


def _url(server: str | None) -> str:
    from broker.client.environment import DEFAULT_URL, checked_url

    return checked_url(server or DEFAULT_URL)


def _open(url: str) -> None:
    if webbrowser.open(url):
        output.note("Log in in your browser. If none has opened, open this in it:")
        output.note(url)
    else:
        _tell_url(url)
        output.note(
            "No browser could be opened here; `broker login --device` works from elsewhere."
        )


def _tell_url(url: str) -> None:
    output.note("Open this in a browser on this machine:")
    output.note(url)


def _tell_code(code: DeviceCode) -> None:
    output.note(f"Open {code.url} in any browser and type {code.user_code}")
    if code.complete_url:
        output.note(f"or open {code.complete_url}")


def _moment(seconds: float) -> str:
    from broker.clock import to_rfc3339

    return to_rfc3339(int(seconds * 1000))


def _until(seconds: float) -> str:
    from datetime import UTC, datetime

    return when(datetime.fromtimestamp(seconds, UTC), SystemClock().now())
