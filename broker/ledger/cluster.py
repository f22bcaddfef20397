"""The way to a cluster: each shard's keys have one hash tag, so each command has one server.

redis-py knows the slots and follows them; which commands share a trip is decided here, so that a
master that is down holds up its own shards only. What a server refuses because a slot has moved has
not been carried out, and is sent to where it is now; nothing else is repeated.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from redis.asyncio import RedisCluster
from redis.asyncio.cluster import ClusterNode
from redis.exceptions import AskError, ClusterDownError, MovedError
from redis.exceptions import ConnectionError as Disconnected
from redis.exceptions import TimeoutError as TimedOut

from broker.ledger import keys
from broker.ledger.topology import CONNECTIONS, FAILED, Command, Waiting

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from broker.ledger.topology import Target

_MOVES: Final = 3
"""How often one command follows a slot that moves."""
_KEY_AT: Final = {"EVAL": 3, "EVALSHA": 3}
"""Which word is the first key, where that isn't the second."""
_LOST: Final = (Disconnected, TimedOut, ClusterDownError, OSError)
"""After these the cluster may look otherwise."""


class Cluster:
    """All masters of a cluster. Replicas aren't read from: they may be behind."""

    failing_over = True

    def __init__(self, place: Target, *, replicas: int) -> None:
        """Nothing is opened yet; ``place`` names some of the nodes, and they name the others."""
        options = {n: o for n, o in place.options.items() if n not in ("connection_class", "db")}
        self.client: Any = RedisCluster(
            startup_nodes=[ClusterNode(host, port) for host, port in place.nodes],
            ssl="connection_class" in place.options,
            max_connections=CONNECTIONS,
            **options,
        )
        self.encode: Callable[[Any], bytes] = self.client.get_encoder().encode
        self._waiting = Waiting(replicas, place.options["socket_timeout"])
        self._slots: dict[bytes, int] = {}
        self._room: defaultdict[str, asyncio.Semaphore] = defaultdict(
            lambda: asyncio.Semaphore(CONNECTIONS)
        )
        self._looking: asyncio.Task[None] | None = None

    def apart(self, commands: Sequence[Command]) -> list[list[int]]:
        """Say which go to the same server; all do while the servers aren't known."""
        if not self.client.nodes_manager.slots_cache:
            return [list(range(len(commands)))]
        groups: defaultdict[str, list[int]] = defaultdict(list)
        for at, command in enumerate(commands):
            groups[self._node(command).name].append(at)
        return list(groups.values())

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Return each command's answer or error."""
        try:
            await self.client.initialize()
        except FAILED as error:
            return [error] * len(commands)
        return await self._ask(commands, _MOVES)

    async def ask_all(self, *words: Any) -> list[Any]:  # noqa: ANN401  as Servers
        """Ask every master."""
        await self.client.initialize()
        command = Command(words, {})
        masters = self.client.get_primaries()
        answers = await asyncio.gather(*(self._trip(node, [command]) for node in masters))
        for answer in answers:
            if isinstance(answer[0], Exception):
                raise answer[0]
        return [answer[0] for answer in answers]

    async def close(self) -> None:
        """Close every connection."""
        if self._looking is not None:
            self._looking.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._looking
        await self.client.aclose()

    async def _ask(self, commands: Sequence[Command], moves: int) -> list[Any]:
        groups = self.apart(commands)
        found = await asyncio.gather(
            *(self._at_one([commands[at] for at in places]) for places in groups)
        )
        answers: list[Any] = [None] * len(commands)
        for places, some in zip(groups, found, strict=True):
            for at, answer in zip(places, some, strict=True):
                answers[at] = answer
        moved = [at for at, answer in enumerate(answers) if isinstance(answer, MovedError)]
        if moved and moves:
            for at in moved:
                await self.client.nodes_manager.move_slot(answers[at])
            again = await self._ask([commands[at] for at in moved], moves - 1)
            for at, answer in zip(moved, again, strict=True):
                answers[at] = answer
        return answers

    async def _at_one(self, commands: Sequence[Command]) -> list[Any]:
        """Ask the server that all these commands go to."""
        node = self._node(commands[0])

        async def ask(some: Sequence[Command]) -> list[Any]:
            return await self._trip(node, some)

        answers = await self._waiting.ask(ask, commands)
        for at, answer in enumerate(answers):
            if isinstance(answer, AskError):  # the slot is on its way, and this key has arrived
                answers[at] = await self._arrived(answer, commands[at])
        return answers

    async def _arrived(self, told: AskError, command: Command) -> Any:  # noqa: ANN401  as Servers
        where: Any = told  # whose types redis-py leaves out
        node = self.client.nodes_manager.get_node(host=where.host, port=where.port)
        if node is None:
            self._look()
            return told

        async def ask(some: Sequence[Command]) -> list[Any]:
            return (await self._trip(node, [Command(("ASKING",), {}), *some]))[1:]

        return (await self._waiting.ask(ask, [command]))[0]

    async def _trip(self, node: Any, commands: Sequence[Command]) -> list[Any]:  # noqa: ANN401  redis-py's
        pipe = self.client.pipeline(transaction=False)
        for words, options, _ in commands:
            pipe.execute_command(*words, target_nodes=node, **options)
        answers: list[Any]
        try:
            async with self._room[node.name]:
                answers = await pipe.execute(raise_on_error=False, allow_redirections=False)
        except FAILED as error:
            answers = [error] * len(commands)
        if any(isinstance(answer, _LOST) for answer in answers):
            self.client.nodes_manager.move_node_to_end_of_cached_nodes(node.name)
            self._look()
        return answers

    def _node(self, command: Command) -> Any:  # noqa: ANN401  redis-py's
        words = command.words
        at = _KEY_AT.get(words[0], 1)
        key = words[at] if len(words) > at else b""
        key = key.encode() if isinstance(key, str) else key
        if not isinstance(key, bytes) or not key.startswith(keys.PREFIX.encode()):
            key = keys.head().encode()  # of no key: where the commit point is
        tag = key.partition(b"}")[0]
        if tag not in self._slots:
            self._slots[tag] = self.client.keyslot(key)
        return self.client.nodes_manager.get_node_from_slot(self._slots[tag])

    def _look(self) -> None:
        """See who has which slots now, unless that is being done."""
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._looked())

    async def _looked(self) -> None:
        with contextlib.suppress(*FAILED):
            await self.client.nodes_manager.initialize()
