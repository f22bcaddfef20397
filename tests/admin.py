"""Engines of a module's own, and what their admins can do behind the broker's back."""

from __future__ import annotations

import contextlib
import ssl
from typing import TYPE_CHECKING, Any, Final

import httpx2
import psycopg

from broker.clock import SystemClock
from broker.dev.engines.postgres import ORDERS_READ_CREATION, REVOCATION
from broker.dev.stack import DevStack
from tests.ports import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from broker.config import Config
    from tests.world import World

READ_PATH: Final = "database/creds/orders-read"
_NO_AUTHORITIES: Final = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""A client without one reads all the world's authorities, which takes longer than any call here."""


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
        async with httpx2.AsyncClient(trust_env=False, timeout=30, verify=_NO_AUTHORITIES) as http:
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
        await self._set_role(role, ORDERS_READ_CREATION, statements or REVOCATION)

    async def set_creation(self, role: str, *before: str) -> None:
        """Write a Vault database role anew, with these statements before those that create."""
        await self._set_role(role, (*before, *ORDERS_READ_CREATION), REVOCATION)

    async def _set_role(
        self,
        role: str,
        creation: tuple[str, ...],
        revocation: tuple[str, ...],
        mount: str = "database",
    ) -> None:
        await self.vault(
            "POST",
            f"{mount}/roles/{role}",
            {
                "db_name": "orders",
                "creation_statements": list(creation),
                "revocation_statements": list(revocation),
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

    async def statements(self) -> set[str]:
        """What PostgreSQL is busy with."""
        rows = await self.sql("SELECT query FROM pg_stat_activity WHERE state = 'active'")
        return {str(row[0]) for row in rows}

    async def unseal(self) -> None:
        key = (self._bao.home / "unseal-key").read_text()
        await self.vault("PUT", "sys/unseal", {"key": key})

    async def mount_database(self, name: str, role: str) -> None:
        """A second database engine, on the same PostgreSQL, with one role."""
        await self.vault("POST", f"sys/mounts/{name}", {"type": "database"})
        await self.point_database(name, None)
        await self._set_role(role, ORDERS_READ_CREATION, REVOCATION, name)

    async def point_database(self, name: str, port: int | None) -> None:
        """Let an engine believe its PostgreSQL to be at another port; None is the real one."""
        real = f":{self._postgres.port}/"
        url = self._postgres.vault_dsn_template.replace(real, f":{port}/" if port else real)
        await self.vault(
            "POST",
            f"{name}/config/orders",
            {
                "plugin_name": "postgresql-database-plugin",
                "connection_url": url,
                "allowed_roles": ["*"],
                "username": self._postgres.vault_username,
                "password": self._postgres.vault_password.reveal(),
                "password_authentication": "scram-sha-256",
                "max_open_connections": 32,
                "verify_connection": port is None,
            },
        )
