"""``[audit]``: the signed log, how far it may lag behind, and who else is told of its events."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path  # noqa: TC003  pydantic reads the annotations below
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from broker.config.addresses import KeysUrl  # noqa: TC001  pydantic reads the annotations below
from broker.config.fields import (
    ByteCount,
    DurationMs,
    ExistingFile,
    Many,
    Name,
    StateFile,
    StateFolder,
    at_least,
    at_most,
    member_of,
    pattern,
)
from broker.config.problems import Fault
from broker.config.table import Keys, Table, written

if TYPE_CHECKING:
    from collections.abc import Mapping

_TIMEOUT_MS: Final = 10_000
_TAKEN_OVER: Final = ": another replica takes a dead one's log over after 10s"


class SinkKind(StrEnum):
    """Where else events go."""

    STDOUT = "stdout"
    WEBHOOK = "webhook"


_SINK_KEYS: Final[Mapping[str, Keys]] = {
    SinkKind.STDOUT: {},
    SinkKind.WEBHOOK: {
        "url": True,
        "token_file": False,
        "secret_file": False,
        "ca_file": False,
        "timeout": False,
    },
}

TypePrefix = Annotated[
    str,
    pattern(
        r"[a-z][a-z0-9_.]{0,63}",
        "is not the beginning of an event's type",
        'such as "grant." for all about grants, or "task.ended"',
    ),
]


LogKey = Annotated[
    str,
    pattern(
        r"[^\s+]+\+[0-9a-f]{8}\+[A-Za-z0-9+/]+={0,2}",
        "is not the public key of a log",
        "write what `broker audit key` printed: name+id+key",
    ),
]


class SinkEntry(Table):
    """One more place that events are delivered to, each at least once and in order.

    ``types`` are the beginnings of the types it gets; without any it gets all. ``token_file`` is
    sent as a bearer token; ``secret_file`` signs each delivery.
    """

    name: Name = Field(examples=['"siem"'])
    kind: Annotated[SinkKind, member_of(SinkKind)] = Field(examples=['"webhook"'])
    url: KeysUrl | None = Field(None, examples=['"https://siem.example.com/broker"'])
    token_file: ExistingFile | None = None
    secret_file: ExistingFile | None = None
    ca_file: ExistingFile | None = None
    timeout: Annotated[DurationMs, at_most("5m")] | None = None
    types: Many[TypePrefix] = ()

    @field_validator("url", "token_file", "secret_file", "ca_file", "timeout")
    @classmethod
    def _goes_with_kind(cls, value: object, info: ValidationInfo) -> object:
        cls._check_key(value, info, "kind", _SINK_KEYS)
        unsaid = value is None and info.field_name == "timeout"
        return _TIMEOUT_MS if unsaid and info.data.get("kind") is SinkKind.WEBHOOK else value


def _or_keep(value: object) -> object:
    return None if value == "off" else value


class AuditSection(Table):
    """``[audit]``: the signed log of every event.

    ``log_dir`` and the key files are in ``state_dir`` unless said otherwise. Issuing stops once an
    event has waited ``max_lag`` to be in the log. ``retention`` of None keeps all of it.
    ``trusted_keys`` are those that signed the log before this one.
    """

    enabled: bool = True
    log_dir: StateFolder | None = None
    key_file: StateFile | None = None
    trusted_keys: Many[LogKey] = ()
    fingerprint_key_file: StateFile | None = None
    segment_size: ByteCount = 16 << 20
    retention: Annotated[DurationMs | None, BeforeValidator(_or_keep)] = None
    checkpoint_every: Annotated[DurationMs, at_least("1s"), at_most("1h")] = written("10s")
    max_lag: Annotated[DurationMs, at_least("15s", _TAKEN_OVER), at_most("24h")] = written("30s")
    sinks: Many[SinkEntry] = ()

    @field_validator("sinks")
    @classmethod
    def _fed_by_the_log(
        cls, value: tuple[SinkEntry, ...], info: ValidationInfo
    ) -> tuple[SinkEntry, ...]:
        if value and info.data.get("enabled") is False:
            raise Fault("are fed from the log, which is off", "remove them, or enabled = false")
        return value

    def folder(self, state_dir: Path) -> Path:
        """Return the folder of the log."""
        return self.log_dir or state_dir / "audit"

    def signing_key(self, state_dir: Path) -> Path:
        """Return the file of the key that signs the log."""
        return self.key_file or state_dir / "audit-signing.key"

    def fingerprint_key(self, state_dir: Path) -> Path:
        """Return the file of the key that fingerprints are made with."""
        return self.fingerprint_key_file or state_dir / "fingerprint.key"
