"""One broker on real engines, and the three parties around it, for tests."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any, Final

import httpx2
import psycopg

from broker.app import Application, build
from broker.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.config import Config
    from broker.dev.issuer import DevIssuer
    from broker.steps import Step

EXCHANGE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
SUBJECTS: Final = {
    "orchestrator": "orchestrator/orchestrator",
    "report-writer": "agent/report-writer",
    "order-clerk": "agent/order-clerk",
    "operator": "operator/operator",
    "auditor": "auditor/auditor",
    "orders-service": "resource-server/orders-service",
}


class World:
    """A replica of the broker without its scheduler: sweeps run when a test asks for one."""

    def __init__(
        self,
        issuer: DevIssuer,
        config: Config,
        *,
        before_step: Callable[[Step], None] = lambda _: None,
    ) -> None:
        self.issuer = issuer
        self.config = config
        self._kept_tokens: dict[tuple[str, str | None], str] = {}
        self.app: Application = build(config, clock=SystemClock(), before_step=before_step)
        self.http = httpx2.AsyncClient(
            transport=httpx2.ASGITransport(self.app.http(), raise_app_exceptions=False),
            base_url=config.broker.issuer,
        )

    async def close(self) -> None:
        await self.http.aclose()
        await self.app.pipeline.work.drain(10)
        await self.app.close()

    async def empty(self) -> None:
        """A ledger of nothing, and no log of what it held: it would be in quarantine with one."""
        shutil.rmtree(self.config.audit.folder(self.config.broker.state_dir), ignore_errors=True)
        await self.app.connection.on_every_server("FLUSHALL")

    def identity(self, name: str) -> str:
        """A workload JWT from the dev issuer."""
        return self.issuer.token(SUBJECTS[name]).reveal()

    async def exchange(self, name: str, task_id: str | None = None) -> httpx2.Response:
        form = {
            "grant_type": EXCHANGE,
            "subject_token": self.identity(name),
            "subject_token_type": JWT,
            "resource": self.config.broker.issuer,
        }
        if task_id is not None:
            detail = [{"type": "broker_task", "task_id": task_id}]
            form["authorization_details"] = json.dumps(detail)
        return await self.http.post("/oauth/token", data=form)

    async def token(self, name: str, task_id: str | None = None) -> str:
        answer = await self.exchange(name, task_id)
        assert answer.status_code == 200, answer.text
        return answer.json()["access_token"]

    async def call(
        self,
        name: str | None,
        method: str,
        path: str,
        body: Any = None,
        *,
        task_id: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx2.Response:
        """Call the API as a principal; an agent names its task. Tokens are kept, as clients do."""
        headers = dict(headers or {})
        if name is None:
            return await self.http.request(method, path, json=body, headers=headers)
        kept = (name, task_id) in self._kept_tokens
        token = self._kept_tokens.get((name, task_id)) or await self.token(name, task_id)
        headers["Authorization"] = f"Bearer {token}"
        answer = await self.http.request(method, path, json=body, headers=headers)
        if kept and answer.status_code == 401:
            del self._kept_tokens[name, task_id]
            return await self.call(name, method, path, body, task_id=task_id, headers=headers)
        self._kept_tokens[name, task_id] = token
        return answer

    async def open(self, **fields: Any) -> dict[str, Any]:
        """Open a task as the orchestrator."""
        ask = {
            "agent": "report-writer",
            "purpose": "the weekly report",
            "capabilities": ["orders-read"],
            **fields,
        }
        answer = await self.call("orchestrator", "POST", "/v1/tasks", ask)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def grant(
        self, task: dict[str, Any], capability: str = "orders-read", **fields: Any
    ) -> dict[str, Any]:
        """Ask for a credential as the task's agent."""
        path = f"/v1/tasks/{task['task_id']}/grants"
        ask = {"capability": capability, **fields}
        answer = await self.call(task["agent"], "POST", path, ask, task_id=task["task_id"])
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def complete(self, task: dict[str, Any], outcome: str = "completed") -> dict[str, Any]:
        path = f"/v1/tasks/{task['task_id']}/complete"
        answer = await self.call("orchestrator", "POST", path, {"outcome": outcome})
        assert answer.status_code == 200, answer.text
        await self.app.pipeline.work.drain(20)  # the answer doesn't wait for the task to be closed
        return answer.json()

    async def show_grant(self, grant_id: str) -> dict[str, Any]:
        return (await self.call("operator", "GET", f"/v1/grants/{grant_id}")).json()

    async def show_task(self, task_id: str) -> dict[str, Any]:
        return (await self.call("operator", "GET", f"/v1/tasks/{task_id}")).json()

    async def events(self, task_id: str) -> list[dict[str, Any]]:
        path = f"/v1/audit/events?task_id={task_id}&limit=500"
        return (await self.call("operator", "GET", path)).json()["items"]

    async def sweep(self, *, ahead_ms: int = 0) -> None:
        """Sweep until nothing is due, as it would be ``ahead_ms`` from now."""
        horizon = await self.app.pipeline.queries.now() + ahead_ms if ahead_ms else None
        report = await self.app.reaper.sweep(horizon_ms=horizon)
        await self.app.pipeline.work.drain(20)
        if report.tasks or report.grants:
            await self.sweep()


async def logs_in(credential: dict[str, Any]) -> bool:
    """Whether PostgreSQL lets a credential in and answers it."""
    try:
        connection = await psycopg.AsyncConnection.connect(credential["dsn"], connect_timeout=5)
    except psycopg.OperationalError:
        return False
    async with connection:
        await connection.execute("SELECT count(*) FROM orders")
    return True
