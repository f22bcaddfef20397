"""A load generator in a process of its own: ready-made requests over kept-alive connections.

``python -m broker.dev.bench.load`` reads one JSON object from its input, ``{"host", "port",
"connections", "requests", "rate"}``, sends every request once, and writes ``{"seconds",
"statuses", "latencies_ms"}``. It does so little for each that the server is what is measured: no
client library, no parsing but of the status line and the length.

Without a rate each connection sends as fast as answers come. That measures throughput, and nothing
else: a server that stalls is sent less while it does, so latencies would leave out what it made
wait (coordinated omission). With a rate, requests are due at fixed times whatever the server does;
one that finds no connection free waits for it, and **its latency counts from when it was due**.
"""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import uvloop

from broker.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_LENGTH: Final = re.compile(rb"\r\ncontent-length: *([0-9]+)", re.IGNORECASE)
_HEAD_END: Final = b"\r\n\r\n"
_GOOD: Final = "2"
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
        return sum(n for status, n in self.statuses.items() if status[:1] == _GOOD) / self.seconds


class Refused(Exception):
    """Some answers weren't what was asked for, so the figures would mean nothing."""


def run(url: str, requests: Sequence[str], *, connections: int, rate: float | None = None) -> Load:
    """Send ready-made requests from another process to ``http://HOST:PORT``; wait for the outcome.

    Raises:
        Refused: an answer isn't good, or the server hung up.
    """
    host, _, port = url.removeprefix("http://").partition("/")[0].partition(":")
    job = {
        "host": host,
        "port": int(port),
        "connections": connections,
        "requests": list(requests),
        "rate": rate,
    }
    done = subprocess.run(
        [sys.executable, "-m", "broker.dev.bench.load"],
        input=json.dumps(job),
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Refused(f"{url}: {(done.stderr.splitlines() or ['no answer'])[-1]}")
    load = Load(**json.loads(done.stdout))
    if any(status[:1] != _GOOD for status in load.statuses):
        raise Refused(f"{url} refused some of it: {load.statuses}")
    return load


def get(path: str, headers: Iterable[tuple[str, str]], *, url: str) -> str:
    """Return a GET as it goes over the wire."""
    return _head("GET", path, url, headers) + "\r\n"


def post(
    path: str,
    body: str,
    *,
    url: str,
    content_type: str = "application/json",
    headers: Iterable[tuple[str, str]] = (),
) -> str:
    """Return a POST as it goes over the wire; ``body`` is ASCII."""
    about = (("Content-Type", content_type), ("Content-Length", str(len(body))), *headers)
    return f"{_head('POST', path, url, about)}\r\n{body}"


def _head(method: str, path: str, url: str, headers: Iterable[tuple[str, str]]) -> str:
    host = url.removeprefix("http://").partition("/")[0]
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
    return f"{method} {path} HTTP/1.1\r\nHost: {host}\r\n{lines}"


class Requests:
    """Those to be sent: each with when it is due, if they go at a rate, and who is free for it."""

    def __init__(
        self, requests: Sequence[bytes], now: Callable[[], float], rate: float | None
    ) -> None:
        """The first is due at once, the others ``1 / rate`` seconds after one another."""
        self._left = deque(enumerate(requests))
        self._now = now
        self._rate = rate
        self.begun = now()

    def due_at(self, number: int) -> float | None:
        """When a request is due; None when it is as soon as a connection is free."""
        return None if self._rate is None else self.begun + number / self._rate

    def take(self) -> tuple[float, float, bytes] | None:
        """Return the next: after how many seconds to send it, from when it counts, and its bytes.

        Called when a connection is free: one that is overdue goes at once, and counts from when
        it was due.
        """
        if not self._left:
            return None
        number, request = self._left.popleft()
        now = self._now()
        due = self.due_at(number)
        if due is None:
            return 0.0, now, request
        return max(0.0, due - now), due, request


class _Connection(asyncio.Protocol):
    """Takes the next request whenever an answer is complete."""

    def __init__(self, requests: Requests, statuses: dict[str, int]) -> None:
        self._requests = requests
        self._statuses = statuses
        self._received = b""
        self._counts_from = 0.0
        self._transport: Any = None
        self.latencies_ms: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, body = self._received.partition(_HEAD_END)
        if not found:
            return
        length = _LENGTH.search(head)
        if length is None or len(body) < int(length[1]):
            return
        self.latencies_ms.append((_clock.monotonic() - self._counts_from) * 1000)
        status = head[9:12].decode()
        self._statuses[status] = self._statuses.get(status, 0) + 1
        self._received = b""
        self.next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(exc or ConnectionError("the server hung up"))

    def next(self) -> None:
        taken = self._requests.take()
        if taken is None:
            self.done.set_result(None)
            self._transport.close()
            return
        wait_s, self._counts_from, request = taken
        if wait_s:
            asyncio.get_running_loop().call_later(wait_s, self._transport.write, request)
        else:
            self._transport.write(request)


async def send_all(job: dict[str, Any]) -> dict[str, Any]:
    """Do a job as it is described above."""
    statuses: dict[str, int] = {}
    loop = asyncio.get_running_loop()
    texts = [text.encode("ascii") for text in job["requests"]]
    requests = Requests(texts, _clock.monotonic, job.get("rate"))
    pairs = await asyncio.gather(
        *(
            loop.create_connection(
                lambda: _Connection(requests, statuses), job["host"], job["port"]
            )
            for _ in range(min(job["connections"], len(texts)))
        )
    )
    requests.begun = started = _clock.monotonic()
    for _, connection in pairs:
        connection.next()
    await asyncio.gather(*(connection.done for _, connection in pairs))
    seconds = _clock.monotonic() - started
    latencies = [ms for _, connection in pairs for ms in connection.latencies_ms]
    return {"seconds": seconds, "statuses": statuses, "latencies_ms": latencies}


if __name__ == "__main__":
    sys.stdout.write(json.dumps(uvloop.run(send_all(json.load(sys.stdin)))))
