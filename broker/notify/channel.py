"""A channel: which news go there, when it is too late for them, and how many are too many.

It is fed as a sink is, with its own position. What it is fed comes again until it has all been
told; so what was told of a batch already is remembered until the rest was.
"""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from broker.audit.sinks import FeedKind, SinkError
from broker.logs import get_logger
from broker.measures import REFUSED, TOLD, TOO_LATE
from broker.notify.news import FORMS, Kind, News, Severity, news_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from broker.clock import Clock
    from broker.notify.carriers import Carrier

log = get_logger("notify")
CHANNEL: Final = FeedKind("channel", "channels", from_now=True)
TYPES: Final = tuple(FORMS)
"""The events that a channel is fed with."""
LONGEST_LATE_MS: Final = 7 * 86_400_000
"""How late critical news are still told."""
_SINGLY: Final = 5
"""People are told so many of one type at a time, then how many more there are."""
_FULL_TRIES: Final = 3
"""After so many failures a message is also tried without what callers wrote."""
_ON_TIME_S: Final = 120


@dataclass(frozen=True, slots=True)
class Wants:
    """What a channel is told. Without ``groups`` it is told whoever is asked."""

    name: str
    events: frozenset[Kind]
    groups: frozenset[str] = frozenset()
    details: bool = True
    max_age_ms: int = 3_600_000

    def wants(self, news: News) -> bool:
        """Say whether these news go there.

        To be named is enough, and for a decision the only way. Otherwise its kind is wanted, and
        where both it and the channel have groups, one is the same.
        """
        if self.name in news.channels:
            return True
        if news.kind is Kind.DECISION or news.kind not in self.events:
            return False
        return not (self.groups and news.groups) or bool(self.groups & news.groups)

    def in_time(self, news: News, now_ms: int) -> bool:
        """Say whether it still makes sense to tell them."""
        if news.over_at is not None and news.over_at <= now_ms:
            return False
        most = LONGEST_LATE_MS if news.severity is Severity.CRITICAL else self.max_age_ms
        return now_ms - news.at <= max(most, self.max_age_ms)


class Channel:
    """Tells news; what feeds it sees a sink."""

    def __init__(
        self,
        wants: Wants,
        carrier: Carrier,
        clock: Clock,
        *,
        issuer: str,
        on_news: Callable[[str], None] = lambda _: None,
    ) -> None:
        """``on_news`` is told what became of each: ``TOLD``, ``TOO_LATE`` or ``REFUSED``."""
        self.wants = wants
        self._carrier = carrier
        self._clock = clock
        self._issuer = issuer
        self._on_news = on_news
        self._batch: tuple[str, ...] = ()
        self._left: deque[News] = deque()
        self._tries = 0

    async def deliver(self, events: Sequence[Mapping[str, Any]]) -> None:
        """Tell what there is to tell of these events.

        Raises:
            SinkError: not all was told.
        """
        batch = tuple(str(event.get("id")) for event in events)
        if batch != self._batch or not self._left:
            self._batch, self._left, self._tries = batch, deque(self._plan(events)), 0
        while self._left:
            became = await self._tell(self._left[0])
            self._on_news(became)
            self._left.popleft()
            self._tries = 0
        self._batch = ()

    async def send(self, news: News) -> None:
        """Send one message, whoever wants it.

        Raises:
            SinkError: it hasn't arrived, as far as is known.
        """
        await self._carrier.send(news if self.wants.details else news.bare())

    async def close(self) -> None:
        """Let go of what is held open."""
        await self._carrier.close()

    def _plan(self, events: Sequence[Mapping[str, Any]]) -> Iterable[News]:
        found = [news_of(event, issuer=self._issuer) for event in events]
        wanted = [news for news in found if news is not None and self.wants.wants(news)]
        now_ms = self._now_ms()
        in_time = [news for news in wanted if self.wants.in_time(news, now_ms)]
        self._passed_over(len(wanted) - len(in_time))
        return condensed(in_time) if self._carrier.for_people else in_time

    async def _tell(self, news: News) -> str:
        now_ms = self._now_ms()
        if not self.wants.in_time(news, now_ms):
            log.warning("news were too late to tell", channel=self.wants.name, count=1)
            return TOO_LATE
        late_s = (now_ms - news.at) // 1000
        news = replace(news, late_s=late_s if late_s > _ON_TIME_S else 0)
        try:
            await self.send(news)
        except SinkError as error:
            self._tries += 1
            if not error.refused and self._tries < _FULL_TRIES:
                raise _plain(error) from error
            return await self._tell_bare(news, error)
        return TOLD

    async def _tell_bare(self, news: News, first: SinkError) -> str:
        """Tell it without what callers wrote: they must not be able to silence a channel."""
        try:
            await self.send(news.bare())
        except SinkError as error:
            if not (first.refused and error.refused):
                raise _plain(error) from error
            log.warning("a message was refused", channel=self.wants.name, news=news.id)
            return REFUSED
        log.warning("told without what callers wrote", channel=self.wants.name, news=news.id)
        return TOLD

    def _passed_over(self, count: int) -> None:
        if count:
            log.warning("news were too late to tell", channel=self.wants.name, count=count)
        for _ in range(count):
            self._on_news(TOO_LATE)

    def _now_ms(self) -> int:
        return int(self._clock.now() * 1000)


def condensed(found: Sequence[News]) -> list[News]:
    """Return less for people: no request that has its answer, and of a flood how much there is."""
    answered = {_approval(news) for news in found if news.kind is Kind.RESULT}
    open_ones = [
        news for news in found if news.kind is not Kind.APPROVAL or _approval(news) not in answered
    ]
    counts = Counter(news.type for news in open_ones)
    told: list[News] = []
    rest: dict[str, list[News]] = {}
    for news in open_ones:
        alike = rest.setdefault(news.type, [])
        if counts[news.type] <= _SINGLY or len(alike) < _SINGLY - 1:
            told.append(news)
        alike.append(news)
    floods = [some[_SINGLY - 1 :] for some in rest.values() if len(some) > _SINGLY]
    return [*told, *map(_summary, floods)]


def _summary(some: Sequence[News]) -> News:
    """Return news of many alike; it is as old as the newest, and over when all are."""
    first, last = some[0], some[-1]
    lists = "\n".join(news.id for news in some)
    ends = [news.over_at for news in some]
    link = last.link.rpartition("/")[0] if last.link.count("/") > _CONSOLE else last.link
    return replace(
        last,
        id="many-" + hashlib.sha256(lists.encode()).hexdigest()[:32],
        title=f"{len(some)} more like this, the first: {first.title}",
        facts=(),
        said=(),
        todo=(),
        link=link,
        over_at=None if None in ends else max(end for end in ends if end is not None),
        data={"count": len(some)},
    )


_CONSOLE: Final = 3


def _approval(news: News) -> str:
    return str((news.data or {}).get("approval", news.id))


def _plain(error: SinkError) -> SinkError:
    """Return the error for whoever feeds: a smaller batch would change nothing."""
    return SinkError(error.problem, wait_s=error.wait_s)
