"""Live pages: one producer for all who look at the same thing, and server-sent events to each.

The producer runs while anybody follows, and keeps only the latest: who reads slowly skips what came
between, so that nothing piles up.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Final, NamedTuple
from weakref import WeakValueDictionary

from starlette.responses import StreamingResponse

from broker.errors import BrokerError, QuotaExceeded

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from broker.console.routing import Visit

EVERY_S: Final = 2.0
HEARTBEAT_S: Final = 10.0
"""How often a quiet stream says that it is there, and each asks whether its session still is."""
MAX_STREAMS: Final = 500
_BEAT: Final = "event: beat\ndata: here\n\n"
_END: Final = "event: end\ndata: end\n\n"
_HEADERS: Final = {"X-Accel-Buffering": "no"}


class News(NamedTuple):
    """A server-sent event: ``page`` with what replaces the page's live part, or ``trouble``."""

    event: str
    data: str


class Feed:
    """The latest of something that changes. ``produce`` makes it, once for all who follow."""

    def __init__(self, produce: Callable[[], Awaitable[str]], every_s: float = EVERY_S) -> None:
        """Make it anew every ``every_s`` seconds while anybody follows."""
        self._produce = produce
        self._every_s = every_s
        self._changed = asyncio.Condition()
        self._latest: News = News("", "")
        self._version = 0
        self._followers = 0
        self._closed = False
        self._producer: asyncio.Task[None] | None = None

    @property
    def followers(self) -> int:
        """How many follow."""
        return self._followers

    def close(self) -> None:
        """End it for all who follow, now."""
        self._closed = True
        if self._producer is not None:
            self._producer.cancel()

    async def follow(self, quiet_s: float = HEARTBEAT_S) -> AsyncGenerator[News | None]:
        """Yield the latest whenever it has changed, and None when it hasn't for ``quiet_s``."""
        self._followers += 1
        # What was made for the last who followed may be long ago.
        seen = 0 if self._runs else self._version
        try:
            while not self._closed:
                if not self._runs:
                    self._producer = asyncio.create_task(self._run())
                if await self._newer(seen, quiet_s):
                    seen = self._version
                    yield self._latest
                elif not self._closed:
                    yield None
        finally:
            self._followers -= 1

    @property
    def _runs(self) -> bool:
        return self._producer is not None and not self._producer.done()

    async def _newer(self, seen: int, quiet_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(quiet_s), self._changed:
                await self._changed.wait_for(lambda: self._version > seen or self._closed)
        return self._version > seen and not self._closed

    async def _run(self) -> None:
        try:
            while self._followers and not self._closed:
                try:
                    news = News("page", await self._produce())
                except BrokerError as error:
                    news = News("trouble", error.detail)
                await self._tell(news)
                await asyncio.sleep(self._every_s)
        finally:
            async with self._changed:
                self._changed.notify_all()

    async def _tell(self, news: News) -> None:
        if news != self._latest:
            async with self._changed:
                self._latest, self._version = news, self._version + 1
                self._changed.notify_all()


class Feeds:
    """The feeds of a console, each by what it is of, for as long as anybody follows it."""

    def __init__(self) -> None:
        """None yet: there is one once somebody asks for it."""
        self._feeds: WeakValueDictionary[str, Feed] = WeakValueDictionary()

    @property
    def followers(self) -> int:
        """How many follow, whatever it is."""
        return sum(feed.followers for feed in self._feeds.values())

    def of(self, what: str, produce: Callable[[], Awaitable[str]]) -> Feed:
        """Return the feed of something; ``produce`` makes it, if nobody follows it yet."""
        feed = self._feeds.get(what)
        if feed is None:
            feed = self._feeds[what] = Feed(produce)
        return feed

    def close(self) -> None:
        """End all of them, now."""
        for feed in list(self._feeds.values()):
            feed.close()


def stream(visit: Visit, feed: Feed) -> StreamingResponse:
    """Answer with a feed's events, until the person's session ends or the broker stops.

    Raises:
        QuotaExceeded: too many follow already.
    """
    if visit.console.feeds.followers >= MAX_STREAMS:
        raise QuotaExceeded("Too many pages are live already: reload for news.", retry_after=30)
    return StreamingResponse(_events(visit, feed), 200, _HEADERS, media_type="text/event-stream")


async def _events(visit: Visit, feed: Feed) -> AsyncGenerator[str]:
    loop = asyncio.get_running_loop()
    asked_at = loop.time()
    async with contextlib.aclosing(feed.follow()) as news:
        async for made in news:
            if loop.time() - asked_at >= HEARTBEAT_S or made is None:
                asked_at = loop.time()
                with contextlib.suppress(
                    BrokerError
                ):  # nobody knows: it goes on until somebody does
                    if await visit.console.sessions.find(visit.request, note=False) is None:
                        break
            yield (
                _BEAT if made is None else f"event: {made.event}\ndata: {json.dumps(made.data)}\n\n"
            )
    yield _END
