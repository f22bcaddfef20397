"""Signals in a real Valkey: the last word counts in every shard, and what ended is forgotten."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.errors import AccessDenied, NotFound
from broker.ids import new_id, shard_of
from broker.ledger import keys
from broker.ledger.actions import Actions
from broker.ledger.models import Changed, LedgerTimes
from broker.ledger.signals import Signal, SignalTable, Statement
from broker.trail import Step
from tests.contract.ledger_bench import DECISION, HOUR, SHARDS, Bench
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from broker.config import Config
    from broker.dev.stack import DevStack
    from broker.trail import Signals

AGENT: Final = "agent:report-writer"
BAD: Final = Statement(risk=90, verdict="compromised", reason='it | said: "no"')
ODD: Final = Statement(risk=50, verdict="suspicious", reason="odd hours")


@pytest.fixture
async def bench(engines: tuple[DevStack, Config]) -> AsyncGenerator[Bench]:
    """A ledger that keeps nothing longer than it must."""
    made = Bench(engines[1].redis.url, replace(LedgerTimes(), retain_ms=0))
    await made.connection.command("FLUSHALL")
    yield made
    await made.close()


@pytest.fixture
def table(bench: Bench) -> SignalTable:
    return SignalTable(bench.connection)


async def report(
    table: SignalTable, about: str, said: Statement, *, only_raise: bool = False
) -> Signal:
    """Report as an operator, or with ``only_raise`` as a detector, everywhere."""
    signal = await table.report(about, said, only_raise=only_raise, actor="somebody")
    await table.spread(signal)
    return signal


async def seen(bench: Bench, task_id: str) -> Signals:
    """What a decision about a task is told."""
    _, survey = await Actions(bench.connection).survey(task_id)
    return survey.signals


async def held(bench: Bench, about: str) -> list[dict[str, Any] | None]:
    """What each shard holds, but for whether it is open, which is the first one's business."""
    rows: list[dict[str, Any] | None] = []
    for shard in range(SHARDS):
        key = keys.table(shard, "frozen")
        text = await bench.connection.command("HGET", key, f"signal:{about}")
        row = json.loads(text) if text else None
        rows.append(row and {k: v for k, v in row.items() if k != "open"})
    return rows


@pytest.mark.parametrize("about", [AGENT, "agent:orchestrator", "owner:you@example.com"])
async def test_whom_a_task_hangs_from_counts_in_every_shard(
    bench: Bench, table: SignalTable, about: str
) -> None:
    tasks = [await bench.open(shard=shard) for shard in range(SHARDS)]

    await report(table, about, BAD)

    for task in tasks:
        found = await seen(bench, task.id)
        assert (found.risk, found.verdict, found.sources) == (90, "compromised", (about,))
    assert (await bench.event_types())["signal.set"] == 1


async def test_a_tasks_counts_for_all_below_it_and_for_nobody_else(
    bench: Bench, table: SignalTable
) -> None:
    root = await bench.open()
    child = await bench.open(root)
    below, sibling = await bench.open(child), await bench.open(root)

    await report(table, f"task:{child.id}", ODD)

    assert [(await seen(bench, t.id)).risk for t in (root, child, below, sibling)] == [0, 50, 50, 0]
    assert [row is not None for row in await held(bench, f"task:{child.id}")].count(True) == 1


async def test_the_worst_of_several_counts(bench: Bench, table: SignalTable) -> None:
    task = await bench.open()

    await report(table, AGENT, Statement(risk=70, verdict="clean", reason="x"))
    await report(table, f"task:{task.id}", Statement(risk=10, verdict="suspicious", reason="x"))

    found = await seen(bench, task.id)
    assert (found.risk, found.verdict) == (70, "suspicious")
    assert set(found.sources) == {AGENT, f"task:{task.id}"}


