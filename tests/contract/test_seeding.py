"""What the benchmark puts into a ledger is what issuing leaves there."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from broker.dev.bench.seeding import PER_TASK, Pattern, fill, seed
from broker.ids import shard_of
from broker.ledger import keys
from broker.ledger.actions import Actions
from tests.contract.ledger_bench import SHARDS, Bench

if TYPE_CHECKING:
    from broker.config import Config
    from broker.dev.stack import DevStack
    from broker.grants import Grant
    from broker.tasks import Task

_MOVING = {"created_at", "expires_at", "lives_until", "root_id", "task_id", "handles", "chain"}


async def issued(bench: Bench) -> Pattern:
    task = await bench.open()
    grant = await bench.activate(await bench.reserve(task))
    return Pattern(await bench.task(task), grant, "sha256:these")


async def footprint(bench: Bench, task: Task, grant: Grant) -> dict[str, list[str]]:
    """Where they are in the indexes and among what is due, with ids and times left out."""
    shard = shard_of(task.id, "tsk") or 0
    out: dict[str, list[str]] = {}
    for name in ("index", "due", "purge"):
        rows: list[bytes] = await bench.connection.command("ZRANGE", keys.table(shard, name), 0, -1)
        found = [row.decode() for row in rows if re.search(f"{task.id}|{grant.id}", row.decode())]
        known = [text.replace(task.id, "TASK").replace(grant.id, "GRANT") for text in found]
        out[name] = sorted(re.sub("[0-9]{13}", "TIME", text) for text in known)
    return out


async def row(bench: Bench, table: str, identifier: str) -> dict[str, Any]:
    kind = "tsk" if table == "tasks" else "grt"
    shard = shard_of(identifier, kind) or 0
    text = await bench.connection.command("HGET", keys.table(shard, table), identifier)
    return json.loads(text)


async def test_a_seeded_grant_is_where_an_issued_one_is(bench: Bench) -> None:
    like = await issued(bench)
    before = await footprint(bench, like.task, like.grant)
    assert len(before["index"]) >= 7
    (own,) = await fill(bench.connection, like, 3, 1)
    grant = await bench.queries.grant(own)
    assert grant is not None
    task = await bench.queries.task(grant.task_id)
    assert task is not None
    assert await footprint(bench, task, grant) == before
    for table, mine, theirs in (
        ("grants", grant.id, like.grant.id),
        ("tasks", task.id, like.task.id),
    ):
        seeded, real = await row(bench, table, mine), await row(bench, table, theirs)
        kept = set(real) - _MOVING - {"lease"}
        assert {name: seeded.get(name) for name in kept} == {name: real[name] for name in kept}
    assert grant.lease.endswith(own)


async def test_as_many_are_live_as_were_asked_for(
    bench: Bench, engines: tuple[DevStack, Config]
) -> None:
    like = await issued(bench)
    told: list[int] = []
    count = 3 * PER_TASK + 7
    await seed(engines[1].redis.url, like, count, told.append, shards=SHARDS)
    assert await bench.queries.count("gt|") == count + 1
    assert told == [count]
    actions = Actions(bench.connection)
    assert await actions.in_force("sha256:these", for_ms=3_600_000)  # none is decided again
    sync = await bench.connection.command("CONFIG", "GET", "appendfsync")
    assert "always" in str(sync)
