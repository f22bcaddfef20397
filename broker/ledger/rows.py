"""Between the ledger's JSON rows and the models."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Final, cast

from broker.events import Event
from broker.grants import Grant, GrantState
from broker.ledger.models import Claimed
from broker.tasks import Task, TaskState

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_LAST_MS: Final = 253_402_300_799_999
"""The end of the year 9999, which RFC 3339 can just say."""
_TASK_FIELDS = frozenset(f.name for f in fields(Task))
_GRANT_FIELDS = frozenset(f.name for f in fields(Grant))


def task_row(text: str | bytes, identifier: str = "") -> Task:
    """Read a task; the table's own rows don't repeat their id. Newer fields are left alone."""
    row: dict[str, Any] = {k: v for k, v in json.loads(text).items() if k in _TASK_FIELDS}
    row["state"] = TaskState(row["state"])
    row["capabilities"] = tuple(row["capabilities"])
    row["actors"] = tuple(row["actors"])
    row["via"] = tuple(row.get("via", ()))
    defaults: dict[str, Any] = {"id": identifier, "parent_id": "", "depth": 0}
    return Task(**(defaults | row))


def grant_row(text: str | bytes, identifier: str = "") -> Grant:
    """Read a grant; as ``task_row``."""
    row: dict[str, Any] = {k: v for k, v in json.loads(text).items() if k in _GRANT_FIELDS}
    row["state"] = GrantState(row["state"])
    row["via"] = tuple(row.get("via", ()))
    defaults: dict[str, Any] = {"id": identifier, "handle": "", "path": ""}
    return Grant(**(defaults | row))


def read_claimed(answer: Sequence[bytes]) -> Claimed:
    """Read what a script has left to do: how many tasks ended, these, then the grants."""
    tasks = int(answer[0])
    return Claimed(
        tuple(map(task_row, answer[1 : 1 + tasks])), tuple(map(grant_row, answer[1 + tasks :]))
    )


def read_due(answer: Sequence[bytes]) -> Claimed:
    """Read what a sweep has claimed: how many tasks and elevations, those, then the grants."""
    tasks, elevations = int(answer[0]), int(answer[1])
    grants = 2 + tasks + elevations
    ended = (place.decode().partition("|") for place in answer[2 + tasks : grants])
    return Claimed(
        tuple(map(task_row, answer[2 : 2 + tasks])),
        tuple(map(grant_row, answer[grants:])),
        tuple((task_id, elevation_id) for task_id, _, elevation_id in ended),
    )


def compact(model: Task | Grant) -> dict[str, Any]:
    """Write a model as a row: what is empty is left out, since to Lua zero would be true."""
    return {k: v for k, v in asdict(model).items() if v not in ("", 0, (), {}, None)}


def event_row(shard: int, stream_id: bytes, row: Mapping[bytes, bytes]) -> Event:
    """Read an event of a shard's stream. What isn't one is shown as ``audit.malformed``."""
    millis, _, sequence = stream_id.decode().partition("-")
    at = min(int(millis), _LAST_MS)
    identifier = f"{millis}-{shard:02x}-{sequence}"
    try:
        return _event(identifier, at, row)
    except (KeyError, ValueError, RecursionError):
        # Whoever wrote it isn't the broker, so what it says isn't repeated.
        digest = hashlib.sha256(repr(sorted(row.items())).encode()).hexdigest()
        data = {"fields": len(row), "sha256": digest}
        return Event(identifier, at, "audit.malformed", "", "", "", data)


def _event(identifier: str, at: int, row: Mapping[bytes, bytes]) -> Event:
    text = row[b"data"].decode()
    data: Any = json.loads(text, parse_constant=_no_number, parse_float=_finite)
    if not isinstance(data, dict) or not row[b"type"]:
        raise ValueError("not an event")
    if "\\ud" in text.lower():
        json.dumps(data, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    return Event(
        id=identifier,
        at=at,
        type=row[b"type"].decode(),
        task_id=row[b"task"].decode(),
        grant_id=row[b"grant"].decode(),
        principal=row[b"principal"].decode(),
        data=cast("dict[str, Any]", data),
        chain=row.get(b"chain", b"").decode(),
        decision=row.get(b"decision", b"").decode(),
        trace=row.get(b"trace", b"").decode(),
    )


def _no_number(word: str) -> None:
    raise ValueError(word)


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(digits)
    return value
