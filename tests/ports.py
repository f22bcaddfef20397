"""Ports for servers that are told where to listen, or come back to the same place."""

from __future__ import annotations

import os
import random
import socket
from typing import Final

_WORKERS: Final = 16
_WORKER: Final = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
_PORTS: Final = iter(random.sample(range(20_000 + _WORKER % _WORKERS, 32_000, _WORKERS), 700))
"""No other worker's, nor any that a system gives to who asks for none in particular."""


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port that is free, and that nobody is given while its server is down."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for port in _PORTS:
        with socket.socket(family) as probe:
            try:
                probe.bind((host, port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is left")
