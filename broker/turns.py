"""A gate of bounded width that lets those who wait in by turns, so that many don't delay few.

Whoever waits says for whom. Each of those has one place in the round, however many of them wait.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import OrderedDict, deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator


class Turns:
    """At most ``width`` inside at once; the rest wait, and come in by turns."""

    def __init__(self, width: int) -> None:
        """``width`` is at least one."""
        self._free = width
        # For whom, whose turn is next first; each with those who wait, who came first first.
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(not place.done() for row in self._waiting.values() for place in row)

    @contextlib.asynccontextmanager
    async def of(self, whom: str) -> AsyncGenerator[None]:
        """Be inside, once it is ``whom``'s turn."""
        await self._enter(whom)
        try:
            yield
        finally:
            self._leave()

    async def _enter(self, whom: str) -> None:
        if self._free:  # nobody waits: whoever leaves lets the next in
            self._free -= 1
            return
        place = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(whom, deque()).append(place)
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():
                self._leave()  # let in, and called off before it could notice
            raise

    def _leave(self) -> None:
        place = self._next()
        if place is None:
            self._free += 1
        else:
            place.set_result(None)

    def _next(self) -> asyncio.Future[None] | None:
        """Take the next of the round off the queue; those called off meanwhile don't count."""
        while self._waiting:
            whom, row = self._waiting.popitem(last=False)
            while row:
                place = row.popleft()
                if not place.done():
                    if row:
                        self._waiting[whom] = row
                    return place
        return None
