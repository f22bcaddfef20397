"""The embedded engines, run for real: OpenBao and PostgreSQL, stopped, crashed and cut short."""

from __future__ import annotations

import os
import re
import signal
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest

from broker.dev.engines import EngineError, OpenBao, Postgres
from tests.dev.engines_world import (
    Vault,
    as_admin,
    eventually,
    mode,
    usable,
)

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
