"""The layout of the ledger: brought up once and whole, refused where it is newer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from broker.errors import ConfigError, LedgerNewer, LedgerUnavailable
from broker.ledger import keys
from broker.ledger.connection import Connection
from broker.ledger.schema import FIRST, Schema, Step

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from broker.config import Config
    from broker.dev.stack import DevStack

SHARDS = 4
COUNTED = Step(2, "counted", "redis.call('HINCRBY', FROZEN, 'steps', 1)")
NAMED = Step(
    3, "named", "redis.call('HSET', FROZEN, 'name', 'x' .. (redis.call('HGET', FROZEN, 'steps')))"
)
BROKEN = Step(2, "broken", "redis.call('HINCRBY', FROZEN, 'steps', 1) error('half way')")


@pytest.fixture
async def redis(engines: tuple[DevStack, Config]) -> AsyncGenerator[Connection]:
    made = Connection(engines[1].redis.url, shards=SHARDS)
    await made.on_every_server("FLUSHALL")
    yield made
    await made.close()


async def old(redis: Connection) -> None:
    """A ledger with something in every shard, from before versions were written."""
    for shard in range(SHARDS):
        await redis.command("HSET", keys.table(shard, "frozen"), "x", "y")


async def held(redis: Connection, field: str) -> list[Any]:
    return [await redis.command("HGET", keys.table(s, "frozen"), field) for s in range(SHARDS)]


async def versions(redis: Connection) -> set[int]:
    rows = [
        await redis.command("HGET", keys.table(s, keys.SCHEMA), "version") for s in range(SHARDS)
    ]
    return set(map(int, rows))


async def test_an_empty_ledger_has_the_newest_layout_at_once(redis: Connection) -> None:
    schema = Schema(redis, [COUNTED, NAMED])
    await schema.begin()
    assert await versions(redis) == {3}
    assert await held(redis, "steps") == [None] * SHARDS


async def test_an_old_one_is_brought_up_once_by_however_many(redis: Connection) -> None:
    await old(redis)
    replicas = [Schema(redis, [COUNTED, NAMED]) for _ in range(8)]
    await asyncio.gather(*(schema.begin() for schema in replicas))
    assert await versions(redis) == {3}
    assert await held(redis, "steps") == [b"1"] * SHARDS
    assert await held(redis, "name") == [b"x1"] * SHARDS


async def test_one_that_stopped_half_way_is_finished(redis: Connection) -> None:
    await old(redis)
    await Schema(redis).begin()
    first = Schema(redis, [COUNTED])
    await first._take(COUNTED, 1)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]  it died after one shard
    await Schema(redis, [COUNTED, NAMED]).begin()
    assert await held(redis, "steps") == [b"1"] * SHARDS
    assert await versions(redis) == {3}


async def test_a_step_that_fails_leaves_its_shard_at_the_version_before(redis: Connection) -> None:
    await old(redis)
    with pytest.raises(LedgerUnavailable):
        await Schema(redis, [BROKEN]).begin()
    assert await versions(redis) == {FIRST}


async def test_a_newer_one_is_refused(redis: Connection) -> None:
    await Schema(redis, [COUNTED]).begin()
    schema = Schema(redis)
    with pytest.raises(LedgerNewer, match="has layout 2, and this release knows 1"):
        await schema.begin()
    with pytest.raises(LedgerNewer):
        schema.check()


async def test_an_older_replica_notices_that_a_newer_one_has_begun(redis: Connection) -> None:
    await old(redis)
    schema = Schema(redis)
    await schema.begin()
    schema.check()
    await Schema(redis, [COUNTED]).begin()
    with pytest.raises(LedgerNewer):
        await schema.look()
    with pytest.raises(LedgerNewer):
        schema.check()
    assert "layout 2" in schema.problem(await schema.held())
    await redis.on_every_server("FLUSHALL")
    await schema.look()
    schema.check()
    assert await versions(redis) == {FIRST}


async def test_nothing_is_issued_before_the_ledger_was_seen(redis: Connection) -> None:
    nowhere = Connection("redis://127.0.0.1:1", shards=SHARDS)
    schema = Schema(nowhere)
    schema.check()
    with pytest.raises(LedgerUnavailable):
        await schema.begin()
    with pytest.raises(LedgerUnavailable):
        schema.check()
    await nowhere.close()


async def test_another_number_of_shards_is_refused(
    redis: Connection, engines: tuple[DevStack, Config]
) -> None:
    await Schema(redis).begin()
    other = Connection(engines[1].redis.url, shards=2 * SHARDS)
    with pytest.raises(ConfigError, match="has 4 shards"):
        await Schema(other).begin()
    schema = Schema(other)
    assert "shards" in schema.problem(await schema.held())
    await other.close()
