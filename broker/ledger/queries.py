"""Reads of the ledger: one row, pages newest first, what is due, events."""

from __future__ import annotations

import heapq
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar, cast

from broker.errors import InvalidRequest
from broker.grants import Grant, GrantState
from broker.ids import shard_of, time_of
from broker.ledger import keys
from broker.ledger.chains import Chains
from broker.ledger.rows import event_row, grant_row, task_row
from broker.register import MARKS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from broker.events import Event
    from broker.ledger.connection import Connection
    from broker.tasks import Task

T = TypeVar("T")

UNSETTLED: Final = (GrantState.PENDING, GrantState.REVOKING, GrantState.STUCK)
_CLOCKS_MS: Final = 60_000
"""How far the clocks of broker and server may be apart for a decision to be found again."""
_SCAN: Final = 2000
"""Index entries one page reads at most; a filtered page may be short and still have a next."""
_TOGETHER: Final = 2000
"""Counts in one trip, so that their answers don't hold up what else this process does."""
_OVERDUE_MS: Final = 5000
_SCRIPT_MS: Final = 1000
"""Longer than any script runs."""


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """A page of a list; ``next`` is the cursor of the one after it, or None."""

    items: tuple[T, ...]
    next: str | None


@dataclass(frozen=True, slots=True)
class Inventory:
    """How much there is, over all shards; grants by capability.

    ``live`` is what is not confirmed dead, ``stuck`` the part of it that used up its retries,
    ``unknown`` the part whose capability wasn't asked about. ``scheduled`` is what a sweep will
    look at, ``due`` what it may take now, ``overdue`` what was due seconds ago. ``unreported`` are
    allowed calls of which nobody has said what became.
    """

    live: Mapping[str, int]
    stuck: Mapping[str, int]
    unknown: int
    unreported: int
    approvals: int
    reviews: int
    scheduled: int
    due: int
    overdue: int


