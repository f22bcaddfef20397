"""The embedded engines, run for real: Valkey, and what every engine does as a process."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from broker.dev.engines import DataDirLock, EngineError, OpenBao, Postgres, Valkey
from broker.dev.engines.process import setpriv
from tests.dev.engines_world import (
    Ledger,
    as_admin,
    eventually,
    mode,
    running,
    usable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


@pytest.fixture
def valkey(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path) as engine:
        yield engine


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
