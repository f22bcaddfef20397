"""``[[channels]]``: who is told at once of what a person has to know or to answer."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003  pydantic reads the annotations below
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import Field, ValidationInfo, field_validator

from broker.config.addresses import KeysUrl  # noqa: TC001  pydantic reads the annotations below
from broker.config.fields import (
    DurationMs,
    ExistingFile,
    Many,
    Name,
    at_least,
    at_most,
    member_of,
)
from broker.config.problems import Fault
from broker.config.table import Keys, Table, written

if TYPE_CHECKING:
    from collections.abc import Mapping


class ChannelKind(StrEnum):
    """By which way a channel is told."""

    WEBHOOK = "webhook"
    SLACK = "slack"
    APPRISE = "apprise"


class ChannelEvent(StrEnum):
    """Kinds of news that are told to whoever asks for them."""

    APPROVAL = "approval"
    APPROVAL_RESULT = "approval_result"
    BREAK_GLASS = "break_glass"
    REVIEW = "review"
    ROTATION = "rotation"
    STUCK = "stuck"
    INTERCEPTED = "intercepted"


_CHANNEL_KEYS: Final[Mapping[str, Keys]] = {
    ChannelKind.WEBHOOK: {
        "url": False,
        "url_file": False,
        "secret_file": True,
        "token_file": False,
        "ca_file": False,
    },
    ChannelKind.SLACK: {"url_file": True, "ca_file": False},
    ChannelKind.APPRISE: {"url_file": True},
}

Event = Annotated[ChannelEvent, member_of(ChannelEvent)]


class ChannelEntry(Table):
    """One channel; ``@notify("NAME")`` in a policy names it too.

    ``url_file`` holds the URL where that is a secret, as Slack's and apprise's are. ``secret_file``
    signs what a webhook gets. ``groups`` are the approval groups whose requests it is told; without
    any it is told all. News older than ``max_age`` aren't told, unless they are critical. Without
    ``details`` what callers wrote (purpose, intent, reasons) isn't told.
    """

    name: Name = Field(examples=['"security"'])
    kind: Annotated[ChannelKind, member_of(ChannelKind)] = Field(examples=['"slack"'])
    url: KeysUrl | None = Field(None, examples=['"https://hooks.example.com/broker"'])
    url_file: ExistingFile | None = Field(None, examples=['"secrets/slack-url"'])
    secret_file: ExistingFile | None = Field(None, examples=['"secrets/hooks-secret"'])
    token_file: ExistingFile | None = None
    ca_file: ExistingFile | None = None
    timeout: Annotated[DurationMs, at_least("1s"), at_most("1m")] = written("10s")
    events: Many[Event] = tuple(ChannelEvent)
    groups: Many[Name] = ()
    max_age: Annotated[DurationMs, at_least("1m"), at_most("7d")] = written("1h")
    details: bool = True

    @field_validator("url", "url_file", "secret_file", "token_file", "ca_file")
    @classmethod
    def _goes_with_kind(cls, value: object, info: ValidationInfo) -> object:
        cls._check_key(value, info, "kind", _CHANNEL_KEYS)
        return value

    @field_validator("url_file")
    @classmethod
    def _one_url(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if info.data.get("kind") is not ChannelKind.WEBHOOK or "url" not in info.data:
            return value
        if (value is None) is (info.data["url"] is None):
            raise Fault(
                "is written beside url" if value else "is needed, or url",
                "write one of them: url_file if the URL is a secret, else url",
            )
        return value

    @property
    def secret_files(self) -> list[Path]:
        """The files that hold secrets."""
        named = (self.url_file, self.secret_file, self.token_file)
        return [path for path in named if path is not None]
