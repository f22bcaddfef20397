"""Ways to a channel by HTTP: the generic webhook, signed, and Slack's form."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, Protocol

from broker.notify.templates import for_programs, for_slack

if TYPE_CHECKING:
    from broker.audit.posting import Poster
    from broker.notify.news import News

_JSON: Final = "application/json"


class Carrier(Protocol):
    """A way to a channel. ``for_people`` says that nobody wants a flood of its messages."""

    for_people: bool

    async def send(self, news: News) -> None:
        """Return once the message has arrived.

        Raises:
            SinkError: it hasn't, as far as is known.
        """
        ...

    async def close(self) -> None:
        """Let go of what is held open."""
        ...


class Generic:
    """Posts one JSON document for each piece of news."""

    for_people = False

    def __init__(self, channel: str, poster: Poster) -> None:
        """``channel`` is its name; the poster signs."""
        self._channel = channel
        self._poster = poster

    async def send(self, news: News) -> None:
        """Post it."""
        content = json.dumps(for_programs(news, self._channel), separators=(",", ":"))
        await self._poster.post(
            content.encode(), media_type=_JSON, ids=(self._channel, news.type, news.id)
        )

    async def close(self) -> None:
        """Close the connection."""
        await self._poster.close()


class Slack:
    """Posts to an incoming webhook of Slack's, or of whoever takes the same."""

    for_people = True

    def __init__(self, poster: Poster) -> None:
        """The poster's URL is the secret."""
        self._poster = poster

    async def send(self, news: News) -> None:
        """Post it."""
        content = json.dumps(for_slack(news), separators=(",", ":"))
        await self._poster.post(content.encode(), media_type=_JSON, ids=(news.type, news.id))

    async def close(self) -> None:
        """Close the connection."""
        await self._poster.close()
