"""Sessions: from a cookie to who is here, and back.

The id is 256 random bits in a cookie that scripts don't see and other sites can't set; the ledger
has its hash. It is a new one at each sign-in, so one that somebody else has planted is worth
nothing. A session ends when it was idle, when it is old, when its person signs out (here, or
everywhere), and at once when they are suspended or retired.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from broker.console.rights import Right
from broker.errors import AccessDenied
from broker.ledger.sessions import SessionRow

if TYPE_CHECKING:
    from starlette.requests import HTTPConnection
    from starlette.responses import Response

    from broker.access import Caller
    from broker.clock import Clock
    from broker.console.people import People, Person
    from broker.ledger.sessions import SessionTable

COOKIE: Final = "__Host-broker-session"
_NOTE_MS: Final = 60_000
"""How old ``seen_at`` may be before it is written anew."""
_MAX_CHARS: Final = 100


@dataclass(frozen=True, slots=True)
class SessionTimes:
    """When sessions end, and how long signing in counts as recent; milliseconds."""

    idle_ms: int = 1_800_000
    max_ms: int = 43_200_000
    fresh_ms: int = 300_000


@dataclass(frozen=True, slots=True)
class Session:
    """A live session: its person as the broker knows them, and the token that its forms carry."""

    digest: str
    row: SessionRow
    caller: Caller
    csrf: str
    ends_at: int

    @property
    def rights(self) -> frozenset[Right]:
        """What its person may do."""
        return frozenset(map(Right, self.row.rights))


class Sessions:
    """Begins, finds and ends sessions."""

    def __init__(
        self, table: SessionTable, people: People, times: SessionTimes, clock: Clock
    ) -> None:
        """``people`` says at each request whether a session's person may still be here."""
        self.times = times
        self._table = table
        self._people = people
        self._clock = clock

    async def begin(self, person: Person, before: HTTPConnection, answer: Response) -> None:
        """Begin a session and give its id to the browser; one that it had is over."""
        await self.end(before)
        identifier, now = secrets.token_urlsafe(32), self._now()
        row = SessionRow(
            person=person.key,
            shown=person.shown,
            principal=person.principal,
            method=person.method,
            rights=tuple(sorted(person.rights)),
            started_at=now,
            seen_at=now,
            auth_at=now,
        )
        await self._table.write(_digest(identifier), row, ttl_ms=self._left(row))
        set_cookie(answer, COOKIE, identifier, self.times.max_ms // 1000)

    async def find(self, request: HTTPConnection, *, note: bool = True) -> Session | None:
        """Return the session of a request; with ``note`` its person counts as having been here.

        Raises:
            LedgerUnavailable: nobody knows.
        """
        identifier = request.cookies.get(COOKIE, "")
        if not 0 < len(identifier) <= _MAX_CHARS:
            return None
        digest = _digest(identifier)
        row = await self._table.read(digest)
        if row is None or self._left(row) <= 0:
            return None
        try:
            rights = frozenset(map(Right, row.rights))
            caller = self._people.caller(row.principal, row.person, row.method, rights)
        except (AccessDenied, ValueError):
            await self._table.drop(digest)
            return None
        now = self._now()
        if note and now - row.seen_at >= _NOTE_MS:
            row = replace(row, seen_at=now)
            await self._table.write(digest, row, ttl_ms=self._left(row), again=True)
        return Session(digest, row, caller, _csrf(identifier), row.started_at + self.times.max_ms)

    async def end(self, request: HTTPConnection) -> None:
        """End the session of a request, if it has one."""
        identifier = request.cookies.get(COOKIE, "")
        if 0 < len(identifier) <= _MAX_CHARS:
            await self._table.drop(_digest(identifier))

    async def end_all(self, session: Session) -> None:
        """End every session of a session's person, this one too."""
        now = self._now()
        await self._table.drop_all(session.row.person, at_ms=now, keep_ms=self.times.max_ms)
        await self._table.drop(session.digest)

    def is_fresh(self, session: Session) -> bool:
        """Say whether its person proved who they are a moment ago."""
        return self._now() - session.row.auth_at < self.times.fresh_ms

    def _left(self, row: SessionRow) -> int:
        """Milliseconds until a session is over if nobody uses it."""
        ends = min(row.seen_at + self.times.idle_ms, row.started_at + self.times.max_ms)
        return ends - self._now()

    def _now(self) -> int:
        return int(self._clock.now() * 1000)


def set_cookie(answer: Response, name: str, value: str, max_age_s: int) -> None:
    """Set a cookie that this origin alone can set and read, and no script can."""
    answer.set_cookie(
        name, value, max_age=max_age_s, path="/", secure=True, httponly=True, samesite="lax"
    )


def drop_cookie(answer: Response, name: str) -> None:
    """Have the browser forget a cookie of ``set_cookie``."""
    answer.delete_cookie(name, path="/", secure=True, httponly=True, samesite="lax")


def _digest(identifier: str) -> str:
    return hashlib.sha256(identifier.encode("utf-8", "replace")).hexdigest()


def _csrf(identifier: str) -> str:
    """Derive the token of a session's forms: whoever lacks the cookie can't make it."""
    key = identifier.encode("utf-8", "replace")
    return hmac.new(key, b"form", hashlib.sha256).hexdigest()
