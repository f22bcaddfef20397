"""Where the ledger's servers are, and the way to one of them: by its address, or by Sentinels.

A URL says all of it: ``redis://``, ``rediss://`` or ``unix://`` for one server,
``redis+sentinel://HOST:PORT,…/SERVICE/DB`` for the one that Sentinels call the master, and
``redis+cluster://HOST:PORT,…`` for a cluster (``cluster.py``). ``rediss+…`` is the same over TLS.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import parse_url
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import Sentinel, SentinelConnectionPool
from redis.backoff import NoBackoff
from redis.driver_info import DriverInfo
from redis.exceptions import RedisClusterException, RedisError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from pathlib import Path

    from broker.secret import Secret

CONNECTIONS: Final = 64
"""Connections to one server."""
DRIVER: Final = DriverInfo()
"""What connections call themselves: made once, for its version is read from the package's files."""
FAILED: Final = (TimeoutError, RedisError, RedisClusterException, OSError)
"""What of redis-py and below means that the ledger doesn't answer."""


class Command(NamedTuple):
    """What is sent. ``options`` say how redis-py reads the answer.

    A ``lasting`` one counts only once the replicas that are asked for have it.
    """

    words: tuple[Any, ...]
    options: Mapping[str, Any]
    lasting: bool = False


class TooFewReplicas(RedisError):
    """It is written, and too few replicas have it: a failover could still lose it."""


class Servers(Protocol):
    """One server or several that the ledger is on."""

    client: Any
    """redis-py's own."""

    @property
    def failing_over(self) -> bool:
        """Whether a replica may take a master's place."""
        ...

    def encode(self, word: Any, /) -> bytes:  # noqa: ANN401  redis-py takes text, numbers and bytes
        """Write one word of a command; what can't be written is an error."""
        ...

    def apart(self, commands: Sequence[Command]) -> list[list[int]]:
        """Say which commands go to the same server, by their places."""
        ...

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Return each command's answer or error, in their order."""
        ...

    async def ask_all(self, *words: Any) -> list[Any]:  # noqa: ANN401  as ``encode``
        """Ask every server that is written to, and return each one's answer, or raise."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """How to get in. The three files are for TLS; ``sentinel_…`` is what Sentinels want to know."""

    username: str | None = None
    password: Secret | None = None
    sentinel_username: str | None = None
    sentinel_password: Secret | None = None
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


class Target(NamedTuple):
    """A URL, taken apart: ``redis``, ``sentinel`` or ``cluster``; ``options`` are redis-py's."""

    kind: str
    nodes: list[tuple[str, int]]
    service: str
    options: dict[str, Any]


def target(url: str, login: Login, timeout_s: float) -> Target:
    """Read a URL of the configuration, which has been checked there."""
    parts = urlsplit(url)
    scheme, _, kind = parts.scheme.partition("+")
    default = 26379 if kind == "sentinel" else 6379
    nodes = [_node(text, default) for text in parts.netloc.split(",")] if kind else []
    path, service = parts.path, ""
    if kind == "sentinel":
        service, _, path = path.strip("/").partition("/")
    host = (
        f"//{parts.netloc.split(',')[0]}/{path.strip('/')}" if kind else f"//{parts.netloc}{path}"
    )
    options: dict[str, Any] = dict(parse_url(f"{scheme}:{host}?{parts.query}"))
    if kind:
        options = {name: o for name, o in options.items() if name not in ("host", "port")}
    if scheme == "rediss":
        tls = {
            "ssl_ca_certs": login.ca_file,
            "ssl_certfile": login.cert_file,
            "ssl_keyfile": login.key_file,
        }
        options |= {name: str(file) for name, file in tls.items() if file is not None}
    options |= _account(login.username, login.password)
    options |= {"socket_timeout": timeout_s, "socket_connect_timeout": timeout_s}
    # A command is never repeated by the client: only a script knows whether it's idempotent.
    options["retry"] = Retry(NoBackoff(), 0)
    options["driver_info"] = DRIVER
    return Target(kind or "redis", nodes, service, options)


