"""``broker mcp``: the broker's MCP server for agents."""

from __future__ import annotations

import json as jsonlib
import sys
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Final, Literal

from cyclopts import App, Parameter

from broker.cli import output
from broker.cli.connection import DEFAULT, Connection, duration
from broker.cli.refusals import CommandFailed, UsageError

if TYPE_CHECKING:
    from broker.mcp.web import Place

_LISTEN: Final = "127.0.0.1:8701"
_HELP: Final = """\
Over stdio, unless --http is given, for the one agent whose host starts it. The identity is that \
of the environment: an agent's with BROKER_TASK_ID, or an orchestrator's with --agent. Over HTTP \
it is that of a resource server, and each agent brings a token of its own.

Examples:

  broker mcp --agent report-writer
  broker mcp --http --listen 127.0.0.1:8701
"""
OnExit = Literal["completed", "failed", "cancelled", "leave"]

app = App(name="mcp", help_epilogue=_HELP)


@app.default
def serve(
    *,
    agent: Annotated[
        str | None,
        Parameter(
            help="With an orchestrator's identity: open tasks for this agent, and no other.",
            metavar="NAME",
        ),
    ] = None,
    heartbeat: Annotated[
        str,
        Parameter(
            help="End a task that was opened here when this process is silent for so long.",
            validator=duration,
            metavar="TIME",
        ),
    ] = "1m",
    on_exit: Annotated[
        OnExit, Parameter(help="What becomes of tasks opened here when the client goes away.")
    ] = "cancelled",
    http: Annotated[
        bool,
        Parameter(
            help="Serve streamable HTTP to agents that bring tokens, in place of stdio.",
            negative="",
            show_default=False,
        ),
    ] = False,
    listen: Annotated[str, Parameter(help="With --http: where.", metavar="HOST:PORT")] = _LISTEN,
    resource: Annotated[
        str | None,
        Parameter(
            help="With --http: the URL it is reached by, as the broker's configuration has it for "
            "this resource server. http://HOST:PORT/mcp unless said.",
            metavar="URL",
        ),
    ] = None,
    allow_origin: Annotated[
        tuple[str, ...],
        Parameter(help="With --http: a web page's origin that may call it.", metavar="ORIGIN"),
    ] = (),
    connection: Connection = DEFAULT,
) -> int:
    """Serve the Model Context Protocol to agents: credentials by voucher, decisions, approvals."""
    if http and agent is not None:
        raise UsageError("--agent goes with stdio: over HTTP each agent brings its own token")
    if find_spec("mcp") is None:
        raise CommandFailed(
            "The MCP SDK isn't installed.", code="extra_missing", hint="pip install 'broker[mcp]'"
        )
    if http:
        return _web(_place(listen, resource, allow_origin), connection)
    return _stdio(agent, heartbeat, on_exit, connection)


def _stdio(agent: str | None, heartbeat: str, on_exit: OnExit, connection: Connection) -> int:
    from broker.mcp import stdio
    from broker.mcp.party import Party

    task_id = connection.as_task
    if agent is not None and task_id is not None:
        raise UsageError("--agent is for an orchestrator, and --as-task for an agent: give one")
    client = connection.sealed_client()
    party = Party(
        client,
        task_id=task_id,
        agent=agent,
        confined=True,
        heartbeat=heartbeat or None,
    )
    stdio.serve(party, on_exit)
    return 0


def _web(place: Place, connection: Connection) -> int:
    from broker.client import AsyncClient, token_file
    from broker.mcp import web

    taken = web.bind(web.checked(place))
    identity = token_file(connection.token_file) if connection.token_file else None

    def ready() -> None:
        event = {"event": "ready", "url": place.resource}
        output.line(
            jsonlib.dumps(event) if connection.json else f"broker mcp serves {place.resource}"
        )
        sys.stdout.flush()

    broker = AsyncClient(connection.server, identity, task_id="")
    web.serve(broker, place, taken, on_ready=ready)
    return 0


def _place(listen: str, resource: str | None, origins: tuple[str, ...]) -> Place:
    from broker.mcp.web import Place

    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65536:  # noqa: PLR2004
        raise UsageError("--listen is HOST:PORT, such as 127.0.0.1:8701")
    host = host.strip("[]")
    return Place(host, int(port), resource or f"http://{listen}/mcp", origins)
