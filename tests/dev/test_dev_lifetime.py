"""What ``broker dev`` starts and stops, what it keeps, and what it leaves alone."""

from __future__ import annotations

import signal
import socket
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import httpx2
import psycopg
import pytest
import redis

from broker.client import Client, Secret
from broker.dev.engines import OpenBao, Valkey
from broker.dev.engines.process import setpriv
from tests.dev.broker_process import Server, alive, broker, engine_pids, eventually, listens
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

MINE = """\
[redis]
url = "{redis}"

[vault]
address = "{vault}"
auth = "token_file"
token_file = "{token_file}"

[[principals]]
name = "pipeline"
role = "orchestrator"
owner = "data-platform@example.com"
identity = {{ issuer = "dev", subject = "ci/pipeline" }}

[[principals]]
name = "clerk"
role = "agent"
owner = "data-platform@example.com"
identity = {{ issuer = "dev", subject = "agent/clerk" }}
capabilities = ["tickets"]

[[principals]]
name = "warden"
role = "operator"
owner = "security@example.com"
identity = {{ issuer = "elsewhere", subject = "warden" }}

[[identity.issuers]]
name = "elsewhere"
issuer = "https://issuer.example"
audience = "broker"
jwks_file = "elsewhere.json"

[[capabilities]]
name = "tickets"
power = "read"
backend = "token"
resource = "https://tickets.example.com"
"""


@dataclass
class Home:
    """One data directory, for one `broker dev` after the other."""

    path: Path
    port: int
    starts: int = 0

    @property
    def data(self) -> Path:
        return self.path / "data"

    @contextmanager
    def run(self, *arguments: object) -> Generator[Server]:
        self.starts += 1
        log = self.path / f"log-{self.starts}"
        command = ("dev", "--port", self.port, "--data", self.data, *arguments)
        with Server(log, *command) as server:
            yield server

    def client(self, name: str, task_id: str = "") -> Client:
        def identity() -> Secret:
            return Secret(broker("dev", "token", name, "--data", self.data).out.strip())

        return Client(f"http://127.0.0.1:{self.port}", identity, task_id=task_id)


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path, free_port())


@pytest.fixture(scope="module")
def unrelated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("unrelated")) as engine:
        yield engine


