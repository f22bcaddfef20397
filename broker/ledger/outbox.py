"""The outbox: events wait in the shards' streams until they are in the log.

One replica at a time drains, by a lease that runs out when it dies. Each time the lease is taken
anew the fence grows; who comes with an older one can't commit. The commit point is a key of the
first shard, and is lost or restored together with the streams.

Every shard has its own place, so nothing is passed over, however the clocks of shards differ. Redis
counts what was ever added to a stream: what is deleted or trimmed before it was read is a gap.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from broker.batches import START, Batch, CommitPoint, Gap, Place
from broker.ledger import keys
from broker.ledger.rows import event_row

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from broker.events import Event
    from broker.ledger.connection import Connection

LEASE_MS: Final = 10_000
"""How long after its last sign of life a replica still counts as the one that drains."""
_SETTLED_MS: Final = 3
"""No event that is this old is still being written in another shard, unless clocks differ."""
_PER_SHARD: Final = 250
"""Events read from one shard at a time."""
_MANY_BYTES: Final = 32 << 10
_AHEAD_MS: Final = 1000
"""An event so far in the future has an id that says nothing of its age."""

Cursor = dict[int, Place]


_Raw = tuple[int, int, str, bytes]
"""What the script says of a shard; see there."""


class _Read(NamedTuple):
    """What a shard had: its count, of which so many are too young, its last id, and events."""

    added: int
    younger: int
    last: str
    events: list[Event]


class Outbox:
    """Reads events in the order of all shards together, and keeps the log's commit point."""

    def __init__(self, connection: Connection) -> None:
        """Nothing is read yet."""
        self._redis = connection
        self._keys = (keys.head(), keys.lease("audit"))

    async def lease(
        self, owner: str, fence: int = 0, *, ttl_ms: int = LEASE_MS
    ) -> CommitPoint | None:
        """Take the right to drain, or renew it; None if another has it.

        ``fence`` is what ``owner`` had before. If it comes back as it was, nobody has been between.
        """
        held, *point = await self._lease(owner, fence, ttl_ms)
        return _point(point) if held else None

    async def release(self, owner: str) -> None:
        """Let another take the lease at once."""
        await self._lease(owner, 0, 0)

    async def commit(
        self,
        owner: str,
        point: CommitPoint,
        cursor: Mapping[int, Place],
        *,
        ttl_ms: int = LEASE_MS,
    ) -> bool:
        """Say that the log goes as far as ``point``; False if another has come after its fence."""
        args = {
            "owner": owner,
            "fence": point.fence,
            "ttl_ms": ttl_ms,
            "head": point.head,
            "cursor": json.dumps({str(shard): list(place) for shard, place in cursor.items()}),
            "at": point.at,
        }
        return await self._run("audit_commit", args) == b"ok"

    async def point(self) -> CommitPoint:
        """Return how far the log goes."""
        row = await self._redis.command("HMGET", self._keys[0], "fence", "head", "at")
        return _point(row)

    async def drained(self) -> list[str]:
        """Return for each shard the last id that is in the log, empty where there is none."""
        cursor = _cursor(await self._redis.command("HGET", self._keys[0], "cursor"))
        return [cursor[s][0] if s in cursor else "" for s in range(self._redis.shards)]

    async def waiting(self) -> int:
        """Return for how long the oldest event that isn't in the log has waited, in milliseconds.

        0 if none waits. An event whose id is in the future counts since the last commit.
        """
        pipe: Any = self._redis.pipeline()
        pipe.hmget(self._keys[0], ["cursor", "at"])
        pipe.time()
        [(text, at), (seconds, micros)] = await self._redis.execute(pipe)
        now, cursor = int(seconds) * 1000 + int(micros) // 1000, _cursor(text)
        pipe = self._redis.pipeline()
        for shard in range(self._redis.shards):
            after = cursor.get(shard, START)[0]
            pipe.xrange(keys.table(shard, "audit"), f"({after}", "+", count=1)
        oldest = [_millis(rows[0][0]) for rows in await self._redis.execute(pipe) if rows]
        since = [int(at or now) if ms > now + _AHEAD_MS else ms for ms in oldest]
        return max(0, now - min(since, default=now))

    async def read(self, cursor: Mapping[int, Place], *, per_shard: int = _PER_SHARD) -> Batch:
        """Read what comes after ``cursor``; of each shard at most ``per_shard`` events."""
        seconds, micros = await self._redis.command("TIME")
        now = int(seconds) * 1000 + int(micros) // 1000
        top = now - _SETTLED_MS
        shards = range(self._redis.shards)
        places = {shard: cursor.get(shard, START) for shard in shards}
        raw = await asyncio.gather(
            *(self._read(shard, places[shard][0], top, per_shard) for shard in shards)
        )
        if sum(len(text) for *_, text in raw) < _MANY_BYTES:
            return _batch(raw, places, per_shard, top, now)
        return await asyncio.to_thread(_batch, raw, places, per_shard, top, now)

    async def _read(self, shard: int, after: str, top: int, limit: int) -> _Raw:
        args = {"after": after, "top": top, "limit": limit}
        added, younger, last, text = await self._redis.run("audit_read", shard, args)
        return added, younger, last.decode(), text

    async def _lease(self, owner: str, fence: int, ttl_ms: int) -> Any:  # noqa: ANN401  as _run
        field = keys.fence("audit")
        args = {"field": field, "owner": owner, "fence": fence, "ttl_ms": ttl_ms}
        return await self._run("lease", args)

    async def _run(self, script: str, args: dict[str, Any]) -> Any:  # noqa: ANN401  as Connection.run
        head, lease = self._keys
        return await self._redis.run(script, 0, args, own_key=head, more_keys=[lease])


