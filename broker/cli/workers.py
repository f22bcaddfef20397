"""The supervisor of ``broker serve --workers``: it serves nothing itself.

The first worker starts alone: it makes what all share, such as keys, and if it can't serve nobody
can. Later one that ends by itself is started anew, after a pause that grows while that goes on.
Workers are started as new programs, so none has another's connections, threads or random numbers.
They are of a session of their own: a Ctrl-C in the terminal reaches the supervisor alone, which
passes it on.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from broker.clock import SystemClock
from broker.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

log = get_logger("workers")
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_FIRST_PAUSE_S: Final = 0.5
_LONGEST_PAUSE_S: Final = 30.0
_LASTED_S: Final = 60.0
"""A worker that has lived so long was fine: the next pause is the first again."""


def supervise(
    config: Path, taken: socket.socket, workers: int, *, on_ready: Callable[[], None]
) -> int:
    """Run workers until SIGINT or SIGTERM, and return the exit code.

    ``on_ready`` is called once, when all of them serve.
    """
    with tempfile.TemporaryDirectory(prefix="broker-") as folder:
        return asyncio.run(_Supervisor(config, taken, Path(folder), on_ready).run(workers))


class _Worker(NamedTuple):
    process: asyncio.subprocess.Process
    line: socket.socket
    born: float

    async def serves(self) -> bool:
        """Wait until it says so; False if it ended before."""
        return bool(await asyncio.get_running_loop().sock_recv(self.line, 1))


class _Supervisor:
    def __init__(
        self, config: Path, taken: socket.socket, folder: Path, on_ready: Callable[[], None]
    ) -> None:
        self._config = config
        self._taken = taken
        self._folder = folder
        self._on_ready = on_ready
        self._clock = SystemClock()
        self._workers: dict[int, _Worker] = {}
        self._awaited: set[int] = set()
        self._stopping = asyncio.Event()

    async def run(self, workers: int) -> int:
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._pass_on, number)
        self._awaited = set(range(workers))
        first = await self._start(0)
        if not await first.serves():
            first.line.close()
            code = await first.process.wait()
            return 0 if self._stopping.is_set() else max(code, 1)  # below 0 it is a signal
        self._serving(0)
        async with asyncio.TaskGroup() as group:
            for number in range(workers):
                group.create_task(self._keep(number, None if number else first))
        return 0

    async def _start(self, number: int) -> _Worker:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)  # noqa: FBT003  the library's own
        with theirs, self._taken.dup() as taken:  # which may be closed meanwhile
            descriptors = (taken.fileno(), theirs.fileno())
            arguments = (self._config, *descriptors, number, self._folder)
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "broker.cli.worker", *map(str, arguments)),
                pass_fds=descriptors,
                start_new_session=True,
            )
        worker = self._workers[number] = _Worker(process, ours, self._clock.monotonic())
        if self._stopping.is_set():  # the signal came while it was being started
            process.terminate()
        return worker

    async def _keep(self, number: int, worker: _Worker | None) -> None:
        """See to it that there is a worker of this number until all are to stop."""
        pause_s = _FIRST_PAUSE_S
        while True:
            if worker is None:
                if self._stopping.is_set():
                    return
                worker = await self._start(number)
                if await worker.serves():
                    self._serving(number)
            code = await worker.process.wait()
            worker.line.close()
            if self._stopping.is_set():
                return
            if self._clock.monotonic() - worker.born > _LASTED_S:
                pause_s = _FIRST_PAUSE_S
            log.error("a worker ended: another is started", worker=number, code=code, in_s=pause_s)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)
                return
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            worker = None

    def _serving(self, number: int) -> None:
        log.info("a worker serves", worker=number, pid=self._workers[number].process.pid)
        if self._awaited:
            self._awaited.discard(number)
            if not self._awaited and not self._stopping.is_set():
                self._on_ready()

    def _pass_on(self, number: int) -> None:
        self._stopping.set()
        self._taken.close()  # or clients would still be let in, and wait for nobody
        for worker in self._workers.values():
            with contextlib.suppress(ProcessLookupError):
                worker.process.send_signal(number)