@pytest.mark.parametrize("about", [AGENT, "task"])
async def test_what_was_decided_before_is_not_written_any_more(
    bench: Bench, table: SignalTable, about: str
) -> None:
    task = await bench.open()
    actions, grant = Actions(bench.connection), bench.new_grant(task)
    for n in range(2):  # also when there was a signal before
        _, before = await actions.survey(task.id)

        await report(table, f"task:{task.id}" if about == "task" else about, replace(ODD, risk=n))

        with pytest.raises(Changed):
            await bench.ledger.reserve(
                grant,
                ttl_ms=HOUR,
                max_live=9,
                decision=DECISION,
                actor="x",
                seen=before.version,
            )
        with pytest.raises(Changed):
            await actions.call(
                task,
                capability="mail",
                decision={"id": "dec_1"},
                seen=before.version,
                step=Step(frozenset()),
                report_ms=HOUR,
                tokens=(),
                actor="x",
            )
    assert await bench.queries.grant(grant.id) is None


async def test_a_report_about_one_chain_disturbs_no_other(bench: Bench, table: SignalTable) -> None:
    task, other = await bench.open(shard=1), await bench.open(shard=2)
    _, before = await Actions(bench.connection).survey(other.id)

    await report(table, f"task:{task.id}", ODD)

    _, after = await Actions(bench.connection).survey(other.id)
    assert after.version == before.version


async def test_a_report_takes_the_place_of_the_one_before(bench: Bench, table: SignalTable) -> None:
    task = await bench.open()
    await report(table, AGENT, BAD)

    lower = await report(table, AGENT, ODD)

    found = await seen(bench, task.id)
    assert (found.risk, found.verdict) == (50, "suspicious")
    assert (await table.listed(limit=10))[0] == [lower]


@pytest.mark.parametrize(
    "said",
    [
        Statement(risk=89, verdict="compromised", reason="x"),
        Statement(risk=90, verdict="suspicious", reason="x"),
        Statement(risk=0, verdict="clean", reason="x"),
    ],
    ids=["risk", "verdict", "both"],
)
async def test_a_detector_cant_lower_what_stands(
    bench: Bench, table: SignalTable, said: Statement
) -> None:
    before = await report(table, AGENT, BAD)

    with pytest.raises(AccessDenied):
        await report(table, AGENT, said, only_raise=True)

    assert (await table.listed(limit=10))[0] == [before]
    assert (await bench.event_types())["signal.set"] == 1


@pytest.mark.parametrize(
    ("first_ttl", "then_ttl", "ends"),
    [(0, 60_000, False), (60_000, 0, False), (60_000, 90_000, True), (90_000, 60_000, True)],
)
async def test_what_a_detector_adds_leaves_the_worse_and_the_later(
    table: SignalTable, first_ttl: int, then_ttl: int, ends: bool
) -> None:
    first = await report(table, AGENT, replace(ODD, ttl_ms=first_ttl))
    said = Statement(risk=95, verdict="clean", reason="x", ttl_ms=then_ttl)

    added = await report(table, AGENT, said, only_raise=True)

    assert (added.risk, added.verdict) == (95, "suspicious")
    assert (added.until_ms > 0) is ends
    if ends:
        assert added.until_ms - added.at >= 90_000 - (added.at - first.at)


async def test_a_detector_may_say_the_same_again(table: SignalTable) -> None:
    first = await report(table, AGENT, replace(ODD, ttl_ms=60_000), only_raise=True)
    again = await report(table, AGENT, replace(ODD, ttl_ms=60_000), only_raise=True)

    assert again.version > first.version
    assert again.until_ms >= first.until_ms


async def test_it_ends_by_the_ledgers_clock_and_is_forgotten(
    bench: Bench, table: SignalTable
) -> None:
    task = await bench.open()
    await report(table, AGENT, replace(BAD, ttl_ms=200))
    assert (await seen(bench, task.id)).risk == 90

    async def over() -> bool:
        return (await seen(bench, task.id)).risk == 0

    await wait_until(over, "the signal ends")
    await bench.ledger.prune()
    assert await held(bench, AGENT) == [None] * SHARDS
    assert (await table.listed(limit=10))[0] == []
    await bench.check_tables()
    lower = await report(table, AGENT, replace(ODD, risk=1), only_raise=True)
    assert lower.risk == 1, "what has ended isn't lowered"


