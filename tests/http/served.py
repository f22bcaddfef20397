"""A world behind a real server, in a thread of its own, for clients that are not async."""

from __future__ import annotations

import asyncio
import itertools
import socket
import threading
from typing import TYPE_CHECKING, Any, TypeVar

import requests
import uvicorn
import uvloop

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from tests.world import World

T = TypeVar("T")


class Served:
    """The broker on a loopback port. What the world can do runs on the server's own loop."""

    def __init__(self, make: Callable[[], World]) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        # As `broker serve` does: asyncio's own leaves Nagle's algorithm on for such a socket, which
        # costs each answer on a kept connection 40 ms.
        self._loop = uvloop.new_event_loop()
        self.world = self._loop.run_until_complete(_made(make))
        settings = uvicorn.Config(
            self.world.app.http(),
            http="httptools",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
        )
        self._server = uvicorn.Server(settings)
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()
        self.session = requests.Session()
        self.session.trust_env = False  # it would look for proxies with each request
        self._tokens: dict[tuple[str, str | None], str] = {}
        self._numbers = itertools.count()

    def _serve(self) -> None:
        self._loop.run_until_complete(self._server.serve([self._socket]))

    def close(self) -> None:
        self.session.close()
        self._server.should_exit = True
        self._thread.join(30)
        self._loop.run_until_complete(self.world.close())
        self._loop.close()
        self._socket.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    def clean(self) -> None:
        """Forget everything: tasks, grants, freezes, tokens."""
        self.run(self.world.app.connection.command("FLUSHALL"))
        self.forget_tokens()

    def forget_tokens(self) -> None:
        self._tokens.clear()

    def token(self, name: str, task_id: str | None = None) -> str:
        """A token of a principal, the same one as long as it is good."""
        key = name, task_id
        if key not in self._tokens:
            self._tokens[key] = self.run(self.world.token(name, task_id))
        return self._tokens[key]

    def call(self, name: str, method: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
        answer = self.run(self.world.call(name, method, path, body))
        assert answer.status_code < 300, answer.text
        return answer.json()

    def task(self) -> str:
        """The id of a new task of report-writer's."""
        opened = self.run(self.world.open(capabilities=["orders-read", "orders-api"]))
        return opened["task_id"]

    def decision(self) -> tuple[str, str]:
        """A new task, and a call in it that was allowed."""
        opened = self.run(self.world.open(capabilities=["fetch-page"]))
        page = {"arguments": {"url": "https://example.com/"}}
        ask = {
            "subject": {"type": "task", "id": opened["task_id"]},
            "action": {"name": "call_tool"},
            "resource": {"type": "tool", "id": "fetch-page", "properties": page},
        }
        found = self.call("orchestrator", "POST", "/access/v1/evaluation", ask)
        return opened["task_id"], found["context"]["decision_id"]

    def grant(self) -> dict[str, Any]:
        """A new grant under a new task: a token for orders-service."""
        ask = {"capability": "orders-api"}
        return self.call("orchestrator", "POST", f"/v1/tasks/{self.task()}/grants", ask)

    def approval(self) -> str:
        """The id of a new approval, that a new task waits for."""
        opened = self.run(self.world.open(capabilities=["deploy"]))
        path = f"/v1/tasks/{opened['task_id']}/grants"
        return self.call("orchestrator", "POST", path, {"capability": "deploy"})["approval_id"]

    def decided(self) -> str:
        """The id of a new approval that is denied: nobody waits for it."""
        asked = self.approval()
        self.call("approver", "POST", f"/v1/approvals/{asked}/deny", {"reason": "seen"})
        return asked

    def elevation(self) -> tuple[str, str]:
        """A new task, and its elevation."""
        task_id = self.task()
        path, ask = f"/v1/tasks/{task_id}/elevations", {"capability": "deploy", "intent": "deploy"}
        asked = self.call("orchestrator", "POST", path, ask)["approval_id"]
        self.call("approver", "POST", f"/v1/approvals/{asked}/approve", {"reason": "seen"})
        return task_id, self.call("orchestrator", "POST", path, ask)["elevation_id"]

    def principal(self) -> dict[str, Any]:
        """A new agent, with an owner of its own."""
        number = next(self._numbers)
        ask = {
            "name": f"agent-{number}",
            "owner": f"team-{number}@example.com",
            "purpose": "to be suspended, retired, reviewed",
            "identity": {"issuer": "dev", "subject": f"agent/{number}"},
        }
        return self.call("operator", "POST", "/v1/principals", ask)


async def _made(make: Callable[[], World]) -> World:
    return make()
