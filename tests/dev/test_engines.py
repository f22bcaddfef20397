"""The embedded engines, run for real: starting, stopping, crashing, and ending database roles."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self, cast

import httpx2
import psycopg
import pytest
import redis

from broker.dev.engines import DataDirLock, EngineError, OpenBao, Postgres, Valkey
from broker.dev.engines.postgres import ORDERS_READ_CREATION, ORDERS_WRITE_CREATION, REVOCATION
from broker.dev.engines.process import setpriv

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

WAIT_SECONDS = 20.0


def eventually(holds: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not holds():
        assert time.monotonic() < deadline, f"not within {WAIT_SECONDS} s: {what}"
        time.sleep(0.01)


def running(pid: int) -> bool:
    """A process nobody has reaped yet has an empty command line."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except FileNotFoundError:
        return False


def mode(path: Path) -> int:
    return path.stat().st_mode & 0o777


class Ledger:
    """A client of an embedded Valkey, closed after each question."""

    def __init__(self, engine: Valkey) -> None:
        self._engine = engine

    def ask(self, *words: str) -> object:
        with redis.Redis.from_url(self._engine.url, decode_responses=True) as client:  # pyright: ignore[reportUnknownMemberType]
            return cast("object", client.execute_command(*words))  # pyright: ignore[reportUnknownMemberType]


class Vault:
    """OpenBao's HTTP interface, with its root token."""

    def __init__(self, engine: OpenBao) -> None:
        self._http = httpx2.Client(
            base_url=f"{engine.address}/v1/",
            headers={"X-Vault-Token": engine.root_token.reveal()},
            timeout=30,
            trust_env=False,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def ask(self, method: str, path: str, **body: object) -> httpx2.Response:
        return self._http.request(method, path, json=body or None)

    def __call__(self, method: str, path: str, **body: object) -> dict[str, Any]:
        response = self.ask(method, path, **body)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text}"
        return cast("dict[str, Any]", response.json()) if response.content else {}


def usable(engine: OpenBao) -> bool:
    with Vault(engine) as vault:
        return "sys/" in vault("GET", "sys/mounts")["data"]


class Credential(NamedTuple):
    lease: str
    username: str
    password: str


@pytest.fixture(scope="module")
def bao(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OpenBao]:
    with OpenBao(tmp_path_factory.mktemp("bao")) as engine:
        yield engine


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Postgres]:
    with Postgres(tmp_path_factory.mktemp("pg"), durable=False) as engine:
        yield engine


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path) as engine:
        yield engine


@pytest.fixture(scope="module")
def vault(bao: OpenBao, postgres: Postgres) -> Iterator[Vault]:
    """OpenBao with the orders database mounted, as `broker dev` mounts it."""
    with Vault(bao) as vault:
        mount_orders(vault, postgres)
        yield vault


def mount_orders(vault: Vault, postgres: Postgres) -> None:
    vault("POST", "sys/mounts/database", type="database")
    vault(
        "POST",
        "database/config/orders",
        plugin_name="postgresql-database-plugin",
        allowed_roles=["orders-read", "orders-write"],
        connection_url=postgres.vault_dsn_template,
        username=postgres.vault_username,
        password=postgres.vault_password.reveal(),
    )
    for role, creation in (
        ("orders-read", ORDERS_READ_CREATION),
        ("orders-write", ORDERS_WRITE_CREATION),
    ):
        vault(
            "POST",
            f"database/roles/{role}",
            db_name="orders",
            creation_statements=creation,
            revocation_statements=REVOCATION,
            default_ttl="10m",
        )


def issue(vault: Vault, role: str) -> Credential:
    made = vault("GET", f"database/creds/{role}")
    return Credential(made["lease_id"], made["data"]["username"], made["data"]["password"])


def revoke(vault: Vault, credential: Credential) -> None:
    vault("PUT", "sys/leases/revoke", lease_id=credential.lease, sync=True)


