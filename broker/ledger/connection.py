"""One connection to Redis or Valkey: runs scripts, fans out over shards, maps every failure."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from broker.errors import LedgerUnavailable
from broker.ledger import keys, scripts

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from broker.secret import Secret


class Connection:
    """The ledger's way to Redis. ``shards`` is how many chains' worth of tables there are.

    Every failure of Redis leaves here as ``LedgerUnavailable``, with the cause attached.
    """

    def __init__(
        self,
        url: str,
        *,
        shards: int = 64,
        username: str | None = None,
        password: Secret | None = None,
        timeout_s: float = 2.0,
    ) -> None:
        """``url`` as redis-py reads it: ``redis://``, ``rediss://`` or ``unix://``."""
        self.shards = shards
        # A command is never repeated by the client: only a script knows whether it's idempotent.
        pool: Any = BlockingConnectionPool.from_url(  # pyright: ignore[reportUnknownMemberType]
            url,
            username=username,
            password=password.reveal() if password else None,
            max_connections=64,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )
        self.client = Redis(connection_pool=pool)
        self._scripts: dict[str, Any] = {
            n: self.client.register_script(scripts.source(n)) for n in scripts.NAMES
        }

    async def run(
        self, name: str, shard: int, args: dict[str, Any], *, own_key: str | None = None
    ) -> Any:  # noqa: ANN401  each script has its own answer; redis.py types them
        """Run a script on one shard. ``own_key`` is the eighth key of those that have one."""
        declared = keys.tables(shard)
        if own_key is not None:
            declared.append(own_key)
        try:
            return await self._scripts[name](keys=declared, args=[json.dumps(args)])
        except (TimeoutError, RedisError, OSError) as error:
            raise _unavailable(error) from error

    async def on_every_shard(
        self, name: str, args: dict[str, Any], shards: Iterable[int] | None = None
    ) -> list[Any]:
        """Run a script on all shards, or on some, and return the answers in their order."""
        chosen = range(self.shards) if shards is None else shards
        pipe = self.client.pipeline(transaction=False)
        text = json.dumps(args)
        for shard in chosen:
            await self._scripts[name](keys=keys.tables(shard), args=[text], client=pipe)
        return await self.execute(pipe)

    async def execute(self, pipe: Any) -> list[Any]:  # noqa: ANN401  redis-py leaves it untyped
        """Run a pipeline of reads or scripts."""
        try:
            return await pipe.execute()
        except (TimeoutError, RedisError, OSError) as error:
            raise _unavailable(error) from error

    async def command(self, *words: str | float | bytes) -> Any:  # noqa: ANN401
        """Run one plain command."""
        try:
            client: Any = self.client
            return await client.execute_command(*words)
        except (TimeoutError, RedisError, OSError) as error:
            raise _unavailable(error) from error

    async def ranges(self, ranges: Sequence[tuple[int, str, str, int]]) -> list[list[bytes]]:
        """Read index entries newest first: for each (shard, prefix, before, limit).

        ``before`` is the suffix to start below, or empty for the newest.
        """
        pipe = self.client.pipeline(transaction=False)
        for shard, prefix, before, limit in ranges:
            top = f"({prefix}{before}".encode() if before else f"({prefix}".encode() + b"\xff"
            pipe.zrevrangebylex(keys.table(shard, "index"), top, f"[{prefix}", 0, limit)
        return await self.execute(pipe)

    async def rows(self, name: str, ids: Sequence[tuple[int, str]]) -> list[bytes | None]:
        """Read rows of the ``tasks`` or ``grants`` table: for each (shard, id)."""
        pipe = self.client.pipeline(transaction=False)
        for shard, identifier in ids:
            pipe.hget(keys.table(shard, name), identifier)
        return await self.execute(pipe)

    async def close(self) -> None:
        """Close every connection."""
        # The pool was handed to the client, so the client doesn't count it as its own to close.
        await self.client.aclose(close_connection_pool=True)


def _unavailable(error: BaseException) -> LedgerUnavailable:
    return LedgerUnavailable(
        f"The ledger doesn't answer or refuses to write ({type(error).__name__}); "
        "nothing was issued. Try again shortly.",
        retry_after=2,
    )
