"""Handing over events of the log: which of them, and in whose words."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Self

from broker.audit.ocsf import ocsf_event

if TYPE_CHECKING:
    from collections.abc import Mapping

_EVENT_ID: Final = re.compile(r"([0-9]{1,15})-([0-9a-f]{2})-([0-9]{1,15})")
_MILLIS: Final = 10
"""An event's id begins with more digits than a date, which else could be one: 2026-11-01."""

Order = tuple[int, int, int]
_START: Final[Order] = (0, 0, -1)


class Form(StrEnum):
    """In whose words."""

    CLOUDEVENTS = "cloudevents"
    OCSF = "ocsf"


@dataclass(frozen=True, slots=True)
class Span:
    """Events after one place and up to another; without an end there is none."""

    after: Order = _START
    until: Order | None = None

    @classmethod
    def between(cls, after: str = "", until: str = "") -> Self:
        """Read both ends, each an event's id or a time; an empty one is the log's.

        Raises:
            ValueError: one is neither. Its text is the one that is wrong.
        """
        return cls(_place(after) if after else _START, _place(until) if until else None)

    def has(self, event: Mapping[str, Any]) -> bool:
        """Say whether this CloudEvent is among them."""
        at = _order(event)
        return self.after < at and (self.until is None or at <= self.until)


def written(event: Mapping[str, Any], form: Form) -> str:
    """Write a CloudEvent of the log as one line of JSON."""
    row = ocsf_event(event) if form is Form.OCSF else event
    return json.dumps(row, separators=(",", ":")) + "\n"


def _place(text: str) -> Order:
    """Read an event's id, or a time; one without an offset is in UTC."""
    match = _EVENT_ID.fullmatch(text)
    if match and len(match[1]) >= _MILLIS:
        return int(match[1]), int(match[2], 16), int(match[3])
    try:
        moment = datetime.fromisoformat(text)
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return int(moment.timestamp() * 1000), 0, -1
    except (ValueError, OverflowError):
        raise ValueError(text) from None


def _order(event: Mapping[str, Any]) -> Order:
    if match := _EVENT_ID.fullmatch(str(event.get("id", ""))):
        return int(match[1]), int(match[2], 16), int(match[3])
    return int(datetime.fromisoformat(event["time"]).timestamp() * 1000), 0, 0
