"""Events as approvals and broken glass leave them, in a log that channels are fed from."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any, Final

from broker.audit.record import cloud_event
from broker.audit.sinks import Feed
from broker.config.channels import ChannelEntry
from broker.events import Event
from broker.notify.channel import CHANNEL, TYPES
from broker.notify.opening import open_channel
from tests.audit_bench import BEGIN_MS, SOURCE, Log
from tests.clocks import ManualClock
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from tests.receiver import Receiver

TASK: Final = "tsk_03" + "a" * 24
APPROVAL: Final = "apr_03" + "b" * 24
ELEVATION: Final = "elv_03" + "c" * 24
WEBHOOK_KEY: Final = "whsec_" + "A" * 43 + "="
REQUESTED: Final[dict[str, Any]] = {
    "approval": APPROVAL,
    "action": "issue_grant",
    "capability": "deploy-prod",
    "power": "privileged",
    "requester": "ci",
    "agent": "deployer",
    "needs": {"security": 2, "": 1},
    "groups": ["security"],
    "expires_at": BEGIN_MS + 3_600_000,
    "purpose": "release 7",
    "intent": "deploy build 7",
}
GLASS: Final[dict[str, Any]] = {
    "elevation": ELEVATION,
    "capability": "deploy-prod",
    "agent": "deployer",
    "by": "incident-bot",
    "intent": "the site is down",
    "until": BEGIN_MS + 600_000,
}


def event(
    kind: str, data: dict[str, Any], *, number: int = 0, at: int = BEGIN_MS, **more: str
) -> dict[str, Any]:
    """One CloudEvent, as the log has it."""
    made = Event(f"{at}-03-{number}", at, kind, TASK, "", "ci", data, **more)
    return cloud_event(made, source=SOURCE)


class Newsroom:
    """A log, and a clock that stands a second after its first event."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = Log(folder / "log")
        self.clock = ManualClock(BEGIN_MS / 1000 + 1)
        self.feeds: list[Feed] = []
        self.became: list[str] = []
        self._number = 0

    def happens(self, kind: str, data: dict[str, Any], at: int | None = None) -> None:
        """Append an event and tell the feeds of it."""
        self.write(kind, data, at)
        self.commit()

    def write(self, kind: str, data: dict[str, Any], at: int | None = None) -> None:
        self._number += 1
        moment = int(self.clock.now() * 1000) if at is None else at
        self.log.writer.append([event(kind, data, number=self._number, at=moment)], {})

    def commit(self) -> None:
        for feed in self.feeds:
            feed.committed(self.log.writer.head.size)

    def entry(
        self, receiver: Receiver | str, kind: str = "webhook", **options: Any
    ) -> ChannelEntry:
        """A channel's configuration, with its secrets in files."""
        url = receiver if isinstance(receiver, str) else receiver.url
        (self.folder / "url").write_text(url)
        (self.folder / "key").write_text(WEBHOOK_KEY)
        secret = {"secret_file": "key"} if kind == "webhook" else {}
        written = {"name": "security", "kind": kind, "url_file": "url", **secret, **options}
        return ChannelEntry.model_validate(written, context={"folder": self.folder})

    @contextlib.asynccontextmanager
    async def told(
        self, entry: ChannelEntry, on_failure: Callable[[str], None] = lambda _: None
    ) -> AsyncGenerator[Feed]:
        """Run a channel for a while; it has heard how far the log goes when this begins."""
        on_news = self.became.append
        feed = Feed(
            entry.name,
            open_channel(entry, self.clock, issuer=SOURCE, on_news=on_news),
            self.log.folder,
            self.clock,
            kind=CHANNEL,
            types=TYPES,
            on_failure=on_failure,
            first_delay_s=0.001,
        )
        self.feeds.append(feed)
        feed.committed(self.log.writer.head.size)
        task = asyncio.create_task(feed.run())
        try:
            yield feed
        finally:
            self.feeds.remove(feed)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            await feed.close()


async def got(receiver: Receiver, count: int) -> list[dict[str, Any]]:
    """Wait until so many messages were taken; return their bodies."""

    async def look() -> bool:
        return len(receiver.accepted) >= count

    await wait_until(look, f"{count} messages came")
    return [json.loads(delivery.body) for delivery in receiver.accepted]


async def idle(feed: Feed) -> None:
    """Wait until a channel has been told all there is."""
    await asyncio.wait_for(feed.caught_up(), 20)