class Queries:
    """Reads of the ledger. ``backends`` are the names the state index is kept by."""

    def __init__(self, connection: Connection, backends: Sequence[str]) -> None:
        """Read through the same connection as the writes."""
        self._redis = connection
        self._backends = tuple(backends)
        self.chains = Chains(connection)

    async def task(self, task_id: str) -> Task | None:
        """Return a task, or None."""
        shard = self._shard(task_id, "tsk")
        if shard is None:
            return None
        text = await self._redis.command("HGET", keys.table(shard, "tasks"), task_id)
        return task_row(text, task_id) if text else None

    async def grant(self, grant_id: str) -> Grant | None:
        """Return a grant, or None."""
        shard = self._shard(grant_id, "grt")
        if shard is None:
            return None
        text = await self._redis.command("HGET", keys.table(shard, "grants"), grant_id)
        return grant_row(text, grant_id) if text else None

    async def tasks(
        self,
        keep: Callable[[Task], bool],
        *,
        limit: int,
        cursor: str = "",
        orchestrator: str = "",
    ) -> Page[Task]:
        """Return tasks that pass ``keep``, of one orchestrator or all, newest first."""
        prefix = f"tb|{orchestrator}|" if orchestrator else "t|"
        return await self._page("tasks", [prefix], task_row, keep, limit, cursor)

    async def grants(
        self,
        keep: Callable[[Grant], bool],
        *,
        limit: int,
        cursor: str = "",
        state: GrantState | None = None,
        orchestrator: str = "",
    ) -> Page[Grant]:
        """Return grants that pass ``keep``, of one orchestrator or all, newest first.

        A cursor names a row it has read: who may see some rows only gets an index of just those.
        """
        if orchestrator:
            prefixes = [f"gb|{orchestrator}|"]
        elif state in UNSETTLED:
            prefixes = [f"gs|{state}|{backend}|" for backend in self._backends]
        else:
            prefixes = ["g|"]
        return await self._page("grants", prefixes, grant_row, keep, limit, cursor)

    async def grants_of(self, task_id: str, *, dead: bool = False) -> list[Grant]:
        """Return a task's live grants, and with ``dead`` the ended ones too, newest first."""
        shard = self._shard(task_id, "tsk")
        if shard is None:
            return []
        found: list[str] = []
        for prefix in ("gt|", "gd|") if dead else ("gt|",):
            found += await self._ids_below(shard, f"{prefix}{task_id}|")
        ids = list(dict.fromkeys(found))  # one that died between the two is in both
        rows = await self._redis.rows("grants", [(shard, i) for i in ids])
        return sorted(
            (grant_row(row, i) for i, row in zip(ids, rows, strict=True) if row),
            key=lambda g: (g.created_at, g.id),
            reverse=True,
        )

    async def children_of(self, task_id: str) -> list[str]:
        """Return the ids of a task's children."""
        shard = self._shard(task_id, "tsk")
        return [] if shard is None else await self._ids_below(shard, f"tc|{task_id}|")

    async def live_under(self, prefix: str) -> list[str]:
        """Return every id an index holds below a prefix, such as ``ta|report-writer|``."""
        return await self.chains.live_under(prefix)

    async def count(self, prefix: str) -> int:
        """Count what an index holds below a prefix, over all shards."""
        pipe = self._redis.client.pipeline(transaction=False)
        low, high = f"[{prefix}", f"({prefix}".encode() + b"\xff"
        for shard in range(self._redis.shards):
            pipe.zlexcount(keys.table(shard, "index"), low, high)
        return sum(await self._redis.execute(pipe))

    async def inventory(self, capabilities: Mapping[str, str]) -> Inventory:
        """Count what there is; ``capabilities`` are the backends of those to count by name."""
        now = await self.now()
        kinds = [
            *(("live", name, f"gc|{backend}|{name}|") for name, backend in capabilities.items()),
            *(("stuck", name, f"gx|{backend}|{name}|") for name, backend in capabilities.items()),
            ("all", "", "gc|"),
            ("unreported", "", "do|"),
            ("approvals", "", "as|pending|"),
            ("reviews", "", "ro|"),
        ]
        bounds = [("-inf", "+inf"), ("-inf", now), ("-inf", now - _OVERDUE_MS)]
        width = len(kinds) + len(bounds)
        totals = [0] * width
        step = max(1, _TOGETHER // width)
        for first in range(0, self._redis.shards, step):
            pipe = self._redis.client.pipeline(transaction=False)
            for shard in range(first, min(first + step, self._redis.shards)):
                index, due = keys.table(shard, "index"), keys.table(shard, "due")
                for _, _, prefix in kinds:
                    pipe.zlexcount(index, f"[{prefix}", f"({prefix}".encode() + b"\xff")
                for low, high in bounds:
                    pipe.zcount(due, low, high)
            for at, count in enumerate(await self._redis.execute(pipe, "inventory")):
                totals[at % width] += count
        found = {(k, name): n for (k, name, _), n in zip(kinds, totals, strict=False)}
        live = {name: found["live", name] for name in capabilities}
        return Inventory(
            live,
            {name: found["stuck", name] for name in capabilities},
            found["all", ""] - sum(live.values()),
            found["unreported", ""],
            found["approvals", ""],
            found["reviews", ""],
            *totals[len(kinds) :],
        )

    async def next_due(self) -> dict[int, int]:
        """Return, for each shard with anything scheduled, when its first item is due (epoch ms)."""
        pipe: Any = self._redis.client.pipeline(transaction=False)
        for shard in range(self._redis.shards):
            pipe.zrange(keys.table(shard, "due"), 0, 0, withscores=True)
        answers = await self._redis.execute(pipe)
        return {shard: int(rows[0][1]) for shard, rows in enumerate(answers) if rows}

    async def now(self) -> int:
        """Return the ledger's time: epoch milliseconds by the server's clock."""
        seconds, micros = await self._redis.command("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    async def freezes(self) -> dict[str, dict[str, Any]]:
        """Return what is frozen: selector to who, when and why."""
        pairs = _fields(await self._redis.command("HGETALL", keys.table(0, "frozen")))
        frozen = {field.decode(): text for field, text in pairs.items()}
        return {
            field: json.loads(text)
            for field, text in frozen.items()
            if field.partition(":")[0] not in MARKS
            and not field.startswith("signal")
            and not field.startswith(keys.QUARANTINE)
            and field != keys.IN_FORCE
        }

    async def quarantined(self) -> bool:
        """Say whether the ledger is in quarantine; see ``quarantine.py``."""
        frozen = keys.table(0, "frozen")
        return bool(await self._redis.command("HEXISTS", frozen, keys.QUARANTINE))

    async def decision(self, decision_id: str) -> Event | None:
        """Return the event of a decision, while the ledger keeps it."""
        shard = self._shard(decision_id, "dec")
        if shard is None:
            return None
        at = time_of(decision_id)
        start, wanted = f"{max(at - _CLOCKS_MS, 0)}-0", decision_id.encode()
        while True:
            rows = await self._redis.command(
                "XRANGE", keys.table(shard, "audit"), start, f"{at + _CLOCKS_MS}", "COUNT", _SCAN
            )
            for stream_id, row in rows:
                event = event_row(shard, stream_id, _fields(row))
                if event.type == "decision" and event.decision.encode() == wanted:
                    return event
            if len(rows) < _SCAN:
                return None
            start = f"({rows[-1][0].decode()}"

    async def event(self, event_id: str) -> Event | None:
        """Return one event, while the ledger keeps it."""
        millis, shard, sequence = _parts(event_id)
        if shard >= self._redis.shards:
            return None
        at = f"{millis}-{sequence}"
        rows = await self._redis.command("XRANGE", keys.table(shard, "audit"), at, at)
        return next((event_row(shard, stream_id, _fields(row)) for stream_id, row in rows), None)

    async def ending(self, grant: Grant) -> str | None:
        """Return the id of the event by which a grant ended, while the ledger keeps it."""
        shard = self._shard(grant.id, "grt")
        if shard is None or not grant.ended_at:
            return None
        stream, wanted = keys.table(shard, "audit"), (f"grant.{grant.state}", grant.id)
        # The script that ended it read the clock before it wrote.
        start, end = str(grant.ended_at), str(grant.ended_at + _SCRIPT_MS)
        rows = await self._redis.command("XRANGE", stream, start, end, "COUNT", _SCAN)
        events = (event_row(shard, stream_id, _fields(row)) for stream_id, row in rows)
        return next((e.id for e in events if (e.type, e.grant_id) == wanted), None)

    async def events(
        self, *, after: str = "", task_id: str = "", since_ms: int = 0, limit: int = 100
    ) -> Page[Event]:
        """Return events oldest first, after the event with the id ``after``.

        Over all shards only what is at least a few milliseconds old is shown, so that reading on
        from the last one never misses another that was being written meanwhile.
        """
        shard = self._shard(task_id, "tsk") if task_id else None
        if task_id and shard is None:
            return Page((), None)
        shards = range(self._redis.shards) if shard is None else [shard]
        top = "+" if shard is not None else str(await self.now() - 3)
        starts = {s: max(_start(after, s), f"{since_ms}-0", key=_order) for s in shards}
        batch = limit + 1 if not task_id else _SCAN
        pipe = self._redis.client.pipeline(transaction=False)
        for s in shards:
            pipe.xrange(keys.table(s, "audit"), starts[s], top, count=batch)
        answers = zip(shards, await self._redis.execute(pipe), strict=True)
        rows = [(s, stream_id, row) for s, some in answers for stream_id, row in some]
        cut = ""
        if not task_id:  # each shard may have all of them, and most of what is read isn't needed
            rows = heapq.nsmallest(limit + 1, rows, key=lambda row: _place(row[0], row[1]))
        found = [event_row(*row) for row in rows]
        if task_id:
            cut = found[-1].id if len(found) == batch else ""
            found = [event for event in found if event.task_id == task_id]
        found.sort(key=lambda e: _parts(e.id))
        items = tuple(found[:limit])
        more = len(found) > limit
        return Page(items, items[-1].id if more else cut or None)

    async def _ids_below(self, shard: int, prefix: str) -> list[str]:
        low, high = f"[{prefix}", f"({prefix}".encode() + b"\xff"
        found = await self._redis.command("ZRANGEBYLEX", keys.table(shard, "index"), low, high)
        return [member.rpartition(b"|")[2].decode() for member in found]

    async def _page(
        self,
        table: str,
        prefixes: Iterable[str],
        read: Callable[[bytes, str], T],
        keep: Callable[[T], bool],
        limit: int,
        cursor: str,
    ) -> Page[T]:
        _check_cursor(cursor)
        prefixes = list(prefixes)
        items: list[T] = []
        scanned = 0
        while True:
            wanted = [
                (s, p, cursor, limit + 1) for s in range(self._redis.shards) for p in prefixes
            ]
            answers = await self._redis.ranges(wanted)
            found = sorted(
                (
                    (member[len(prefix) :].decode(), shard)
                    for (shard, prefix, _, _), members in zip(wanted, answers, strict=True)
                    for member in members
                ),
                reverse=True,
            )[: limit + 1]
            last = len(found) <= limit
            found = found[:limit]
            rows = await self._redis.rows(table, [(s, f.rpartition("|")[2]) for f, s in found])
            for (suffix, _), row in zip(found, rows, strict=True):
                cursor = suffix
                item = read(row, suffix.rpartition("|")[2]) if row else None
                if item is not None and keep(item):
                    items.append(item)
                    if len(items) == limit and not (last and suffix == found[-1][0]):
                        return Page(tuple(items), cursor)
            scanned += len(found)
            if last:
                return Page(tuple(items), None)
            if scanned >= _SCAN:
                return Page(tuple(items), cursor)

    def _shard(self, identifier: str, kind: Any) -> int | None:  # noqa: ANN401
        shard = shard_of(identifier, kind)
        return shard if shard is not None and shard < self._redis.shards else None


def _fields(row: Any) -> dict[bytes, bytes]:  # noqa: ANN401  a map by RESP3, a flat list by RESP2
    if isinstance(row, dict):
        return cast("dict[bytes, bytes]", row)
    return dict(zip(row[::2], row[1::2], strict=True))


def _check_cursor(cursor: str) -> None:
    stamp, _, identifier = cursor.partition("|")
    known = any(shard_of(identifier, kind) is not None for kind in ("tsk", "grt"))
    if cursor and not (stamp.isascii() and stamp.isdigit() and known):
        msg = "The cursor isn't one of this list's: leave it out to start at the newest."
        raise InvalidRequest(msg)


def _parts(event_id: str) -> tuple[int, int, int]:
    try:
        millis, shard, sequence = event_id.split("-")
        return int(millis), int(shard, 16), int(sequence)
    except ValueError:
        msg = f"{event_id[:64]!r} is not an event id: use the id of the last event you have."
        raise InvalidRequest(msg) from None


def _order(stream_id: str) -> tuple[int, int]:
    millis, _, sequence = stream_id.lstrip("(").partition("-")
    return int(millis), int(sequence or 0)


def _place(shard: int, stream_id: bytes) -> tuple[int, int, int]:
    """Where an event is among those of all shards: as ``_parts`` of its id."""
    millis, sequence = _order(stream_id.decode())
    return millis, shard, sequence


def _start(after: str, shard: int) -> str:
    """Where a shard's stream goes on after an event of any shard."""
    if not after:
        return "0-0"
    millis, at_shard, sequence = _parts(after)
    if shard < at_shard:
        return f"{millis + 1}-0"
    if shard == at_shard:
        return f"({millis}-{sequence}"
    return f"{millis}-0"