@contextmanager
def login(
    postgres: Postgres, who: Credential, database: str = "orders"
) -> Generator[psycopg.Connection]:
    connection = psycopg.connect(
        host=postgres.host,
        port=postgres.port,
        dbname=database,
        user=who.username,
        password=who.password,
        autocommit=True,
    )
    try:
        yield connection
    finally:
        connection.close()


def as_admin(postgres: Postgres, query: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(postgres.admin_dsn.reveal(), autocommit=True) as connection:
        cursor = connection.execute(query.encode(), values)
        return cursor.fetchall() if cursor.description else []


def role_exists(postgres: Postgres, name: str) -> bool:
    return bool(as_admin(postgres, "SELECT 1 FROM pg_roles WHERE rolname = %s", name))


# ── Valkey ────────────────────────────────────────────────────────────────────────────────────────


def test_valkey_loses_nothing_and_listens_on_no_port(valkey: Valkey) -> None:
    settings = {
        name: Ledger(valkey).ask("CONFIG", "GET", name)
        for name in ("appendonly", "appendfsync", "maxmemory-policy", "save", "port")
    }
    assert settings == {
        "appendonly": {"appendonly": "yes"},
        "appendfsync": {"appendfsync": "always"},
        "maxmemory-policy": {"maxmemory-policy": "noeviction"},
        "save": {"save": ""},
        "port": {"port": "0"},
    }
    assert mode(valkey.home) == 0o700
    assert mode(valkey.log) == 0o600


@pytest.mark.parametrize("end", [Valkey.stop, Valkey.kill], ids=["stopped", "crashed"])
def test_valkey_keeps_its_data(valkey: Valkey, end: Callable[[Valkey], None]) -> None:
    Ledger(valkey).ask("SET", "kept", "yes")
    end(valkey)
    valkey.start()
    assert Ledger(valkey).ask("GET", "kept") == "yes"


def test_valkey_with_a_long_path_uses_a_short_one_and_removes_it(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 120)
    with Valkey(deep) as valkey:
        assert Ledger(valkey).ask("PING") is True
        socket = Path(valkey.url.removeprefix("unix://").removesuffix("?db=0"))
        assert mode(socket.parent) == 0o700
        assert deep not in socket.parents
    assert not socket.parent.exists()


# ── processes ─────────────────────────────────────────────────────────────────────────────────────


def test_the_server_of_a_killed_run_is_stopped_first(tmp_path: Path) -> None:
    forgotten = Valkey(tmp_path)
    forgotten.start()
    pid = forgotten.pid
    said: list[str] = []
    with Valkey(tmp_path, on_progress=said.append) as valkey:
        assert valkey.pid != pid
        assert not running(pid)
        assert Ledger(valkey).ask("PING") is True
    assert said == ["stopping the Valkey a killed run left behind", "starting Valkey"]
    forgotten.stop()


def test_a_reused_process_number_is_left_alone(valkey: Valkey) -> None:
    valkey.stop()
    with subprocess.Popen(["sleep", "60"]) as innocent:
        (valkey.home / "pid").write_text(str(innocent.pid))
        valkey.start()
        assert innocent.poll() is None
        innocent.kill()


@pytest.mark.skipif(setpriv() is None, reason="needs util-linux's setpriv")
def test_engines_die_with_a_killed_parent_and_their_data_does_not(tmp_path: Path) -> None:
    script = """
import sys
from pathlib import Path
from broker.dev.engines import OpenBao, Postgres, Valkey
engines = [engine(Path(sys.argv[1])) for engine in (Valkey, OpenBao, Postgres)]
for engine in engines:
    engine.start()
print(*(engine.pid for engine in engines), flush=True)
sys.stdin.read()
"""
    parent = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        pids = [int(word) for word in parent.stdout.readline().split()]
        assert len(pids) == 3
        # Their own session: a Ctrl-C in the terminal isn't theirs.
        assert [os.getsid(pid) for pid in pids] == pids
        parent.kill()
    eventually(lambda: not any(running(pid) for pid in pids), "the engines have ended")
    with OpenBao(tmp_path) as bao, Postgres(tmp_path) as postgres:
        assert usable(bao)
        assert as_admin(postgres, "SELECT count(*) FROM orders") == [(200,)]


def test_an_engine_outlives_the_thread_that_started_it(tmp_path: Path) -> None:
    one, other = Valkey(tmp_path / "one"), Valkey(tmp_path / "other")
    threads = [threading.Thread(target=engine.start) for engine in (one, other)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with ExitStack() as stack:
        stack.callback(one.stop)
        stack.callback(other.stop)
        assert Ledger(one).ask("SET", "here", "1") is True
        assert Ledger(other).ask("EXISTS", "here") == 0


def test_a_failed_start_shows_the_log_and_leaves_nothing(valkey: Valkey) -> None:
    Ledger(valkey).ask("SET", "a", "b")
    valkey.stop()
    manifest = next(valkey.home.glob("appendonlydir/*.manifest"))
    manifest.write_text("garbage\n")
    with pytest.raises(EngineError, match=r"(?s)Valkey ended while starting.*server\.log.*AOF"):
        valkey.start()
    with pytest.raises(EngineError, match="isn't running"):
        _ = valkey.pid


def test_a_fixed_port_that_is_taken_is_said(bao: OpenBao, tmp_path: Path) -> None:
    port = int(bao.address.rpartition(":")[2])
    with pytest.raises(EngineError, match="port is taken"):
        OpenBao(tmp_path, port).start()
    with pytest.raises(EngineError, match="port is taken"):
        Postgres(tmp_path, port, durable=False).start()
    assert usable(bao)


def test_one_holder_per_data_directory(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with DataDirLock(data):
        with pytest.raises(EngineError, match=rf"process {os.getpid()}\): .*--data"):
            DataDirLock(data).acquire()
        assert mode(data) == 0o700
    with DataDirLock(data):
        pass


# ── OpenBao ───────────────────────────────────────────────────────────────────────────────────────


def test_openbao_comes_back_unsealed_with_its_data_and_address(tmp_path: Path) -> None:
    bao = OpenBao(tmp_path)
    with pytest.raises(EngineError, match="start it first"):
        _ = bao.address
    with bao:
        address, token = bao.address, bao.root_token.reveal()
        with Vault(bao) as vault:
            vault("POST", "sys/mounts/kv", type="kv")
            vault("POST", "kv/seen", value="yes")
        bao.kill()
        bao.start()
        assert (bao.address, bao.root_token.reveal()) == (address, token)
        with Vault(bao) as vault:
            assert vault("GET", "kv/seen")["data"] == {"value": "yes"}
        assert mode(bao.root_token_file) == mode(bao.home / "unseal-key") == 0o600
        assert token not in bao.log.read_text()


def test_openbao_starts_anew_only_if_its_first_start_was_cut_short(tmp_path: Path) -> None:
    with OpenBao(tmp_path) as bao:
        pass
    bao.root_token_file.unlink()
    with pytest.raises(EngineError, match=r"lost its keys: put .*root-token back, or remove"):
        bao.start()
    (bao.home / "unfinished").touch()
    with bao:
        assert usable(bao)


# ── PostgreSQL ────────────────────────────────────────────────────────────────────────────────────


def test_postgres_keeps_data_port_and_passwords(tmp_path: Path) -> None:
    with Postgres(tmp_path) as postgres:
        as_admin(postgres, "CREATE TABLE kept AS SELECT 1 AS one")
        before = postgres.admin_dsn.reveal()
        postgres.kill()
        postgres.start()
        assert as_admin(postgres, "SELECT one FROM kept") == [(1,)]
        assert postgres.admin_dsn.reveal() == postgres.admin_dsn_file.read_text() == before
        assert as_admin(postgres, "SHOW fsync") == [("on",)]


def test_postgres_starts_anew_if_its_first_start_was_cut_short(tmp_path: Path) -> None:
    home = tmp_path / "postgres"
    (home / "cluster" / "base").mkdir(parents=True)
    (home / "unfinished").touch()
    with Postgres(tmp_path, durable=False) as postgres:
        assert as_admin(postgres, "SELECT count(*) FROM customers") == [(40,)]
    assert not (home / "unfinished").exists()


def test_postgres_starts_beside_a_lock_file_whose_number_is_somebody_elses(tmp_path: Path) -> None:
    with Postgres(tmp_path, durable=False) as postgres:
        lock = tmp_path / "postgres" / "cluster" / "postmaster.pid"
        text = lock.read_text()
        postgres.stop()
        lock.write_text(re.sub(r"^\d+", str(os.getpid()), text))
        postgres.start()
        assert as_admin(postgres, "SELECT count(*) FROM orders") == [(200,)]


def test_postgres_comes_back_when_its_server_was_killed_from_outside(tmp_path: Path) -> None:
    with Postgres(tmp_path, durable=False) as postgres, ExitStack() as stack:
        for _ in range(10):  # their backends outlive the server by a moment
            connection = psycopg.connect(postgres.admin_dsn.reveal())
            stack.callback(connection.close)
        os.kill(postgres.pid, signal.SIGKILL)
        eventually(lambda: has_ended(postgres), "the server has ended")
        postgres.start()
        assert as_admin(postgres, "SELECT count(*) FROM orders") == [(200,)]


def has_ended(engine: Postgres) -> bool:
    try:
        return engine.pid < 0
    except EngineError:
        return True


def test_postgres_trusts_nobody(postgres: Postgres) -> None:
    for host in (postgres.host, str(postgres.socket_directory)):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(host=host, port=postgres.port, user="postgres", password="wrong")
    assert as_admin(postgres, "SHOW listen_addresses") == [("127.0.0.1",)]
    for secret in (postgres.admin_dsn_file, postgres.vault_password_file):
        assert mode(secret) == 0o600


@pytest.mark.skipif(os.geteuid() != 0, reason="about running as root")
def test_postgres_below_a_directory_that_only_root_may_pass(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with Postgres(tmp_path / "data", durable=False) as postgres:
        assert Path(f"/proc/{postgres.pid}").stat().st_uid != 0
        status = Path(f"/proc/{postgres.pid}/status").read_text()
        held = int(re.findall(r"CapEff:\s*(\w+)", status)[0], 16)
        assert held.bit_count() <= 1
    assert mode(tmp_path) == mode(tmp_path / "data") == 0o700


# ── credentials: PostgreSQL behind OpenBao's database engine ──────────────────────────────────────


def test_revoking_ends_sessions_and_hands_objects_over(vault: Vault, postgres: Postgres) -> None:
    writer = issue(vault, "orders-write")
    with login(postgres, writer) as session, login(postgres, writer) as busy:
        session.execute("UPDATE orders SET status = 'paid' WHERE id = 1")
        session.execute("CREATE TABLE made_by_writer AS SELECT * FROM orders LIMIT 3")
        as_admin(postgres, f'GRANT TRUNCATE ON orders TO "{writer.username}"')
        # A transaction that holds the lock the hand-over needs.
        busy.execute("BEGIN")
        busy.execute("LOCK TABLE made_by_writer")

        revoke(vault, writer)

        for dead in (session, busy):
            with pytest.raises(psycopg.OperationalError):
                dead.execute("SELECT 1")
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        login(postgres, writer).__enter__()
    assert not role_exists(postgres, writer.username)
    owner = "SELECT tableowner FROM pg_tables WHERE tablename = 'made_by_writer'"
    assert as_admin(postgres, owner) == [("orders_owner",)]
    as_admin(postgres, "DROP TABLE made_by_writer")


def test_revoking_a_role_that_is_already_gone_succeeds(vault: Vault, postgres: Postgres) -> None:
    reader = issue(vault, "orders-read")
    as_admin(postgres, f'DROP ROLE "{reader.username}"')
    revoke(vault, reader)
    assert vault.ask("PUT", "sys/leases/lookup", lease_id=reader.lease).status_code == 400


def test_nobody_can_log_in_once_sessions_are_being_ended(vault: Vault, postgres: Postgres) -> None:
    writer = issue(vault, "orders-write")
    with login(postgres, writer) as session:
        session.execute("CREATE TABLE held (n integer)")

    def refused() -> bool:
        try:
            login(postgres, writer).__enter__().close()
        except psycopg.OperationalError as error:
            return "not permitted to log in" in str(error)
        return False

    revoking = threading.Thread(target=revoke, args=(vault, writer))
    with psycopg.connect(postgres.admin_dsn.reveal()) as holder:
        holder.execute("LOCK TABLE held")  # stops the revocation half-way, at the hand-over
        revoking.start()
        eventually(refused, "logins are refused while the role still exists")
        assert role_exists(postgres, writer.username)
    revoking.join(WAIT_SECONDS)
    assert not role_exists(postgres, writer.username)
    as_admin(postgres, "DROP TABLE held")


def test_revocation_returns_when_the_last_session_is_gone(postgres: Postgres) -> None:
    """Straight through PostgreSQL, to look the very moment after the last statement."""
    admin = Credential("", postgres.vault_username, postgres.vault_password.reveal())
    short_lived = Credential("", "v-short-lived", "password")
    with ExitStack() as stack:
        vault_admin = stack.enter_context(login(postgres, admin))
        for statement in ORDERS_READ_CREATION:
            vault_admin.execute(filled_in(statement, short_lived))
        sessions = [stack.enter_context(login(postgres, short_lived)) for _ in range(20)]
        vault_admin.execute("BEGIN")
        for statement in REVOCATION:
            vault_admin.execute(filled_in(statement, short_lived))
        left = vault_admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE pid = ANY(%s)",
            [[session.info.backend_pid for session in sessions]],
        ).fetchone()
        vault_admin.execute("COMMIT")
    assert left == (0,)


def filled_in(statement: str, who: Credential) -> bytes:
    """A statement as Vault fills it in."""
    for name, value in (
        ("name", who.username),
        ("password", who.password),
        ("expiration", "2100-01-01 00:00:00+00"),
    ):
        statement = statement.replace(f"{{{{{name}}}}}", value)
    return statement.encode()


def test_many_roles_made_and_ended_at_once(vault: Vault, postgres: Postgres) -> None:
    """Nothing they share is written, so they can't collide ("tuple concurrently updated")."""
    failures: list[BaseException] = []

    def live_and_die(role: str) -> None:
        try:
            for _ in range(5):
                credential = issue(vault, role)
                with login(postgres, credential):
                    revoke(vault, credential)
                assert not role_exists(postgres, credential.username)
        except BaseException as error:  # noqa: BLE001  carried to the test's own thread
            failures.append(error)

    threads = [
        threading.Thread(target=live_and_die, args=(role,))
        for role in ("orders-read", "orders-write") * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_a_reader_reads_orders_and_nothing_else(vault: Vault, postgres: Postgres) -> None:
    reader = issue(vault, "orders-read")
    with login(postgres, reader) as session:
        assert session.execute("SELECT count(*) FROM customers").fetchone() == (40,)
        for forbidden in (
            "DELETE FROM orders",
            "CREATE TABLE mine (n integer)",
            "SET ROLE orders_reader",
            "SET ROLE orders_owner",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(forbidden.encode())
    with pytest.raises(psycopg.OperationalError, match="CONNECT"):
        login(postgres, reader, "postgres").__enter__()
    revoke(vault, reader)


def test_vault_ends_no_sessions_but_those_of_its_roles(postgres: Postgres) -> None:
    as_admin(postgres, "CREATE ROLE app LOGIN PASSWORD 'app' IN ROLE orders_reader")
    admin = Credential("", postgres.vault_username, postgres.vault_password.reveal())
    app = Credential("", "app", "app")
    with login(postgres, admin) as vault_admin, login(postgres, app) as bystander:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            vault_admin.execute("SELECT pg_terminate_backend(%s)", [bystander.info.backend_pid])
        assert bystander.execute("SELECT 1").fetchone() == (1,)
