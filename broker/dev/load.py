"""A load generator in a process of its own: ready-made requests over kept-alive connections.

``python -m broker.dev.load`` reads one JSON object from its input, ``{"host", "port",
"connections", "requests"}``, sends every request once, as fast as answers come, and writes
``{"seconds", "statuses", "latencies_ms"}``. It does so little for each that the server is what is
measured: no client library, no parsing but of the status line and the length.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import uvloop

from broker.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_HEAD_END: Final = b"\r\n\r\n"
_clock = SystemClock()


@dataclass(frozen=True, slots=True)
class Load:
    """What came of it. ``statuses`` counts answers by their HTTP status."""

    seconds: float
    statuses: dict[str, int]
    latencies_ms: list[float]

    @property
    def per_second(self) -> float:
        """Good answers a second."""
        return self.statuses.get("200", 0) / self.seconds


def run(host: str, port: int, requests: Sequence[str], *, connections: int) -> Load:
    """Send ready-made requests from another process, and wait for the outcome."""
    job = {"host": host, "port": port, "connections": connections, "requests": list(requests)}
    done = subprocess.run(
        [sys.executable, "-m", "broker.dev.load"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=True,
    )
    return Load(**json.loads(done.stdout))


def post(path: str, body: str, *, host: str, content_type: str) -> str:
    """Return a POST as it goes over the wire; ``body`` is ASCII."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    )


class _Connection(asyncio.Protocol):
    """Takes the next request whenever an answer is complete."""

    def __init__(self, requests: Iterator[bytes], statuses: dict[str, int]) -> None:
        self._requests = requests
        self._statuses = statuses
        self._received = b""
        self._sent_at = 0.0
        self._transport: Any = None
        self.latencies_ms: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._next()

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(_HEAD_END)
        if not found:
            return
        length = _LENGTH.search(head)
        if length is None or len(body) < int(length[1]):
            return
        self.latencies_ms.append((_clock.monotonic() - self._sent_at) * 1000)
        status = head[9:12].decode()
        self._statuses[status] = self._statuses.get(status, 0) + 1
        self._received = b""
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server hung up"))

    def _next(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self.done.set_result(None)
            self._transport.close()
            return
        self._sent_at = _clock.monotonic()
        self._transport.write(request)


async def _send_all(job: dict[str, Any]) -> dict[str, Any]:
    requests = iter([text.encode("ascii") for text in job["requests"]])
    statuses: dict[str, int] = {}
    loop = asyncio.get_running_loop()
    started = _clock.monotonic()
    pairs = await asyncio.gather(
        *(
            loop.create_connection(
                lambda: _Connection(requests, statuses), job["host"], job["port"]
            )
            for _ in range(job["connections"])
        )
    )
    await asyncio.gather(*(connection.done for _, connection in pairs))
    seconds = _clock.monotonic() - started
    latencies = [ms for _, connection in pairs for ms in connection.latencies_ms]
    return {"seconds": seconds, "statuses": statuses, "latencies_ms": latencies}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(uvloop.run(_send_all(json.load(sys.stdin)))))
