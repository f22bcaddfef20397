"""``broker serve --workers``: several processes on one socket, and their end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.dev.broker_process import PROGRAM, alive, environment, eventually
from tests.dev.broker_process import broker as run_broker
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import Generator

    from broker.config import Config
    from broker.dev.stack import DevStack


@pytest.fixture
def file(engines: tuple[DevStack, Config], empty_ledger: None, tmp_path: Path) -> Path:
    """The dev configuration at another address, and slower to leave."""
    text = (engines[0].data / "config.toml").read_text("utf-8")
    port = free_port()
    text = re.sub(r"(?m)^listen = .*$", f'listen = "127.0.0.1:{port}"\nlinger = "2s"', text)
    text = re.sub(r"(?m)^state_dir = .*$", f'state_dir = "{tmp_path / "state"}"', text)
    made = engines[0].data / f"workers-{port}.toml"
    made.write_text(text)
    return made


class Served:
    def __init__(self, file: Path) -> None:
        port = re.findall(r'listen = "127.0.0.1:([0-9]+)"', file.read_text())[0]
        self.url = f"http://127.0.0.1:{port}"
        words = [PROGRAM, "serve", "--config", str(file), "--workers", "2", "--json"]
        self.process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment()
        )
        assert self.process.stdout is not None
        self.ready: Any = json.loads(self.process.stdout.readline())

    def pids(self) -> set[int]:
        children = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        with open(children, encoding="ascii") as lines:  # noqa: PTH123  of the kernel
            return set(map(int, lines.read().split()))

    def get(self, path: str) -> tuple[int, str]:
        try:
            with urllib.request.urlopen(self.url + path, timeout=10) as answer:  # noqa: S310  our own
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()


@pytest.fixture
def served(file: Path) -> Generator[Served]:
    made = Served(file)
    yield made
    if made.process.poll() is None:
        made.process.kill()
    made.process.wait()
    if made.process.stdout is not None:
        made.process.stdout.close()


def test_workers_share_the_socket_and_one_that_dies_comes_back(served: Served) -> None:
    assert served.ready["event"] == "ready"
    first = served.pids()
    assert len(first) == 2

    def both() -> bool:
        shown = served.get("/metrics")[1]
        return {'worker="0"', 'worker="1"'} == set(re.findall(r'worker="[01]"', shown))

    eventually(both, "metrics are of both")
    before = asked(served)
    for _ in range(40):
        assert served.get("/healthz")[0] == 200  # each over a connection of its own
    counts = asked(served)
    assert sum(counts.values()) - sum(before.values()) == 40
    assert min(counts.values()) > 0  # whoever is free takes it

    victim = max(first)
    os.kill(victim, signal.SIGKILL)
    eventually(lambda: not alive(victim), "it is dead")
    assert served.get("/healthz")[0] == 200  # the other serves
    eventually(lambda: len(served.pids() - {victim}) == 2, "another was started")
    eventually(both, "it serves")

    served.process.send_signal(signal.SIGTERM)
    eventually(lambda: served.get("/readyz")[0] == 503, "it says that it leaves", 1.8)
    assert served.get("/healthz")[0] == 200
    assert served.process.wait(30) == 0


def asked(served: Served) -> dict[str, float]:
    """How many times each worker says that ``/healthz`` was asked."""
    found: dict[str, float] = dict.fromkeys("01", 0)
    for line in served.get("/metrics")[1].splitlines():
        if line.startswith("broker_http_requests_total") and '"/healthz"' in line:
            worker = re.findall(r'worker="([01])"', line)[0]
            found[worker] += float(line.rpartition(" ")[2])
    return found


def test_a_stop_while_the_first_worker_starts_is_no_failure(file: Path) -> None:
    words = [PROGRAM, "serve", "--config", str(file), "--workers", "2"]
    process = subprocess.Popen(words, stderr=subprocess.DEVNULL, env=environment())
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    eventually(lambda: bool(children.read_text().split()), "the first is being started")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_workers_end_with_their_supervisor(served: Served) -> None:
    workers = served.pids()
    served.process.kill()
    began = time.monotonic()
    eventually(lambda: not any(map(alive, workers)), "they have ended", 30)
    assert time.monotonic() - began < 30


def test_if_the_first_cannot_serve_the_command_ends_with_its_error(
    served: Served, file: Path
) -> None:
    served.process.kill()
    port = free_port()
    text = re.sub(r"127.0.0.1:[0-9]+\"\nlinger", f'127.0.0.1:{port}"\nlinger', file.read_text())
    file.write_text(text.replace("[redis]", "[redis]\nshards = 32"))
    for arguments in ((), ("--workers", "2")):
        ran = run_broker("serve", "--config", file, *arguments)
        assert ran.code == 1
        assert "has 64 shards" in ran.err
    seen = run_broker("doctor", "--config", file, "--json")
    assert "has 64 shards" in seen.out
