"""The register's scripts on a real Valkey: one change at a time, and marks in order."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.catalog import PrincipalState
from broker.errors import Frozen, PrincipalSuspended
from broker.ids import new_id, shard_of
from broker.ledger import keys
from broker.ledger.live_tokens import LiveTokens
from broker.ledger.registry import BATCH, Change, Registry, Stopped, stopped_by
from broker.register import Entry, OwnerEntry, Register, read_entry, read_owner
from tests.contract.ledger_bench import SHARDS, Bench
from tests.waiting import wait_until


@pytest.fixture
def registry(bench: Bench) -> Registry:
    return Registry(bench.connection, bench.ledger.times)


ADDED: dict[str, Any] = {"role": "agent", "purpose": "Zählen", "claims": [], "nested": {"a": [1]}}


async def test_what_is_written_is_read(registry: Registry) -> None:
    entry = Entry(name="a", owner="o@x", added=ADDED, added_at=1_800_000_000_123, state_reason='"|')
    owner = OwnerEntry(owner="o@x", left=True, at=7, by="me")
    change = Change(entries=[entry], owners=[owner], todo=["p|a", "o|o@x"])

    assert await registry.write(Register(), change, [("suspended:a", "")], actor="op") == "ok"
    await registry.note(used=["a"], seen=["b"])
    read = await registry.load()

    assert read.version == await registry.version() == 1
    assert read.entries == {"a": entry}
    assert read.owners == {"o@x": owner}
    assert set(read.todo) == {"p|a", "o|o@x"}
    assert {version for version, _ in read.todo.values()} == {1}
    assert read.used["a"] >= read.seen["b"] - 1 > 0


async def test_an_empty_register_is_read(registry: Registry) -> None:
    assert await registry.load() == Register()
    assert await registry.version() == 0


async def test_of_changes_decided_on_one_version_one_is_made(registry: Registry) -> None:
    changes = [Change(entries=[Entry(name=f"n{n}")], events=[("x", {"n": n})]) for n in range(8)]

    answers = await asyncio.gather(
        *(registry.write(Register(), change, [], actor="op") for change in changes)
    )

    assert sorted(answers) == ["changed"] * 7 + ["ok"]
    assert len((await registry.load()).entries) == 1


async def test_a_refused_write_leaves_nothing(bench: Bench, registry: Registry) -> None:
    await registry.write(Register(), Change(entries=[Entry(name="a")]), [], actor="op")
    change = Change(entries=[Entry(name="b")], todo=["p|b"], events=[("x", {})])

    assert await registry.write(Register(), change, [("suspended:b", "")], actor="op") == "changed"

    read = await registry.load()
    assert (set(read.entries), dict(read.todo)) == ({"a"}, {})
    assert await bench.connection.command("EXISTS", keys.table(0, "frozen")) == 0
    assert await bench.connection.command("XLEN", keys.table(0, "audit")) == 0


async def test_only_the_version_that_was_finished_is_settled(registry: Registry) -> None:
    await registry.write(
        Register(), Change(entries=[Entry(name="a")], todo=["p|a"]), [], actor="op"
    )
    first = await registry.load()
    await registry.write(first, Change(entries=[Entry(name="a")], todo=["p|a"]), [], actor="op")

    await registry.settle("p|a", 1)
    assert (await registry.load()).todo["p|a"][0] == 2
    await registry.settle("p|a", 2)
    assert (await registry.load()).todo == {}


async def test_a_late_writer_doesnt_undo_a_later_version(bench: Bench, registry: Registry) -> None:
    await registry.spread([("suspended:a", "")], 5)
    await registry.spread([("suspended:a", None), ("owned:a", "old")], 4)
    await registry.spread([("owned:a", "new")], 6)
    await registry.spread([("owned:a", "old")], 5)

    for shard in range(SHARDS):
        table = keys.table(shard, "frozen")
        assert await bench.connection.command("HGET", table, "suspended:a") == b"5|"
        assert await bench.connection.command("HGET", table, "owned:a") == b"6|new"


async def test_repairing_is_held_back_by_a_change_it_hasnt_seen(
    bench: Bench, registry: Registry
) -> None:
    await registry.spread([("suspended:new", "")], 9)

    await registry.repair({"suspended:missing": ""}, 8)

    table = keys.table(1, "frozen")
    assert await bench.connection.command("HEXISTS", table, "suspended:new") == 1
    assert await bench.connection.command("HEXISTS", table, "suspended:missing") == 1
    assert await registry.repair({"suspended:missing": "", "suspended:new": ""}, 9) == 0


# ── what marks forbid ────────────────────────────────────────────────────────────────────────────

STOPS = {
    "the agent": [("suspended:report-writer", "")],
    "its owner": [("left:you@example.com", "")],
    "its new owner": [("owned:report-writer", "new|x"), ("left:new|x", "")],
    "the orchestrator": [("suspended:orchestrator", "")],
    "the orchestrator's owner": [("owned:orchestrator", "o"), ("left:o", "")],
}
HARMLESS = {
    "another agent": [("suspended:report", ""), ("suspended:report-writer2", "")],
    "an old owner": [("owned:report-writer", "new"), ("left:you@example.com", "")],
}


@pytest.mark.parametrize("marks", STOPS.values(), ids=STOPS)
async def test_marks_stop_tasks_grants_and_tokens(
    bench: Bench, registry: Registry, marks: list[tuple[str, str | None]]
) -> None:
    task = await bench.open()
    live = LiveTokens(bench.connection)
    jti = await _token(bench, live, task.id)
    await registry.spread(marks, 1)

    with pytest.raises(PrincipalSuspended):
        await bench.open()
    with pytest.raises(PrincipalSuspended):
        await bench.reserve(task)
    with pytest.raises(PrincipalSuspended):
        await _token(bench, live, task.id)
    assert await live.status(jti) is None


@pytest.mark.parametrize("marks", HARMLESS.values(), ids=HARMLESS)
async def test_marks_of_others_stop_nothing(
    bench: Bench, registry: Registry, marks: list[tuple[str, str | None]]
) -> None:
    task = await bench.open()
    live = LiveTokens(bench.connection)
    jti = await _token(bench, live, task.id)
    await registry.spread(marks, 1)

    await bench.reserve(await bench.open())
    assert await _token(bench, live, task.id)
    assert await live.status(jti) is not None


async def test_a_mark_reaches_down_the_chain(bench: Bench, registry: Registry) -> None:
    parent = await bench.open()
    below: dict[str, Any] = {
        "agent": "helper",
        "owner": "h@x",
        "actors": ("helper", "report-writer"),
    }
    child = await bench.open(parent, **below)
    live = LiveTokens(bench.connection)
    jti = await _token(bench, live, child.id, "helper")
    await registry.spread([("suspended:report-writer", "")], 1)

    with pytest.raises(PrincipalSuspended):
        await bench.reserve(child)
    with pytest.raises(PrincipalSuspended):
        await bench.open(parent, **below)
    assert await live.status(jti) is None


async def _token(
    bench: Bench, live: LiveTokens, task_id: str, client: str = "report-writer"
) -> str:
    jti = new_id("jti", shard_of(task_id, "tsk") or 0)
    row = {"client_id": client, "task_id": task_id}
    await live.put(jti, row, ttl_ms=60_000, event={}, actor=client)
    return jti


async def test_tokens_from_before_a_return_stay_dead(bench: Bench, registry: Registry) -> None:
    live = LiveTokens(bench.connection)
    row = {"client_id": "planner"}
    old, new = new_id("jti", 3), new_id("jti", 3)
    await live.put(old, row, ttl_ms=60_000, event={}, actor="planner")
    now = await bench.queries.now()
    await registry.spread([("since:planner", str(now))], 1)
    await wait_until(lambda: _later(bench, now), "the ledger's clock goes on")
    await live.put(new, row, ttl_ms=60_000, event={}, actor="planner")

    assert await live.status(old) is None
    assert await live.status(new) is not None
    assert await live.status(new, ancestors=[old]) is None


async def _later(bench: Bench, than: int) -> bool:
    return await bench.queries.now() > than


async def test_an_owner_can_be_named_with_the_token(bench: Bench, registry: Registry) -> None:
    live = LiveTokens(bench.connection)
    await registry.spread([("left:o", "")], 1)

    with pytest.raises(PrincipalSuspended):
        await live.put(
            new_id("jti", 3), {"client_id": "p", "owner": "o"}, ttl_ms=9, event={}, actor="p"
        )


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        (b"suspended:a", PrincipalSuspended),
        (b"left:a:b", PrincipalSuspended),
        (b"agent:a", Frozen),
        (b"all", Frozen),
    ],
)
def test_a_refusal_names_what_stops_it(field: bytes, kind: type[Exception]) -> None:
    refused = stopped_by(field)
    assert type(refused) is kind
    assert field.decode().rpartition(":")[2][-1] in refused.detail


# ── ending tasks ─────────────────────────────────────────────────────────────────────────────────


async def test_more_tasks_than_one_script_ends_end_all(bench: Bench, registry: Registry) -> None:
    count = BATCH * 2 + 5
    await asyncio.gather(*(bench.open(shard=3) for _ in range(count)))

    ended = await registry.end_tasks(Stopped(agents=["report-writer"]), reason="r", actor="op")

    assert len(ended.tasks) == count
    again = await registry.end_tasks(Stopped(agents=["report-writer"]), reason="r", actor="op")
    assert again.tasks == ()


async def test_ending_spares_others(bench: Bench, registry: Registry) -> None:
    await bench.open()
    for stopped in (
        Stopped(agents=["report", "report-writer2"]),
        Stopped(orchestrators=["orch"]),
        Stopped(owners=["you@example.co"]),
        Stopped(owners=["you@example.com"], keep=["report-writer"]),
        Stopped(),
    ):
        assert (await registry.end_tasks(stopped, reason="r", actor="op")).tasks == ()


@pytest.mark.parametrize(
    "stopped",
    [
        Stopped(agents=["x", "report-writer"]),
        Stopped(orchestrators=["orchestrator"]),
        Stopped(owners=["you@example.com"], keep=["x"]),
        Stopped(
            agents=["report-writer"], orchestrators=["orchestrator"], owners=["you@example.com"]
        ),
    ],
)
async def test_ending_claims_the_grants(bench: Bench, registry: Registry, stopped: Stopped) -> None:
    task = await bench.open()
    await bench.reserve(task)
    assert await registry.census() == {"report-writer": 1}

    ended = await registry.end_tasks(stopped, reason="r", actor="op")

    assert [t.id for t in ended.tasks] == [task.id]
    assert [g.state for g in ended.grants] == ["revoking"]
    assert ended.tasks[0].reason == "r"


def test_entries_of_a_newer_broker_are_read_as_far_as_they_go() -> None:
    assert read_entry("a", {"state": "retired", "new": 1}).state is PrincipalState.RETIRED
    assert read_owner("o", {"left": True, "at": 3, "new": 1}).left
