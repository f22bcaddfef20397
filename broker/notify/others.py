"""Every other way, by apprise (https://appriseit.com): mail, chats, pagers, phones.

The library is imported when a channel wants it, blocks in a thread of its own, and says no more of
a failure than that there was one. Its own log lines are dropped, as they can hold a URL.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import TYPE_CHECKING, Any, Final

from broker.audit.sinks import SinkError
from broker.errors import ConfigError
from broker.notify.news import Severity
from broker.notify.templates import body, title

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.notify.news import News
    from broker.secret import Secret

_TYPES: Final = {
    Severity.INFO: "info",
    Severity.WARNING: "warning",
    Severity.CRITICAL: "failure",
}


class Others:
    """Sends title and text to one URL of apprise's."""

    for_people = True

    def __init__(self, url: Callable[[], Secret], *, timeout_s: float) -> None:
        """``url`` reads the file that holds it; ``timeout_s`` bounds a delivery as a whole.

        Raises:
            ConfigError: apprise isn't installed, or knows no such URL.
        """
        self._url = url
        self._timeout_s = timeout_s
        self._busy = False
        _way(url())

    async def send(self, news: News) -> None:
        """Send it; without a word from apprise in time nobody knows whether it has arrived."""
        if self._busy:
            raise SinkError("the message before hasn't come to an end")
        loop = asyncio.get_running_loop()
        sent: asyncio.Future[str] = loop.create_future()

        def settle(problem: str) -> None:
            if not sent.done():
                sent.set_result(problem)

        def work() -> None:
            problem = self._send(news)
            self._busy = False
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, problem)

        # Nobody waits for it at the end of the process.
        self._busy = True
        threading.Thread(target=work, daemon=True, name="notify-apprise").start()
        try:
            async with asyncio.timeout(self._timeout_s):
                problem = await sent
        except TimeoutError as error:
            raise SinkError(f"no answer within {self._timeout_s:g} s") from error
        if problem:
            raise SinkError(problem)

    async def close(self) -> None:
        """Nothing is held open."""

    def _send(self, news: News) -> str:
        """Send in this thread; return what went wrong, of which no text of apprise's is a part."""
        try:
            taken = _way(self._url()).notify(
                body=body(news) or title(news),
                title=title(news),
                notify_type=_TYPES[news.severity],
                body_format="text",
                timeout=self._timeout_s,
            )
        except ConfigError as error:
            return error.detail
        except Exception as error:  # noqa: BLE001  a hundred plugins, of others
            return f"apprise failed: {type(error).__name__}"
        return "" if taken else "the service didn't take it, or can't be reached"


def _way(url: Secret) -> Any:  # noqa: ANN401  its methods are typed in part only
    """Return apprise with one URL.

    Raises:
        ConfigError: it isn't installed, or knows no such URL. The URL isn't said.
    """
    try:
        import apprise  # noqa: PLC0415  optional, and slow to load
    except ImportError:
        raise ConfigError(
            "kind apprise needs a library more: pip install 'broker[notify]'"
        ) from None
    quiet = logging.getLogger("apprise")
    quiet.setLevel(logging.CRITICAL + 1)
    quiet.propagate = False
    asset = apprise.AppriseAsset(http_redirects=False, storage_mode="memory")
    way: Any = apprise.Apprise(asset=asset)
    text = url.reveal().strip()
    # A second line would be told twice when only the first could be reached.
    if len(text.split()) != 1 or not way.add(text) or len(way) != 1:
        raise ConfigError(
            "url_file doesn't hold one URL that apprise knows, such as mailto://… or discord://…"
        )
    return way
