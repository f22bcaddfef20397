"""Sends what is asked for at the same time in one go: each trip costs more than its commands."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from redis.exceptions import InvalidResponse

from broker.ledger.topology import Command

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.ledger.topology import Servers

    _Asked = tuple[Command, asyncio.Future[Any]]
    """A command, and where its answer goes."""


class Together:
    """Commands of one pass of the event loop share a connection and a write to each server.

    Each has its own answer and its own error; what breaks the connection breaks all that were on
    it, and nothing on the way to another server.
    """

    def __init__(self, servers: Servers) -> None:
        """Send to ``servers``."""
        self._servers = servers
        self._waiting: list[_Asked] = []
        self._trips: set[asyncio.Task[None]] = set()

    async def send(self, words: Sequence[Any], *, lasting: bool = False) -> Any:  # noqa: ANN401  each command has its own
        """Return a command's answer, or raise its error. For ``lasting`` see ``Command``."""
        # Here, so that what can't be written stops the one who asks, and nobody on the same trip.
        name, *rest = words
        command = Command((name, *map(self._servers.encode, rest)), {}, lasting)
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._set_out)
        self._waiting.append((command, answer))
        return await answer

    def _set_out(self) -> None:
        asked, self._waiting = self._waiting, []
        for places in self._servers.apart([command for command, _ in asked]):
            self._start([asked[place] for place in places])

    def _start(self, asked: Sequence[_Asked]) -> None:
        trip = asyncio.ensure_future(self._trip(asked))
        self._trips.add(trip)  # the loop itself would forget it

        def over(_: object) -> None:
            self._trips.discard(trip)
            for _, answer in asked:
                answer.cancel()  # of no effect on those answered: only a loop that ends leaves any

        trip.add_done_callback(over)

    async def _trip(self, asked: Sequence[_Asked]) -> None:
        answers: list[Any]
        try:
            answers = await self._servers.ask([command for command, _ in asked])
        except Exception as error:  # noqa: BLE001  nobody's command: all of them could be written
            nonsense = InvalidResponse("the answer can't be read")
            nonsense.__cause__ = error
            answers = [nonsense] * len(asked)
        for (_, answer), value in zip(asked, answers, strict=True):
            if answer.done():
                continue  # whoever asked has gone
            if isinstance(value, Exception):
                answer.set_exception(value)
            else:
                answer.set_result(value)
