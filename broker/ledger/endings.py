"""How grants end in the ledger: confirmed, given up, or tried again; part of ``redis.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from broker.errors import LedgerUnavailable, NotFound
from broker.ids import shard_of
from broker.ledger.models import LedgerTimes, is_dead
from broker.ledger.rows import grant_row

if TYPE_CHECKING:
    from broker.grants import Grant
    from broker.ids import Kind
    from broker.ledger.connection import Connection
    from broker.ledger.places import Places


class Endings:
    """The last writes about a grant. ``actor`` is the principal in whose name a step is logged."""

    def __init__(
        self,
        connection: Connection,
        times: LedgerTimes | None = None,
        places: Places | None = None,
    ) -> None:
        """``times`` defaults to what ``config.py`` defaults to; the dead leave their ``places``."""
        self._redis = connection
        self._places = places
        self.times = times or LedgerTimes()

    async def confirm(self, grant: Grant, *, evidence: str, actor: str) -> Grant:
        """Step 10: the backend knows the credential no more."""
        args = {"id": grant.id, "evidence": evidence, "actor": actor}
        return await self._grant("confirm", grant.id, args)

    async def abandon(self, grant: Grant, *, statement: str, actor: str) -> Grant:
        """State that no more is done to end a grant; one not being revoked stays as it is."""
        args = {"id": grant.id, "statement": statement, "actor": actor}
        return await self._grant("abandon", grant.id, args)

    async def retry(self, grant: Grant, *, reason: str, actor: str) -> Grant:
        """Have a grant that waits to be revoked tried now; one that doesn't stays as it is."""
        args = {"id": grant.id, "actor": actor, **({"reason": reason} if reason else {})}
        return await self._grant("retry", grant.id, args)

    async def retry_later(
        self,
        grant: Grant,
        *,
        error: str,
        delay_ms: int,
        attempts: int,
        actor: str,
        counts: bool = True,
    ) -> Grant:
        """Revoking did not work; after ``attempts`` counted tries the grant is stuck."""
        args = {
            "id": grant.id,
            "error": error,
            "delay_ms": delay_ms,
            "attempts": attempts,
            "counts": counts,
            "actor": actor,
        }
        return await self._grant("retry_later", grant.id, args)

    def _timed(self, args: dict[str, Any]) -> dict[str, Any]:
        return {**args, "claim_ms": self.times.claim_ms, "retain_ms": self.times.retain_ms}

    async def _grant(self, script: str, grant_id: str, args: dict[str, Any]) -> Grant:
        answer = await self._redis.run(script, shard_in(grant_id, "grt"), self._timed(args))
        if answer[0] == b"unknown":
            msg = f"The ledger has lost grant {grant_id}."
            raise LedgerUnavailable(msg)
        grant = grant_row(answer[1])
        if self._places is not None and is_dead(grant):
            await self._places.leave_dead(grant.id)
        return grant


def shard_in(identifier: str, kind: Kind) -> int:
    """Return the shard that an id names.

    Raises:
        NotFound: it is no such id.
    """
    shard = shard_of(identifier, kind)
    if shard is None:
        raise NotFound
    return shard
