"""``broker serve``: the broker against real servers."""

from __future__ import annotations

import json as jsonlib
import sys
from pathlib import Path

from broker.cli import output
from broker.cli.check import ConfigFile, Json


def serve(*, config: ConfigFile = Path("config.toml"), json: Json = False) -> int:
    """Run the broker against the servers that a configuration file names.

    Stops on Ctrl-C or SIGTERM after finishing the requests under way. With --json prints one line
    {"event": "ready", "url": …} when it serves.

    Example: broker serve --config /etc/broker/config.toml
    """
    from broker import logs
    from broker.config import load_config
    from broker.http.server import bind
    from broker.http.server import serve as run

    loaded = load_config(config)
    logs.configure(json=loaded.broker.log_format == "json")
    taken = bind(loaded.broker.host, loaded.broker.port)
    from broker.app import build  # takes a second, so what can be refused has been by now

    def ready() -> None:
        url = loaded.broker.issuer
        event = {"event": "ready", "url": url}
        output.line(
            jsonlib.dumps(event) if json else f"broker serves {url} on {loaded.broker.listen}"
        )
        sys.stdout.flush()

    application = build(loaded)
    run(application.http(), taken, on_ready=ready, tls=application.tls())
    return 0
