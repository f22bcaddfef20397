"""`make demo`: it ends well by itself, fails when it should, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from tests.dev.broker_process import alive, engine_pids, environment, eventually

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

DEMO = [sys.executable, "-m", "broker.dev.demo"]
ANSI = "\x1b"


@contextmanager
def demo(tmp_path: Path) -> Generator[subprocess.Popen[str]]:
    """Start the demo with its data below ``tmp_path``."""
    process = subprocess.Popen(
        DEMO,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(TMPDIR=str(tmp_path)),
        start_new_session=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def data_of(tmp_path: Path) -> Path:
    eventually(lambda: any(tmp_path.glob("broker-demo-*")), "the data directory is made")
    return next(tmp_path.glob("broker-demo-*"))


def wait_for(data: Path, engine: str) -> dict[str, int]:
    eventually(lambda: engine in engine_pids(data), f"{engine} runs")
    return engine_pids(data)


def read_until(process: subprocess.Popen[str], text: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return
    pytest.fail(f"never said: {text}")


def test_it_shows_that_every_claim_is_true(tmp_path: Path) -> None:
    ran = subprocess.run(
        DEMO,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        env=environment(TMPDIR=str(tmp_path)),
        check=False,
    )
    assert (ran.returncode, ran.stderr) == (0, ""), ran.stdout
    steps = re.findall(r"^ ?(\d+)\. ", ran.stdout, re.MULTILINE)
    assert steps == [str(n) for n in range(1, 13)]
    passed = ran.stdout.count("    ✓ ")
    assert f"All {passed} claims were checked and are true" in ran.stdout
    assert passed > 20
    assert "✗" not in ran.stdout
    assert ANSI not in ran.stdout
    assert max(map(len, ran.stdout.splitlines())) <= 80
    assert list(tmp_path.iterdir()) == []


def test_it_fails_when_the_broker_is_gone(tmp_path: Path) -> None:
    with demo(tmp_path) as process:
        pids = wait_for(data_of(tmp_path), "openbao")
        read_until(process, " 3. ")
        os.kill(int((data_of(tmp_path) / "lock").read_text()), signal.SIGKILL)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == 1, out
        assert "✗" in out
        assert "expected" in out
        assert "found" in out
        assert "The demo failed." in out
        assert "Traceback" not in out
        eventually(lambda: not any(map(alive, pids.values())), "everything is stopped")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_it_cleans_up_when_it_is_stopped(tmp_path: Path, number: signal.Signals, code: int) -> None:
    with demo(tmp_path) as process:
        pids = wait_for(data_of(tmp_path), "valkey")
        process.send_signal(number)
        out, _ = process.communicate(timeout=60)
        assert process.returncode == code, out
        assert "Traceback" not in out
        assert not any(map(alive, pids.values()))
    assert list(tmp_path.iterdir()) == []
