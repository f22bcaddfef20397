"""The child process: started with nothing of ours, told what we are told, and waited for.

It stays in our process group, so a terminal's keys reach it as they reach us, and a pipeline keeps
the terminal. So what the terminal sends isn't passed on, it would come twice; what somebody sends
to us alone is. ``siginfo`` says which of the two it was (``sigaction(2)``: ``SI_KERNEL``).
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import termios
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from collections.abc import Set as AbstractSet

_ENDING: Final = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM})
_STOPS: Final = frozenset({signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU})
_FROM_TERMINAL: Final = _STOPS | {signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH}
_PASSED_ON: Final = _ENDING | {
    *(signal.SIGUSR1, signal.SIGUSR2, signal.SIGALRM),
    *(signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT),
}
_HANDLED: Final = _PASSED_ON | _STOPS | {signal.SIGCHLD}
_CHANGES: Final = os.WNOHANG | os.WUNTRACED | os.WCONTINUED
_SI_USER: Final = 0
"""Sent by ``kill``; a terminal's signals have a positive code (Linux ``siginfo.h``)."""
_PR_SET_PDEATHSIG: Final = 1


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended: its exit code, or the signal that killed it; and which we passed on."""

    code: int = 0
    signal: int = 0
    told: int = 0

    @property
    def exit_code(self) -> int:
        """As shells have it."""
        return 128 + self.signal if self.signal else self.code

    @property
    def cancelled(self) -> bool:
        """Whether it ended because it was told to."""
        return self.signal in _ENDING or (self.told > 0 and self.code == 128 + self.told)

    def words(self) -> str:
        """Say it in words, for the log."""
        if self.signal:
            return f"killed by {_name(self.signal)}"
        return f"exit code {self.code}" + (f", after {_name(self.told)}" if self.told else "")


class Child:
    """One process. Make it and ``wait`` for it in the main thread; ``end`` it from any."""

    def __init__(
        self, command: Sequence[str], environ: Mapping[str, str], folder: str | None = None
    ) -> None:
        """Start it, with no file of ours open but the three; from here on signals wait for us.

        No other thread may run yet.

        Raises:
            OSError: it can't be.
        """
        self._terminal = _Terminal()
        # What our parent has us ignore (nohup, a shell's background) is the child's to ignore, too.
        ignored = {n for n in _HANDLED if signal.getsignal(n) is signal.SIG_IGN}
        self._handled = (_HANDLED - ignored) | {signal.SIGCHLD}
        signal.signal(signal.SIGCHLD, _nothing)  # ignored, it would hide how the child ended
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, self._handled)
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._told = 0
        try:
            self._process = subprocess.Popen(  # noqa: S603  what the user wants to be run
                list(command),
                env=dict(environ),
                cwd=folder,
                close_fds=True,
                preexec_fn=_before_exec(self._before),  # noqa: PLW1509  one thread, see above
            )
        except BaseException:
            signal.pthread_sigmask(signal.SIG_SETMASK, self._before)
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wait(self) -> Ended:
        """Pass signals on until it has ended."""
        try:
            while (ended := self._look()) is None:
                self._passed_on(*_received(self._handled))
        finally:
            _drain(self._handled)
            self._terminal.restore()
            signal.pthread_sigmask(signal.SIG_SETMASK, self._before)
        return ended

    def end(self, grace: float) -> None:
        """Ask it to end, and kill it when it hasn't after ``grace`` seconds."""
        self._send(signal.SIGTERM)
        self._send(signal.SIGCONT)  # a stopped one couldn't
        if not self._ended.wait(grace):
            self._send(signal.SIGKILL)

    def _look(self) -> Ended | None:
        """Return how it ended, if it has; when it was stopped, so are we, and go on together."""
        stopped_with_it = False
        while True:
            pid, status = self._changed()
            if not pid:
                if stopped_with_it:  # it still is: whoever continued us spoke to us alone
                    self._send(signal.SIGCONT)
                return None
            if os.WIFCONTINUED(status):
                return None
            if not os.WIFSTOPPED(status):
                code = os.waitstatus_to_exitcode(status)
                return Ended(max(code, 0), max(-code, 0), self._told)
            if (number := os.WSTOPSIG(status)) not in _STOPS:
                return None
            _stop(number)
            # A shell continues the whole group. To pass that on would be once too often, and after
            # the next Ctrl-Z too late: so we look again first.
            _drain({signal.SIGCONT} & self._handled)
            stopped_with_it = True

    def _changed(self) -> tuple[int, int]:
        """Return what ``waitpid(2)`` says of its last change, (0, 0) without one."""
        with self._lock:
            pid, status = os.waitpid(self.pid, _CHANGES)
            if pid and (os.WIFEXITED(status) or os.WIFSIGNALED(status)):
                self._process.returncode = os.waitstatus_to_exitcode(status)
                self._ended.set()
        return pid, status

    def _passed_on(self, number: int, code: int | None, sender: int) -> None:
        if number not in _PASSED_ON:
            return
        from_terminal = self._terminal.ours if code is None else code > _SI_USER
        if sender != self.pid and not (from_terminal and number in _FROM_TERMINAL):
            self._send(number)
        if number in _ENDING:
            self._told = number

    def _send(self, number: int) -> None:
        with self._lock:
            if not self._ended.is_set():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, number)


class _Terminal:
    """The terminal as it was before: a child that dies may leave it raw, or to nobody."""

    def __init__(self) -> None:
        self._mode: list[Any] | None = None
        self.ours = False
        with contextlib.suppress(OSError, termios.error, ValueError):
            self.ours = os.tcgetpgrp(0) == os.getpgrp()
            self._mode = termios.tcgetattr(0) if self.ours else None

    def restore(self) -> None:
        """Take the terminal back; SIGTTOU is blocked, so nothing stops us."""
        if self._mode is not None:
            with contextlib.suppress(OSError, termios.error):
                os.tcsetpgrp(0, os.getpgrp())
                termios.tcsetattr(0, termios.TCSADRAIN, self._mode)


def _before_exec(mask: AbstractSet[int]) -> Callable[[], None]:
    """Return what the child does between fork and exec: our signal mask isn't to be its own.

    On Linux it also asks to be told when we die, however that comes. Its own children don't hear
    of it, and a program that changes its user forgets it (``prctl(2)``).
    """
    linux = sys.platform == "linux"
    libc = ctypes.CDLL(None)
    parent = os.getpid()

    def prepare() -> None:
        if linux:
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
            if os.getppid() != parent:  # we died before it asked
                os._exit(1)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    return prepare


def _received(handled: AbstractSet[signal.Signals]) -> tuple[int, int | None, int]:
    """Wait for a signal; return it, and by what and whom it was sent where that can be known."""
    if sys.platform == "darwin":
        return signal.sigwait(handled), None, 0
    found = signal.sigwaitinfo(handled)
    return found.si_signo, found.si_code, found.si_pid


def _drain(handled: AbstractSet[signal.Signals]) -> None:
    """Forget the signals that came too late for the child."""
    while waiting := signal.sigpending() & handled:
        signal.sigwait(waiting)


def _stop(number: int) -> None:
    """Stop as the child has stopped, so that our shell goes on; return when we are continued.

    The signal that stopped it waits for us as well, if it was the terminal's. Where nobody would
    continue us (an orphaned process group) the kernel ignores it.
    """
    os.kill(os.getpid(), number)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    signal.pthread_sigmask(signal.SIG_BLOCK, {number})


def _nothing(_: int, __: object) -> None:
    """A signal that is waited for."""


def _name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
