"""The load generator: what it sends, and from when its latencies count."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from broker.dev.bench import load

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Server:
    """Answers every request, the n-th after the seconds in ``stalls``."""

    def __init__(self) -> None:
        self.requests: list[bytes] = []
        self.answers: dict[int, bytes] = {}
        self.stalls: dict[int, float] = {}

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while head := await reader.readuntil(b"\r\n\r\n"):
            self.requests.append(head)
            number = len(self.requests)
            await asyncio.sleep(self.stalls.get(number, 0))
            answer = self.answers.get(number, ANSWER)
            writer.write(answer[:20])  # in two pieces, as it may come
            await writer.drain()
            writer.write(answer[20:])


@pytest.fixture
async def server() -> AsyncGenerator[tuple[Server, int]]:
    ours = Server()

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await ours.talk(reader, writer)
        except asyncio.IncompleteReadError:
            writer.close()

    listening = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with listening:
        yield ours, listening.sockets[0].getsockname()[1]


def job(port: int, count: int, **more: Any) -> dict[str, Any]:
    url = f"http://127.0.0.1:{port}"
    requests = [load.get(f"/{n}", [("A", "b")], url=url) for n in range(count)]
    return {"host": "127.0.0.1", "port": port, "connections": 2, "requests": requests} | more


async def test_every_request_is_sent_once_and_every_answer_counted(
    server: tuple[Server, int],
) -> None:
    ours, port = server
    ours.answers[3] = b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n" + b""
    done = load.Load(**await load.send_all(job(port, 20)))
    assert sorted(r.split()[1] for r in ours.requests) == sorted(b"/%d" % n for n in range(20))
    assert all(b"\r\nA: b\r\n" in request for request in ours.requests)
    assert done.statuses == {"200": 19, "503": 1}
    assert len(done.latencies_ms) == 20
    assert done.per_second == 19 / done.seconds


async def test_what_waits_behind_a_stall_counts_from_when_it_was_due(
    server: tuple[Server, int],
) -> None:
    """Coordinated omission: a closed loop would call 29 of these 30 quick."""
    ours, port = server
    ours.stalls[1] = 0.3
    done = await load.send_all(job(port, 30, connections=1, rate=100))
    # The n-th is due after n/100 s, and none is answered before 0.3 s. All bounds are from below.
    assert len(done["latencies_ms"]) == 30
    late = [ms for n, ms in enumerate(done["latencies_ms"]) if ms < 300 - 10 * n - 1]
    assert late == []


async def test_it_keeps_to_its_rate(server: tuple[Server, int]) -> None:
    _, port = server
    done = await load.send_all(job(port, 11, rate=50))
    assert done["seconds"] >= 0.2  # the last is due then


def test_when_requests_are_due() -> None:
    now = [100.0]
    requests = load.Requests([b"a", b"b", b"c", b"d"], lambda: now[0], rate=10)
    assert requests.take() == (0, 100, b"a")
    wait, due, _ = requests.take() or (0, 0, b"")
    assert (wait, due) == pytest.approx((0.1, 100.1))
    now[0] = 105
    assert requests.take() == (0, pytest.approx(100.2), b"c")  # overdue: at once, from then on
    requests.take()
    assert requests.take() is None


def test_without_a_rate_they_count_from_when_they_are_sent() -> None:
    now = [100.0]
    requests = load.Requests([b"a", b"b"], lambda: now[0], rate=None)
    requests.take()
    now[0] = 105
    assert requests.take() == (0, 105, b"b")


async def test_a_refused_request_ends_it(server: tuple[Server, int]) -> None:
    ours, port = server
    ours.answers[2] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"
    url = f"http://127.0.0.1:{port}"
    requests = [load.post("/", "{}", url=url)] * 3
    with pytest.raises(load.Refused, match="'404': 1"):
        await asyncio.to_thread(load.run, url, requests, connections=1)


async def test_a_server_that_is_not_there_ends_it() -> None:
    with pytest.raises(load.Refused, match=r"Connect call failed|refused"):
        await asyncio.to_thread(
            load.run, "http://127.0.0.1:1", [load.get("/", [], url="http://x")], connections=1
        )
