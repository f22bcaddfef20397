"""Our access tokens that are alive: each is a key of its own, which expires with it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from broker.errors import InvalidToken, NotFound, TaskNotActive
from broker.ids import shard_of
from broker.ledger import keys
from broker.ledger.models import Claimed
from broker.ledger.registry import stopped_by
from broker.ledger.rows import read_claimed, task_row

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.ledger.connection import Connection
    from broker.tasks import Task


class LiveTokens:
    """What makes a token of ours good: it is written here, and nobody has ended it.

    ``ancestors`` are the ids of the tokens it was exchanged from, all of its own shard: it dies
    with any of them, at that moment.
    """

    def __init__(self, connection: Connection) -> None:
        """Write through the ledger's connection."""
        self._redis = connection

    async def put(
        self,
        jti: str,
        row: Mapping[str, Any],
        *,
        ttl_ms: int,
        event: Mapping[str, Any],
        actor: str,
        ancestors: Sequence[str] = (),
    ) -> None:
        """Write a token before it is handed out.

        Raises:
            TaskNotActive: its task isn't active, or the grant that it is for is over.
            InvalidToken: an ancestor has ended.
            PrincipalSuspended: whoever it is for, or hangs from, is suspended or has no owner.
        """
        args = {"row": row, "ttl_ms": ttl_ms, "event": event, "actor": actor}
        match await self._run("put_token", jti, args, ancestors):
            case b"ok":
                return
            case b"ancestor_ended":
                raise InvalidToken("The token this one is to be exchanged from has ended.")
            case b"grant_ended":
                raise TaskNotActive("The grant was ended while its token was being made.")
            case mark if b":" in mark:
                raise stopped_by(mark)
            case _:
                msg = "The task is not active: it has ended, or it is not approved yet."
                raise TaskNotActive(msg)

    async def status(
        self,
        jti: str,
        *,
        ancestors: Sequence[str] = (),
        asker: str = "",
    ) -> tuple[dict[str, Any], Task | None] | None:
        """Return a live token's row, and its task if it has one; None if it isn't alive.

        ``asker`` is the principal that wants to know: none is alive to one that is suspended by
        now.
        """
        if not all(self._is_ours(i) for i in (jti, *ancestors)):
            return None
        args = {"asker": asker} if asker else {}
        answer = await self._run("token_status", jti, args, ancestors)
        if not answer:
            return None
        return json.loads(answer[0]), task_row(answer[1]) if answer[1] else None

    async def drop(self, jti: str, *, actor: str) -> bool:
        """End a token; says whether it was there."""
        there, *_ = await self._run("drop_token", jti, {"actor": actor})
        return bool(there)

    async def end(
        self, jti: str, *, task_id: str, reason: str, claim_ms: int, actor: str
    ) -> Claimed:
        """End a token and, in the same write, all that was had with it.

        That is, below ``task_id``, the tasks opened with it and the grants that hang from it; with
        no task there is nothing.
        Asked again it returns what isn't dead yet. The caller holds the claims for ``claim_ms``.
        """
        if not self._is_ours(jti):
            return Claimed()
        args = {
            "task_id": task_id,
            "event": {"jti": jti, "reason": reason},
            "had": {"jti": jti, "reason": reason},
            "claim_ms": claim_ms,
            "actor": actor,
        }
        _, *claimed = await self._run("drop_token", jti, args)
        return read_claimed(claimed)

    def _is_ours(self, jti: str) -> bool:
        shard = shard_of(jti, "jti")
        return shard is not None and shard < self._redis.shards

    async def _run(
        self, script: str, jti: str, args: dict[str, Any], ancestors: Sequence[str] = ()
    ) -> Any:  # noqa: ANN401  each script has its own answer
        shard = shard_of(jti, "jti")
        if shard is None:
            raise NotFound
        own, *more = (keys.token(shard, i) for i in (jti, *ancestors))
        return await self._redis.run(script, shard, args, own_key=own, more_keys=more)
