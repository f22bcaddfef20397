"""The ledger at a glance: what dies next, what doesn't die, without reading what there is.

What it costs depends on how many shards there are and how much is shown, not on how much is live.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from broker.grants import GrantState
from broker.ledger import keys

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.ledger.connection import Connection

UNSETTLED: Final = (GrantState.STUCK, GrantState.REVOKING, GrantState.PENDING)
"""States that a grant should leave soon, the worst first."""
_SPARE: Final = 2
"""Of what is due next not all are grants: tasks, approvals and elevations are among them."""


class Glance:
    """Reads it. ``backends`` are the names the state index is kept by."""

    def __init__(self, connection: Connection, backends: Sequence[str]) -> None:
        """Go through the ledger's connection."""
        self._redis = connection
        self._backends = tuple(backends)

    async def soonest(self, most: int) -> list[str]:
        """Return the ids of the grants that a sweep will look at next, the first to come first.

        A live one's time is its end; one that is being revoked has its next attempt then.
        """
        pipe: Any = self._redis.client.pipeline(transaction=False)
        for shard in range(self._redis.shards):
            pipe.zrange(keys.table(shard, "due"), 0, most * _SPARE - 1, withscores=True)
        found: list[tuple[float, str]] = []
        for rows in await self._redis.execute(pipe, "glance"):
            for member, at in rows:
                kind, _, identifier = member.partition(b"|")
                if kind == b"g":
                    found.append((float(at), identifier.decode()))
        return [identifier for _, identifier in sorted(found)[:most]]

    async def unsettled(self) -> Counter[tuple[GrantState, str]]:
        """Count the grants in each state of ``UNSETTLED``, by state and backend."""
        kinds = [(state, backend) for state in UNSETTLED for backend in self._backends]
        pipe = self._redis.client.pipeline(transaction=False)
        for shard in range(self._redis.shards):
            for state, backend in kinds:
                low, high = _bounds(state, backend)
                pipe.zlexcount(keys.table(shard, "index"), low, high)
        counts: Counter[tuple[GrantState, str]] = Counter()
        for at, count in enumerate(await self._redis.execute(pipe, "glance")):
            counts[kinds[at % len(kinds)]] += count
        return counts

    async def oldest(self, kinds: Sequence[tuple[GrantState, str]], most: int) -> list[str]:
        """Return the ids of grants in some states of some backends, in the order of ``kinds``.

        Of one kind those that were made first come first.
        """
        found: list[str] = []
        for state, backend in kinds:
            low, high = _bounds(state, backend)
            pipe: Any = self._redis.client.pipeline(transaction=False)
            for shard in range(self._redis.shards):
                pipe.zrangebylex(keys.table(shard, "index"), low, high, start=0, num=most)
            answers = await self._redis.execute(pipe, "glance")
            members = sorted(member for some in answers for member in some)
            found += [member.rpartition(b"|")[2].decode() for member in members]
            if len(found) >= most:
                break
        return found[:most]


def _bounds(state: GrantState, backend: str) -> tuple[str, bytes]:
    prefix = f"gs|{state}|{backend}|"
    return f"[{prefix}", f"({prefix}".encode() + b"\xff"
