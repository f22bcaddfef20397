"""The ``broker`` program in processes forked from one that has imported it, and done nothing else.

Each is a process of its own, with arguments, environment and output of its own; it only doesn't
import for seconds what the last one has imported too. Whatever is measured is started as users
start it, and so is one server of each kind.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final, NamedTuple

from broker.cli.main import main

_MOST_BYTES: Final = 150_000


class Ended(NamedTuple):
    code: int
    out: str
    err: str


def run(arguments: list[str], env: dict[str, str], seconds: float) -> Ended:
    """Run the program to its end; any number at a time."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        code = Process(arguments, env, out.fileno(), err.fileno()).wait(seconds)
        out.seek(0)
        err.seek(0)
        return Ended(code, out.read().decode(), err.read().decode())


class Process:
    """One of them while it runs: what ``subprocess.Popen`` is for one's own child."""

    def __init__(self, arguments: list[str], env: dict[str, str], out: int, err: int) -> None:
        """``out`` and ``err`` are the descriptors it writes to. It has a session of its own."""
        self.args = ["broker", *arguments]
        self.returncode: int | None = None
        ask = json.dumps({"arguments": arguments, "env": env, "folder": str(Path.cwd())}).encode()
        assert len(ask) < _MOST_BYTES
        told, tell = os.pipe()
        self._told = os.fdopen(told)
        try:
            socket.send_fds(_forker(), [ask], [out, err, tell])
        finally:
            os.close(tell)
        self.pid = int(self._told.readline())

    def poll(self) -> int | None:
        """Return its exit code, negative for a signal, or None while it runs."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return its exit code; ``TimeoutExpired`` after ``timeout`` seconds."""
        if self.returncode is None:
            if not select.select([self._told], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            with self._told:
                self.returncode = int(self._told.read())
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it is over."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # it has just ended
                os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


@functools.cache
def _forker() -> socket.socket:
    """Start what forks; it ends when this process does, and its end of the connection with it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.dev.forks", str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],
            env={k: v for k, v in os.environ.items() if not k.startswith("BROKER_")},
        )

    def end() -> None:
        ours.close()
        process.wait()

    atexit.register(end)
    return ours


def _serve(connection: socket.socket) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        ask, given, _, _ = socket.recv_fds(connection, _MOST_BYTES, 3)
        if not ask:
            return
        if os.fork() == 0:
            connection.close()
            _watch(json.loads(ask), *given)
            return
        for each in given:
            os.close(each)


def _watch(ask: dict[str, Any], out: int, err: int, tell: int) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if child := os.fork():
        os.dup2(os.open(os.devnull, os.O_RDWR), 1)
        os.write(tell, f"{child}\n".encode())
        _, status = os.waitpid(child, 0)
        os.write(tell, str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    for each in (out, err, tell):
        os.close(each)
    # What the forker has may be a file, and these pipes.
    sys.stdout = open(1, "w", closefd=False, encoding="utf-8")  # noqa: SIM115  as Python has it
    sys.stderr = open(2, "w", 1, "utf-8", "backslashreplace", closefd=False)  # noqa: SIM115
    _become(ask)


def _become(ask: dict[str, Any]) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(ask["env"])
    os.chdir(ask["folder"])
    sys.argv = ["broker", *ask["arguments"]]
    sys.exit(main())


def _preload() -> None:
    """Import what commands and servers import when they run."""
    for name in ("broker.app", "broker.dev.stack", "broker.dev.link", "broker.doctor", "httpcore2"):
        importlib.import_module(name)
    for name in ("broker.cli", "broker.client"):
        package = importlib.import_module(name)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{name}.{module.name}")
    with contextlib.suppress(ImportError):
        importlib.import_module("rich.table")
    gc.freeze()  # nothing of it is looked at again, so its pages stay shared


if __name__ == "__main__":
    _preload()
    _serve(socket.socket(fileno=int(sys.argv[1])))