@pytest.fixture(scope="module")
def vault(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    with OpenBao(tmp_path_factory.mktemp("elsewhere")) as engine:
        yield engine


@pytest.fixture
def config(tmp_path: Path, unrelated: Valkey, vault: OpenBao) -> Path:
    file = tmp_path / "mine.toml"
    file.write_text(
        MINE.format(redis=unrelated.url, vault=vault.address, token_file=vault.root_token_file)
    )
    (tmp_path / "elsewhere.json").write_text('{"keys": []}')
    return file


def logs_in(dsn: str) -> bool:
    try:
        psycopg.connect(dsn, connect_timeout=10).close()
    except psycopg.OperationalError:
        return False
    return True


def gone(pids: dict[str, int]) -> None:
    for name, pid in pids.items():
        assert not alive(pid), f"{name} still runs"


def test_three_lives_of_one_data_directory(home: Home, unrelated: Valkey) -> None:
    """Stopped, killed, stopped: the ledger and its credentials are there each time."""
    with home.run() as server:
        server.wait_ready()
        first = engine_pids(home.data)
        assert first.keys() == {"valkey", "openbao", "postgres"}
        with home.client("orchestrator") as orchestrator:
            task = orchestrator.open_task("report-writer", "x", ["orders-read"])
        with home.client("report-writer", task.task_id) as agent:
            issued = agent.request_grant(task.task_id, "orders-read", ttl="10m")
        dsn = (issued.credential.dsn or Secret("")).reveal()
        assert logs_in(dsn)
        assert server.end(signal.SIGINT) == 0
        gone(first)

    with home.run() as server:
        server.wait_ready()
        second = engine_pids(home.data)
        with home.client("operator") as operator:
            assert operator.get_task(task.task_id).state == "active"
            assert [g.state for g in operator.iter_grants(task_id=task.task_id)] == ["active"]
        assert logs_in(dsn)
        server.process.kill()
        assert server.process.wait() == -signal.SIGKILL
        if setpriv():
            eventually(lambda: not any(map(alive, second.values())), "the engines end as well")

    with home.run() as server:
        server.wait_ready()
        third = engine_pids(home.data)
        gone(second)
        with home.client("operator") as operator:
            assert operator.get_grant(issued.grant_id).state == "active"
            assert logs_in(dsn)
            assert operator.revoke_grant(issued.grant_id).state == "revoked"
        assert not logs_in(dsn)
        assert server.end(signal.SIGTERM) == 0
        gone(third)
    assert alive(unrelated.pid)


def test_stopped_while_it_starts(home: Home, unrelated: Valkey) -> None:
    with home.run() as server:
        eventually(lambda: "valkey" in engine_pids(home.data), "Valkey runs")
        pids = engine_pids(home.data)
        assert server.end(signal.SIGTERM) == 128 + signal.SIGTERM
        gone(pids)
        assert engine_pids(home.data) == {}
    assert alive(unrelated.pid)


def test_parts_elsewhere_are_not_started(
    home: Home, config: Path, unrelated: Valkey, vault: OpenBao
) -> None:
    with home.run("--config", config) as server:
        place = server.wait_ready().place
        assert (place["redis"], place["vault"], place["postgres"]) == (None, None, None)
        assert engine_pids(home.data) == {}
        with home.client("pipeline") as pipeline:
            task = pipeline.open_task("clerk", "answer tickets", ["tickets"])
        with home.client("clerk", task.task_id) as clerk:
            issued = clerk.request_grant(task.task_id, "tickets")
            assert issued.credential.token is not None
            assert clerk.complete(task.task_id).grants.revoked == 1
        with redis.Redis.from_url(unrelated.url) as ledger:  # pyright: ignore[reportUnknownMemberType]
            assert ledger.dbsize()  # pyright: ignore[reportUnknownMemberType]
        ran = broker("dev", "token", "warden", "--data", home.data)
        assert (ran.code, ran.out) == (1, "")
        assert "'warden' proves itself by issuer 'elsewhere'" in ran.err
        assert server.end(signal.SIGTERM) == 0
    assert alive(unrelated.pid)
    assert alive(vault.pid)


def test_only_vault_is_elsewhere(home: Home, config: Path, vault: OpenBao) -> None:
    text = config.read_text()
    config.write_text(text[text.index("[vault]") :])
    with home.run("--config", config) as server:
        place = server.wait_ready().place
        assert (place["vault"], place["postgres"]) == (None, None)
        pids = engine_pids(home.data)
        assert pids.keys() == {"valkey"}
        assert server.end(signal.SIGINT) == 0
        gone(pids)
    assert alive(vault.pid)


def test_on_ipv6(home: Home, config: Path) -> None:
    try:
        home.port = free_port("::1")
    except OSError:
        pytest.skip("no IPv6 here")
    with home.run("--config", config, "--host", "::1") as server:
        assert server.wait_ready().url == f"http://[::1]:{home.port}"
        assert httpx2.get(f"{server.url}/healthz").status_code == 200
        token = home.path / "token"
        token.write_text(broker("dev", "token", "pipeline", "--data", home.data).out)
        ran = broker("task", "list", "--server", server.url, "--token-file", token, "--json")
        assert ran.code == 0, ran.err


def half_a_request(port: int) -> socket.socket:
    """Send all of a request but its last byte; return when the application is reading it."""
    connection = socket.create_connection(("127.0.0.1", port), 30)
    connection.sendall(
        b"POST /oauth/token HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        b"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 12\r\n\r\ngrant_type="
    )
    assert connection.recv(100).startswith(b"HTTP/1.1 100 ")
    return connection


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_request_under_way_is_finished(home: Home, config: Path, number: signal.Signals) -> None:
    with home.run("--config", config) as server:
        server.wait_ready()
        with half_a_request(home.port) as connection:
            server.process.send_signal(number)
            eventually(lambda: not listens(home.port), "nothing more is accepted")
            assert server.process.poll() is None
            connection.sendall(b"x")
            assert connection.recv(100).startswith(b"HTTP/1.1 400 ")
        assert server.ended() == 0


def test_a_second_ctrl_c_does_not_wait(home: Home, config: Path) -> None:
    with home.run("--config", config) as server:
        server.wait_ready()
        with half_a_request(home.port):
            server.process.send_signal(signal.SIGINT)
            eventually(lambda: not listens(home.port), "nothing more is accepted")
            assert server.end(signal.SIGINT) == 0
