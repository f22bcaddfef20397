"""Looking from outside: roles at PostgreSQL, leases and tokens at OpenBao, then the ledger."""

from __future__ import annotations

import time
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg

from broker.audit.head import Head
from broker.backends.vault_api import VaultGone
from broker.errors import BrokerError
from broker.ledger.connection import Connection
from broker.ledger.outbox import Outbox
from broker.ledger.queries import Queries
from tests.chaos.check import Alive
from tests.chaos.servers import READ, WRITE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from broker.grants import Grant
    from broker.ledger.queries import Page
    from broker.tasks import Task
    from tests.chaos.servers import Arena

T = TypeVar("T")
_PAGE: Final = 500


class Looker:
    """Reads what a round has left; ``since`` is when it began: what was before doesn't count."""

    def __init__(self, arena: Arena, since: float) -> None:
        self._arena = arena
        self._since_ms = int(since * 1000)

    @asynccontextmanager
    async def _ledger(self) -> AsyncGenerator[Connection]:
        """Connect anew each time: a Valkey that was started again may have another socket."""
        shards = self._arena.config.redis.shards
        connection = Connection(self._arena.valkey.url, shards=shards)
        try:
            yield connection
        finally:
            await connection.close()

    async def alive(self) -> Alive:
        at = time.time()
        roles, leases, tokens = await self._roles(), await self._leases(), await self._tokens()
        async with self._ledger() as ledger:
            queries = Queries(ledger, ("vault", "token"))
            tasks = await _all(partial(queries.tasks, self._ours, limit=_PAGE))
            grants = await _all(partial(queries.grants, self._ours, limit=_PAGE))
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
            async with self._ledger() as ledger:
                return await Outbox(ledger).waiting() == 0
        return False

    async def head(self) -> Head | None:
        """How far the log goes, by what the ledger says."""
        async with self._ledger() as ledger:
            text = (await Outbox(ledger).point()).head
        return Head.from_json(text) if text else None

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

    def _ours(self, row: Task | Grant) -> bool:
        return row.created_at >= self._since_ms


async def _all(read: Callable[..., Awaitable[Page[T]]]) -> list[T]:
    found: list[T] = []
    cursor: str | None = ""
    while cursor is not None:
        page = await read(cursor=cursor)
        found += page.items
        cursor = page.next
    return found
