"""What was reported of tasks, agents and owners: one statement each, the last one.

A task's stands in its own shard, where its whole chain is. An agent's and an owner's stands in
every shard: the first decides and logs, the others follow (``spread``). Until that is done, and
live grants were decided again, it counts as open, and any replica may finish it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from broker.errors import AccessDenied, NotFound
from broker.ids import shard_of
from broker.ledger import keys

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.ledger.connection import Connection

_TASK: Final = "task:"
_FIRST: Final = 0
"""The shard that decides about agents and owners."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    """What a detector or an operator says. Without ``ttl_ms`` it stands until it is taken back."""

    risk: int
    verdict: str
    reason: str
    ttl_ms: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """A statement as it stands. Times are epoch milliseconds; ``until_ms`` is 0 for no end.

    ``version`` orders what is said of one selector. ``gone`` says that it was taken back.
    """

    selector: str
    risk: int
    verdict: str
    reason: str
    by: str
    at: int
    version: int
    until_ms: int = 0
    gone: bool = False

    def stands(self, now_ms: int) -> bool:
        """Say whether it counts at a time."""
        return not self.gone and (not self.until_ms or self.until_ms > now_ms)


class SignalTable:
    """Reads and writes them."""

    def __init__(self, connection: Connection) -> None:
        """Go through the ledger's connection."""
        self._redis = connection

    async def report(
        self, selector: str, statement: Statement, *, only_raise: bool, actor: str
    ) -> Signal:
        """Write a statement about ``task:ID``, ``agent:NAME`` or ``owner:OWNER``.

        It takes the place of the one before. With ``only_raise`` it is added to that: the worse
        risk, the worse verdict, the later end.

        Raises:
            NotFound: there is no such task.
            AccessDenied: with ``only_raise``, it says less than what stands.
        """
        args: dict[str, Any] = {
            "how": "set",
            "risk": statement.risk,
            "verdict": statement.verdict,
            "reason": statement.reason,
            **({"ttl_ms": statement.ttl_ms} if statement.ttl_ms else {}),
            **({"only_raise": True} if only_raise else {}),
        }
        status, row = await self._decide(selector, args, actor)
        match status:
            case b"ok":
                return _read(selector, row)
            case b"lowers":
                raise AccessDenied("What is reported already is worse: an operator may lower it.")
            case _:
                raise NotFound("There is no such task.")

    async def take_back(self, selector: str, *, reason: str, actor: str) -> Signal:
        """Take back what was reported.

        Raises:
            NotFound: nothing is.
        """
        args = {"how": "clear", "reason": reason}
        status, row = await self._decide(selector, args, actor)
        if status != b"ok":
            raise NotFound(f"Nothing is reported about {selector!r}.")
        return _read(selector, row)

    async def _decide(self, selector: str, args: dict[str, Any], actor: str) -> tuple[bytes, bytes]:
        if not selector.startswith(_TASK):
            status, row = await self._run(_FIRST, selector, {**args, "actor": actor})
            return status, row
        task_id = selector.removeprefix(_TASK)
        shard = shard_of(task_id, "tsk")
        if shard is None or shard >= self._redis.shards:
            raise NotFound("There is no such task.")
        return await self._run(shard, selector, {**args, "task_id": task_id, "actor": actor})

    async def _run(self, shard: int, selector: str, args: dict[str, Any]) -> tuple[bytes, bytes]:
        status, row = await self._redis.run("signal", shard, {"field": selector, **args})
        return status, row

    async def spread(self, signal: Signal) -> None:
        """Bring it to every other shard that has to know."""
        if signal.selector.startswith(_TASK):
            return
        args = {"field": signal.selector, "how": "copy", "record": _record(signal)}
        await self._redis.on_every_shard("signal", args, range(1, self._redis.shards))

    async def settle(self, signal: Signal) -> None:
        """Say that it has reached everything; a later statement stays open."""
        shard = shard_of(signal.selector.removeprefix(_TASK), "tsk") or _FIRST
        await self._run(shard, signal.selector, {"how": "settled", "version": signal.version})

    async def listed(self, *, after: str = "", limit: int) -> tuple[list[Signal], str | None]:
        """Return some of those there are, by selector, and where to go on.

        What has ended, or was taken back, may be among them for a while.
        """
        found = await self._selectors("sg|", after=after, limit=limit + 1)
        signals = await self._rows(found[:limit])
        return signals, found[limit - 1][1] if len(found) > limit else None

    async def unsettled(self) -> list[Signal]:
        """Return those of which nobody has said that they have reached everything."""
        return await self._rows(await self._selectors("so|", limit=1000))

    async def _selectors(
        self, prefix: str, *, after: str = "", limit: int
    ) -> list[tuple[int, str]]:
        """Return where they are and what they are about: from each the shard that decides."""
        pipe: Any = self._redis.pipeline()
        for shard in range(self._redis.shards):
            low = prefix if shard == _FIRST else f"{prefix}{_TASK}"
            start = max(f"({prefix}{after}" if after else "", f"[{low}", key=lambda s: s[1:])
            end = f"({prefix}".encode() + b"\xff"
            pipe.zrangebylex(keys.table(shard, "index"), start, end, start=0, num=limit)
        answers = await self._redis.execute(pipe, "signals")
        found = [
            (shard, member.decode().removeprefix(prefix))
            for shard, members in enumerate(answers)
            for member in members
        ]
        return sorted(found, key=lambda pair: pair[1].encode())[:limit]

    async def _rows(self, wanted: Iterable[tuple[int, str]]) -> list[Signal]:
        wanted = list(wanted)
        pipe: Any = self._redis.pipeline()
        for shard, selector in wanted:
            pipe.hget(keys.table(shard, "frozen"), f"signal:{selector}")
        rows = await self._redis.execute(pipe, "signals") if wanted else []
        return [
            _read(selector, row) for (_, selector), row in zip(wanted, rows, strict=True) if row
        ]


def _read(selector: str, text: bytes) -> Signal:
    row = json.loads(text)
    return Signal(
        selector=selector,
        risk=int(row["risk"]),
        verdict=row["verdict"],
        reason=row["reason"],
        by=row["by"],
        at=int(row["at"]),
        version=int(row["version"]),
        until_ms=int(row.get("until_ms", 0)),
        gone=bool(row.get("gone")),
    )


def _record(signal: Signal) -> dict[str, Any]:
    """Write it as the other shards hold it: open or not is the first one's business."""
    row: dict[str, Any] = {
        "risk": signal.risk,
        "verdict": signal.verdict,
        "reason": signal.reason,
        "by": signal.by,
        "at": signal.at,
        "version": signal.version,
    }
    if signal.until_ms:
        row["until_ms"] = signal.until_ms
    return {**row, "gone": True} if signal.gone else row
