"""``broker serve``: the broker against real servers."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from broker.cli import output
from broker.cli.check import ConfigFile, Json

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from broker.cli.worker import Place
    from broker.config import Config

Workers = Annotated[
    int,
    Parameter(
        help="How many processes serve; about one for each core.",
        metavar="N",
        validator=Number(gte=1, lte=64),
    ),
]


def serve(
    *, config: ConfigFile = Path("config.toml"), workers: Workers = 1, json: Json = False
) -> int:
    """Run the broker against the servers that a configuration file names.

    Stops on Ctrl-C or SIGTERM after finishing the requests under way. With --json prints one line
    {"event": "ready", "url": …} when it serves. With --workers N several processes share the
    socket; one that dies is started anew.

    Example: broker serve --config /etc/broker/config.toml
    """
    from broker import logs
    from broker.config import load_config
    from broker.http.server import bind

    loaded = load_config(config)
    logs.configure(json=loaded.broker.log_format == "json")
    taken = bind(loaded.broker.host, loaded.broker.port)

    def ready() -> None:
        url = loaded.broker.issuer
        event = {"event": "ready", "url": url}
        output.line(
            jsonlib.dumps(event) if json else f"broker serves {url} on {loaded.broker.listen}"
        )
        sys.stdout.flush()

    if workers > 1:
        from broker.cli.workers import supervise

        return supervise(config, taken, workers, on_ready=ready)
    run(loaded, taken, on_ready=ready)
    return 0


def run(
    loaded: Config,
    taken: socket.socket,
    *,
    on_ready: Callable[[], None],
    place: Place | None = None,
) -> None:
    """Serve in this process; ``place`` is its place among the workers of this host."""
    from broker.app import build  # takes a second, so what can be refused has been by now
    from broker.http.server import serve as run_server

    application = build(loaded)
    beside = None
    if place is not None:
        from broker.worker_metrics import WorkerMetrics

        read = application.gauges.read
        beside = WorkerMetrics(application.metrics, read, place.folder, place.number)
    run_server(
        application.http(beside),
        taken,
        on_ready=on_ready,
        tls=application.tls(),
        linger_s=(loaded.broker.linger or 0) / 1000,
    )
