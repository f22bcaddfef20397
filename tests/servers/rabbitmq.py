"""A RabbitMQ with its management API, which is what Vault makes users by."""

from __future__ import annotations

import signal
import socket
from pathlib import Path
from typing import Any, Final

import httpx2

from broker.dev.engines.process import write_private
from tests.ports import free_port
from tests.servers.server import Server

ADMIN: Final = "admin"
ADMIN_PASSWORD: Final = "admin-of-a-test"
# What is in /usr/sbin wants to be root or the user of the package.
_SCRIPT: Final = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")


class Epmd(Server):
    """Erlang's own port mapper: without one of ours RabbitMQ leaves one running for everybody."""

    name = "epmd"
    program = "epmd"
    package = "erlang-base"
    stop_signal = signal.SIGKILL

    @property
    def _mark(self) -> str:
        return str(self.port)

    def _launch(self) -> None:
        argv = [str(self.found(self.program)), "-address", "127.0.0.1", "-port", self._mark]
        self._spawn(argv)
        self._wait_until(lambda: listens(self.port), "listening")


class RabbitMQ(Server):
    """A server of Debian's package ``rabbitmq-server``; once stopped it isn't started again."""

    name = "RabbitMQ"
    program = "beam.smp"
    package = "rabbitmq-server"
    stop_signal = signal.SIGKILL  # in order, it takes six seconds

    def __init__(self, data: Path) -> None:
        """A port for clients, one for the management API, one for other nodes."""
        super().__init__(data)
        self.api_port = free_port()
        self._node_port = free_port()
        self._epmd = Epmd(data)
        self.http = httpx2.Client(
            base_url=f"{self.api}/api/", auth=(ADMIN, ADMIN_PASSWORD), trust_env=False, timeout=30
        )

    @property
    def api(self) -> str:
        """Where the management API is."""
        return f"http://127.0.0.1:{self.api_port}"

    @property
    def _mark(self) -> str:
        return str(self.home / "node")

    def found(self, program: str) -> Path:
        """The server is a script that becomes Erlang's machine."""
        return super().found(str(_SCRIPT) if program == self.program else program)

    def start(self) -> None:
        """Start the port mapper, then the server."""
        self._epmd.start()
        super().start()

    def stop(self) -> None:
        """Stop both, and the client."""
        super().stop()
        self.http.close()

    def kill(self) -> None:
        """End both at once."""
        super().kill()
        self._epmd.kill()

    def _launch(self) -> None:
        node = self.own("node")
        self._write("rabbitmq.config", self._settings())
        self._write("plugins", "[rabbitmq_management].\n")
        self._write("env.conf", "")
        environment = {
            "HOME": str(node),
            "ERL_EPMD_PORT": str(self._epmd.port),
            # Nothing is passed on to it and nothing waits for it: the script becomes the server.
            "RUNNING_UNDER_SYSTEMD": "true",
            "RABBITMQ_CONF_ENV_FILE": str(self.home / "env.conf"),
            "RABBITMQ_CONFIG_FILE": str(self.home / "rabbitmq.config"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.home / "plugins"),
            "RABBITMQ_NODENAME": "broker-test@localhost",
            "RABBITMQ_DIST_PORT": str(self._node_port),
            "RABBITMQ_MNESIA_BASE": str(node / "mnesia"),
            "RABBITMQ_LOG_BASE": str(node / "log"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(node / "schema"),
        }
        given = [f"{name}={value}" for name, value in environment.items()]
        self._spawn(["/usr/bin/env", *given, str(_SCRIPT)])
        self._wait_until(self._answers, "answering")

    def _settings(self) -> str:
        """Return Erlang's terms: to work out a ``rabbitmq.conf`` takes a second or two."""
        return f"""[
  {{kernel, [{{inet_dist_use_interface, {{127, 0, 0, 1}}}}]}},
  {{rabbit, [
    {{tcp_listeners, [{{"127.0.0.1", {self.port}}}]}},
    {{default_user, <<"{ADMIN}">>}},
    {{default_pass, <<"{ADMIN_PASSWORD}">>}},
    {{log, [{{file, [{{file, false}}]}}, {{console, [{{enabled, true}}]}}]}}
  ]}},
  {{rabbitmq_management, [{{tcp_config, [{{ip, "127.0.0.1"}}, {{port, {self.api_port}}}]}}]}}
].
"""

    def _write(self, name: str, text: str) -> None:
        """Write a file that the server's user may read."""
        write_private(self.home / name, text)
        (self.home / name).chmod(0o644)

    def _answers(self) -> bool:
        return listens(self.api_port) and listens(self.port) and self._ask("whoami") is not None

    def _ask(self, path: str) -> Any:
        try:
            return self.http.get(path).raise_for_status().json()
        except httpx2.HTTPError:
            return None

    def as_admin(self, script: str) -> None:
        """Do by the API what lines for ``rabbitmqctl`` say, which takes seconds for each."""
        for line in script.splitlines():
            match line.split():
                case ["rabbitmqctl", "add_user", name, password]:
                    self._put_user(name, {"password": password, "tags": ""})
                case ["rabbitmqctl", "set_user_tags", name, tag]:
                    known = self._ask(f"users/{name}")
                    digest = {k: known[k] for k in ("password_hash", "hashing_algorithm")}
                    self._put_user(name, {**digest, "tags": tag})
                case words:
                    raise AssertionError(words)

    def _put_user(self, name: str, body: dict[str, str]) -> None:
        self.http.put(f"users/{name}", json=body).raise_for_status()

    def users(self) -> set[str]:
        """The users there are."""
        return {row["name"] for row in self._ask("users")}


def listens(port: int) -> bool:
    """Whether somebody takes connections there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
