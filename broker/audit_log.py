"""The signed log of one replica: draining into it, watching its lag, feeding sinks and channels."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from broker.audit.checkpoint import CheckpointFolder
from broker.audit.drain import Drain, DrainSettings
from broker.audit.errors import HeadUnreadable, LogDamaged
from broker.audit.guard import Guard
from broker.audit.head import Head
from broker.audit.note import NoteError, VerifierKey, log_origin
from broker.audit.signing_key import load_signer
from broker.audit.sinks import Feed, Stdout
from broker.audit.standing import newest_signed
from broker.audit.webhook import Webhook
from broker.config import read_secret_file
from broker.config.audit import SinkKind
from broker.errors import ConfigError, NotFound
from broker.ledger.outbox import Outbox
from broker.ledger.quarantine import QuarantineTable
from broker.notify.channel import CHANNEL, TYPES
from broker.notify.opening import open_channel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.audit.drain import DrainReport
    from broker.audit.note import Signer
    from broker.audit.sinks import Sink
    from broker.clock import Clock
    from broker.config import Config
    from broker.config.audit import SinkEntry
    from broker.config.channels import ChannelEntry
    from broker.ledger.connection import Connection
    from broker.metrics import Metrics

LOG: Final = "log"
"""What the log itself is called among the sinks, in metrics."""
_LATE_MS: Final = 60_000
"""A sink that is so far behind is worth a warning."""
_LAST_S: Final = 2.0
"""How long sinks may take for the last events before the process ends."""


class AuditLog:
    """All of it, from the configuration. Nothing runs before ``start``; the jobs are elsewhere."""

    def __init__(
        self, config: Config, connection: Connection, clock: Clock, metrics: Metrics
    ) -> None:
        """Load the signing key, making it if there is none.

        Raises:
            ConfigError: a file that ``[audit]`` names can't be used.
        """
        section, state = config.audit, config.broker.state_dir
        self.folder = section.folder(state)
        signer = _signer(config)
        self.key = signer.key
        self.clock = clock
        trusted = verifier_keys(config)
        self.keys = [signer.key, *trusted]
        self._outbox = Outbox(connection)
        self._quarantine = QuarantineTable(connection)
        self.guard = Guard(self._outbox, clock, max_lag_ms=section.max_lag)
        self._feeds = [self._feed(entry, clock, metrics) for entry in section.sinks]
        for channel in config.channels:
            self._feeds.append(self._channel(channel, config.broker.issuer, clock, metrics))
        self._metrics = metrics
        self._size = 0  # what the ledger is known to have remembered
        self._tasks: list[asyncio.Task[None]] = []
        self._drain = Drain(
            self._outbox,
            signer,
            clock,
            self.guard,
            DrainSettings(
                folder=self.folder,
                source=config.broker.issuer,
                checkpoint_ms=section.checkpoint_every,
                retention_ms=section.retention,
                segment_bytes=section.segment_size,
            ),
            trusted=trusted,
            on_commit=self._committed,
            on_set_back=self._hold,
        )
        metrics.follow_sink(LOG, lag_s=lambda: self.guard.lag_ms / 1000, waiting=lambda: None)
        metrics.follow("audit_stops_issuing", lambda: self.guard.closed)

    async def start(self) -> None:
        """See how far the log lags, before anything is issued, and begin to feed the sinks.

        Whether the ledger was set back behind the log is seen too, whoever may write it: one that
        is restored may say that somebody else does. What is signed here was committed before.

        Raises:
            LedgerUnavailable: how far isn't known; all else has begun.
        """
        self._tasks = [asyncio.create_task(feed.run()) for feed in self._feeds]
        with suppress(LogDamaged, OSError):  # said by whoever writes it
            newest, _ = await asyncio.to_thread(newest_signed, self.folder, self.keys)
            self._size = newest.size
        await self.look()
        await self.drain()

    async def drain(self) -> DrainReport:
        """Write what there is, if this replica is the one to do it: a job."""
        return await self._drain.run_once()

    async def look(self) -> None:
        """See how far the log lags, and goes, whoever writes it: a job.

        A ledger that says less than it has said was set back.
        """
        await self.guard.refresh()
        before = self._size
        text = (await self._outbox.point()).head
        with suppress(HeadUnreadable):
            size = Head.from_json(text).size if text else 0
            if size < before:  # whoever writes it now may have come after
                await self._hold(before)
                self._size = size
            self._committed(size)

    async def drained(self) -> list[str]:
        """Return for each shard the last event in the log: later ones mustn't be pruned."""
        return await self._outbox.drained()

    async def stop(self) -> None:
        """Write and sign the last events, and give the sinks a moment for them."""
        await self._drain.stop()
        with suppress(TimeoutError):
            await asyncio.wait_for(self._delivered(), _LAST_S)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for feed in self._feeds:
            await feed.close()

    async def checkpoint(self) -> str:
        """Return the newest signed checkpoint in this replica's folder.

        Raises:
            NotFound: there is none yet.
        """
        with suppress(OSError):
            note = await asyncio.to_thread(CheckpointFolder(self.folder).latest)
            if note is not None:
                return note.decode(errors="replace")
        raise NotFound("There is no signed checkpoint here yet.")

    async def head(self) -> Head | None:
        """Return how far the log goes, as the ledger says; None before its first record.

        Raises:
            HeadUnreadable: it says something that isn't understood.
            LedgerUnavailable: nobody knows.
        """
        text = (await self._outbox.point()).head
        return Head.from_json(text) if text else None

    def sinks(self) -> list[dict[str, Any]]:
        """Return how each of the places is that events go to besides."""
        return [
            {
                "kind": feed.kind.word,
                "name": feed.name,
                "waiting": feed.waiting,
                "lag_ms": feed.lag_ms,
                "problem": feed.problem or None,
            }
            for feed in self._feeds
        ]

    def state(self) -> str:
        """Say in a word how the log and its sinks are: ``ok``, a warning, or what is wrong."""
        state = self.guard.state()
        late = "; ".join(self._late())
        return f"warning: {late}" if state == "ok" and late else state

    def _late(self) -> Iterator[str]:
        for feed in self._feeds:
            if feed.problem:
                yield f"{feed.kind.word} {feed.name} fails: {feed.problem}"
            elif feed.lag_ms > _LATE_MS:
                yield f"{feed.kind.word} {feed.name} lags {feed.lag_ms // 1000}s behind"

    async def _delivered(self) -> None:
        await asyncio.gather(*(feed.caught_up() for feed in self._feeds))

    async def _hold(self, signed: int, newest_ms: int | None = None) -> None:
        await self._quarantine.set(
            f"the audit log has {signed} records, and the ledger has forgotten some of them",
            seen_ms=newest_ms,
        )

    def _committed(self, size: int) -> None:
        self._size = max(size, self._size)
        self._metrics.audit_size(size)
        for feed in self._feeds:
            feed.committed(size)

    def _feed(self, entry: SinkEntry, clock: Clock, metrics: Metrics) -> Feed:
        feed = Feed(
            entry.name,
            _sink(entry, clock),
            self.folder,
            clock,
            types=entry.types,
            on_failure=metrics.sink_failed,
        )
        return _followed(feed, feed.name, metrics)

    def _channel(self, entry: ChannelEntry, issuer: str, clock: Clock, metrics: Metrics) -> Feed:
        # No sink's name has a colon.
        label = f"{CHANNEL.word}:{entry.name}"
        on_news = metrics.news_of(entry.name)
        feed = Feed(
            entry.name,
            open_channel(entry, clock, issuer=issuer, on_news=on_news),
            self.folder,
            clock,
            kind=CHANNEL,
            types=TYPES,
            on_failure=lambda _: metrics.sink_failed(label),
        )
        return _followed(feed, label, metrics)


