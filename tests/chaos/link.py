"""A way between two servers that can be slow, hang, or be cut."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Final

from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]

_CHUNK: Final = 1 << 16


class Link:
    """Takes connections at a port of its own, and passes on what comes: bytes, in order."""

    def __init__(self, connect: Callable[[], Awaitable[Streams]]) -> None:
        self.port = free_port()
        self.delay_s = 0.0
        self._connect = connect
        self._open = asyncio.Event()
        self._open.set()
        self._is_cut = False
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()

    @property
    def place(self) -> str:
        return f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        self.cut()

    def slow(self, delay_s: float) -> None:
        self.delay_s = delay_s

    def hang(self) -> None:
        self._open.clear()

    def cut(self) -> None:
        """Reset what is open, and refuse what comes."""
        self._is_cut = True
        for end in list(self._ends):
            end.transport.abort()

    def heal(self) -> None:
        self.delay_s, self._is_cut = 0.0, False
        self._open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._ends.add(writer)
        try:
            if self._is_cut:
                return
            await self._open.wait()
            with contextlib.suppress(OSError):
                there, back = await self._connect()
                self._ends.add(back)
                try:
                    await asyncio.gather(self._pass(reader, back), self._pass(there, writer))
                finally:
                    self._ends.discard(back)
                    back.transport.abort()
        finally:
            self._ends.discard(writer)
            writer.transport.abort()

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(_CHUNK):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._open.wait()
                writer.write(data)
                await writer.drain()
            await self._open.wait()  # that it was closed doesn't come through either
        finally:
            writer.close()


def to_port(port: int) -> Callable[[], Awaitable[Streams]]:
    return lambda: asyncio.open_connection("127.0.0.1", port)
