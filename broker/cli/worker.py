"""One worker of ``broker serve --workers``: a process of its own, started by ``workers.py``.

It is given the listening socket and a line to its supervisor, over which it says once that it
serves. When the line breaks the supervisor is gone, and the worker stops as on SIGTERM.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Final, NamedTuple

READY: Final = b"r"


class Place(NamedTuple):
    """Which of the workers it is, and the folder they share."""

    number: int
    folder: Path


def main() -> int:
    """Serve until told to stop; the arguments are ``workers.py``'s."""
    from broker import logs
    from broker.cli.failures import FAILED, report
    from broker.cli.serve import run
    from broker.config import load_config

    config, listening, line, number, folder = sys.argv[1:]
    taken = socket.socket(fileno=int(listening))
    supervisor = socket.socket(fileno=int(line))
    threading.Thread(target=_watch, args=[supervisor], daemon=True).start()
    try:
        loaded = load_config(Path(config))
        logs.configure(json=loaded.broker.log_format == "json")
        place = Place(int(number), Path(folder))
        run(loaded, taken, on_ready=lambda: supervisor.sendall(READY), place=place)
    except Exception as error:
        code = report(error, json=False, command="serve", commands=[])
        if code is None:
            raise
        return code or FAILED
    return 0


def _watch(supervisor: socket.socket) -> None:
    """Return once there is no supervisor any more, having told this process to stop."""
    while supervisor.recv(1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main())
