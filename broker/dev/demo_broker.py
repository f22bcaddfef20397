"""``broker dev`` as the demo runs it: a child process on data that is thrown away afterwards."""

from __future__ import annotations

import json
import select
import shutil
import signal
import subprocess
import sysconfig
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self
from urllib.parse import urlsplit

from broker.client import Client
from broker.clock import SystemClock
from broker.dev.config import FILE, subject_of
from broker.dev.engines.process import dies_with_us
from broker.dev.issuer import DevIssuer

if TYPE_CHECKING:
    from broker.secret import Secret

_START_S: Final = 120
_STOP_S: Final = 40
_LAST_WORDS: Final = 15


class DemoFailed(Exception):
    """Something didn't turn out as the demo says it does."""

    def __init__(self, claim: str, *, expected: object, found: object) -> None:
        """``claim`` is what should have been true."""
        super().__init__(claim)
        self.claim = claim
        self.expected = expected
        self.found = found


class DemoBroker:
    """A whole broker, and clients of it for each of the dev principals."""

    def __init__(self) -> None:
        """Make the data directory; nothing is started yet."""
        self.data = Path(tempfile.mkdtemp(prefix="broker-demo-"))
        self.places: dict[str, Any] = {}
        self._process: subprocess.Popen[str] | None = None
        self._open = ExitStack()
        self._clients: dict[tuple[str, str | None], Client] = {}
        self._log = self.data / "broker.log"

    @property
    def admin_dsn(self) -> str:
        """PostgreSQL's superuser, to look at its roles from the other side."""
        return Path(self.places["postgres_admin_dsn_file"]).read_text("utf-8")

    def start(self) -> None:
        """Start it, on the port it had before if it had one, and return when it is ready."""
        port = urlsplit(str(self.places.get("url", ""))).port or 0
        program = str(Path(sysconfig.get_path("scripts")) / "broker")
        arguments = ["dev", "--json", "--port", str(port), "--data", str(self.data)]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                # Nothing is left running, whatever ends the demo.
                [*dies_with_us(signal.SIGTERM), program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,  # Ctrl-C is for the demo, which then stops it
            )
        assert self._process.stdout is not None  # noqa: S101  it is a pipe
        readable, _, _ = select.select([self._process.stdout], [], [], _START_S)
        line = self._process.stdout.readline() if readable else ""
        if not line:
            said = self._log.read_text("utf-8", "replace").splitlines()[-_LAST_WORDS:]
            raise DemoFailed(
                "broker dev starts", expected="that it says it is ready", found="\n".join(said)
            )
        self.places = json.loads(line)

    def client(self, name: str, task_id: str | None = None) -> Client:
        """Return a client with the workload identity of a principal; an agent's acts for a task."""
        key = (name, task_id)
        if key not in self._clients:
            url = str(self.places["url"])
            made = Client(url, lambda: self._identity(name), task_id=task_id or "")
            self._clients[key] = self._open.enter_context(made)
        return self._clients[key]

    def kill(self) -> None:
        """End it as ``kill -9`` does."""
        self._clients.clear()
        self._open.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Stop it and everything that it started."""
        self._clients.clear()
        self._open.close()
        if self._process is None:
            return
        try:
            self._process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(_STOP_S)
        finally:
            self._process.kill()
            self._process.wait()
            self._process = None

    def verify_log(self) -> tuple[str, bool]:
        """Verify the audit log as anybody can who has its files and its public key.

        Returns what was found, empty if the log doesn't verify, and whether a copy of it with one
        letter changed is found out.
        """
        config = str(self.data / FILE)
        key = self._run("audit", "key", "--config", config).stdout.strip()
        log = self.data / "broker" / "audit"
        true = self._run("audit", "verify", str(log), "--key", key)
        with tempfile.TemporaryDirectory(prefix="broker-demo-") as folder:
            copy = Path(folder) / "audit"
            shutil.copytree(log, copy)
            first = min(copy.glob("*.jsonl"))
            text = first.read_text("utf-8")
            first.write_text(text.replace("report-writer", "report-reader", 1), "utf-8")
            spoilt = self._run("audit", "verify", str(copy), "--key", key)
        return (true.stdout.strip() if true.returncode == 0 else ""), spoilt.returncode == 1

    @staticmethod
    def _run(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = str(Path(sysconfig.get_path("scripts")) / "broker")
        return subprocess.run(
            [program, *arguments], capture_output=True, text=True, timeout=_STOP_S, check=False
        )

    def _identity(self, name: str) -> Secret:
        return DevIssuer(self.data, SystemClock()).token(subject_of(name, self.data))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.stop()
        finally:
            # Beside the data where its path is too long for a socket; a killed broker leaves them.
            for note in self.data.glob("*/socket-dir"):
                shutil.rmtree(note.read_text("utf-8"), ignore_errors=True)
            shutil.rmtree(self.data, ignore_errors=True)
