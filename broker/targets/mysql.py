"""MySQL and MariaDB: an account is a user, from whatever host."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from broker.errors import BackendRefused, BackendUnavailable
from broker.targets.protocol import CALL_S, not_installed

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from pathlib import Path

    from pymysql.cursors import Cursor

    from broker.secret import Secret

_PORT: Final = 3306
_NO_SUCH_THREAD: Final = 1094


class MySQL:
    """A server, as a user that sees ``mysql.user`` and all processes, and may drop users."""

    def __init__(self, login: Callable[[], Secret], ca_file: Path | None = None) -> None:
        """``login`` reads ``mysql://USER:PASSWORD@HOST:PORT``; with ``ca_file`` over TLS."""
        self._login = login
        self._ca_file = ca_file

    async def shut(self, accounts: Sequence[str]) -> Sequence[str]:
        """Lock these users for every host that they may come from, and end their sessions.

        One with SYSTEM_USER (MySQL 8) that the login may not change ends the call: those after it
        are left to whoever made them.
        """
        await asyncio.to_thread(self._shut, tuple(accounts))
        return ()

    async def accounts(self) -> frozenset[str]:
        """Return the names of all users."""
        return await asyncio.to_thread(self._names)

    async def end(self, account: str) -> None:
        """Lock a user, end its sessions, and drop it, for every host that it may come from."""
        await asyncio.to_thread(self._end, account)

    async def close(self) -> None:
        """Nothing is kept open."""

    def _names(self) -> frozenset[str]:
        with self._session() as cursor:
            cursor.execute("SELECT User FROM mysql.user")
            return frozenset(_text(row[0]) for row in cursor.fetchall())

    def _shut(self, accounts: tuple[str, ...]) -> None:
        with self._session() as cursor:
            _lock(cursor, accounts)

    def _end(self, account: str) -> None:
        with self._session() as cursor:
            for user, host in _lock(cursor, (account,)):
                cursor.execute("DROP USER IF EXISTS %s@%s", (user, host))

    @contextlib.contextmanager
    def _session(self) -> Generator[Any]:
        try:
            import pymysql  # noqa: PLC0415  an extra
        except ImportError as error:
            raise not_installed("PyMySQL") from error
        place = urlsplit(self._login().reveal())
        if place.scheme not in ("mysql", "mariadb") or not place.hostname:
            raise BackendRefused("its file doesn't hold mysql://USER:PASSWORD@HOST:PORT")
        trust = ssl.create_default_context(cafile=self._ca_file) if self._ca_file else None
        try:
            connection = pymysql.connect(
                host=place.hostname,
                port=place.port or _PORT,
                user=unquote(place.username or ""),
                password=unquote(place.password or ""),
                ssl=trust,
                autocommit=True,
                connect_timeout=int(CALL_S),
                read_timeout=CALL_S,
                write_timeout=CALL_S,
            )
            with connection, connection.cursor() as cursor:
                yield cursor
        except pymysql.OperationalError as error:
            # Its text names hosts and users.
            raise BackendUnavailable(f"MySQL: error {_number(error)}") from error
        except pymysql.MySQLError as error:
            raise BackendRefused(f"MySQL: error {_number(error)}") from error


def _lock(cursor: Cursor, accounts: tuple[str, ...]) -> list[tuple[str, str]]:
    """Lock users, and end their sessions; return each with the hosts it may come from."""
    import pymysql  # noqa: PLC0415  an extra

    cursor.execute("SELECT User, Host FROM mysql.user WHERE User IN %s", (accounts,))
    users = [(_text(user), _text(host)) for user, host in cursor.fetchall()]
    for user, host in users:
        cursor.execute("ALTER USER IF EXISTS %s@%s ACCOUNT LOCK", (user, host))
    cursor.execute("SELECT ID FROM information_schema.PROCESSLIST WHERE USER IN %s", (accounts,))
    for (session,) in cursor.fetchall():
        try:
            cursor.execute("KILL %s", (int(session),))
        except pymysql.MySQLError as error:
            if error.args[:1] != (_NO_SUCH_THREAD,):
                raise
    return users


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _number(error: Exception) -> str:
    return str(error.args[0]) if error.args and isinstance(error.args[0], int) else "unknown"