class One:
    """One server at a time: at an address, or wherever Sentinels say that the master is."""

    def __init__(self, place: Target, login: Login, *, replicas: int) -> None:
        """Nothing is opened yet."""
        self.failing_over = place.kind == "sentinel"
        self._sentinel: Any = None
        blocking: dict[str, Any] = {
            "max_connections": CONNECTIONS,
            "timeout": place.options["socket_timeout"],
        }
        pool: Any
        if self.failing_over:
            self._sentinel = _sentinels(place, login)
            options = {n: o for n, o in place.options.items() if n != "connection_class"}
            options["ssl"] = "connection_class" in place.options
            pool = _SentinelPool(place.service, self._sentinel, **options, **blocking)
        else:
            pool = BlockingConnectionPool(**place.options, **blocking)
        self.client: Any = Redis(connection_pool=pool)
        self._waiting = Waiting(replicas, place.options["socket_timeout"])
        self.encode: Callable[[Any], bytes] = self.client.get_encoder().encode

    def apart(self, commands: Sequence[Command]) -> list[list[int]]:
        """All go to the same."""
        return [list(range(len(commands)))]

    async def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Return each command's answer or error."""
        return await self._waiting.ask(self._ask, commands)

    async def _ask(self, commands: Sequence[Command]) -> list[Any]:
        try:
            if len(commands) == 1:
                words, options, _ = commands[0]
                return [await self.client.execute_command(*words, **options)]
            pipe = self.client.pipeline(transaction=False)
            for words, options, _ in commands:
                pipe.execute_command(*words, **options)
            return await pipe.execute(raise_on_error=False)
        except FAILED as error:
            return [error] * len(commands)

    async def ask_all(self, *words: Any) -> list[Any]:  # noqa: ANN401  as Servers
        """Ask the one there is."""
        return [await self.client.execute_command(*words)]

    async def close(self) -> None:
        """Close every connection."""
        # The pool was handed to the client, so the client doesn't count it as its own to close.
        await self.client.aclose(close_connection_pool=True)
        if self._sentinel is not None:
            await self._sentinel.aclose()


class Waiting:
    """Asks a server after a lasting write whether enough replicas have it (``WAIT``).

    It goes over the same connection, at the end of the same trip: what the ledger wrote before is
    on these replicas, too.
    """

    def __init__(self, replicas: int, timeout_s: float) -> None:
        """``replicas`` of 0 asks for nothing. The answer comes before the connection times out."""
        self._replicas = replicas
        self._wait = Command(("WAIT", replicas, max(1, int(timeout_s * 500))), {})

    async def ask(
        self,
        ask: Callable[[Sequence[Command]], Awaitable[list[Any]]],
        commands: Sequence[Command],
    ) -> list[Any]:
        """Ask, and turn the answers of lasting commands that lie on too few servers into errors."""
        if not self._replicas or not any(command.lasting for command in commands):
            return await ask(commands)
        *answers, reached = await ask([*commands, self._wait])
        if not isinstance(reached, Exception) and int(reached) >= self._replicas:
            return answers
        short = TooFewReplicas(f"fewer than {self._replicas} replicas have what was written")
        return [
            short if command.lasting and not isinstance(answer, Exception) else answer
            for command, answer in zip(commands, answers, strict=True)
        ]


class _SentinelPool(SentinelConnectionPool, BlockingConnectionPool):
    """Who finds no connection free waits for one, as with a single server."""


def _sentinels(place: Target, login: Login) -> Any:  # noqa: ANN401  redis-py has no types for it
    kept = ("socket_timeout", "socket_connect_timeout", "retry")
    options = {n: o for n, o in place.options.items() if n in kept or n.startswith("ssl_")}
    options |= _account(login.sentinel_username, login.sentinel_password)
    options["ssl"] = "connection_class" in place.options
    return Sentinel(place.nodes, sentinel_kwargs=options)


def _account(username: str | None, password: Secret | None) -> dict[str, str]:
    account = {"username": username, "password": password.reveal() if password else None}
    return {name: value for name, value in account.items() if value is not None}


def _node(text: str, default: int) -> tuple[str, int]:
    parts = urlsplit(f"//{text}")
    return parts.hostname or "", parts.port or default
