"""One connection to Redis or Valkey: runs scripts, fans out over shards, maps every failure."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import InvalidResponse, NoScriptError, RedisError

from broker.errors import LedgerUnavailable
from broker.ledger import keys, scripts
from broker.tracing import traceparent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from broker.metrics import Metrics
    from broker.secret import Secret

    _Asked = tuple[Sequence[Any], asyncio.Future[Any]]
    """A command, and where its answer goes."""


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
        metrics: Metrics | None = None,
    ) -> None:
        """``url`` as redis-py reads it: ``redis://``, ``rediss://`` or ``unix://``."""
        self.shards = shards
        self._measured = metrics.asking_ledger if metrics else _unmeasured
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
        self._together = _Together(self.client)
        self._scripts: dict[str, Any] = {
            n: self.client.register_script(scripts.source(n)) for n in scripts.NAMES
        }

    async def run(
        self,
        name: str,
        shard: int,
        args: dict[str, Any],
        *,
        own_key: str | None = None,
        more_keys: Sequence[str] = (),
    ) -> Any:  # noqa: ANN401  each script has its own answer; redis.py types them
        """Run a script on one shard. ``own_key`` is the ninth key of those that have one.

        ``more_keys`` come last; they are of the same shard.
        """
        declared = keys.tables(shard)
        if own_key is not None:
            declared.append(own_key)
        declared += more_keys
        script, text = self._scripts[name], _text(args)
        words = ("EVALSHA", script.sha, len(declared), *declared, text)
        with self._measured(name):
            try:
                return await self._together.send(words)
            except NoScriptError:  # it has not run: Redis was restarted, or this is its first time
                return await self.command("EVAL", script.script, *words[2:])
            except (TimeoutError, RedisError, OSError) as error:
                raise _unavailable(error) from error

    async def on_every_shard(
        self, name: str, args: dict[str, Any], shards: Iterable[int] | None = None
    ) -> list[Any]:
        """Run a script on all shards, or on some, and return the answers in their order."""
        chosen = range(self.shards) if shards is None else shards
        pipe = self.client.pipeline(transaction=False)
        text = _text(args)
        for shard in chosen:
            await self._scripts[name](keys=keys.tables(shard), args=[text], client=pipe)
        return await self.execute(pipe, name)

    async def execute(self, pipe: Any, name: str = "several") -> list[Any]:  # noqa: ANN401  redis-py leaves it untyped
        """Run a pipeline of reads or scripts; ``name`` is what its time is measured as."""
        with self._measured(name):
            try:
                return await pipe.execute()
            except (TimeoutError, RedisError, OSError) as error:
                raise _unavailable(error) from error

    async def command(self, *words: str | float | bytes) -> Any:  # noqa: ANN401
        """Run one plain command."""
        with self._measured("command"):
            try:
                return await self._together.send(words)
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


class _Together:
    """Sends what is asked for at the same time in one go: each trip costs more than its commands.

    Commands of one pass of the event loop share a connection and a write. Each has its own answer
    and its own error; what breaks the connection breaks all that were on it.
    """

    def __init__(self, client: Redis) -> None:
        """Send through ``client``."""
        self._client = client
        encoder: Any = client.get_encoder()
        self._encode = encoder.encode
        self._waiting: list[_Asked] = []
        self._trips: set[asyncio.Task[None]] = set()

    async def send(self, words: Sequence[Any]) -> Any:  # noqa: ANN401  each command has its own
        """Return a command's answer, or raise its error."""
        # Here, so that what can't be written stops the one who asks, and nobody on the same trip.
        name, *rest = words
        command = (name, *map(self._encode, rest))
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Any] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._set_out)
        self._waiting.append((command, answer))
        return await answer

    def _set_out(self) -> None:
        asked, self._waiting = self._waiting, []
        trip = asyncio.ensure_future(self._trip(asked))
        self._trips.add(trip)  # the loop itself would forget it

        def over(_: object) -> None:
            self._trips.discard(trip)
            for _, answer in asked:
                answer.cancel()  # of no effect on those answered: only a loop that ends leaves any

        trip.add_done_callback(over)

    async def _trip(self, asked: Sequence[_Asked]) -> None:
        answers: list[Any]
        try:
            if len(asked) == 1:
                client: Any = self._client
                answers = [await client.execute_command(*asked[0][0])]
            else:
                pipe: Any = self._client.pipeline(transaction=False)
                for words, _ in asked:
                    pipe.execute_command(*words)
                answers = await pipe.execute(raise_on_error=False)
        except (TimeoutError, RedisError, OSError) as error:
            answers = [error] * len(asked)
        except Exception as error:  # noqa: BLE001  nobody's command: all of them could be written
            nonsense = InvalidResponse("the answer can't be read")
            nonsense.__cause__ = error
            answers = [nonsense] * len(asked)
        for (_, answer), value in zip(asked, answers, strict=True):
            if answer.done():
                continue  # whoever asked has gone
            if isinstance(value, Exception):
                answer.set_exception(value)
            else:
                answer.set_result(value)


def _text(args: Mapping[str, Any]) -> str:
    """Write what a script is given, and for the events it logs what it all belongs to."""
    trace = traceparent()
    return json.dumps({**args, "trace": trace} if trace else args)


def _unmeasured(_: str) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


def _unavailable(error: BaseException) -> LedgerUnavailable:
    return LedgerUnavailable(
        f"The ledger doesn't answer or refuses to write ({type(error).__name__}); "
        "nothing was issued. Try again shortly.",
        retry_after=2,
    )
