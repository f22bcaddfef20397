"""Elevations in the ledger: in their task's row, and by whether somebody has to look at them."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

from broker.elevations import Elevation, ReviewState, read_elevation
from broker.errors import Conflict, NotFound
from broker.ids import shard_of
from broker.ledger import keys
from broker.ledger.models import Changed
from broker.ledger.registry import stopped_by
from broker.ledger.rows import grant_row, task_row
from broker.ledger.writes import not_active, token_ended, tokens_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.approvals import Approval
    from broker.grants import Grant
    from broker.ledger.connection import Connection
    from broker.ledger.models import LedgerTimes
    from broker.tasks import Task

_INDEX: Final = {ReviewState.OPEN: "ro|", ReviewState.CLOSED: "rc|"}
_UNKNOWN: Final = "There is no such elevation."


class ElevationTable:
    """Reads and writes them."""

    def __init__(self, connection: Connection, times: LedgerTimes) -> None:
        """Go through the ledger's connection."""
        self._redis = connection
        self._times = times

    async def start(
        self,
        elevation: Elevation,
        *,
        ttl_ms: int,
        approval: Approval | None,
        decision: Mapping[str, Any],
        seen: str,
        tokens: Sequence[str],
        actor: str,
    ) -> Elevation:
        """Elevate a task, for ``ttl_ms`` at most; ``approval`` is used up.

        ``seen`` is the version of the chain that was decided on, ``tokens`` are the ids of the
        tokens it is asked with.

        Raises:
            Changed: the version is another by now, or the approval is used or over.
            Conflict: the task is elevated to this capability already.
            TaskNotActive, InvalidToken, Frozen, PrincipalSuspended: it can't be any more.
        """
        shard = _shard(elevation.task_id)
        known = tokens_in(shard, tokens)
        args = {
            "task_id": elevation.task_id,
            "id": elevation.id,
            "elevation": _row(elevation),
            "ttl_ms": ttl_ms,
            **({"approval": approval.id, "digest": approval.digest} if approval else {}),
            "decision": json.dumps(decision),
            "seen": seen,
            "tokens": len(known),
            "actor": actor,
        }
        status, *rest = await self._redis.run("elevate", shard, args, more_keys=known)
        match status:
            case b"ok":
                return _read(task_row(rest[0]), elevation.id)
            case b"changed":
                raise Changed
            case b"elevated":
                held = rest[0].decode()
                msg = f"The task is elevated to {elevation.capability!r} already: {held}."
                raise Conflict(msg, elevation_id=held)
            case b"frozen":
                raise stopped_by(rest[0])
            case b"token_ended":
                raise token_ended()
            case _:
                raise not_active()

    async def end(
        self, task_id: str, elevation_id: str, *, reason: str, actor: str
    ) -> tuple[Elevation, tuple[Grant, ...]]:
        """End an elevation; returns it, and the grants to revoke, claimed for the caller.

        Raises:
            NotFound: there is none.
        """
        args = {
            "task_id": task_id,
            "id": elevation_id,
            "reason": reason,
            "claim_ms": self._times.claim_ms,
            "actor": actor,
        }
        status, *rest = await self._redis.run("end_elevation", _shard(task_id), args)
        if status == b"unknown":
            raise NotFound(_UNKNOWN)
        return _read(task_row(rest[0]), elevation_id), tuple(map(grant_row, rest[1:]))

    async def rotated(
        self, elevation: Elevation, path: str, state: str, *, error: str, actor: str
    ) -> None:
        """Write what became of a rotation; it is looked at again at once."""
        args: dict[str, Any] = {"rotation": {path: state}, "delay_ms": 0}
        if error:
            args["error"] = error
        await self._settle(elevation, args, actor)

    async def postpone(self, elevation: Elevation, *, delay_ms: int, actor: str) -> None:
        """Look again later at what follows an elevation's end."""
        await self._settle(elevation, {"delay_ms": delay_ms}, actor)

    async def settle(self, elevation: Elevation, *, actor: str) -> None:
        """Nothing is left to do after an elevation's end."""
        await self._settle(elevation, {"settled": True}, actor)

    async def _settle(self, elevation: Elevation, args: dict[str, Any], actor: str) -> None:
        about = {"task_id": elevation.task_id, "id": elevation.id, "actor": actor}
        await self._redis.run("settle_elevation", _shard(elevation.task_id), {**args, **about})

    # Break-glass: one at a time for an agent, and a review afterwards.

    async def hold(self, mark: str, by: str, ttl_ms: int) -> str:
        """Take a mark of ``keys`` unless another has it; returns whose it is."""
        args = {"by": by, "ttl_ms": ttl_ms}
        return (await self._redis.run("hold", 0, args, own_key=mark)).decode()

    async def release(self, mark: str, by: str) -> None:
        """Let go of a mark, if it is this one's."""
        await self._redis.run("hold", 0, {"by": by}, own_key=mark)

    async def reviews(
        self, state: ReviewState, *, limit: int, cursor: str = ""
    ) -> tuple[list[tuple[Task, Elevation]], str | None]:
        """Return some break-glasses by whether they were reviewed, newest first."""
        prefix = _INDEX[state]
        wanted = [(shard, prefix, cursor, limit + 1) for shard in range(self._redis.shards)]
        answers = await self._redis.ranges(wanted)
        found = sorted(
            ((m.decode().removeprefix(prefix), s) for s, ms in enumerate(answers) for m in ms),
            reverse=True,
        )
        shown = found[:limit]
        places = [(shard, *place.split("|")[1:]) for place, shard in shown]
        texts = await self._redis.rows("tasks", [(shard, task) for shard, task, _ in places])
        rows: list[tuple[Task, Elevation]] = []
        for (_, task_id, elevation_id), text in zip(places, texts, strict=True):
            if text:
                task = task_row(text, task_id)
                rows.append((task, _read(task, elevation_id)))
        return rows, shown[-1][0] if len(found) > limit else None

    async def review_of(self, elevation_id: str) -> tuple[Task, Elevation] | None:
        """Return a break-glass by its own id."""
        shard = shard_of(elevation_id, "elv")
        if shard is None or shard >= self._redis.shards:
            return None
        index = keys.table(shard, "index")
        for prefix in _INDEX.values():
            end = f"({prefix}".encode() + b"\xff"
            for member in await self._redis.command("ZRANGEBYLEX", index, f"[{prefix}", end):
                _, _, task_id, found = member.decode().split("|")
                if found == elevation_id:
                    [text] = await self._redis.rows("tasks", [(shard, task_id)])
                    task = task_row(text, task_id) if text else None
                    return (task, _read(task, elevation_id)) if task else None
        return None

    async def close_review(
        self, task_id: str, elevation_id: str, *, findings: str, actor: str
    ) -> tuple[Task, Elevation]:
        """Close the review of a break-glass with what was found.

        Raises:
            NotFound: there is none.
            Conflict: it is closed already, or the glass is still broken.
        """
        args = {"task_id": task_id, "id": elevation_id, "findings": findings, "actor": actor}
        status, *rest = await self._redis.run("close_review", _shard(task_id), args)
        match status:
            case b"ok":
                task = task_row(rest[0])
                return task, _read(task, elevation_id)
            case b"closed":
                by = _read(task_row(rest[0]), elevation_id).reviewed_by
                raise Conflict(f"This review was closed by {by}.", state=str(ReviewState.CLOSED))
            case b"live":
                msg = "The break-glass is still going on: end it first, or wait for its end."
                raise Conflict(msg, state="active")
            case _:
                raise NotFound("There is no such review.")


def _row(elevation: Elevation) -> dict[str, Any]:
    row = asdict(elevation)
    del row["id"], row["task_id"]
    return {k: v for k, v in row.items() if v not in ("", 0, (), {}, None, False)}


def _read(task: Task, elevation_id: str) -> Elevation:
    return read_elevation(task.id, elevation_id, task.elevations[elevation_id])


def _shard(task_id: str) -> int:
    shard = shard_of(task_id, "tsk")
    if shard is None:
        raise NotFound(_UNKNOWN)
    return shard
