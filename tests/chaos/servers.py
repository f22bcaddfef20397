"""All that is broken: brokers, Valkey, OpenBao in three nodes, PostgreSQL, the ways between."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

import tomli_w

from broker.audit.reader import Bookmark
from broker.clock import SystemClock
from broker.config import load_config
from broker.dev import vault
from broker.dev.config import Draft, Embedded
from broker.dev.engines import EngineError, Postgres, Valkey
from broker.dev.engines.process import dies_with_us
from broker.dev.issuer import DevIssuer
from tests.chaos.client import Client
from tests.chaos.link import Link, to_port
from tests.chaos.plan import BROKERS, NODES
from tests.chaos.raft import Node, cluster
from tests.dev.broker_process import environment
from tests.ports import free_port
from tests.waiting import wait_until

if TYPE_CHECKING:
    from broker.backends.vault_api import VaultApi
    from broker.config import Config

READ: Final = "orders-read"
WRITE: Final = "orders-write"
ROOT: Final = Path(__file__).resolve().parents[2]
_TOML: Final = """
[broker]
log_format = "json"
[redis]
shards = 16
timeout = "1s"
[vault]
timeout = "1500ms"
[revocation]
backoff = "200ms"
max_backoff = "1s"
claim = "3s"
wait = "2s"
[audit]
checkpoint_every = "1s"
max_lag = "15s"
[oauth]
rate = 1000000
[reconcile]
every = "off"
[console]
enabled = false
[review]
suspend = false
"""
_ENDING_S: Final = 20.0
_FRAMES: Final = 4


class LinkedPostgres(Postgres):
    """One that OpenBao reaches by a link; everybody else goes there straight."""

    link_port = 0

    @property
    def vault_dsn_template(self) -> str:
        return super().vault_dsn_template.replace(f":{self.port}/", f":{self.link_port}/")


class Broker:
    """One ``broker serve``: a process, its log, and its clock."""

    def __init__(self, number: int, config: Path, url: str) -> None:
        self.number = number
        self.url = url
        self.log = config.with_name(f"broker-{number}.log")
        self.config = config
        self._clock = config.with_name(f"broker-{number}.clock")
        self._process: subprocess.Popen[bytes] | None = None
        self._read = 0
        self.wanted = False
        """Whether nobody but itself could have ended it."""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def ended(self) -> int | None:
        return self._process.poll() if self._process else None

    async def start(self) -> None:
        """Start it, and return once it serves."""
        self._clock.write_text("0")
        out = self.log.with_suffix(".out")
        command = [sys.executable, "-m", "tests.chaos.replica", str(self._clock)]
        command += ["serve", "--config", str(self.config), "--json"]
        with out.open("wb") as says, self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220  it returns at once
                [*dies_with_us(signal.SIGKILL), *command],
                stdin=subprocess.DEVNULL,
                stdout=says,
                stderr=log,
                env=environment(),
                cwd=ROOT,
                start_new_session=True,
            )

        async def ready() -> bool:
            assert self.ended is None, f"broker-{self.number} ended at its start: see {self.log}"
            return b"ready" in out.read_bytes()

        await wait_until(ready, f"broker-{self.number} ready", within_s=60)
        self.wanted = True

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    async def end(self, number: signal.Signals) -> None:
        """Send a signal, wait for its end, and see to it."""
        self.wanted = False
        assert self._process is not None
        self._process.send_signal(number)
        try:
            await asyncio.to_thread(self._process.wait, _ENDING_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)
            raise AssertionError(f"broker-{self.number} didn't end by {number.name}") from None

    def surprises(self) -> list[str]:
        """What it logged since last asked of exceptions that nobody expected."""
        if not self.log.exists():
            return []
        with self.log.open("rb") as log:
            log.seek(self._read)
            lines = log.read().decode(errors="replace").splitlines()
            self._read = log.tell()
        found = dict.fromkeys(map(_surprise, lines))
        return [text for text in found if text]

    def step_clock(self, ahead_s: float) -> None:
        self._clock.write_text(str(ahead_s))
        self.signal(signal.SIGUSR1)

    def kill(self) -> None:
        self.wanted = False
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Arena:
    """All of it, below one folder."""

    def __init__(self, data: Path) -> None:
        self.data = data
        self.valkey = Valkey(data)
        self.postgres = LinkedPostgres(data, free_port(), durable=False)
        self.nodes: list[Node] = cluster(data, NODES)
        self.to_valkey = [Link(self._valkey) for _ in range(BROKERS)]
        self.to_node = [Link(to_port(node.port)) for node in self.nodes]
        self.to_postgres = Link(to_port(self.postgres.port))
        self.postgres.link_port = self.to_postgres.port
        self.brokers: list[Broker] = []
        self.bookmark = Bookmark()
        """How far the log was read."""
        self._admin: VaultApi | None = None
        self.client = Client()
        self.issuer: DevIssuer
        self.config: Config
        """As the first broker's, but straight to the servers: for who looks from outside."""

    @property
    def links(self) -> list[Link]:
        return [*self.to_valkey, *self.to_node, self.to_postgres]

    @property
    def audit_folder(self) -> Path:
        return self.config.audit.folder(self.config.broker.state_dir)

    @property
    def urls(self) -> list[str]:
        return [broker.url for broker in self.brokers]

    async def start(self) -> None:
        for link in self.links:
            await link.start()
        await asyncio.to_thread(self._start_engines)
        ports = [free_port() for _ in range(BROKERS)]
        first = f"http://127.0.0.1:{ports[0]}"
        given = self.data / "given.toml"
        given.write_text(_TOML)
        self.issuer = DevIssuer(self.data, SystemClock())
        self.issuer.publish()
        for name in ("vault-role-id", "vault-secret-id"):
            (self.data / name).write_text("not yet\n")
        pg = f"{self.postgres.host}:{self.postgres.port}"
        draft = Draft(given, self.data)
        self.config = draft.complete(
            Embedded(
                url=first,
                listen=f"127.0.0.1:{ports[0]}",
                redis_url=self.valkey.url,
                vault_address=self.nodes[0].address,
                postgres_dsn=f"postgresql://{{username}}:{{password}}@{pg}/orders",
            )
        )
        await self._set_up()
        whole = tomllib.loads((self.data / "config.toml").read_text())
        for number, port in enumerate(ports):
            file = self.data / f"broker-{number}.toml"
            file.write_text(tomli_w.dumps(self._of_broker(whole, number, port)))
            self.brokers.append(Broker(number, file, f"http://127.0.0.1:{port}"))
        self.config = load_config(self.data / "config.toml")
        await asyncio.gather(self.client.start(ROOT), *(b.start() for b in self.brokers))

    async def stop(self) -> None:
        await self.client.end()
        for broker in self.brokers:
            broker.kill()
        for link in self.links:
            await link.close()
        if self._admin is not None:
            self._admin.close()
        engines = (self.valkey, self.postgres, *self.nodes)
        await asyncio.gather(*(asyncio.to_thread(engine.kill) for engine in engines))

    async def leads(self) -> bool:
        """Whether every node is open, and one of them leads."""
        found = await asyncio.gather(*(asyncio.to_thread(node.health) for node in self.nodes))
        return sorted(found) == [200, 429, 429]

    async def vault(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        """Ask OpenBao as its root: whichever node answers passes it on to the one that leads."""
        assert self._admin is not None
        return await self._admin.as_broker(method, path, body)

    def _start_engines(self) -> None:
        self.valkey.start()
        self.postgres.start()
        for node in self.nodes:
            node.start()

    async def _valkey(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_unix_connection(unquote(urlsplit(self.valkey.url).path))

    async def _set_up(self) -> None:
        await wait_until(self.leads, "OpenBao has a leader", within_s=60)
        self._admin = vault.admin(self.nodes[0], SystemClock())
        await vault.mount_orders(self._admin, self.postgres)
        await vault.give_rights(self._admin, self.config, self.data)

    def _of_broker(self, whole: dict[str, Any], number: int, port: int) -> dict[str, Any]:
        made: dict[str, Any] = json.loads(json.dumps(whole))
        made["broker"]["listen"] = f"127.0.0.1:{port}"
        made["redis"]["url"] = f"redis://{self.to_valkey[number].place}/0"
        made["vault"]["address"] = f"http://{self.to_node[number].place}"
        for capability in made["capabilities"]:
            if capability["name"] in {READ, WRITE}:
                capability["exclusive"] = True
        made["targets"] = [
            {
                "name": "orders",
                "kind": "postgresql",
                "dsn_file": str(self.postgres.admin_dsn_file),
                "accounts": "v-token-br*",
                "capabilities": [READ, WRITE],
            }
        ]
        return made


def _surprise(line: str) -> str:
    """What a line of a broker's log says of an exception, by its type and the frames next to it."""
    if line.startswith("Traceback"):
        return line
    if '"exception"' not in line:
        return ""
    said = json.loads(line)
    return f"{said['event']}: {' < '.join(said['exception'].split(' < ')[:_FRAMES])}"


def limit_files(pid: int, size: int) -> None:
    """Let no file of a process grow beyond a size, as on a disk that is full."""
    _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


def family(pid: int) -> list[int]:
    """A process and all below it; PostgreSQL's have sessions of their own."""
    children: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        children += [int(word) for word in file.read_text().split()]
    return [pid, *(below for child in children for below in family(child))]


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            continue


__all__ = ["Arena", "Broker", "EngineError", "family", "limit_files", "signal_all"]
