"""Between the ledger's JSON rows and the models."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from broker.events import Event
from broker.grants import Grant, GrantState
from broker.ledger.models import Claimed
from broker.tasks import Task, TaskState

if TYPE_CHECKING:
    from collections.abc import Sequence

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


def compact(model: Task | Grant) -> dict[str, Any]:
    """Write a model as a row: what is empty is left out, since to Lua zero would be true."""
    return {k: v for k, v in asdict(model).items() if v not in ("", 0, (), {}, None)}


def event_row(shard: int, stream_id: bytes, row: dict[bytes, bytes]) -> Event:
    """Read an event of a shard's stream."""
    millis, _, sequence = stream_id.decode().partition("-")
    return Event(
        id=f"{millis}-{shard:02x}-{sequence}",
        at=int(millis),
        type=row[b"type"].decode(),
        task_id=row[b"task"].decode(),
        grant_id=row[b"grant"].decode(),
        principal=row[b"principal"].decode(),
        data=json.loads(row[b"data"]),
        chain=row.get(b"chain", b"").decode(),
        decision=row.get(b"decision", b"").decode(),
        trace=row.get(b"trace", b"").decode(),
    )
