"""PostgreSQL: an account is a role."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final

from broker.errors import BackendRefused, BackendUnavailable
from broker.targets.protocol import CALL_S, not_installed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from broker.secret import Secret

_TIMEOUT_MS: Final = int(CALL_S * 1000)
_ENDING: Final = (
    # Committed before sessions are ended, or a new one slips in between.
    "ALTER ROLE {} NOLOGIN",
    # Only a member ends its sessions and hands over what it owns; a superuser needs no such thing.
    "GRANT {} TO CURRENT_USER",
    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = {literal}",
    "REASSIGN OWNED BY {} TO CURRENT_USER",
    "DROP OWNED BY {}",
    "DROP ROLE {}",
)


class PostgreSQL:
    """A server, as a superuser or as a role that made the accounts and may make others.

    What an account owns in the database of the URL goes to the role of the URL. One that owns
    something in another database can't be dropped, only kept from logging in.
    """

    def __init__(self, login: Callable[[], Secret]) -> None:
        """``login`` reads a ``postgresql://`` URL, or what else libpq takes."""
        self._login = login

    async def accounts(self) -> frozenset[str]:
        """Return the names of all roles."""
        async with self._session() as session:
            rows = await (await session.execute("SELECT rolname FROM pg_roles")).fetchall()
        return frozenset(str(row[0]) for row in rows)

    async def end(self, account: str) -> None:
        """Shut a role out, end its sessions, hand over what it owns, and drop it."""
        from psycopg import errors, sql  # noqa: PLC0415  an extra

        async with self._session() as session:
            for text in _ENDING:
                statement = sql.SQL(text).format(
                    sql.Identifier(account), literal=sql.Literal(account)
                )
                try:
                    await session.execute(statement)
                except errors.UndefinedObject:
                    return

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncGenerator[Any]:
        try:
            import psycopg  # noqa: PLC0415  an extra
        except ImportError as error:
            raise not_installed("psycopg") from error
        try:
            session = await psycopg.AsyncConnection.connect(
                self._login().reveal(),
                autocommit=True,
                connect_timeout=int(CALL_S),
                options=f"-c statement_timeout={_TIMEOUT_MS}",
            )
            async with session:
                yield session
        except psycopg.OperationalError as error:
            # Its text names hosts and users, and a URL that can't be read with all that is in it.
            raise BackendUnavailable(f"PostgreSQL: {type(error).__name__}") from error
        except psycopg.Error as error:
            raise BackendRefused(f"PostgreSQL: {type(error).__name__}") from error
