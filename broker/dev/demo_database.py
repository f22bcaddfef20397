"""What PostgreSQL says to a credential, seen from its own side."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Self, cast

import psycopg

from broker.clock import SystemClock

if TYPE_CHECKING:
    from collections.abc import Callable

_clock = SystemClock()


class Session:
    """One open connection."""

    def __init__(self, dsn: str) -> None:
        """Log in."""
        self._connection = psycopg.connect(dsn, connect_timeout=10, autocommit=True)

    def number(self, query: str, *values: object) -> int:
        """Run a query whose answer is one number."""
        row = self._connection.execute(cast("Any", query), values).fetchone()
        return int(row[0]) if row else 0

    def end(self) -> str | None:
        """Ask something; return why the session is no more, or None if it still is."""
        try:
            self._connection.execute("SELECT 1")
        except psycopg.OperationalError as error:
            return _words(error)
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


def refusal(dsn: str) -> str | None:
    """Try to log in; return why not, in PostgreSQL's words, or None if it went well."""
    try:
        with Session(dsn) as session:
            session.number("SELECT 1")
    except psycopg.OperationalError as error:
        return _words(error)
    return None


def role_exists(admin_dsn: str, name: str) -> bool:
    """Look for a role in PostgreSQL's own table."""
    with Session(admin_dsn) as admin:
        return admin.number("SELECT count(*) FROM pg_roles WHERE rolname = %s", name) > 0


class Attempts:
    """Logs in again and again beside what else happens; tells when it was first refused."""

    def __init__(self, dsn: str) -> None:
        """``dsn`` works now."""
        self._dsn = dsn
        self._stopped = threading.Event()
        self._refused: float | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def refused_at(self, patience_s: float) -> float | None:
        """Wait for the first refusal; return its time on the monotonic clock."""
        self._thread.join(patience_s)
        return self._refused

    def _run(self) -> None:
        while not self._stopped.is_set():
            if refusal(self._dsn) is not None:
                self._refused = _clock.monotonic()
                return

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join()


def watch(dsn: str, until: float, on_success: Callable[[], None]) -> str | None:
    """Log in until refused, and return why; None if it still works at ``until``."""
    pause = threading.Event()
    while _clock.now() < until:
        why = refusal(dsn)
        if why is not None:
            return why
        on_success()
        pause.wait(0.05)
    return None


def _words(error: psycopg.Error) -> str:
    """PostgreSQL's own sentence, without the addresses that psycopg puts before it."""
    text = " ".join(str(error).split("\n", 1)[0].split())
    return text[text.find("FATAL:") :] if "FATAL:" in text else text