async def test_what_ended_doesnt_stand_in_a_detectors_way_before_it_is_forgotten(
    bench: Bench, table: SignalTable
) -> None:
    task = await bench.open()
    await report(table, AGENT, replace(BAD, ttl_ms=1))

    async def over() -> bool:
        return (await seen(bench, task.id)).risk == 0

    await wait_until(over, "the signal ends")
    assert (await report(table, AGENT, ODD, only_raise=True)).risk == 50


async def test_taken_back_it_counts_no_more(bench: Bench, table: SignalTable) -> None:
    task = await bench.open()
    await report(table, AGENT, BAD)

    gone = await table.take_back(AGENT, reason="a mistake", actor="operator")
    await table.spread(gone)

    assert (await seen(bench, task.id)).sources == ()
    assert not gone.stands(gone.at)
    with pytest.raises(NotFound):
        await table.take_back(AGENT, reason="again", actor="operator")
    assert (await bench.event_types())["signal.cleared"] == 1


async def test_nothing_can_be_said_of_a_task_that_is_not_there(table: SignalTable) -> None:
    for task_id in (new_id("tsk", 3), new_id("tsk", SHARDS), "tsk_1", ""):
        with pytest.raises(NotFound):
            await table.report(f"task:{task_id}", BAD, only_raise=False, actor="x")
        with pytest.raises(NotFound):
            await table.take_back(f"task:{task_id}", reason="x", actor="x")


async def test_a_pruned_task_takes_its_signal_along(bench: Bench, table: SignalTable) -> None:
    task = await bench.open()
    about = f"task:{task.id}"
    signal = await report(table, about, BAD)
    await bench.end(task)
    await bench.handle(task, "drop")
    await bench.ledger.close_task(task.id, actor="x")

    assert await bench.ledger.prune() == 1

    assert await held(bench, about) == [None] * SHARDS
    assert (await table.listed(limit=10))[0] == await table.unsettled() == []
    await table.settle(signal)
    await bench.check_tables()


async def test_of_several_at_once_every_shard_has_the_same(
    bench: Bench, table: SignalTable
) -> None:
    async def say(n: int) -> None:
        if n % 4 == 3:
            try:
                await table.spread(await table.take_back(AGENT, reason="x", actor="o"))
            except NotFound:
                return
        else:
            await report(table, AGENT, Statement(risk=n, verdict="clean", reason=str(n)))

    await asyncio.gather(*(say(n) for n in range(40)))

    rows = await held(bench, AGENT)
    assert rows[0] is not None
    assert rows == [rows[0]] * SHARDS


async def test_a_late_copy_undoes_nothing(bench: Bench, table: SignalTable) -> None:
    first = await table.report(AGENT, BAD, only_raise=False, actor="x")
    second = await report(table, AGENT, ODD)

    await table.spread(first)

    assert [row and row["risk"] for row in await held(bench, AGENT)] == [50] * SHARDS
    assert second.version > first.version


async def test_it_is_open_until_it_has_reached_everything(table: SignalTable) -> None:
    first = await table.report(AGENT, BAD, only_raise=False, actor="x")
    assert await table.unsettled() == [first]
    second = await table.report(AGENT, ODD, only_raise=False, actor="x")

    await table.settle(first)
    assert await table.unsettled() == [second], "the later one is still open"
    await table.settle(second)
    assert await table.unsettled() == []


async def test_they_are_listed_in_pages_each_once(bench: Bench, table: SignalTable) -> None:
    tasks = [await bench.open(shard=shard) for shard in range(SHARDS)]
    wanted = [f"task:{task.id}" for task in tasks]
    wanted += [f"agent:a{n}" for n in range(5)] + ["owner:ä|b@example.com", "owner:o@example.com"]
    for about in wanted:
        await report(table, about, ODD)

    for size in (1, 3, 100):
        found: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            signals, cursor = await table.listed(after=cursor, limit=size)
            assert len(signals) <= size
            found += [signal.selector for signal in signals]
        assert found == sorted(wanted, key=str.encode)
    assert {shard_of(task.id, "tsk") for task in tasks} == set(range(SHARDS))
