"""PostgreSQL: an account is a role."""

from __future__ import annotations

import contextlib
import importlib
import json
from typing import TYPE_CHECKING, Any, Final

from broker.errors import BackendRefused, BackendUnavailable
from broker.targets.protocol import CALL_S, not_installed

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator, Sequence

    from psycopg import AsyncConnection

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
_SHUTTING: Final = """
DO $$
DECLARE
  account text;
  kept_in jsonb := '[]';
  plain boolean := NOT rolsuper FROM pg_roles WHERE rolname = current_user;
BEGIN
  FOR account IN
    SELECT rolname FROM pg_roles WHERE rolcanlogin
    AND rolname IN (SELECT json_array_elements_text(current_setting('broker.accounts')::json))
    ORDER BY rolname  -- or two replicas could wait for each other
  LOOP
    BEGIN
      EXECUTE format('ALTER ROLE %I NOLOGIN', account);
      IF plain THEN EXECUTE format('GRANT %I TO CURRENT_USER', account); END IF;
    EXCEPTION
      WHEN undefined_object OR internal_error THEN
        NULL;  -- somebody is ending it just now
      WHEN insufficient_privilege THEN  -- somebody else made it, or it is a superuser
        kept_in := kept_in || to_jsonb(account);
    END;
  END LOOP;
  PERFORM set_config('broker.kept_in', kept_in::text, false);
END $$
"""
_KEPT_IN: Final = "SELECT current_setting('broker.kept_in')::json"
_SESSIONS: Final = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = ANY (%s)
"""


class PostgreSQL:
    """A server, as a superuser or as a role that made the accounts and may make others.

    What an account owns in the database of the URL goes to the role of the URL. One that owns
    something in another database can't be dropped, only kept from logging in.
    """

    def __init__(self, login: Callable[[], Secret]) -> None:
        """``login`` reads a ``postgresql://`` URL, or what else libpq takes."""
        with contextlib.suppress(ImportError):  # said when it is used
            importlib.import_module("psycopg")  # it takes a while, and here nobody waits for it
        self._login = login
        self._door: AsyncConnection[Any] | None = None

    async def shut(self, accounts: Sequence[str]) -> Sequence[str]:
        """Take all of these the login in one transaction, then end their sessions.

        By a connection that is kept: what a new one takes is more than the rest of it.
        """
        kept = self._door is not None
        try:
            return await self._shut(list(accounts))
        except BackendUnavailable:
            if not kept:
                raise
            return await self._shut(list(accounts))  # that one may have been dead for long

    async def _shut(self, accounts: list[str]) -> list[str]:
        with _told():
            door, self._door = self._door or await self._connect(), None
            try:
                named = "SELECT set_config('broker.accounts', %s, false)"
                await door.execute(named, [json.dumps(accounts)])
                await door.execute(_SHUTTING)
                [[kept_in]] = await (await door.execute(_KEPT_IN)).fetchall()
                # Once that is committed, or a new one slips in between.
                await door.execute(_SESSIONS, [sorted(set(accounts) - set(kept_in))])
            except BaseException:
                await door.close()
                raise
            self._door = door
            return kept_in

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

    async def close(self) -> None:
        """Close the connection that is kept."""
        door, self._door = self._door, None
        if door is not None:
            await door.close()

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncGenerator[Any]:
        with _told():
            async with await self._connect() as session:
                yield session

    async def _connect(self) -> AsyncConnection[Any]:
        import psycopg  # noqa: PLC0415  an extra

        return await psycopg.AsyncConnection.connect(
            self._login().reveal(),
            autocommit=True,
            connect_timeout=int(CALL_S),
            options=f"-c statement_timeout={_TIMEOUT_MS}",
        )


@contextlib.contextmanager
def _told() -> Generator[None]:
    """Make errors of what is done inside ours."""
    try:
        import psycopg  # noqa: PLC0415  an extra
    except ImportError as error:
        raise not_installed("psycopg") from error
    try:
        yield
    except psycopg.OperationalError as error:
        # Its text names hosts and users, and a URL that can't be read with all that is in it.
        raise BackendUnavailable(f"PostgreSQL: {type(error).__name__}") from error
    except psycopg.Error as error:
        raise BackendRefused(f"PostgreSQL: {type(error).__name__}") from error
