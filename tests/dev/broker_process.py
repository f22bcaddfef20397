"""The ``broker`` program as users run it: commands that end, and servers that must be ended."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import subprocess
import sysconfig
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from tests.dev import forks

if TYPE_CHECKING:
    import signal
    from collections.abc import Callable

PROGRAM = str(Path(sysconfig.get_path("scripts")) / "broker")
WAIT_S = 60.0
ENGINES = ("valkey", "openbao", "postgres")


def environment(**more: str) -> dict[str, str]:
    """Nothing of ours from outside, and no terminal's habits."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("BROKER_")}
    for name in ("COLUMNS", "FORCE_COLOR", "NO_COLOR"):
        kept.pop(name, None)
    return kept | more


def eventually(holds: Callable[[], bool], what: str, seconds: float = WAIT_S) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    """A process nobody has reaped yet has an empty command line."""
    try:
        return bool(Path(f"/proc/{pid}/cmdline").read_bytes())
    except FileNotFoundError:
        return False


def engine_pids(data: Path) -> dict[str, int]:
    """The servers that run on a data directory, or ran when it was killed."""
    files = {name: data / name / "pid" for name in ENGINES}
    return {name: int(file.read_text()) for name, file in files.items() if file.exists()}


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Ran(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def problem(self) -> Any:
        return json.loads(self.err)["error"]


def broker(*arguments: object, **env: str) -> Ran:
    """Run one command to its end."""
    ran = Ran(*forks.run([*map(str, arguments)], environment(**env), WAIT_S))
    assert "Traceback" not in ran.err, ran.err
    return ran


class Server:
    """``broker dev`` or ``broker serve``, from its start to its end."""

    def __init__(self, log: Path, *arguments: object, **env: str) -> None:
        self.log = log
        self.place: dict[str, Any] = {}
        said, says = os.pipe()
        self.said = os.fdopen(said)
        with log.open("wb") as errors:
            words = [*map(str, arguments), "--json"]
            self.process = self._start(words, environment(**env), says, errors.fileno())
        os.close(says)

    def _start(
        self, words: list[str], env: dict[str, str], out: int, err: int
    ) -> forks.Process | subprocess.Popen[bytes]:
        return forks.Process(words, env, out, err)

    @property
    def url(self) -> str:
        return self.place["url"]

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait_ready(self) -> Self:
        readable, _, _ = select.select([self.said], [], [], WAIT_S)
        line = self.said.readline() if readable else ""
        assert line, f"never ready: {self.log.read_text()}"
        self.place = json.loads(line)
        return self

    def end(self, number: signal.Signals) -> int:
        """Send a signal, and return the exit code."""
        self.process.send_signal(number)
        return self.ended()

    def kill(self) -> None:
        """End it with no chance to say anything."""
        self.process.kill()
        self.process.wait()

    def ended(self) -> int:
        code = self.process.wait(WAIT_S)
        said = self.log.read_text()
        assert "Traceback" not in said, said
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.terminate()
            self.process.wait(20)
        self.process.kill()
        self.process.wait()
        self.said.close()


class Started(Server):
    """A server that is started as users start it, and imports what it needs."""

    def _start(
        self, words: list[str], env: dict[str, str], out: int, err: int
    ) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [PROGRAM, *words],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=env,
            start_new_session=True,
        )
