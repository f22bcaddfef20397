"""What reconciling needs of the ledger: all its grants at once, its last report, its events."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, cast

from broker.ids import shard_of
from broker.ledger import keys
from broker.ledger.rows import grant_row

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from broker.grants import Grant
    from broker.ledger.connection import Connection

_TOGETHER: Final = 500
"""Rows in one trip: reading them holds up what else this process does for some milliseconds."""
_KEPT_MS: Final = 7 * 86_400_000
JOB: Final = "reconcile"
"""The lease of whoever reconciles by itself; people don't need it."""


class Reconciling:
    """Reads grants whole, keeps the last report, and logs what is done."""

    def __init__(self, connection: Connection) -> None:
        """Write and read through the ledger's connection."""
        self._redis = connection

    async def grants(self, keep: Callable[[Grant], bool]) -> list[Grant]:
        """Return all grants that pass ``keep``: those that are there from beginning to end."""
        found: dict[str, Grant] = {}
        for shard in range(self._redis.shards):
            table, cursor = keys.table(shard, "grants"), 0
            while True:
                at, pairs = await self._redis.command("HSCAN", table, cursor, "COUNT", _TOGETHER)
                for identifier, row in _pairs(pairs):
                    grant = grant_row(row, identifier.decode())
                    if keep(grant):
                        found[grant.id] = grant
                cursor = int(at)
                if not cursor:
                    break
        return list(found.values())

    async def applied(
        self, data: Mapping[str, Any], *, task_id: str, grant_id: str, actor: str
    ) -> None:
        """Log that something is about to be ended because ledger and world disagree on it."""
        shards = (shard_of(task_id, "tsk"), shard_of(grant_id, "grt"))
        shard = next((s for s in shards if s is not None and s < self._redis.shards), 0)
        args = {"type": "reconcile.applied", "actor": actor, "data": json.dumps(data)}
        await self._redis.run(
            "reconciled", shard, {**args, "task_id": task_id, "grant_id": grant_id}
        )

    async def finished(
        self, report: Mapping[str, Any], counts: Mapping[str, Any], *, actor: str, fence: int = 0
    ) -> bool:
        """Keep a report as the last one, and log how much it found.

        With the ``fence`` of the lease of ``JOB`` it is refused, and False, if another has it now.
        """
        args: dict[str, Any] = {
            "type": "reconcile.finished",
            "data": json.dumps(counts),
            "report": json.dumps(report),
            "keep_ms": _KEPT_MS,
            "actor": actor,
        }
        if fence:
            args |= {"field": keys.fence(JOB), "fence": fence}
        answer = await self._redis.run(
            "reconciled", 0, args, own_key=keys.reconciled(), more_keys=[keys.head()]
        )
        return answer == b"ok"

    async def last(self) -> dict[str, Any] | None:
        """Return the last report, while it is kept."""
        text = await self._redis.command("GET", keys.reconciled())
        return json.loads(text) if text else None


def _pairs(answer: Any) -> list[tuple[bytes, bytes]]:  # noqa: ANN401  a map by RESP3, else a flat list
    if isinstance(answer, dict):
        return list(cast("dict[bytes, bytes]", answer).items())
    return list(zip(answer[::2], answer[1::2], strict=True))
