"""One connection to Redis or Valkey: runs scripts, fans out over shards, maps every failure."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import TYPE_CHECKING, Any

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from broker.errors import LedgerUnavailable
from broker.ledger import keys, scripts
from broker.ledger.cluster import Cluster
from broker.ledger.together import Together
from broker.ledger.topology import DRIVER, FAILED, Command, Login, One, target
from broker.tracing import traceparent

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from broker.ledger.topology import Servers
    from broker.metrics import Metrics


class Connection:
    """The ledger's way to Redis. ``shards`` is how many chains' worth of tables there are.

    Every failure of Redis leaves here as ``LedgerUnavailable``, with the cause attached.
    """

    def __init__(
        self,
        url: str,
        *,
        shards: int = 64,
        login: Login | None = None,
        timeout_s: float = 2.0,
        replicas: int = 0,
        metrics: Metrics | None = None,
    ) -> None:
        """``url`` as in ``topology.py``.

        Nothing is issued before ``replicas`` replicas know of it.
        """
        self.shards = shards
        self.replicas = replicas
        self._measured = metrics.asking_ledger if metrics else _unmeasured
        login = login or Login()
        place = target(url, login, timeout_s)
        self._servers: Servers = (
            Cluster(place, replicas=replicas)
            if place.kind == "cluster"
            else One(place, login, replicas=replicas)
        )
        self.client = self._servers.client
        self._together = Together(self._servers)
        self._drafts = Redis(driver_info=DRIVER)  # of pipelines; never connected
        self._scripts: dict[str, Any] = {
            n: self._drafts.register_script(scripts.source(n)) for n in scripts.NAMES
        }

    @property
    def failing_over(self) -> bool:
        """Whether a replica may take a master's place."""
        return self._servers.failing_over

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
        text = _text(args)
        with self._measured(name):
            try:
                return await self._run(name, declared, text)
            except FAILED as error:
                raise _unavailable(error) from error

    async def _run(self, name: str, declared: Sequence[str], text: str) -> Any:  # noqa: ANN401  as run
        script, lasting = self._scripts[name], scripts.issues(name)
        words = ("EVALSHA", script.sha, len(declared), *declared, text)
        try:
            return await self._together.send(words, lasting=lasting)
        except NoScriptError:  # it has not run: Redis was restarted, or this is its first time
            return await self._together.send(("EVAL", script.script, *words[2:]), lasting=lasting)

    async def on_every_shard(
        self,
        name: str,
        args: dict[str, Any],
        shards: Iterable[int] | None = None,
        *,
        own_key: str | None = None,
        partly: bool = False,
    ) -> list[Any]:
        """Run a script on all shards, or on some, and return the answers in their order.

        ``own_key`` is the name of a ninth key, of each shard. With ``partly`` the answers of shards
        that don't answer are left out, unless that is all of them.
        """
        chosen = range(self.shards) if shards is None else shards
        own = [own_key] if own_key else []
        text = _text(args)
        with self._measured(name):
            answers = await asyncio.gather(
                *(
                    self._run(name, [*keys.tables(s), *(keys.table(s, k) for k in own)], text)
                    for s in chosen
                ),
                return_exceptions=True,
            )
            return _answered(answers, partly=partly)

    def pipeline(self) -> Any:  # noqa: ANN401  redis-py leaves it untyped
        """Return a list to put reads or scripts on, for ``execute``. They are no transaction."""
        return self._drafts.pipeline(transaction=False)

    async def execute(self, pipe: Any, name: str = "several", *, partly: bool = False) -> list[Any]:  # noqa: ANN401  as pipeline
        """Run what is on a pipeline; ``name`` is what its time is measured as.

        With ``partly`` what a server doesn't answer is None, unless none of them does.
        """
        commands = [Command(tuple(words), options) for words, options in pipe.command_stack]
        if not commands:
            return []
        with self._measured(name):
            answers = await self._servers.ask(commands)
            if not partly:
                return _answered(answers)
            _answered(answers, partly=True)
            return [None if isinstance(answer, BaseException) else answer for answer in answers]

    async def on_every_server(self, *words: str | float | bytes) -> list[Any]:
        """Run a command on each server that is written to, and return each one's answer."""
        with self._measured("command"):
            try:
                return await self._servers.ask_all(*words)
            except FAILED as error:
                raise _unavailable(error) from error

    async def command(self, *words: str | float | bytes) -> Any:  # noqa: ANN401
        """Run one plain command; of no key, on the server of the first shard."""
        with self._measured("command"):
            try:
                return await self._together.send(words)
            except FAILED as error:
                raise _unavailable(error) from error

    async def ranges(self, ranges: Sequence[tuple[int, str, str, int]]) -> list[list[bytes]]:
        """Read index entries newest first: for each (shard, prefix, before, limit).

        ``before`` is the suffix to start below, or empty for the newest.
        """
        pipe = self.pipeline()
        for shard, prefix, before, limit in ranges:
            top = f"({prefix}{before}".encode() if before else f"({prefix}".encode() + b"\xff"
            pipe.zrevrangebylex(keys.table(shard, "index"), top, f"[{prefix}", 0, limit)
        return await self.execute(pipe)

    async def rows(self, name: str, ids: Sequence[tuple[int, str]]) -> list[bytes | None]:
        """Read rows of the ``tasks`` or ``grants`` table: for each (shard, id)."""
        pipe = self.pipeline()
        for shard, identifier in ids:
            pipe.hget(keys.table(shard, name), identifier)
        return await self.execute(pipe)

    async def close(self) -> None:
        """Close every connection."""
        await self._servers.close()


def _text(args: Mapping[str, Any]) -> str:
    """Write what a script is given, and for the events it logs what it all belongs to."""
    trace = traceparent()
    return json.dumps({**args, "trace": trace} if trace else args)


def _answered(answers: Sequence[Any], *, partly: bool = False) -> list[Any]:
    """Return what was answered; raise the first error, with ``partly`` if that is all there is."""
    errors = [answer for answer in answers if isinstance(answer, BaseException)]
    good = [answer for answer in answers if not isinstance(answer, BaseException)]
    for error in errors:
        if isinstance(error, FAILED):
            if not partly or not good:
                raise _unavailable(error) from error
        else:
            raise error
    return good


def _unmeasured(_: str) -> contextlib.AbstractContextManager[None]:
    return contextlib.nullcontext()


def _unavailable(error: BaseException) -> LedgerUnavailable:
    return LedgerUnavailable(
        f"The ledger doesn't answer or refuses to write ({type(error).__name__}); "
        "nothing was issued. Try again shortly.",
        retry_after=2,
    )
