"""What PostgreSQL lets in: asked of PostgreSQL itself, ten times a second, as its superuser.

A credential is alive while its role may log in, or a session of it is open. An answer tells of one
moment between the question and it: what is alive was so after the question was sent, what isn't was
dead when the answer had come.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import psycopg

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

_EVERY_S: Final = 0.1
_PATIENCE_S: Final = 1.0
_ALIVE: Final = """
SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%'
  AND rolcanlogin AND coalesce(rolvaliduntil > clock_timestamp(), true)
UNION SELECT usename FROM pg_stat_activity WHERE usename LIKE 'v-%'
"""


@dataclass(slots=True)
class Sight:
    """``alive`` is the last moment it was seen to be, ``gone`` the first it was seen not to be."""

    alive: float
    gone: float | None = None
    revived: float | None = None


class Watch:
    """Looks until it is told to stop."""

    def __init__(self, dsn: Callable[[], str]) -> None:
        self.seen: dict[str, Sight] = {}
        self.looks = 0
        self._dsn = dsn
        self._over = False
        self._connection: psycopg.AsyncConnection[Any] | None = None

    def stop(self) -> None:
        """Let ``run`` end. Not by cancelling it: in Python 3.11 ``wait_for`` may swallow that."""
        self._over = True

    async def run(self) -> None:
        try:
            while not self._over:
                with contextlib.suppress(psycopg.Error, TimeoutError):
                    await self.look()
                await asyncio.sleep(_EVERY_S)
        finally:
            await self._leave()

    async def look(self) -> None:
        """Ask once; a failure means that nothing was seen."""
        try:
            if self._connection is None:
                self._connection = await asyncio.wait_for(self._connect(), _PATIENCE_S)
            asked = time.time()
            cursor = await asyncio.wait_for(self._connection.execute(_ALIVE), _PATIENCE_S)
            alive = {str(row[0]) for row in await cursor.fetchall()}
            self.take(asked, time.time(), alive)
        except (psycopg.Error, TimeoutError):
            await self._leave()
            raise

    def take(self, asked: float, answered: float, alive: Collection[str]) -> None:
        self.looks += 1
        for user in alive:
            sight = self.seen.setdefault(user, Sight(asked))
            if sight.gone is not None:
                sight.revived, sight.gone = asked, None
            sight.alive = asked
        for user, sight in self.seen.items():
            if user not in alive and sight.gone is None:
                sight.gone = answered

    async def _connect(self) -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(self._dsn(), autocommit=True)

    async def _leave(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with contextlib.suppress(psycopg.Error, TimeoutError):
                await asyncio.wait_for(connection.close(), _PATIENCE_S)
