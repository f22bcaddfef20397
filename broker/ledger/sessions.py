"""Sessions of people at the console, in the ledger so that any replica serves them.

A session is kept under the hash of its id: who reads the ledger can't take one over. It holds who
signed in, how and when, and no token. Signing out everywhere is a mark for the person, with a time:
what began before is over, also what another replica is just writing down.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

from broker.ledger import keys

if TYPE_CHECKING:
    from broker.ledger.connection import Connection


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRow:
    """A session. Times are epoch milliseconds.

    ``person`` is who they are to their identity provider, ``shown`` what they are called there.
    ``principal`` is their name in the register, empty if they aren't in it. ``rights`` are those
    that they signed in with. ``auth_at`` is when they last proved who they are, ``seen_at`` when
    they were last here, give or take a minute.
    """

    person: str
    shown: str
    principal: str
    method: str
    rights: tuple[str, ...]
    started_at: int
    seen_at: int
    auth_at: int


class SessionTable:
    """Writes, reads and ends sessions; ``digest`` is the hash of a session's id."""

    def __init__(self, connection: Connection) -> None:
        """Write and read through the ledger's connection."""
        self._redis = connection

    async def write(
        self, digest: str, row: SessionRow, *, ttl_ms: int, again: bool = False
    ) -> None:
        """Write a session that ends after ``ttl_ms``; with ``again`` only if it is still there."""
        only = ("XX",) if again else ()
        text = json.dumps(asdict(row))
        await self._redis.command("SET", keys.session(digest), text, *only, "PX", max(ttl_ms, 1))

    async def read(self, digest: str) -> SessionRow | None:
        """Return a session that is alive."""
        text = await self._redis.command("GET", keys.session(digest))
        row = _row(text) if text else None
        if row is None:
            return None
        ended = await self._redis.command("GET", keys.signed_out(row.person))
        return None if ended and row.started_at <= int(ended) else row

    async def drop(self, digest: str) -> None:
        """End one session."""
        await self._redis.command("DEL", keys.session(digest))

    async def drop_all(self, person: str, *, at_ms: int, keep_ms: int) -> None:
        """End every session of a person that began until ``at_ms``.

        ``keep_ms`` is how long the longest of them could have lasted.
        """
        key = keys.signed_out(person)
        await self._redis.command("SET", key, str(at_ms), "PX", max(keep_ms, 1))


def _row(text: bytes) -> SessionRow | None:
    """Read a session; one that another version wrote with less in it is none."""
    known = {f.name for f in fields(SessionRow)}
    row: dict[str, Any] = {k: v for k, v in json.loads(text).items() if k in known}
    if set(row) != known:
        return None
    row["rights"] = tuple(row["rights"])
    return SessionRow(**row)
