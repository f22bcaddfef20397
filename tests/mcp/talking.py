"""The official MCP client over both transports, with all that it is sent written down."""

from __future__ import annotations

import contextlib
import json
import shlex
from typing import TYPE_CHECKING, Any, Literal

import httpx2
from mcp import Client
from mcp.client.stdio import StdioServerParameters, stdio_client
from mcp.client.streamable_http import streamable_http_client

from tests.dev.broker_process import PROGRAM

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator
    from pathlib import Path

    import mcp_types as types

Mode = Literal["auto", "legacy"]
MODES: tuple[Mode, ...] = ("auto", "legacy")


class Wire(httpx2.AsyncHTTPTransport):
    """An HTTP transport that keeps what comes back."""

    def __init__(self) -> None:
        super().__init__()
        self.came = bytearray()

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        answer = await super().handle_async_request(request)
        self.came += repr(answer.headers).encode()
        stream = answer.stream
        assert isinstance(stream, httpx2.AsyncByteStream)
        answer.stream = _Kept(stream, self.came)
        return answer


class _Kept(httpx2.AsyncByteStream):
    def __init__(self, stream: httpx2.AsyncByteStream, came: bytearray) -> None:
        self._stream = stream
        self._came = came

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            self._came += part
            yield part

    async def aclose(self) -> None:
        await self._stream.aclose()


@contextlib.asynccontextmanager
async def over_stdio(
    folder: Path, environment: dict[str, str], *arguments: str, mode: Mode = "auto", **more: Any
) -> AsyncGenerator[tuple[Client, Path]]:
    """A host that starts `broker mcp`; what it is sent is kept in the folder."""
    out, err = folder / "stdout", folder / "stderr"
    command = shlex.join([PROGRAM, "mcp", *arguments])
    script = f"{command} 2> {shlex.quote(str(err))} | tee {shlex.quote(str(out))}"
    server = StdioServerParameters(command="sh", args=["-c", script], env=environment)
    async with Client(stdio_client(server), mode=mode, **more) as client:
        yield client, folder


@contextlib.asynccontextmanager
async def over_http(
    url: str, token: str, *, mode: Mode = "auto", headers: dict[str, str] | None = None, **more: Any
) -> AsyncGenerator[tuple[Client, Wire]]:
    """A client that brings a token."""
    wire = Wire()
    given = {"Authorization": f"Bearer {token}", **(headers or {})}
    async with (
        httpx2.AsyncClient(transport=wire, headers=given, timeout=60) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode, **more) as client,
    ):
        yield client, wire


def result(answer: types.CallToolResult) -> dict[str, Any]:
    """What a call that went well gave; the text says the same as the structure."""
    assert not answer.is_error, answer
    _same(answer)
    return answer.structured_content


def error(answer: types.CallToolResult) -> dict[str, Any]:
    """What a call that didn't go well said of it."""
    assert answer.is_error, answer
    _same(answer)
    return answer.structured_content["error"]


async def read(client: Client, uri: str) -> dict[str, Any]:
    """A resource, which is JSON."""
    content: Any = (await client.read_resource(uri)).contents[0]
    return json.loads(content.text)


def _same(answer: types.CallToolResult) -> None:
    text = getattr(answer.content[0], "text", "")
    assert json.loads(text) == answer.structured_content
