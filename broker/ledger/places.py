"""Places: which grants count against quotas, and how often something was issued lately.

A chain lives in one shard, a quota is over all of them. So a grant takes its place in the first
shard before it is reserved in its own, and leaves it when it is dead: between the two there is a
place without a grant, never a grant without a place. Whoever dies in between is found out by
``tend``, which compares the places with what the shards say is live.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from broker.durations import format_duration
from broker.errors import LedgerUnavailable, QuotaExceeded, RateLimited
from broker.grants import DEAD
from broker.ledger import keys
from broker.ledger.rows import grant_row

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from broker.grants import Grant
    from broker.ledger.connection import Connection

HOLD_MS: Final = 15_000
"""How long after taking a place a grant may be reserved on it; twice that until it is dropped."""
_RETRY_S: Final = 30
_BATCH: Final = 500


@dataclass(frozen=True, slots=True)
class Limit:
    """One limit: ``most`` live grants of a name, or ``most`` issued in each ``window_ms``.

    ``kind`` is ``agent``, ``orchestrator``, ``capability`` or ``backend``.
    """

    kind: str
    name: str
    most: int
    window_ms: int = 0

    @property
    def key(self) -> str:
        """What it is called in answers, metrics and events."""
        return f"{'issue_rate' if self.window_ms else 'max_live'}_per_{self.kind}"


@dataclass(frozen=True, slots=True)
class Place:
    """What a grant took, to reserve on before ``until``; or the limit that is ``over``.

    ``used`` is how many live grants there are, ``wait_ms`` when there is room in a rate again.
    """

    grant_id: str
    until: int = 0
    rates: tuple[Limit, ...] = ()
    over: Limit | None = None
    used: int = 0
    wait_ms: int = 0

    def args(self) -> Mapping[str, Any]:
        """Return what step 4 is told of it."""
        if self.over is None:
            return {"place_until": self.until}
        return {"over": f"{self.over.key}:{self.over.name}"}

    def refusal(self) -> QuotaExceeded:
        """Say which limit is reached, when to try again, and what would help."""
        limit = self.over
        assert limit is not None  # noqa: S101  the ledger refuses for what it was told
        who = f"{limit.kind} {limit.name!r}"
        if limit.window_ms:
            much = f"{limit.most} credentials in {format_duration(limit.window_ms)}"
            msg = (
                f"No more than {much} are issued for {who}. Use a credential until it ends rather "
                "than ask for another."
            )
            wait_s = max(1, math.ceil(self.wait_ms / 1000))
            return RateLimited(msg, retry_after=wait_s, limit=limit.key)
        msg = (
            f"There are {self.used} live credentials of {who}, the most allowed. Use one that you "
            "hold, or revoke one that you don't need; others make room as they end."
        )
        return QuotaExceeded(msg, retry_after=_RETRY_S, limit=limit.key)


class Places:
    """Takes and leaves places, and keeps them true."""

    def __init__(self, connection: Connection) -> None:
        """The connection is the ledger's."""
        self._redis = connection

    async def take(self, grant: Grant, limits: Sequence[Limit], *, place: bool) -> Place:
        """Take a place for a grant that is about to be reserved, if all limits leave room.

        With ``place`` it counts as live from now on, whether it meets a limit of that or not.
        """
        live = [limit for limit in limits if not limit.window_ms]
        rates = tuple(limit for limit in limits if limit.window_ms)
        args = {
            **_taken(grant),
            "place": place,
            "live": [[limit.kind, limit.name, limit.most] for limit in live],
            "rates": _rows(rates),
        }
        answer = await self._redis.run("take_place", 0, args, more_keys=_keys(rates))
        match answer[0]:
            case b"live":
                return Place(grant.id, over=live[int(answer[1]) - 1], used=int(answer[2]))
            case b"rate":
                return Place(grant.id, over=rates[int(answer[1]) - 1], wait_ms=int(answer[2]))
            case _:
                return Place(grant.id, until=int(answer[1]) + HOLD_MS, rates=rates)

    async def leave(self, place: Place) -> None:
        """Nothing was reserved: it is as if nothing had been taken."""
        if place.over is None:
            await self._leave([place.grant_id], place.rates)

    async def leave_dead(self, grant_id: str) -> None:
        """A grant is dead. If the ledger doesn't answer, ``tend`` sees to it."""
        with contextlib.suppress(LedgerUnavailable):
            await self._leave([grant_id])

    async def used(self, limits: Sequence[Limit]) -> list[int]:
        """Return how much of each limit is used now; of a rate, what is not there again yet."""
        pipe: Any = self._redis.pipeline()
        pipe.time()
        for limit in limits:
            if limit.window_ms:
                pipe.get(keys.rate(limit.kind, limit.name))
            else:
                prefix = f"ql|{limit.kind}|{limit.name}|"
                high = f"({prefix}".encode() + b"\xff"
                pipe.zlexcount(keys.table(0, "index"), f"[{prefix}", high)
        (seconds, micros), *found = await self._redis.execute(pipe, "quotas")
        now = seconds * 1000 + micros / 1000
        return [
            _spent(limit, value, now) if limit.window_ms else int(value)
            for limit, value in zip(limits, found, strict=True)
        ]

    async def tend(self, *, older_ms: int = 2 * HOLD_MS) -> tuple[int, int]:
        """Make the places those of the live grants; returns how many were added and dropped.

        Places are missing where a limit was configured after grants were issued, and left over
        where a replica died. What was taken less than ``older_ms`` ago may not be reserved yet,
        and stays.
        """
        # In this order: what is live, and has no place by then, never had one.
        placed = {member.split(b"|")[1] for member in await self._members(0, "qp|")}
        live: dict[bytes, int] = {}
        for shard in range(self._redis.shards):
            for member in await self._members(shard, "gc|"):
                live[member.rpartition(b"|")[2]] = shard
        added = await self._add([(s, i.decode()) for i, s in live.items() if i not in placed])
        left_over = [identifier.decode() for identifier in placed if identifier not in live]
        dropped = 0
        for start in range(0, len(left_over), _BATCH):
            dropped += await self._leave(left_over[start : start + _BATCH], older_ms=older_ms)
        return added, dropped

    async def _add(self, missing: Sequence[tuple[int, str]]) -> int:
        added = 0
        for start in range(0, len(missing), _BATCH):
            batch = missing[start : start + _BATCH]
            rows = await self._redis.rows("grants", batch)
            for (_, identifier), row in zip(batch, rows, strict=True):
                grant = grant_row(row, identifier) if row else None
                if grant is not None and grant.state not in DEAD:
                    await self.take(grant, (), place=True)
                    added += 1
        return added

    async def _leave(
        self, ids: Sequence[str], rates: Sequence[Limit] = (), *, older_ms: int | None = None
    ) -> int:
        args: dict[str, Any] = {"ids": list(ids), "rates": _rows(rates)}
        if older_ms is not None:
            args["older_ms"] = older_ms
        return int(await self._redis.run("leave_place", 0, args, more_keys=_keys(rates)))

    async def _members(self, shard: int, prefix: str) -> list[bytes]:
        low, high = f"[{prefix}", f"({prefix}".encode() + b"\xff"
        return await self._redis.command("ZRANGEBYLEX", keys.table(shard, "index"), low, high)


def _taken(grant: Grant) -> dict[str, Any]:
    names = (grant.agent, grant.orchestrator, grant.capability, grant.backend)
    return {"id": grant.id, "names": names}


def _rows(rates: Iterable[Limit]) -> list[list[int]]:
    return [[rate.most, rate.window_ms] for rate in rates]


def _keys(rates: Iterable[Limit]) -> list[str]:
    return [keys.rate(rate.kind, rate.name) for rate in rates]


def _spent(limit: Limit, full_at: bytes | None, now: float) -> int:
    behind = max(0.0, float(full_at or 0) - now)
    return min(limit.most, math.ceil(round(behind * limit.most / limit.window_ms, 3)))
