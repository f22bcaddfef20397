"""Reading a ledger's outbox to its end, and what Redis itself says was in it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.batches import Place
from broker.ledger import keys
from tests.contract.ledger_bench import SHARDS, Bench
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from broker.batches import Batch, Gap
    from broker.events import Event
    from broker.ledger.outbox import Outbox

Cursor = dict[int, Place]


async def emit(bench: Bench, shard: int = 3, count: int = 1) -> None:
    for number in range(count):
        await bench.ledger.record("test", shard=shard, actor="op", data={"number": number})


async def add(bench: Bench, shard: int, stream_id: str, **fields: str) -> None:
    """Add a row as the broker never would."""
    pairs = [word for pair in fields.items() for word in pair]
    await bench.connection.command("XADD", keys.table(shard, "audit"), stream_id, *pairs)


async def stream(bench: Bench, shard: int) -> list[str]:
    """The ids in a shard's stream, by Redis itself."""
    rows: Any = await bench.connection.client.xrange(keys.table(shard, "audit"))
    return [stream_id.decode() for stream_id, _ in rows]


async def everything(bench: Bench) -> list[str]:
    """Ids of all events in their order, as the API gives them."""
    found = [
        (*map(int, stream_id.split("-")), shard)
        for shard in range(SHARDS)
        for stream_id in await stream(bench, shard)
    ]
    return [f"{ms}-{s:02x}-{seq}" for ms, s, seq in sorted((m, s, q) for m, q, s in found)]


async def drain(
    outbox: Outbox, cursor: Mapping[int, Place] | None = None, *, per_shard: int = 100
) -> tuple[list[Event], list[Gap], Cursor]:
    """Read until nothing is left that is old enough."""
    events: list[Event] = []
    gaps: list[Gap] = []
    place = dict(cursor or {})
    while True:
        batch = await outbox.read(place, per_shard=per_shard)
        events += batch.events
        gaps += batch.gaps
        place = dict(batch.cursor)
        if not batch.more:
            return events, gaps, place


async def settled(outbox: Outbox, cursor: Mapping[int, Place], last: str) -> Batch:
    """Read once the event with this id is old enough."""

    async def look() -> Batch | None:
        batch = await outbox.read(cursor)
        return batch if any(event.id == last for event in batch.events) else None

    found = await wait_until(look, f"event {last} is read")
    assert found is not None
    return found


async def all_read(
    bench: Bench, outbox: Outbox, *, per_shard: int = 100
) -> tuple[list[Event], Cursor]:
    """Drain a ledger to which nothing is being added; there must be no gap."""
    wanted = await everything(bench)

    async def look() -> tuple[list[Event], list[Gap], Cursor] | None:
        found = await drain(outbox, per_shard=per_shard)
        return found if len(found[0]) == len(wanted) else None

    found = await wait_until(look, "all events are read")
    assert found is not None
    events, gaps, cursor = found
    assert gaps == []
    assert [event.id for event in events] == wanted
    return events, cursor
