"""Work that one replica at a time does: its lease, its fence, and who takes over."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from broker.errors import LedgerUnavailable
from broker.ledger import keys
from broker.ledger.connection import Connection
from broker.ledger.lease import Lease
from broker.ledger.quarantine import QuarantineTable
from broker.ledger.reconciling import JOB, Reconciling
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from broker.config import Config
    from broker.dev.stack import DevStack

SHORT_MS = 300


@pytest.fixture
async def redis(engines: tuple[DevStack, Config]) -> AsyncGenerator[Connection]:
    made = Connection(engines[1].redis.url, shards=4)
    await made.on_every_server("FLUSHALL")
    yield made
    await made.close()


async def noted(fence: int) -> int:
    return fence


async def test_one_works_and_the_others_go_without(redis: Connection) -> None:
    first, second = Lease(redis, JOB), Lease(redis, JOB)
    over = asyncio.Event()
    fences: list[int] = []

    async def work(fence: int) -> str:
        fences.append(fence)
        await over.wait()
        return "done"

    working = asyncio.create_task(first.alone(work))
    await wait_until(lambda: reached(fences, 1), "it works")
    assert await second.alone(noted) is None
    assert 0 < await redis.command("PTTL", keys.lease(JOB)) <= 30_000
    over.set()
    assert await working == "done"
    assert await second.alone(noted) == fences[0] + 1  # at once: it was let go


async def test_it_is_kept_for_as_long_as_the_work_takes(redis: Connection) -> None:
    first, second = Lease(redis, JOB, ttl_ms=SHORT_MS), Lease(redis, JOB)

    async def work(_: int) -> bool:
        await asyncio.sleep(2 * SHORT_MS / 1000)
        return await second.alone(noted) is None

    assert await first.alone(work)


async def test_who_was_overtaken_is_cancelled(redis: Connection) -> None:
    first, second = Lease(redis, JOB, ttl_ms=SHORT_MS), Lease(redis, JOB)
    seen: list[str] = []

    async def work(_: int) -> None:
        # As if this process had been stopped until its lease ran out.
        await redis.command("DEL", keys.lease(JOB))
        taken.set()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            seen.append("cancelled")
            raise

    async def other(fence: int) -> int:
        await wait_until(lambda: reached(seen, 1), "the first has noticed")
        return fence

    taken = asyncio.Event()
    working = asyncio.create_task(first.alone(work))
    await taken.wait()
    assert await second.alone(other) == 2
    assert await working is None


async def test_the_work_that_fails_lets_go(redis: Connection) -> None:
    async def work(_: int) -> None:
        raise LookupError

    with pytest.raises(LookupError):
        await Lease(redis, JOB).alone(work)
    assert not await redis.command("EXISTS", keys.lease(JOB))


async def test_nobody_works_on_a_ledger_that_does_not_answer() -> None:
    nowhere = Connection("redis://127.0.0.1:1", shards=4)
    with pytest.raises(LedgerUnavailable):
        await Lease(nowhere, JOB).alone(noted)
    await nowhere.close()


async def test_a_report_of_whom_another_has_come_after_is_refused(redis: Connection) -> None:
    table = Reconciling(redis)

    async def report(name: str, fence: int) -> bool:
        return await table.finished({"at": name}, {}, actor="broker", fence=fence)

    old = await Lease(redis, JOB).alone(noted)
    new = await Lease(redis, JOB).alone(noted)
    assert old
    assert new
    assert new == old + 1
    assert await report("new", new)
    assert not await report("old", old)
    assert await table.last() == {"at": "new"}
    assert await table.finished({"at": "of a person"}, {}, actor="operator")  # who needs no lease


async def test_what_was_seen_before_a_quarantine_ended_sets_no_other(redis: Connection) -> None:
    table = QuarantineTable(redis)
    seconds, _ = await redis.command("TIME")
    before = int(seconds) * 1000 - 1000
    await table.set("lost", seen_ms=before)
    await table.release(actor="operator", reason="looked")
    await table.set("lost", seen_ms=before)
    assert await table.standing() is None
    await table.set("lost again", seen_ms=before + 3_600_000)
    assert await table.standing() is not None


async def reached(what: list[int] | list[str], count: int) -> bool:
    return len(what) >= count
