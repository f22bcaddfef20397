"""A receiver of webhooks that misbehaves as it is told, then answers as it should.

Nothing of the broker is used in it: it speaks HTTP over a bare socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import ssl
    from types import TracebackType


@dataclass(frozen=True)
class Delivery:
    """A request that came in whole."""

    headers: dict[str, str]
    body: bytes

    @property
    def events(self) -> list[dict[str, Any]]:
        return json.loads(self.body)


@dataclass
class Receiver:
    """``script`` says how the next requests are met; after that each is answered with 200.

    ``hang`` gives no answer, ``reset`` breaks the connection before there is one, ``drip`` answers
    a byte at a time and never ends; a number is a status, and after a colon Retry-After.
    """

    script: deque[str] = field(default_factory=deque[str])
    deliveries: list[Delivery] = field(default_factory=list[Delivery])
    accepted: list[Delivery] = field(default_factory=list[Delivery])
    connections: int = 0
    tls: ssl.SSLContext | None = None
    _server: asyncio.Server | None = None
    _at_work: set[asyncio.Task[None]] = field(default_factory=set[asyncio.Task[None]])

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self.tls)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._at_work:
            task.cancel()
        await asyncio.gather(*self._at_work, return_exceptions=True)

    @property
    def url(self) -> str:
        assert self._server is not None
        scheme = "https" if self.tls else "http"
        return f"{scheme}://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/events"

    @property
    def ids(self) -> list[str]:
        """Ids of the events that were taken, in the order in which they first came."""
        return list(dict.fromkeys(e["id"] for d in self.accepted for e in d.events))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._at_work.add(task)
        self.connections += 1
        quiet = (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError)
        try:
            with contextlib.suppress(*quiet):
                while await self._one(reader, writer):
                    pass
        finally:
            self._at_work.discard(task)
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        pairs = (line.split(": ", 1) for line in head[1:] if line)
        headers = {name.lower(): value for name, value in pairs}
        body = await reader.readexactly(int(headers["content-length"]))
        delivery = Delivery(headers, body)
        self.deliveries.append(delivery)
        what = self.script.popleft() if self.script else "200"
        if what == "hang":
            await asyncio.Event().wait()
        if what == "drip":
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n")
            while True:
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
        if what == "reset":
            connection: socket.socket = writer.get_extra_info("socket")
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
            return False
        status, _, wait = what.partition(":")
        more = f"retry-after: {wait}\r\n" if wait else ""
        more += "location: /elsewhere\r\n" if status.startswith("3") else ""
        if status.startswith("2"):
            self.accepted.append(delivery)
        writer.write(f"HTTP/1.1 {status} As told\r\n{more}content-length: 0\r\n\r\n".encode())
        await writer.drain()
        return True
