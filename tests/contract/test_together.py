"""Commands that share a trip to Valkey: each has its own answer, its own error and its own fate."""

from __future__ import annotations

import asyncio
import socket
import threading
from typing import TYPE_CHECKING, Any, Final

import pytest
from redis.exceptions import NoScriptError, ResponseError

from broker.errors import LedgerUnavailable
from broker.ledger import keys
from broker.ledger.connection import Connection

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterator

    from broker.config import Config
    from broker.dev.stack import DevStack

SHARDS: Final = 8
MANY: Final = 50
EVENT: Final[dict[str, Any]] = {
    "type": "test",
    "task_id": "",
    "grant_id": "",
    "data": {},
    "actor": "test",
}


@pytest.fixture
async def redis(engines: tuple[DevStack, Config]) -> AsyncGenerator[Connection]:
    made = Connection(engines[1].redis.url, shards=SHARDS)
    await made.command("FLUSHALL")
    yield made
    await made.close()


async def trips(redis: Connection) -> int:
    """How many times the server has read from clients; this asks once itself."""
    client: Any = redis.client
    return (await client.info("stats"))["total_reads_processed"]


async def test_what_is_asked_at_the_same_time_travels_together(redis: Connection) -> None:
    before = await trips(redis)

    answers = await asyncio.gather(*(redis.command("ECHO", f"{n}") for n in range(MANY)))

    assert answers == [f"{n}".encode() for n in range(MANY)]
    # The server can read one write in several pieces, though hardly in fifty.
    assert await trips(redis) - before < MANY / 2


async def test_answers_of_all_kinds_reach_those_who_asked(redis: Connection) -> None:
    await redis.command("HSET", "h", "field", "value")
    big = "x" * 1_000_000

    answers = await asyncio.gather(
        redis.command("GET", "nothing"),
        redis.command("ECHO", big),
        redis.command("HGETALL", "h"),
        redis.run("record", 3, EVENT),
        redis.command("SET", "k", "v", "NX"),
        redis.command("SET", "k", "v", "NX"),
        redis.command("INCRBYFLOAT", "f", 0.5),
        redis.command("ECHO", b"\r\n$3\r\nfoo\r\n+OK\r\n"),
        redis.command("ECHO", ""),
    )

    alone = [await redis.command("HGETALL", "h"), await redis.command("GET", "nothing")]
    assert answers[0] is None
    assert answers[1] == big.encode()
    assert [answers[2], answers[0]] == alone
    assert [bool(answers[4]), bool(answers[5])] == [True, False]
    assert answers[7:] == [b"\r\n$3\r\nfoo\r\n+OK\r\n", b""]


async def test_an_error_is_its_callers_alone(redis: Connection) -> None:
    await redis.command("SET", "text", "x")

    answers = await asyncio.gather(
        redis.command("ECHO", "before"),
        redis.command("INCR", "text"),
        redis.command("NO-SUCH-COMMAND"),
        redis.command("ECHO", "between"),
        redis.command("LPUSH", "text", "wrong type"),
        redis.command("EVAL", "return redis.error_reply('MINE it is mine')", 0),
        redis.command("ECHO", "after"),
        return_exceptions=True,
    )

    fine = [a for a in answers if isinstance(a, bytes)]
    assert fine == [b"before", b"between", b"after"]
    failed = [a for a in answers if isinstance(a, LedgerUnavailable)]
    assert len(failed) == len(answers) - len(fine)
    assert len({str(a.__cause__) for a in failed}) == len(failed)
    assert all(isinstance(a.__cause__, ResponseError) for a in failed)


@pytest.mark.parametrize("word", [None, True, ["a"], {"a": 1}, object(), "\ud800"])
async def test_what_cannot_be_sent_stops_nobody_else(redis: Connection, word: Any) -> None:
    answers = await asyncio.gather(
        redis.command("SET", "first", "1"),
        redis.command("SET", "second", word),
        redis.command("ECHO", "third"),
        return_exceptions=True,
    )

    assert answers[0]
    assert isinstance(answers[1], Exception)
    assert answers[2] == b"third"
    assert await redis.command("GET", "second") is None


async def test_scripts_the_server_forgot_run_once_each_in_a_shared_trip(redis: Connection) -> None:
    await redis.command("SCRIPT", "FLUSH")

    answers = await asyncio.gather(
        *(redis.run("record", 3, EVENT) for _ in range(MANY)),
        *(redis.command("ECHO", f"{n}") for n in range(MANY)),
    )

    assert answers[MANY:] == [f"{n}".encode() for n in range(MANY)]
    # None was lost with the first try, and none ran twice.
    assert await redis.command("XLEN", keys.table(3, "audit")) == MANY


async def test_a_bare_missing_script_is_not_taken_for_an_answer(redis: Connection) -> None:
    answers = await asyncio.gather(
        redis.command("EVALSHA", "0" * 40, 0), redis.command("ECHO", "x"), return_exceptions=True
    )

    assert isinstance(answers[0], LedgerUnavailable)
    assert isinstance(answers[0].__cause__, NoScriptError)
    assert answers[1] == b"x"


