"""The command line at a terminal, as a person has it."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys

from tests.unit.cli_runner import PROGRAM


class Terminal:
    """The program with a terminal of its own for input, output and errors."""

    def __init__(self, *words: str, **more: str) -> None:
        self._ours, theirs = pty.openpty()
        environ = {**os.environ, "NO_COLOR": "1", "COLUMNS": "120", "TERM": "dumb", **more}
        command = [sys.executable, "-c", PROGRAM, *words]
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environ
        )
        os.close(theirs)
        self.shown = ""

    @property
    def handle(self) -> int:
        """Where keys go that no line is made of."""
        return self._ours

    def until(self, words: str) -> str:
        """Read until the program has written this."""
        begin = len(self.shown)
        while words not in self.shown[begin:]:
            readable, _, _ = select.select([self._ours], [], [], 30)
            chunk = os.read(self._ours, 65536) if readable else b""
            assert chunk, f"never {words!r}: {self.shown}"
            self.shown += chunk.decode()
        return self.shown[begin:]

    def type(self, line: str) -> None:
        os.write(self._ours, f"{line}\n".encode())

    def ended(self) -> int:
        while True:
            try:
                chunk = os.read(self._ours, 65536)
            except OSError:  # how Linux says that the other end was closed
                break
            self.shown += chunk.decode()
        os.close(self._ours)
        return self.process.wait(30)
