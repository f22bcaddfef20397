"""Quarantine: a ledger that was set back issues nothing until an operator has reconciled it.

It stands in every shard, like a freeze, so that no issuing slips by. Revoking goes on for whatever
somebody ends; deadlines that the ledger only believes wait (``claim_due.lua``).
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from broker.ledger import keys

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.ledger.connection import Connection

_FIRST: Final = 0
"""Its event's shard; also the one that is asked whether it stands."""


@dataclass(frozen=True, slots=True)
class Quarantine:
    """Since when (epoch ms) the ledger is in quarantine, and by what that was noticed."""

    at: int
    why: str


class QuarantineTable:
    """Sets it, lifts it, and says whether it stands."""

    def __init__(self, connection: Connection) -> None:
        """Write and read through the ledger's connection."""
        self._redis = connection

    async def set(self, why: str, *, seen_ms: int | None = None) -> None:
        """Hold all issuing; one that stands stays as it is.

        What was seen at ``seen_ms`` counts for nothing if the last quarantine was ended since.
        The event's shard goes last: while the event isn't there, whoever noticed tries again.
        """
        seconds, _ = await self._redis.command("TIME")
        record = {"at": int(seconds) * 1000, "why": why}
        event = {"why": why}
        await self._spread(on=True, actor="broker", record=record, event=event, seen_ms=seen_ms)

    async def release(self, *, actor: str, reason: str) -> bool:
        """Let the ledger issue again; False if it wasn't in quarantine."""
        held = await self.standing()
        if held is None:
            return False
        event = {"reason": reason, "since": held.at, "why": held.why}
        await self._spread(on=False, actor=actor, record=None, event=event)
        return True

    async def standing(self) -> Quarantine | None:
        """Return the quarantine, if there is one."""
        text = await self._redis.command("HGET", keys.table(_FIRST, "frozen"), keys.QUARANTINE)
        return Quarantine(**json.loads(text)) if text else None

    async def released_at(self) -> int:
        """Return when the last quarantine ended (epoch ms), or 0."""
        field = keys.QUARANTINE_UNTIL
        return int(await self._redis.command("HGET", keys.table(_FIRST, "frozen"), field) or 0)

    async def _spread(
        self,
        *,
        on: bool,
        actor: str,
        record: Mapping[str, Any] | None,
        event: Mapping[str, Any],
        seen_ms: int | None = None,
    ) -> None:
        args: dict[str, Any] = {"on": on, "actor": actor}
        if seen_ms is not None:
            args["seen_ms"] = seen_ms
        if record is not None:
            args["record"] = json.dumps(record)
        rest = [shard for shard in range(self._redis.shards) if shard != _FIRST]
        await self._redis.on_every_shard("quarantine", args, rest)
        await self._redis.run("quarantine", _FIRST, {**args, "event": event})
