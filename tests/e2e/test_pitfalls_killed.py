"""``kill -9`` of a real ``broker serve`` that is issuing: nothing live is left unrecorded."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from broker.grants import DEAD, Grant
from tests.admin import Admin, own_stack
from tests.dev.broker_process import Server
from tests.waiting import wait_until
from tests.world import EXCHANGE, JWT, SUBJECTS, World, logs_in

if TYPE_CHECKING:
    from collections.abc import Generator

    from broker.config import Config
    from broker.dev.stack import DevStack

QUICK = """
[revocation]
backoff = "100ms"
max_backoff = "500ms"
claim = "2s"
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[DevStack, Config]]:
    with own_stack(tmp_path_factory.mktemp("killed"), QUICK) as made:
        stack, config = made
        file = stack.data / "config.toml"
        # Pending grants are given up six Vault time-outs after they were reserved.
        text = file.read_text().replace("[vault]\n", '[vault]\ntimeout = "500ms"\n')
        assert "500ms" in text
        file.write_text(text)
        yield stack, config


class Client:
    """An orchestrator that asks over HTTP, and keeps what it is given."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.http = self._connections()
        self.delivered: list[dict[str, Any]] = []

    def _connections(self) -> httpx2.AsyncClient:
        return httpx2.AsyncClient(
            base_url=self._world.config.broker.issuer, trust_env=False, timeout=30
        )

    async def authorize(self) -> None:
        """Log in, over new connections: those to a killed server are no use."""
        await self.http.aclose()
        self.http = self._connections()
        form = {
            "grant_type": EXCHANGE,
            "subject_token": self._world.issuer.token(SUBJECTS["orchestrator"]).reveal(),
            "subject_token_type": JWT,
        }
        token = (await self.http.post("/oauth/token", data=form)).json()["access_token"]
        self.http.headers["Authorization"] = f"Bearer {token}"

    async def open(self) -> dict[str, Any]:
        ask = {"agent": "report-writer", "purpose": "load", "capabilities": ["orders-read"]}
        return (await self.http.post("/v1/tasks", json=ask)).json()

    async def load(self, task: dict[str, Any]) -> None:
        """Ask and ask, until nobody answers."""
        path = f"/v1/tasks/{task['task_id']}/grants"
        while True:
            try:
                answer = await self.http.post(path, json={"capability": "orders-read"})
            except httpx2.TransportError:
                return
            if answer.status_code == 201:
                self.delivered.append(answer.json())


@pytest.mark.parametrize("round_", [1, 2])
async def test_every_credential_is_in_the_ledger_or_dead_after_a_kill(
    own: tuple[DevStack, Config], round_: int
) -> None:
    stack, config = own
    serving = stack.data / "serve.log", "serve", "--config", stack.data / "config.toml"
    admin = Admin(stack)
    world = World(stack.issuer, config)
    await world.empty()
    client = Client(world)
    with Server(*serving) as server:
        server.wait_ready()
        await client.authorize()
        tasks = [await client.open() for _ in range(6)]
        loads = [asyncio.create_task(client.load(task)) for task in tasks for _ in range(2)]

        async def under_load() -> bool:
            return len(client.delivered) >= 30 * round_

        await wait_until(under_load, "credentials are being delivered")
        server.kill()
        await asyncio.gather(*loads)

    async def grants() -> list[Grant]:
        rows = [await world.app.pipeline.queries.grants_of(t["task_id"], dead=True) for t in tasks]
        return [grant for row in rows for grant in row]

    known = {g.id: g for g in await grants()}
    assert {d["grant_id"] for d in client.delivered} <= set(known)
    assert all(known[d["grant_id"]].lease for d in client.delivered)
    pending = [g for g in known.values() if g.state == "pending"]
    leases = {g.lease for g in known.values() if g.state not in DEAD and g.lease}
    unrecorded = await admin.leases() - leases
    assert len(unrecorded) <= len(pending)  # each by a grant whose handle is known
    assert leases <= await admin.leases()

    with Server(*serving) as server:
        server.wait_ready()
        await client.authorize()

        async def none_pending() -> bool:
            return all(g.state != "pending" for g in await grants())

        await wait_until(none_pending, "what was abandoned is taken up")
        for delivered in client.delivered[:3]:
            assert await logs_in(delivered["credential"])
        for task in tasks:
            path = f"/v1/tasks/{task['task_id']}/complete"
            assert (await client.http.post(path, json={})).status_code == 200

        async def all_dead() -> bool:
            return all(g.state in DEAD for g in await grants())

        await wait_until(all_dead, "everything is confirmed dead", within_s=60)

    assert await admin.roles() == set()
    # OpenBao, left by its client while it writes a lease, ends the credential and may forget the
    # lease's own entry: a name with nothing behind it, which no task token leads to.
    assert await admin.leases() <= unrecorded
    await admin.revoke_leases()
    await client.http.aclose()
    await world.close()
