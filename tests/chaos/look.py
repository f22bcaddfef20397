"""Looking from outside: roles at PostgreSQL, leases and tokens at OpenBao, then the ledger."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import psycopg

from broker.backends.vault_api import VaultGone
from broker.errors import BrokerError
from broker.ledger.connection import Connection
from broker.ledger.outbox import Outbox
from broker.ledger.queries import Queries
from tests.chaos.check import Alive
from tests.chaos.servers import READ, WRITE

if TYPE_CHECKING:
    from broker.grants import Grant
    from broker.tasks import Task
    from tests.chaos.servers import Arena

_PAGE = 500


class Looker:
    """Reads what a round has left; ``since`` is when it began: what was before doesn't count."""

    def __init__(self, arena: Arena, since: float) -> None:
        self._arena = arena
        self._since_ms = int(since * 1000)
        self._ledger = Connection(arena.valkey.url, shards=arena.config.redis.shards)
        self._queries = Queries(self._ledger, ("vault", "token"))

    async def close(self) -> None:
        await self._ledger.close()

    async def alive(self) -> Alive:
        at = time.time()
        roles, leases, tokens = await self._roles(), await self._leases(), await self._tokens()
        tasks, grants = await self._tasks(), await self._grants()
        return Alive(
            at=at,
            roles=frozenset(roles),
            leases=frozenset(leases),
            tokens=frozenset(tokens),
            grants=grants,
            handles=frozenset(
                (task.id, handle)
                for task in tasks
                if not task.closed_at or task.closed_at >= at * 1000
                for handle in task.handles
            ),
            unclosed=frozenset(t.id for t in tasks if not t.closed_at),
        )

    async def drained(self) -> bool:
        """Whether every event is in the log."""
        with suppress(BrokerError):
            return await Outbox(self._ledger).waiting() == 0
        return False

    async def _roles(self) -> set[str]:
        dsn = self._arena.postgres.admin_dsn.reveal()
        async with await psycopg.AsyncConnection.connect(dsn, connect_timeout=5) as connection:
            rows = await connection.execute("SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%'")
            return {str(row[0]) for row in await rows.fetchall()}

    async def _leases(self) -> set[str]:
        found: set[str] = set()
        for name in (READ, WRITE):
            path = f"database/creds/{name}"
            keys = await self._listed(f"sys/leases/lookup/{path}")
            found |= {f"{path}/{key}" for key in keys}
        return found

    async def _tokens(self) -> set[tuple[str, str]]:
        found: set[tuple[str, str]] = set()
        for accessor in await self._listed("auth/token/accessors"):
            with suppress(BrokerError):  # it is going this moment
                body = {"accessor": accessor}
                row = await self._arena.vault("post", "auth/token/lookup-accessor", body)
                meta: dict[str, str] = row["data"].get("meta") or {}
                if "task" in meta:
                    found.add((meta["task"], meta["handle"]))
        return found

    async def _listed(self, path: str) -> list[Any]:
        try:
            return (await self._arena.vault("list", path))["data"]["keys"]
        except VaultGone:
            return []

    async def _tasks(self) -> list[Task]:
        found: list[Task] = []
        cursor = ""
        while True:
            page = await self._queries.tasks(self._ours, limit=_PAGE, cursor=cursor)
            found += page.items
            if page.next is None:
                return found
            cursor = page.next

    async def _grants(self) -> list[Grant]:
        found: list[Grant] = []
        cursor = ""
        while True:
            page = await self._queries.grants(self._ours, limit=_PAGE, cursor=cursor)
            found += page.items
            if page.next is None:
                return found
            cursor = page.next

    def _ours(self, row: Task | Grant) -> bool:
        return row.created_at >= self._since_ms
