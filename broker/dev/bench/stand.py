"""What is measured: engines and brokers as they are run for real, on data that is thrown away.

Valkey writes every change to disk before it answers (``appendfsync always``), OpenBao is on raft,
PostgreSQL syncs. The brokers are processes of their own: ``broker serve``, with a worker for each
core, since OpenBao uses them all as well.
"""

from __future__ import annotations

import json
import select
import signal
import subprocess
import sys
import tempfile
import tomllib
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, LiteralString, Self, TypeVar

import httpx2
import psycopg
import tomli_w

from broker.client import Client
from broker.clock import SystemClock
from broker.dev.bench import machine
from broker.dev.config import FILE, subject_of
from broker.dev.engines import Valkey
from broker.dev.engines.process import dies_with_us, free_port, write_private
from broker.dev.issuer import DevIssuer
from broker.dev.stack import DevStack
from broker.token_request import EXCHANGE, TYPE_JWT

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from broker.secret import Secret

T = TypeVar("T")
AGENT: Final = "report-writer"
READ: Final = "orders-read"
API: Final = "orders-api"
DEPTH: Final = 10
CONFIG: Final = f"""
[oauth]
rate = 1_000_000
[tasks]
max_depth = {DEPTH}
cycles = true
max_live_per_agent = 1_000_000
[reconcile]
every = "off"
"""
"""No limit that load would meet, long chains of one agent, and no comparing meanwhile."""
_TARGET: Final = f"""
[[targets]]
name = "orders"
kind = "postgresql"
dsn_file = "{{dsn}}"
accounts = "v-token-br*"
capabilities = ["{READ}"]
"""
"""What is revoked is shut out at PostgreSQL."""
_START_S: Final = 120
_STOP_S: Final = 40
_LAST_WORDS: Final = 8
clock = SystemClock()


class NotStarted(Exception):
    """A broker didn't get ready; says its last words."""


class Stand:
    """The engines, and by default a broker on them; a context that starts and stops them."""

    def __init__(self, config: str = CONFIG) -> None:
        """``config`` is what the broker's configuration says besides the engines' addresses."""
        self._config = config
        self._open = ExitStack()
        self._made: dict[str, Any] = {}
        self.data = Path()
        self.url = ""

    def __enter__(self) -> Self:
        with self._open:
            folder = self._open.enter_context(tempfile.TemporaryDirectory(prefix="broker-bench-"))
            given = Path(folder) / "bench.toml"
            dsn = Path(folder) / "orders-dsn"
            dsn.touch(0o600)  # what is in it is known later
            given.write_text(self._config + _TARGET.format(dsn=dsn), "utf-8")
            self.data = Path(folder) / "data"
            port = free_port()
            self.url = f"http://127.0.0.1:{port}"
            stack = DevStack(self.data, clock, config_file=given)
            loaded = stack.start(f"127.0.0.1:{port}", self.url)
            self._open.callback(stack.stop)
            places = stack.places(self.url)
            self.redis: str = loaded.redis.url
            self._admin = Path(str(places["postgres_admin_dsn_file"])).read_text("utf-8").strip()
            dsn.write_text(self._admin, "utf-8")
            self.postgres = self._admin.rpartition("@")[2]
            self._issuer = DevIssuer(self.data, clock)
            root = Path(str(places["vault_token_file"])).read_text("utf-8").strip()
            self.root = {"X-Vault-Token": root}
            self.vault = self._open.enter_context(
                httpx2.Client(
                    base_url=f"{places['vault']}/v1/",
                    headers=self.root,
                    trust_env=False,
                    timeout=60,
                )
            )
            self.vault_url = str(places["vault"])
            self._open.enter_context(self.serve(self.data / FILE))
            self.orchestrator = self._open.enter_context(self.client(self.url))
            self._open = self._open.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    @contextmanager
    def serve(self, config: Path, workers: int | None = None) -> Generator[None]:
        """Run a broker with a configuration, with a worker for each core; inside it is ready.

        Raises:
            NotStarted: it isn't.
        """
        log = config.with_suffix(".log")
        command = [sys.executable, "-m", "broker", "serve", "--config", str(config), "--json"]
        command += ["--workers", str(workers or machine.cores())]
        with log.open("ab") as errors:
            process = subprocess.Popen(
                [*dies_with_us(signal.SIGTERM), *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        try:
            assert process.stdout is not None  # noqa: S101  it was asked for as a pipe
            readable, _, _ = select.select([process.stdout], [], [], _START_S)
            if not readable or not process.stdout.readline():
                words = log.read_text("utf-8", "replace").splitlines()[-_LAST_WORDS:]
                raise NotStarted("broker serve isn't ready: " + "\n".join(words))
            yield
        finally:
            process.terminate()
            try:
                process.wait(_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def another(self, name: str, redis: str | None = None) -> tuple[str, Path]:
        """Write a configuration of another broker on these engines; its URL, and its file.

        On another ledger if one is named, which then has a log and keys of its own.
        """
        document: dict[str, Any] = tomllib.loads((self.data / FILE).read_text("utf-8"))
        url = f"http://127.0.0.1:{free_port()}"
        document["broker"] |= {"listen": url.removeprefix("http://")}
        if redis is not None:
            document["broker"] |= {"issuer": url, "state_dir": str(self.data / name)}
            document["redis"] |= {"url": redis}
        file = self.data / f"{name}.toml"
        write_private(file, tomli_w.dumps(document))
        return url, file

    @contextmanager
    def ledger(self, name: str) -> Generator[str]:
        """Run one more Valkey; its URL."""
        home = self.data / f"{name}-ledger"
        home.mkdir()
        with Valkey(home) as valkey:
            yield valkey.url

    def once(self, name: str, make: Callable[[ExitStack], T]) -> T:
        """Return what was made under a name, made when first asked for; it lasts as this does."""
        if name not in self._made:
            self._made[name] = make(self._open)
        return self._made[name]

    def identity(self, name: str) -> Callable[[], Secret]:
        """Return what makes workload JWTs of a principal."""
        subject = subject_of(name, self.data)
        return lambda: self._issuer.token(subject)

    def client(self, url: str) -> Client:
        """Return the orchestrator's client of a broker."""
        return Client(url, self.identity("orchestrator"))

    def token(self, name: str, task_id: str = "", url: str = "") -> str:
        """Return a token of a broker's, for an agent's task."""
        form = {
            "grant_type": EXCHANGE,
            "subject_token_type": TYPE_JWT,
            "subject_token": self.identity(name)().reveal(),
        }
        if task_id:
            detail = [{"type": "broker_task", "task_id": task_id}]
            form["authorization_details"] = json.dumps(detail)
        answer = httpx2.post(f"{url or self.url}/oauth/token", data=form, trust_env=False)
        return str(answer.raise_for_status().json()["access_token"])

    def admin(self) -> psycopg.Connection[tuple[Any, ...]]:
        """Connect to PostgreSQL as its superuser, to look at its accounts."""
        return psycopg.connect(self._admin, autocommit=True)


def can_log_in(admin: psycopg.Connection[tuple[Any, ...]], accounts: list[str]) -> int:
    """Count those of some accounts that PostgreSQL still lets in."""
    return known(admin, accounts, "rolcanlogin")


def known(
    admin: psycopg.Connection[tuple[Any, ...]], accounts: list[str], which: LiteralString = "true"
) -> int:
    """Count those of some accounts that PostgreSQL still has."""
    query = f"SELECT count(*) FROM pg_roles WHERE {which} AND rolname = ANY(%s)"  # noqa: S608
    row = admin.execute(query, [accounts]).fetchone()
    return int(row[0]) if row else 0