def _followed(feed: Feed, label: str, metrics: Metrics) -> Feed:
    metrics.follow_sink(label, lag_s=lambda: feed.lag_ms / 1000, waiting=lambda: feed.waiting)
    return feed


def open_audit_log(
    config: Config, connection: Connection, clock: Clock, metrics: Metrics
) -> AuditLog | None:
    """Make the log of this replica, if there is to be one.

    Raises:
        ConfigError: a file that ``[audit]`` names can't be used.
    """
    return AuditLog(config, connection, clock, metrics) if config.audit.enabled else None


def verifier_keys(config: Config) -> list[VerifierKey]:
    """Return the keys besides its own that this log may be signed with.

    Raises:
        ConfigError: one is no key of this log.
    """
    origin = log_origin(config.broker.issuer)
    keys: list[VerifierKey] = []
    for text in config.audit.trusted_keys:
        try:
            key = VerifierKey.parse(text)
        except NoteError as error:
            raise ConfigError(f"audit.trusted_keys: {text!r} is no key: {error}") from None
        if key.name != origin:
            raise ConfigError(f"audit.trusted_keys: {text!r} is of another log than {origin}")
        keys.append(key)
    return keys


def _signer(config: Config) -> Signer:
    path = config.audit.signing_key(config.broker.state_dir)
    try:
        return load_signer(path, log_origin(config.broker.issuer))
    except OSError as error:
        raise ConfigError(f"the audit log's key {path} can't be used: {error.strerror}") from error


def _sink(entry: SinkEntry, clock: Clock) -> Sink:
    if entry.kind is SinkKind.STDOUT:
        return Stdout()
    assert entry.url is not None  # noqa: S101  the configuration was checked
    assert entry.timeout is not None  # noqa: S101  as above
    token, secret = entry.token_file, entry.secret_file
    try:
        return Webhook(
            entry.url,
            clock,
            timeout_s=entry.timeout / 1000,
            ca_file=entry.ca_file,
            token=partial(read_secret_file, token) if token else None,
            secret=partial(read_secret_file, secret) if secret else None,
        )
    except ConfigError as error:
        raise ConfigError(f"audit sink {entry.name}: {error.detail}") from error
