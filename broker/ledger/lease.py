"""Work that one replica at a time does: by a lease that runs out when it dies, with a fence.

Each time the lease is taken anew the fence grows. What such work writes names its fence, and is
refused once another has come after: a replica that was stopped for long can't undo what has been
done since. The log's own lease is ``outbox.py``'s, which is renewed by what it commits.
"""

from __future__ import annotations

import asyncio
import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

from broker.errors import LedgerUnavailable
from broker.ledger import keys

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from broker.ledger.connection import Connection

T = TypeVar("T")
LEASE_MS: Final = 30_000


class Lease:
    """One replica's claim to some work."""

    def __init__(self, connection: Connection, work: str, *, ttl_ms: int = LEASE_MS) -> None:
        """Nothing is taken yet."""
        self._redis = connection
        self._work = work
        self._ttl_ms = ttl_ms
        self.owner = secrets.token_hex(8)

    async def alone(self, do: Callable[[int], Awaitable[T]]) -> T | None:
        """Do something, given the fence, unless another replica is at it; None if it wasn't done.

        It is cancelled when another has taken over: this one was silent for too long.

        Raises:
            LedgerUnavailable: whose the lease is isn't known any more. What was begun is cancelled.
        """
        fence = await self._take(0)
        if not fence:
            return None
        doing = asyncio.ensure_future(do(fence))
        try:
            while not (await asyncio.wait({doing}, timeout=self._ttl_ms / 3000))[0]:
                if await self._take(fence) != fence:
                    return None
            return doing.result()
        finally:
            doing.cancel()
            await asyncio.gather(doing, return_exceptions=True)
            with suppress(LedgerUnavailable):  # it runs out by itself
                await self._ask(fence, ttl_ms=0)

    async def _take(self, fence: int) -> int:
        """Take the lease, or renew it; returns the fence, or 0 if another has it."""
        held, now = await self._ask(fence, ttl_ms=self._ttl_ms)
        return now if held else 0

    async def _ask(self, fence: int, *, ttl_ms: int) -> tuple[bool, int]:
        field = keys.fence(self._work)
        args = {"field": field, "owner": self.owner, "fence": fence, "ttl_ms": ttl_ms}
        held, now, *_ = await self._redis.run(
            "lease", 0, args, own_key=keys.head(), more_keys=[keys.lease(self._work)]
        )
        return bool(held), int(now)
