"""One producer for all who follow, and nothing that piles up."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import weakref
from typing import TYPE_CHECKING

import pytest

from broker.console.live import Feed, Feeds, News
from broker.errors import LedgerUnavailable
from tests.console.test_revoke_pages import console_of
from tests.waiting import wait_until

if TYPE_CHECKING:
    from tests.console.people import ConsoleWorld


class Counter:
    """What there is to tell: how often it was made."""

    def __init__(self) -> None:
        self.made = 0
        self.down = False

    async def __call__(self) -> str:
        if self.down:
            raise LedgerUnavailable("down", retry_after=1)
        self.made += 1
        return f"<p>{self.made}"


async def told(so: bool) -> bool:
    return so


async def nobody_else() -> bool:
    return len(asyncio.all_tasks()) == 1


async def first(feed: Feed, count: int) -> list[News | None]:
    found: list[News | None] = []
    async with contextlib.aclosing(feed.follow()) as news:
        async for made in news:
            found.append(made)
            if len(found) == count:
                break
    return found


async def test_fifty_who_follow_cost_what_one_does() -> None:
    made = Counter()
    feed = Feed(made, every_s=0.01)
    async with asyncio.timeout(10):
        found = await asyncio.gather(*(first(feed, 5) for _ in range(50)))
    assert all(len(news) == 5 for news in found)
    assert made.made <= 20  # each is made once, whoever is told of it
    assert feed.followers == 0


async def test_nothing_is_made_for_nobody() -> None:
    made = Counter()
    feed = Feed(made, every_s=0.01)
    await first(feed, 2)
    await wait_until(nobody_else, "the producer ends")
    before = made.made
    assert (await first(feed, 1))[0] == News("page", f"<p>{before + 1}")


async def test_who_reads_slowly_gets_the_latest() -> None:
    made = Counter()
    feed = Feed(made, every_s=0.001)
    async with contextlib.aclosing(feed.follow()) as news, asyncio.timeout(10):
        one = await anext(news)
        await wait_until(lambda: told(made.made >= 20), "twenty were made")
        other = await anext(news)
    assert one is not None
    assert other is not None
    assert int(other.data[3:]) >= 20


async def test_what_does_not_change_is_not_told() -> None:
    async def same() -> str:
        return "<p>same"

    feed = Feed(same, every_s=0.001)
    async with contextlib.aclosing(feed.follow(quiet_s=0.05)) as news, asyncio.timeout(10):
        assert await anext(news) == News("page", "<p>same")
        assert await anext(news) is None


async def test_trouble_is_told_and_gets_over() -> None:
    made = Counter()
    made.down = True
    feed = Feed(made, every_s=0.001)
    async with contextlib.aclosing(feed.follow()) as news, asyncio.timeout(10):
        assert await anext(news) == News("trouble", "down")
        made.down = False
        found = await anext(news)
        assert found is not None
        assert found.event == "page"


async def test_closing_ends_it_for_all() -> None:
    feed = Feed(Counter(), every_s=0.001)

    async def all_of_it() -> bool:
        async for _ in feed.follow():
            pass
        return True

    async with asyncio.timeout(10):
        following = [asyncio.create_task(all_of_it()) for _ in range(5)]
        await wait_until(lambda: told(feed.followers == 5), "all of them follow")
        feed.close()
        assert all(await asyncio.gather(*following))


async def test_a_stream_ends_with_its_session(console: ConsoleWorld) -> None:
    here, there = await console.signed_in(), await console.signed_in()
    assert (
        await console.browser().get("/now/events", accept="text/event-stream")
    ).status_code == 401
    path = f"{here.base}/now/events"
    # The test's transport hands a stream over when it is over.
    answer = asyncio.create_task(here.http.get(path))
    feeds = console_of(console).feeds
    await wait_until(lambda: told(feeds.followers == 1), "it follows")
    await there.submit("/sign-out", {"everywhere": "yes"})
    async with asyncio.timeout(60):
        ended = await answer
    assert ended.headers["content-type"].startswith("text/event-stream")
    assert ended.status_code == 200
    assert "event: page" in ended.text
    assert ended.text.endswith("event: end\ndata: end\n\n")
    assert feeds.followers == 0


async def test_a_feed_is_one_for_all_and_gone_with_the_last() -> None:
    feeds, made = Feeds(), Counter()
    feed = feeds.of("x", made)
    assert feeds.of("x", made) is feed
    assert feeds.of("y", made) is not feed
    async with contextlib.aclosing(feed.follow()) as news, asyncio.timeout(10):
        await anext(news)
        assert feeds.followers == 1
    before = weakref.ref(feed)
    del feed, news
    await wait_until(nobody_else, "the producer ends")
    gc.collect()
    assert before() is None
    async with contextlib.aclosing(feeds.of("x", made).follow()) as news, asyncio.timeout(10):
        assert await anext(news)
        feeds.close()
        with pytest.raises(StopAsyncIteration):
            await anext(news)
