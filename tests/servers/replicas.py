"""Several ``broker serve`` on one ledger and one Vault, as an operator runs them."""

from __future__ import annotations

import re
import signal
from typing import TYPE_CHECKING, Any, Final

import httpx2

from tests.dev.broker_process import Server
from tests.ports import free_port
from tests.world import EXCHANGE, JWT, SUBJECTS

if TYPE_CHECKING:
    from pathlib import Path

    from broker.dev.stack import DevStack

WRITES: Final = "this replica writes the audit log"


class Replica:
    """One process, at an address of its own, that may be started again after its end."""

    def __init__(self, stack: DevStack, folder: Path, name: str) -> None:
        port = free_port()
        text = (stack.data / "config.toml").read_text("utf-8")
        text = re.sub(r"(?m)^listen = .*$", f'listen = "127.0.0.1:{port}"', text)
        self.name = name
        self.file = stack.data / f"{name}.toml"  # the paths in it are relative
        self.file.write_text(text)
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / f"{name}.log"
        self._server: Server | None = None

    @property
    def server(self) -> Server:
        assert self._server is not None
        return self._server

    @property
    def runs(self) -> bool:
        return self._server is not None and self._server.process.poll() is None

    @property
    def writes(self) -> bool:
        """Whether it has ever written the log, since it was last started."""
        return self.log.exists() and WRITES in self.log.read_text()

    def start(self) -> None:
        self._server = Server(self.log, "serve", "--config", str(self.file))

    def wait_ready(self) -> None:
        self.server.wait_ready()

    def kill(self) -> None:
        self.server.kill()

    def terminate(self) -> None:
        self.server.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        if self._server is not None:
            self._server.__exit__(None, None, None)


class Replicas:
    """All of them; those that don't run are left alone."""

    def __init__(self, stack: DevStack, folder: Path, count: int) -> None:
        self.all = [Replica(stack, folder, f"replica-{at}") for at in range(count)]

    def start(self) -> None:
        for replica in self.all:
            replica.start()
        for replica in self.all:
            replica.wait_ready()

    def stop(self) -> None:
        for replica in self.all:
            replica.stop()

    @property
    def running(self) -> list[Replica]:
        return [replica for replica in self.all if replica.runs]


class Party:
    """An orchestrator or operator that asks whichever replica answers."""

    def __init__(self, replicas: Replicas, stack: DevStack, name: str) -> None:
        self._replicas = replicas
        self._identity = stack.issuer.token(SUBJECTS[name]).reveal()
        self._token = ""
        self._turn = 0
        self.http = httpx2.AsyncClient(trust_env=False, timeout=30)

    async def call(self, method: str, path: str, body: Any = None) -> httpx2.Response:
        """Ask one replica after the other, beginning with another one each time."""
        last: Exception | None = None
        for _ in range(2 * len(self._replicas.all)):
            self._turn += 1
            replica = self._replicas.all[self._turn % len(self._replicas.all)]
            if not replica.runs:
                continue
            try:
                return await self.ask(replica, method, path, body)
            except httpx2.TransportError as error:  # it is being killed
                last = error
        raise last or AssertionError("nobody is left")

    async def ask(self, replica: Replica, method: str, path: str, body: Any = None) -> Any:
        """Ask one of them."""
        if not self._token:
            self._token = await self._exchange(replica)
        headers = {"Authorization": f"Bearer {self._token}"}
        return await self.http.request(method, replica.url + path, json=body, headers=headers)

    async def open(self, **fields: Any) -> dict[str, Any]:
        """Open a task."""
        ask = {"agent": "report-writer", "purpose": "load", "capabilities": ["orders-read"]}
        answer = await self.call("POST", "/v1/tasks", ask | fields)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def grant(self, task: dict[str, Any]) -> httpx2.Response:
        """Ask for a credential of a task."""
        path = f"/v1/tasks/{task['task_id']}/grants"
        return await self.call("POST", path, {"capability": "orders-read"})

    async def _exchange(self, replica: Replica) -> str:
        form = {
            "grant_type": EXCHANGE,
            "subject_token": self._identity,
            "subject_token_type": JWT,
        }
        answer = await self.http.post(f"{replica.url}/oauth/token", data=form)
        assert answer.status_code == 200, answer.text
        return answer.json()["access_token"]
