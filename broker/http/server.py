"""uvicorn around the application: bound before anything starts, told when it serves."""

from __future__ import annotations

import signal
import socket
from typing import TYPE_CHECKING, NoReturn

import uvicorn

from broker.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

    from fastapi import FastAPI

_BACKLOG = 2048


def bind(host: str, port: int) -> socket.socket:
    """Take the address before anything else is started.

    Raises:
        ConfigError: somebody else has it, or it isn't this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((host, port))
        taken.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        taken.close()
        msg = (
            f"can't listen on {host}:{port}: {getattr(error, 'strerror', None) or error}\n"
            "    another program may be using it: stop that, or choose another port"
        )
        raise ConfigError(msg) from error
    return taken


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()


def serve(app: FastAPI, taken: socket.socket, *, on_ready: Callable[[], None]) -> None:
    """Serve until SIGINT or SIGTERM, then finish the requests under way and return."""
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # A proxy's headers would be believed from anybody who can reach us on loopback.
        proxy_headers=False,
        timeout_graceful_shutdown=15,
    )
    server = _Server(config, on_ready)
    # uvicorn raises the signal that stopped it once more when it is done; by then it has done its
    # work, and whoever called us still has servers to stop.
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        server.run(sockets=[taken])
    except (KeyboardInterrupt, SystemExit):
        if not server.started:
            raise
    finally:
        signal.signal(signal.SIGTERM, before)


def _leave(_: int, __: FrameType | None) -> NoReturn:
    raise SystemExit(143)