async def test_who_goes_away_takes_nobody_along(redis: Connection) -> None:
    asked = [asyncio.create_task(redis.command("ECHO", f"{n}")) for n in range(MANY)]
    await asyncio.sleep(0)  # all wait now, and nothing was sent
    for n, task in enumerate(asked):
        if n % 3 == 0:
            task.cancel()
    answers = await asyncio.gather(*asked, return_exceptions=True)

    for n, answer in enumerate(answers):
        if n % 3 == 0:
            assert isinstance(answer, asyncio.CancelledError)
        else:
            assert answer == f"{n}".encode()


async def test_who_goes_away_while_the_server_works_spoils_no_answer(redis: Connection) -> None:
    # The server is busy with this, so all else of the trip is sent and not answered.
    slow = "local n = 0 for i = 1, 5000000 do n = n + 1 end return n"
    work = asyncio.create_task(redis.command("EVAL", slow, 0))
    asked = [asyncio.create_task(redis.command("ECHO", f"{n}")) for n in range(MANY)]
    for _ in range(5):
        await asyncio.sleep(0)
    work.cancel()
    asked[0].cancel()
    later = await asyncio.gather(*(redis.command("ECHO", f"later {n}") for n in range(MANY)))

    assert later == [f"later {n}".encode() for n in range(MANY)]
    assert await asyncio.gather(*asked[1:]) == [f"{n}".encode() for n in range(1, MANY)]


async def test_a_command_that_blocks_too_long_breaks_its_trip_and_no_other(
    engines: tuple[DevStack, Config],
) -> None:
    redis = Connection(engines[1].redis.url, shards=SHARDS, timeout_s=0.2)
    try:
        together = [redis.command("BLPOP", "nothing", 5), redis.command("ECHO", "with it")]
        spoiled = asyncio.gather(*together, return_exceptions=True)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        apart = await redis.command("ECHO", "apart")
        broken = await spoiled
        after = await asyncio.gather(*(redis.command("ECHO", f"{n}") for n in range(MANY)))
    finally:
        await redis.close()

    assert apart == b"apart"
    assert all(isinstance(one, LedgerUnavailable) for one in broken)
    # What it left unanswered on the connection is nobody's answer.
    assert after == [f"{n}".encode() for n in range(MANY)]


class Liar:
    """A server that answers whatever arrives with the next of some lines, then hangs up."""

    def __init__(self, *replies: bytes) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self._replies = list(replies)
        self.url = f"redis://127.0.0.1:{self._socket.getsockname()[1]}/0"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._socket.accept()
            except OSError:
                return
            with peer:
                while data := peer.recv(65536):
                    if b"ECHO" not in data:  # the client's own greeting
                        peer.sendall(b"+OK\r\n" * data.count(b"*"))
                        continue
                    if not self._replies:
                        peer.sendall(b"".join(_echoes(data)))
                        continue
                    peer.sendall(self._replies.pop(0))
                    break

    def close(self) -> None:
        self._socket.close()


def _echoes(data: bytes) -> Iterator[bytes]:
    for line in data.split(b"\r\n"):
        if line.startswith(b"say-"):
            yield b"+" + line + b"\r\n"


@pytest.mark.parametrize(
    "reply",
    [b"", b"!nonsense\r\n", b"+say-0\r\n", b"*-7\r\n", b"$5\r\nab", b"+say-0\r\n\x00\x01\r\n"],
)
async def test_answers_that_make_no_sense_are_nobodys(reply: bytes) -> None:
    liar = Liar(reply)
    redis = Connection(liar.url, shards=SHARDS, timeout_s=1)
    try:
        answers = await asyncio.gather(
            *(redis.command("ECHO", f"say-{n}") for n in range(3)), return_exceptions=True
        )
        after = await asyncio.gather(*(redis.command("ECHO", f"say-{n}") for n in range(3)))
    finally:
        await redis.close()
        liar.close()

    assert all(isinstance(one, LedgerUnavailable) for one in answers)
    assert after == [f"say-{n}".encode() for n in range(3)]


@pytest.mark.parametrize("passes", [1, 2, 3, 8])
async def test_a_loop_that_ends_leaves_nobody_waiting(redis: Connection, passes: int) -> None:
    """At the end of ``asyncio.run`` every task is cancelled, those that carry commands first."""
    asked = [asyncio.create_task(redis.command("BLPOP", "nothing", 0.1)) for _ in range(2)]
    for _ in range(passes):
        await asyncio.sleep(0)
    for task in asyncio.all_tasks() - {asyncio.current_task(), *asked}:
        task.cancel()

    answers = await asyncio.wait_for(asyncio.gather(*asked, return_exceptions=True), 10)

    # One that had not set out yet was not hurt.
    assert all(a is None or isinstance(a, asyncio.CancelledError) for a in answers)
    assert await redis.command("ECHO", "next") == b"next"
