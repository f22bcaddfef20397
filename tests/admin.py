"""Engines of a module's own, and what their admins can do behind the broker's back."""

from __future__ import annotations

import contextlib
import socket
from typing import TYPE_CHECKING, Any, Final

import httpx2
import psycopg

from broker.clock import SystemClock
from broker.dev.engines.postgres import ORDERS_READ_CREATION, REVOCATION
from broker.dev.stack import DevStack

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from broker.config import Config
    from tests.world import World

READ_PATH: Final = "database/creds/orders-read"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def own_stack(data: Path, toml: str = "") -> Generator[tuple[DevStack, Config]]:
    """Engines that may be stopped and broken; ``toml`` is what the configuration says besides."""
    file = data / "given.toml"
    file.write_text(toml)
    stack = DevStack(data / "d", SystemClock(), config_file=file, durable=False)
    listen = f"127.0.0.1:{free_port()}"
    config = stack.start(listen, f"http://{listen}")
    try:
        yield stack, config
    finally:
        stack.stop()


@contextlib.asynccontextmanager
async def running(world: World) -> AsyncGenerator[World]:
    """A replica with its scheduler, as its HTTP application runs it."""
    app = world.app.http()
    async with app.router.lifespan_context(app):
        yield world


class Admin:
    """OpenBao's root and PostgreSQL's superuser."""

    def __init__(self, stack: DevStack) -> None:
        assert stack.openbao is not None
        assert stack.postgres is not None
        self._bao = stack.openbao
        self._postgres = stack.postgres

    async def vault(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        async with httpx2.AsyncClient(trust_env=False, timeout=30) as http:
            answer = await http.request(
                method,
                f"{self._bao.address}/v1/{path}",
                json=body,
                headers={"X-Vault-Token": self._bao.root_token.reveal()},
            )
        if answer.status_code == 404:
            return {}
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else {}

    async def leases(self, path: str = READ_PATH) -> set[str]:
        answer = await self.vault("LIST", f"sys/leases/lookup/{path}")
        return {f"{path}/{key}" for key in answer.get("data", {}).get("keys", [])}

    async def revoke_leases(self, path: str = READ_PATH) -> None:
        for lease in await self.leases(path):
            await self.vault("PUT", "sys/leases/revoke", {"lease_id": lease, "sync": True})

    async def set_revocation(self, role: str, *statements: str) -> None:
        """Write a Vault database role anew, with other revocation statements or the usual ones."""
        await self.vault(
            "POST",
            f"database/roles/{role}",
            {
                "db_name": "orders",
                "creation_statements": list(ORDERS_READ_CREATION),
                "revocation_statements": list(statements or REVOCATION),
                "default_ttl": "1h",
                "max_ttl": "24h",
            },
        )

    async def sql(self, statement: str, database: str = "orders") -> list[tuple[Any, ...]]:
        dsn = f"{self._postgres.admin_dsn.reveal().rpartition('/')[0]}/{database}"
        connection = await psycopg.AsyncConnection.connect(dsn, autocommit=True)
        async with connection:
            cursor = await connection.execute(statement.encode())
            return await cursor.fetchall() if cursor.description else []

    async def roles(self) -> set[str]:
        """The accounts Vault has made that PostgreSQL still knows."""
        rows = await self.sql("SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%'")
        return {str(row[0]) for row in rows}

    async def sessions(self) -> set[str]:
        """Whose sessions PostgreSQL has open."""
        rows = await self.sql("SELECT DISTINCT usename FROM pg_stat_activity")
        return {str(row[0]) for row in rows}
