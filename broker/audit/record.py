"""One record of the log: a CloudEvent, its number, and the hash of the record before it.

A record is one line of JSON: members in the order of their names, no spaces, nothing but ASCII.
The hash of a record is the SHA-256 of its line without the newline.
"""

from __future__ import annotations

import json
import math
import re
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, cast

from broker.audit.head import Position
from broker.clock import to_rfc3339

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.events import Event

TYPE_PREFIX: Final = "broker."
GAP: Final = "broker.audit.gap"
"""The type of a record that says that events of a shard were lost before they could be written."""

MAX_LINE: Final = 16 << 20
"""No record is longer; a reader need not hold more of a line than this."""

_EVENT_ID: Final = re.compile(r"([0-9]{1,20})-([0-9a-f]{2})-([0-9]{1,20})")
_ENCODER: Final = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)


def cloud_event(event: Event, *, source: str) -> dict[str, Any]:
    """Return an event in the JSON format of CloudEvents 1.0.

    ``source`` is the broker's issuer URL. Attributes that would be empty are left out.
    """
    attributes = {
        "specversion": "1.0",
        "id": event.id,
        "source": source,
        "type": TYPE_PREFIX + event.type,
        "time": to_rfc3339(event.at),
        "subject": event.grant_id or event.task_id,
        "datacontenttype": "application/json",
        "task": event.task_id,
        "chain": event.chain,
        "grant": event.grant_id,
        "principal": event.principal,
        "decision": event.decision,
        "traceparent": event.trace,
    }
    return {**{name: value for name, value in attributes.items() if value}, "data": event.data}


def advance(cursor: dict[int, Position], event: Mapping[str, Any]) -> None:
    """Move a cursor over one CloudEvent: whoever drains counts with this.

    The log uses it too when it has to work out the cursor of a ledger that lost its own. A
    ``broker.audit.gap`` has data ``{"shard": N, "missed": HOW_MANY}`` and is counted as the events
    that it stands for; any other event without an id of the ledger's moves nothing.
    """
    if event.get("type") == GAP:
        match event.get("data"):
            case {"shard": int(shard), "missed": int(missed)}:
                last, drained = cursor.get(shard, Position("0-0", 0))
                cursor[shard] = Position(last, drained + missed)
            case _:
                pass
        return
    match = _EVENT_ID.fullmatch(str(event.get("id", "")))
    if match is not None:
        millis, shard, sequence = match[1], int(match[2], 16), match[3]
        drained = cursor[shard].drained if shard in cursor else 0
        cursor[shard] = Position(f"{millis}-{sequence}", drained + 1)


def canonical(value: Mapping[str, Any]) -> bytes:
    """Write JSON in the log's one way. What JSON has no number for is written as text."""
    try:
        return _ENCODER.encode(value).encode()
    except ValueError:
        return _ENCODER.encode(_finite(value)).encode()


def record_line(event: Mapping[str, Any], *, seq: int, prev: str) -> bytes:
    """Return a record's line, without the newline."""
    return b'{"event":' + canonical(event) + record_tail(seq, prev)


def record_tail(seq: int, prev: str) -> bytes:
    """Return how the line of record ``seq`` ends when it follows the record with hash ``prev``."""
    return b',"prev":"%s","seq":%d}' % (prev.encode(), seq)


def record_hash(line: bytes) -> str:
    """Return what the next record names as ``prev``."""
    return sha256(line).hexdigest()


def read_record(line: bytes) -> dict[str, Any]:
    """Read a line.

    Raises:
        ValueError: it is no record; the text says why.
    """
    try:
        row: Any = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("is not JSON") from None
    if not isinstance(row, dict) or set(cast("dict[str, Any]", row)) != {"event", "prev", "seq"}:
        raise ValueError("is not a record")
    record = cast("dict[str, Any]", row)
    seq, prev, event = record["seq"], record["prev"], record["event"]
    if not isinstance(seq, int) or isinstance(seq, bool) or seq < 0:
        raise ValueError("has no number")
    if isinstance(prev, str) and isinstance(event, dict):
        return record
    raise ValueError("is not a record")


def _finite(value: object) -> Any:  # noqa: ANN401  JSON
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in cast("dict[str, object]", value).items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in cast("list[object]", value)]
    return value
