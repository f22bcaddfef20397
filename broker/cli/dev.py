"""``broker dev``: the whole broker here, with its servers embedded; and identities for it."""

from __future__ import annotations

import json as jsonlib
import shlex
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, NoReturn

from cyclopts import App, Parameter

from broker.cli import output
from broker.cli.check import Json
from broker.cli.refusals import UsageError

if TYPE_CHECKING:
    from broker.dev.stack import DevStack

_DEFAULT = Path(".broker/dev")
_EPILOGUE = """\
Examples:

  broker dev                              then, in another terminal:
  eval "$(broker dev token orchestrator --env)"
  broker task open --agent report-writer --purpose "nightly report" \\
      --capability orders-read
"""
_TOKEN = """\
Examples:

  eval "$(broker dev token orchestrator --env)"
  broker dev token report-writer > agent.jwt
"""

Data = Annotated[
    Path,
    Parameter(
        help="Where keys, servers and their data live.", metavar="DIR", env_var="BROKER_DEV_DATA"
    ),
]

app = App(
    name="dev",
    group_commands="Commands",
    help="Run a whole broker here, with its servers embedded.",
    help_epilogue=_EPILOGUE,
)


@app.default
def run(
    *,
    host: Annotated[str, Parameter(help="The address to listen on.", metavar="HOST")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="The port; 0 picks a free one.", metavar="PORT")] = 8700,
    data: Data = _DEFAULT,
    config: Annotated[
        Path | None,
        Parameter(
            help="A configuration; servers that it names are not started here.", metavar="FILE"
        ),
    ] = None,
    json: Json = False,
) -> int:
    """Start Valkey, OpenBao, PostgreSQL and the broker, all on this machine, until Ctrl-C.

    A second start on the same --data finds everything as it was. With --json one line says when it
    is ready: {"event": "ready", "url": …, "console": …, "redis": …, "vault": …, "postgres": …}.
    """
    from broker import logs
    from broker.http.server import bind
    from broker.http.server import serve as serve_http

    logs.configure(json=json, level="warning")
    name = _name(host)
    taken = bind(host, port)
    port = taken.getsockname()[1]
    # These take a second, so what can be refused has been by now.
    from broker.app import build
    from broker.clock import SystemClock
    from broker.dev.engines import EngineError
    from broker.dev.stack import DevStack
    from broker.errors import ConfigError

    # Stopping with SIGTERM, too, goes through the code below that stops the servers.
    signal.signal(signal.SIGTERM, _end)
    progress = _say_nothing if json else output.note
    stack = DevStack(data, SystemClock(), config_file=config, on_progress=progress)
    try:
        loaded = stack.start(f"{_bracketed(host)}:{port}", f"http://{name}:{port}")
        with stack:
            application = build(loaded).http()
            serve_http(
                application, taken, on_ready=lambda: _ready(stack, loaded.broker.issuer, json=json)
            )
            progress("stopping")
    except EngineError as error:
        raise ConfigError(str(error)) from error
    finally:
        taken.close()
    return 0


def _name(host: str) -> str:
    """Return what clients call the host: for a wildcard address, which is nobody's name, loopback.

    Raises:
        ConfigError: it would take plain http off this machine.
    """
    from broker.config.addresses import is_loopback
    from broker.errors import ConfigError

    name = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  for containers
    if not is_loopback(name):
        raise ConfigError(
            f"--host {host}: broker dev speaks plain http, which is for this machine only\n"
            "    use 127.0.0.1, ::1 or localhost; in a container that publishes the port, 0.0.0.0"
        )
    return _bracketed(name)


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _end(_: int, __: FrameType | None) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


def _say_nothing(_: str) -> None:
    """What is said of progress with --json."""


def _ready(stack: DevStack, url: str, *, json: bool) -> None:
    places = stack.places(url)
    if json:
        output.line(jsonlib.dumps({"event": "ready", **places}))
    else:
        output.line(f"ready: {url}")
        shown = {name.replace("_", " "): place for name, place in places.items() if place}
        del shown["url"]
        for name, place in shown.items():
            output.line(f"  {name:{max(map(len, shown))}}  {place}")
        _show_link(stack)
        output.line('to be one of these in another terminal: eval "$(broker dev token NAME --env)"')
        for name in stack.names():
            output.line(f"  {name}")
        output.line("Ctrl-C stops everything that was started here.")
    sys.stdout.flush()


def _show_link(stack: DevStack) -> None:
    """Print a link into the console; never with --json, whose lines are kept in logs."""
    from broker.clock import SystemClock
    from broker.dev.link import console_link, first_operator
    from broker.errors import ConfigError

    try:
        if name := first_operator(stack.data):
            link = console_link(name, stack.data, SystemClock())
            output.line(f"console, as {name}, for one sign-in within 5 minutes:")
            output.line(f"  {link}")
            output.line("  another: broker dev console")
    except ConfigError:  # the given configuration has it off, or asks an identity provider alone
        return


@app.command
def console(
    name: Annotated[
        str, Parameter(help="An operator or auditor of the dev configuration.", metavar="NAME")
    ] = "",
    *,
    data: Data = _DEFAULT,
    json: Json = False,
) -> int:
    """Print a link that signs in at the console, once, within five minutes.

    Example: broker dev console auditor
    """
    from broker.clock import SystemClock
    from broker.dev.config import names
    from broker.dev.link import console_link, first_operator
    from broker.errors import ConfigError

    folder = data.absolute()
    names(folder)  # says what to do where there is no dev configuration yet
    name = name or first_operator(folder)
    if not name:
        raise ConfigError(
            "there is no operator and no auditor that the dev issuer speaks for\n"
            "    add one to [[principals]] of the configuration"
        )
    link = console_link(name, folder, SystemClock())
    if json:
        output.document({"link": link, "principal": name})
    else:
        output.line(link)
    return 0


@app.command(help_epilogue=_TOKEN)
def token(
    name: Annotated[str, Parameter(help="A principal of the dev configuration.", metavar="NAME")],
    *,
    data: Data = _DEFAULT,
    ttl: Annotated[str, Parameter(help="How long it is valid.", metavar="TIME")] = "1h",
    env: Annotated[
        bool,
        Parameter(
            help="Keep it in a file of the data folder, and print export lines for a shell.",
            negative="",
            show_default=False,
        ),
    ] = False,
    json: Json = False,
) -> int:
    """Print a workload JWT from the dev issuer, for one of the dev principals.

    With --env the client commands and the SDK of that shell are this principal.
    """
    from broker.clock import SystemClock
    from broker.config import write_secret_file
    from broker.dev.config import subject_of, url_of
    from broker.dev.issuer import DevIssuer
    from broker.durations import parse_duration
    from broker.errors import ConfigError

    if env and json:
        raise UsageError("--env and --json exclude each other")
    try:
        seconds = parse_duration(ttl) // 1000
    except ValueError as error:
        raise ConfigError(f"--ttl: {error}") from error
    subject = subject_of(name, data.absolute())
    jwt = DevIssuer(data.absolute(), SystemClock()).token(subject, ttl_s=seconds).reveal()
    if json:
        output.document({"token": jwt, "principal": name, "subject": subject})
    elif env:
        file = data.absolute() / "tokens" / f"{name}.jwt"
        write_secret_file(file, jwt)
        output.text(
            f"export BROKER_URL={shlex.quote(url_of(data))}\n"
            f"export BROKER_IDENTITY_TOKEN_FILE={shlex.quote(str(file))}\n"
            "unset BROKER_TASK_ID\n"
        )
        output.note(f"{name} for {ttl}; after that, the same command again")
    else:
        output.line(jwt)
    return 0
