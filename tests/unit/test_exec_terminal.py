"""``broker exec`` at a terminal: keys, size, job control, and what a child leaves behind."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from typing import TYPE_CHECKING

import pytest

from tests.unit.cli_runner import PROGRAM
from tests.unit.test_exec_run import ORDER, dead, ended, opening

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.unit.fake_broker import FakeBroker

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc, bash, and a pty")

COUNTS = """
import signal, sys, termios, tty
count = 0
def got(*_):
    global count
    count += 1
for name in sys.argv[1:]:
    signal.signal(getattr(signal, name), got)
print("ready", sys.stdin.isatty(), flush=True)
sys.stdin.readline()
print("count", count, flush=True)
"""
ROUNDS = 4
CONTINUES = """
import os, signal, sys
again = int(sys.argv[1]) if sys.argv[1:] else 0
count = 0
def say(*words):  # print can't be interrupted by itself
    os.write(1, (" ".join(map(str, words)) + "\\n").encode())
def got(*_):
    global count
    count += 1
    if count <= again:
        os.kill(os.getpid(), signal.SIGTSTP)
    say("continued", count)
signal.signal(signal.SIGCONT, got)
say("ready")
sys.stdin.readline()
say("count", count)
"""


class Shell:
    """A shell at a terminal of its own, with job control, in which things are typed."""

    def __init__(self, folder: Path) -> None:
        self._ours, theirs = pty.openpty()
        # Long lines would be folded by readline; prompts would be in the way.
        environ = {**os.environ, "PS1": "", "TERM": "dumb", "COLUMNS": "2000"}
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 2000, 0, 0))
        # Whoever leads a session and opens a terminal has it for its own.
        bash = f"exec bash --norc --noprofile --noediting -i <>{os.ttyname(theirs)} >&0 2>&1"
        self.process = subprocess.Popen(
            ["sh", "-c", bash],
            stdin=subprocess.DEVNULL,
            env=environ,
            cwd=folder,
            start_new_session=True,
        )
        self._theirs = theirs  # closed before the shell has opened it, there would be no terminal
        self.shown = ""
        self.type("stty -echo; PS1=; echo begun $((40 + 2))")
        self.until("begun 42\r\n")

    def type(self, line: str, end: str = "\n") -> None:
        os.write(self._ours, (line + end).encode())

    def until(self, words: str) -> str:
        begin = len(self.shown)
        while words not in self.shown[begin:]:
            readable, _, _ = select.select([self._ours], [], [], 30)
            assert readable, f"never {words!r}: {self.shown}"
            self.shown += os.read(self._ours, 65536).decode()
        return self.shown[begin:]

    def resize(self, rows: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, 2000, 0, 0))

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)
        os.close(self._theirs)


@pytest.fixture
def shell(tmp_path: Path) -> Iterator[Shell]:
    made = Shell(tmp_path)
    yield made
    made.close()


def typed(shell: Shell, folder: Path, child: str, *words: str) -> None:
    (folder / "child.py").write_text(child)
    (folder / "run.py").write_text(PROGRAM)
    order = " ".join(f"'{word}'" for word in ORDER)
    shell.type(
        f"{sys.executable} run.py exec {order} -- {sys.executable} child.py {' '.join(words)}"
        "; echo code $?"
    )


def test_keys_reach_the_child_once_and_it_has_the_terminal(
    fake: FakeBroker, shell: Shell, tmp_path: Path
) -> None:
    dead(opening(fake))
    typed(shell, tmp_path, COUNTS, "SIGINT")
    shell.until("ready True")
    shell.type("\x03", "")
    shell.type("")
    assert "count 1" in shell.until("code 0")
    assert ended(fake)["outcome"] == "completed"


def test_a_key_that_kills_it_ends_it_all(fake: FakeBroker, shell: Shell, tmp_path: Path) -> None:
    dead(opening(fake))
    typed(shell, tmp_path, COUNTS)
    shell.until("ready True")
    shell.type("\x1c", "")  # quit
    shell.until("code 131")
    assert ended(fake) == {"outcome": "cancelled", "summary": "killed by SIGQUIT"}


def test_its_size_reaches_the_child_once(fake: FakeBroker, shell: Shell, tmp_path: Path) -> None:
    dead(opening(fake))
    typed(shell, tmp_path, COUNTS, "SIGWINCH")
    shell.until("ready True")
    shell.resize(33)
    shell.type("")
    assert "count 1" in shell.until("code 0")


def test_it_is_stopped_and_goes_on_as_one(fake: FakeBroker, shell: Shell, tmp_path: Path) -> None:
    dead(opening(fake))
    typed(shell, tmp_path, CONTINUES)
    shell.until("ready")
    for number in range(1, ROUNDS + 1):
        shell.type("\x1a", "")
        shell.until("Stopped")
        shell.type("fg")
        # Not before it goes on: until then the keys are the shell's, or discarded by SIGCONT.
        shell.until(f"continued {number}\r\n")
    shell.type("")
    shell.until(f"count {ROUNDS}\r\n")
    shell.type("echo over")
    shell.until("over\r\n")
    assert ended(fake)["outcome"] == "completed"


def test_it_may_stop_again_at_once(fake: FakeBroker, shell: Shell, tmp_path: Path) -> None:
    dead(opening(fake))
    typed(shell, tmp_path, CONTINUES, str(ROUNDS - 1))
    shell.until("ready")
    shell.type("\x1a", "")
    for _ in range(ROUNDS):
        shell.until("Stopped")
        shell.type("fg")
    shell.until(f"continued {ROUNDS}\r\n")
    shell.type("")
    shell.until(f"count {ROUNDS}\r\n")
    shell.type("echo over")
    shell.until("over\r\n")


def test_a_terminal_left_raw_is_put_right(fake: FakeBroker, shell: Shell, tmp_path: Path) -> None:
    dead(opening(fake))
    leaves = "import os, signal, tty; tty.setraw(0); os.kill(os.getpid(), signal.SIGKILL)"
    typed(shell, tmp_path, leaves)
    shell.until("code 137")
    shell.type("stty -a")
    assert " icanon" in shell.until("echoctl")


def test_a_child_that_takes_the_terminal_gives_it_back(
    fake: FakeBroker, shell: Shell, tmp_path: Path
) -> None:
    dead(opening(fake))
    takes = """
import os, signal
signal.signal(signal.SIGTTOU, signal.SIG_IGN)
os.setpgid(0, 0)
os.tcsetpgrp(0, os.getpid())
os.kill(os.getpid(), signal.SIGKILL)
"""
    typed(shell, tmp_path, takes)
    shell.until("code 137")
    shell.type("echo mine again")
    shell.until("mine again")


def test_from_outside_it_can_be_stopped_too(fake: FakeBroker, shell: Shell, tmp_path: Path) -> None:
    dead(opening(fake))
    child = COUNTS.replace('print("ready"', 'import os; print("pids", os.getppid(), "ready"')
    typed(shell, tmp_path, child, "SIGUSR1")
    ours = int(shell.until("ready True").partition("pids ")[2].split()[0])
    os.kill(ours, signal.SIGTSTP)
    shell.until("Stopped")
    shell.type("fg")
    shell.until("child.py")
    os.kill(ours, signal.SIGUSR1)
    shell.type("")
    assert "count" in shell.until("\r\n")