def _batch(raw: Sequence[_Raw], places: Cursor, per_shard: int, top: int, now: int) -> Batch:
    """Put what was read in one order. Many events take long: off the event loop, then."""
    reads = [
        _Read(added, younger, last, _events(shard, text))
        for shard, (added, younger, last, text) in enumerate(raw)
    ]
    # A shard with more than was read holds up the others' later events: order is for all.
    full = [read.events[-1] for read in reads if len(read.events) >= per_shard]
    limit = min(map(_order, full), default=None)
    kept: list[Event] = []
    gaps: list[Gap] = []
    after: Cursor = {}
    for shard, read in enumerate(reads):
        events = [e for e in read.events if limit is None or _order(e) <= limit]
        kept += events
        place = _moved(places[shard], events)
        if len(events) == len(read.events) < per_shard and (gap := _gap(shard, place, read)):
            gaps.append(gap)
            place = _mended(place, gap, read.last)
        if place != START:
            after[shard] = place
    kept.sort(key=_order)
    at = top if limit is None else min(top, limit[0] - 1)
    return Batch(tuple(kept), tuple(gaps), after, at, now, limit is not None)


def _events(shard: int, text: bytes) -> list[Event]:
    """Take the script's text apart."""
    events: list[Event] = []
    words = _words(text)
    for stream_id in words:
        fields = [next(words) for _ in range(int(next(words)))]
        events.append(
            event_row(shard, stream_id, dict(zip(fields[::2], fields[1::2], strict=True)))
        )
    return events


def _words(text: bytes) -> Iterator[bytes]:
    at = 0
    while at < len(text):
        begin = text.index(b" ", at) + 1
        at = begin + int(text[at : begin - 1])
        yield text[begin:at]


def _moved(place: Place, events: Sequence[Event]) -> Place:
    if not events:
        return place
    millis, _, sequence = events[-1].id.split("-")
    return f"{millis}-{sequence}", place[1] + len(events)


def _gap(shard: int, place: Place, read: _Read) -> Gap | None:
    """Compare what a shard says it was given with what was read of it, which is all there is."""
    last, count = place
    if read.added < 0:
        return None
    missed = read.added - read.younger - count
    if missed < 0 or _stream_order(read.last) < _stream_order(last):
        return Gap(shard, missed, "reset", read.added)
    if missed == 0:
        return None
    nothing_yet = count == len(read.events)
    return Gap(shard, missed, "before" if nothing_yet else "deleted", read.added)


def _mended(place: Place, gap: Gap, last: str) -> Place:
    """Return where a shard goes on after a gap: one that was set back gives out lower ids."""
    behind = _stream_order(last) < _stream_order(place[0])
    return (last if behind else place[0], place[1] + gap.missed)


def _order(event: Event) -> tuple[int, int, int]:
    millis, shard, sequence = event.id.split("-")
    return int(millis), int(shard, 16), int(sequence)


def _stream_order(stream_id: str) -> tuple[int, int]:
    millis, _, sequence = stream_id.partition("-")
    return int(millis), int(sequence)


def _millis(stream_id: bytes) -> int:
    return int(stream_id.partition(b"-")[0])


def _point(row: Sequence[Any]) -> CommitPoint:
    fence, head, at = row
    return CommitPoint(int(fence or 0), (head or b"").decode(), int(at or 0))


def _cursor(text: bytes | None) -> Cursor:
    rows: dict[str, tuple[str, int]] = json.loads(text) if text else {}
    return {int(shard): (last, count) for shard, (last, count) in rows.items()}
