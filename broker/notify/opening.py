"""Channels, made of the configuration."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from broker.audit.posting import Poster
from broker.config import read_secret_file
from broker.config.addresses import is_safe_url
from broker.config.channels import ChannelKind
from broker.config.problems import Fault
from broker.errors import ConfigError
from broker.notify.carriers import Generic, Slack
from broker.notify.channel import Channel, Wants
from broker.notify.news import Kind
from broker.notify.others import Others

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from broker.clock import Clock
    from broker.config.channels import ChannelEntry
    from broker.notify.carriers import Carrier


def open_channel(
    entry: ChannelEntry,
    clock: Clock,
    *,
    issuer: str,
    on_news: Callable[[str], None] = lambda _: None,
) -> Channel:
    """Make a channel; nothing is sent, and no connection opened.

    Raises:
        ConfigError: one of its files can't be used, or a library is missing.
    """
    wants = Wants(
        entry.name,
        frozenset(Kind(str(event)) for event in entry.events),
        frozenset(entry.groups),
        details=entry.details,
        max_age_ms=entry.max_age,
    )
    try:
        carrier = _carrier(entry, clock)
    except ConfigError as error:
        raise ConfigError(f"channel {entry.name}: {error.detail}") from error
    return Channel(wants, carrier, clock, issuer=issuer, on_news=on_news)


def _carrier(entry: ChannelEntry, clock: Clock) -> Carrier:
    if entry.kind is ChannelKind.APPRISE:
        assert entry.url_file is not None  # noqa: S101  the configuration was checked
        return Others(partial(read_secret_file, entry.url_file), timeout_s=entry.timeout / 1000)
    token, secret = entry.token_file, entry.secret_file
    poster = Poster(
        _url(entry),
        clock,
        timeout_s=entry.timeout / 1000,
        ca_file=entry.ca_file,
        token=partial(read_secret_file, token) if token else None,
        secret=partial(read_secret_file, secret) if secret else None,
    )
    return Slack(poster) if entry.kind is ChannelKind.SLACK else Generic(entry.name, poster)


def _url(entry: ChannelEntry) -> Callable[[], str]:
    if entry.url_file is not None:
        return partial(_secret_url, entry.url_file)
    assert entry.url is not None  # noqa: S101  the configuration was checked
    url = entry.url
    return lambda: url


def _secret_url(path: Path) -> str:
    """Read a URL that is a secret, and is never shown.

    Raises:
        ConfigError: the file holds no URL that a secret may be sent to.
    """
    url = read_secret_file(path).reveal().strip()
    try:
        safe = is_safe_url(url)
    except Fault as fault:
        # The fault names none of the URL, but its context would.
        raise ConfigError(f"{path} holds no URL to post to: it {fault.reason}") from None
    if not safe:
        raise ConfigError(f"{path} holds an http URL: use https, but for this machine")
    return url
