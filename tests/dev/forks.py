"""The ``broker`` program in processes forked from one that has imported it, and done nothing else.

Each is a process of its own, with arguments, environment and output of its own; it only doesn't
import for half a second what the last one has imported too. Servers are started as users start
them, and so is whatever is measured.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
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
    ask = json.dumps({"arguments": arguments, "env": env, "folder": str(Path.cwd())}).encode()
    assert len(ask) < _MOST_BYTES
    told, tell = os.pipe()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        try:
            socket.send_fds(_forker(), [ask], [out.fileno(), err.fileno(), tell])
        finally:
            os.close(tell)
        with os.fdopen(told) as code:
            ready, _, _ = select.select([code], [], [], seconds)
            assert ready, f"not over within {seconds} s: broker {' '.join(arguments)}"
            text = code.read()
        out.seek(0)
        err.seek(0)
        return Ended(int(text), out.read().decode(), err.read().decode())


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
        _, status = os.waitpid(child, 0)
        os.write(tell, str(os.waitstatus_to_exitcode(status)).encode())
        os._exit(0)
    os.dup2(out, 1)
    os.dup2(err, 2)
    for each in (out, err, tell):
        os.close(each)
    _become(ask)


def _become(ask: dict[str, Any]) -> None:
    os.environ.clear()
    os.environ.update(ask["env"])
    os.chdir(ask["folder"])
    sys.argv = ["broker", *ask["arguments"]]
    sys.exit(main())


def _preload() -> None:
    """Import what commands import when they run."""
    for name in ("broker.cli", "broker.client"):
        package = importlib.import_module(name)
        for module in pkgutil.iter_modules(package.__path__):
            importlib.import_module(f"{name}.{module.name}")
    with contextlib.suppress(ImportError):
        importlib.import_module("rich.table")


if __name__ == "__main__":
    _preload()
    _serve(socket.socket(fileno=int(sys.argv[1])))
