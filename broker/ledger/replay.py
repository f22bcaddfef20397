"""What all replicas must know of proofs: which were used already, and which nonce is of now."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Final

from broker.ledger import keys

if TYPE_CHECKING:
    from broker.clock import Clock
    from broker.ledger.connection import Connection

NONCE_SPAN_S: Final = 300
_ASK_AGAIN_S: Final = 1.0
"""How often nonces that nobody gave out can make a replica ask Redis."""


class Replay:
    """Remembers what may be used once, for as long as it could be used again."""

    def __init__(self, connection: Connection) -> None:
        """Write through the ledger's connection."""
        self._redis = connection

    async def claim(self, kind: str, key: str, ttl_ms: int) -> bool:
        """Use something up; False if that has been done. Of any number of callers one gets True.

        ``kind`` is a word, and ``key`` is unique within it; it may hold anything and isn't stored.

        Raises:
            LedgerUnavailable: nobody knows. Whether it is used up now is unknown too.
        """
        name = keys.replay(kind, key, self._redis.shards)
        return bool(await self._redis.command("SET", name, "1", "NX", "PX", max(ttl_ms, 1)))


class Nonces:
    """A random text for each span of time, the same in every replica (RFC 9449 section 8).

    The first replica to need the nonce of a span makes it. Replicas keep it, and ask Redis again
    only about one they don't know. It isn't a secret: who has it knows what time it is.
    """

    def __init__(self, connection: Connection, clock: Clock, span_s: int = NONCE_SPAN_S) -> None:
        """``span_s`` is how long a nonce is the current one, in seconds."""
        self._redis = connection
        self._clock = clock
        self._span_s = span_s
        self._known: dict[int, str] = {}
        self._asked_at = float("-inf")

    async def current(self) -> str:
        """Return the nonce to make proofs with now.

        Raises:
            LedgerUnavailable: this replica doesn't know it yet, and can't ask.
        """
        span = self._span()
        return self._known.get(span) or await self._agree(span)

    async def accepts(self, nonce: str) -> bool:
        """Say whether a nonce is the current one or the one before.

        Or the next: a replica whose clock is ahead may have given it out already. Strangers can
        make up any number of nonces, so Redis isn't asked about each: who is refused for that is
        told the current one, and comes again with it.

        Raises:
            LedgerUnavailable: this replica doesn't know it, and can't ask.
        """
        span = self._span()
        if self._is_near(nonce, span):
            return True
        now = self._clock.monotonic()
        if span in self._known and now - self._asked_at < _ASK_AGAIN_S:
            return False
        self._asked_at = now
        await self._agree(span)
        return self._is_near(nonce, span)

    def _span(self) -> int:
        return int(self._clock.now() // self._span_s)

    def _is_near(self, nonce: str, span: int) -> bool:
        return nonce in [self._known.get(near) for near in (span - 1, span, span + 1)]

    async def _agree(self, span: int) -> str:
        """Learn the nonces around a span, and make its own if nobody has; return that.

        If Redis lost them, what this replica knew stays the nonce unless another was quicker.
        """
        mine = self._known.get(span) or secrets.token_urlsafe(16)
        # One made early, by a clock that is ahead, outlives its use by clocks that are behind.
        ttl_ms = 4 * self._span_s * 1000
        pipe = self._redis.pipeline()
        pipe.set(keys.nonce(span), mine, nx=True, get=True, px=ttl_ms)
        pipe.get(keys.nonce(span - 1))
        pipe.get(keys.nonce(span + 1))
        there, before, after = await self._redis.execute(pipe)
        current: str = there.decode() if there else mine
        near = {span - 1: before, span + 1: after}
        self._known = {span: current, **{at: raw.decode() for at, raw in near.items() if raw}}
        return current
