"""A world in which principals come and go at run time, and two replicas that share it."""

from __future__ import annotations

import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

from broker.dev.config import OWNER
from tests.world import SUBJECTS, World

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import httpx2

    from broker.config import Config
    from broker.dev.stack import DevStack

DAY_MS: Final = 86_400_000
WHY: Final = "a test"


class RegisterWorld(World):
    """A world whose newcomers the dev issuer speaks for as ``agent/NAME``."""

    def identity(self, name: str) -> str:
        return self.issuer.token(SUBJECTS.get(name, f"agent/{name}")).reveal()

    async def operate(
        self, path: str, body: dict[str, Any], *, by: str = "operator"
    ) -> httpx2.Response:
        return await self.call(by, "POST", f"/v1/{path}", body)

    async def add(self, name: str = "newcomer", **fields: Any) -> dict[str, Any]:
        answer = await self.operate("principals", newcomer(name, **fields))
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def move(self, name: str, how: str, **fields: Any) -> dict[str, Any]:
        """Suspend, resume or retire a principal."""
        answer = await self.operate(f"principals/{name}/{how}", {"reason": WHY, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def shown(self, name: str) -> dict[str, Any]:
        answer = await self.call("operator", "GET", f"/v1/principals/{name}")
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def leave(self, owner: str = OWNER, **fields: Any) -> dict[str, Any]:
        """An owner leaves."""
        answer = await self.operate("owners/retire", {"owner": owner, "reason": WHY, **fields})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def logged(self, kind: str) -> list[dict[str, Any]]:
        """The events of a type, over all shards."""
        found: list[dict[str, Any]] = []
        for shard in range(self.config.redis.shards):
            key = f"broker:{{s{shard:02x}}}:audit"
            redis: Any = self.app.connection.client
            for _, row in await redis.xrange(key):
                if row[b"type"].decode() == kind:
                    found.append({"by": row[b"principal"].decode(), **json.loads(row[b"data"])})
        return found


@asynccontextmanager
async def replica(
    engines: tuple[DevStack, Config], *, empty: bool = False
) -> AsyncGenerator[RegisterWorld]:
    """A replica on the engines; with ``empty`` the ledger is cleared for it."""
    stack, config = engines
    made = RegisterWorld(stack.issuer, config)
    if empty:
        await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


def newcomer(name: str = "newcomer", **fields: Any) -> dict[str, Any]:
    """A good request to add an agent, for a test to spoil; None leaves a field out."""
    ask = {
        "name": name,
        "role": "agent",
        "owner": "team@example.com",
        "purpose": "a test",
        "identity": {"issuer": "dev", "subject": f"agent/{name}"},
        "capabilities": ["orders-api"],
        **fields,
    }
    if ask["role"] != "agent" and "capabilities" not in fields:
        del ask["capabilities"]
    return {key: value for key, value in ask.items() if value is not None}


async def revoked(world: World, grant_id: str) -> bool:
    """Whether a grant is confirmed dead."""
    grant = await world.app.pipeline.queries.grant(grant_id)
    return grant is not None and grant.state == "revoked"
