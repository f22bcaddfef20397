"""The systemd unit: what it starts starts, and what it takes away isn't missed."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

from tests.deploy.alerting import DEPLOY
from tests.dev.broker_process import PROGRAM, Started, broker
from tests.e2e.test_cli_live import config_of

if TYPE_CHECKING:
    from broker.config import Config
    from broker.dev.stack import DevStack

UNIT: Final = DEPLOY / "systemd/broker.service"
MOST_EXPOSED: Final = 1.5
"""Of 10, by systemd's own reckoning. A unit that says nothing has 9.6."""


class Unit(configparser.RawConfigParser):
    """The file, with the last of what is said more than once."""

    def __init__(self) -> None:
        super().__init__(strict=False)
        self.read_string(UNIT.read_text("utf-8"))

    def optionxform(self, optionstr: str) -> str:
        """Keep names as they are."""
        return optionstr


def analyze(*words: str) -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        pytest.skip("systemd-analyze isn't here: install Debian's package systemd")
    ran = subprocess.run([found, *words], capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


def test_systemd_reckons_it_safe() -> None:
    said = analyze("security", "--offline=true", "--no-pager", str(UNIT))
    exposed = re.search(r"Overall exposure level for broker\.service: ([\d.]+)", said)
    assert exposed is not None, said
    assert float(exposed[1]) <= MOST_EXPOSED, said


def test_systemd_understands_all_of_it(tmp_path: Path) -> None:
    """Its programs are looked for, so here they are this environment's."""
    copy = tmp_path / "broker.service"
    copy.write_text(UNIT.read_text("utf-8").replace("/opt/broker/bin/broker", PROGRAM))
    said = analyze("verify", "--man=no", "--generators=no", str(copy))
    assert "broker.service" not in said, said


def test_what_it_starts_serves_and_ends_in_order(
    engines: tuple[DevStack, Config], empty_ledger: None, tmp_path: Path
) -> None:
    service = Unit()["Service"]
    config = config_of(engines[0], tmp_path)
    before, start = (
        shlex.split(service[name].replace("/etc/broker/config.toml", str(config)))
        for name in ("ExecStartPre", "ExecStart")
    )
    assert before[0] == start[0] == "/opt/broker/bin/broker"
    assert broker(*before[1:]).code == 0

    with Started(tmp_path / "out", *start[1:]) as server:
        server.wait_ready()
        maps = Path(f"/proc/{server.process.pid}/maps")
        if maps.exists():  # MemoryDenyWriteExecute takes away nothing that it has
            assert not re.findall(r"^\S+ .wx. .*$", maps.read_text(), re.MULTILINE)
        assert server.end(signal.SIGTERM) == 0
