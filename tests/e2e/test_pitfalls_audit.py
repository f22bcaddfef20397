"""Pitfall 26: audit as telemetry. Nothing is issued unwritten, nothing is held up by a sink."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from broker.audit.verify import verify
from broker.config.audit import SinkEntry, SinkKind
from broker.errors import AuditUnavailable
from broker.ledger import keys
from broker.ledger.outbox import Outbox
from broker.ledger.quarantine import QuarantineTable
from tests.audit_bench import records
from tests.contract.test_drain_disks import filled, small_disk
from tests.receiver import Receiver
from tests.waiting import wait_until
from tests.world import World, logs_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from pathlib import Path

    from broker.audit_log import AuditLog
    from broker.config import Config
    from broker.dev.stack import DevStack

__all__ = ["small_disk"]  # a fixture

BAD_DATA = ["", "[]", "null", "{", '{"a":NaN}', '{"a":1e999}', '{"a":"\\ud800"}', "[" * 100_000]


@pytest.fixture
async def make(
    engines: tuple[DevStack, Config], tmp_path: Path
) -> AsyncGenerator[Callable[..., World]]:
    """Makes replicas whose log is at a place of the test's own.

    Issuing stops sooner than it could be set to (15 s), and later than a busy machine takes for
    what a test does between two looks at how late the log is.
    """
    made: list[World] = []

    def world(**audit: Any) -> World:
        section = engines[1].audit.model_copy(
            update={"log_dir": tmp_path / "log", "max_lag": 2_000, **audit}
        )
        made.append(World(engines[0].issuer, engines[1].model_copy(update={"audit": section})))
        return made[-1]

    first = world()
    await first.app.connection.command("FLUSHALL")
    yield world
    for one in made:
        await log_of(one).stop()
        await one.close()


def log_of(world: World) -> AuditLog:
    assert world.app.audit is not None
    return world.app.audit


async def drained(world: World) -> None:
    """Let the log take all that has happened."""

    async def look() -> bool:
        await log_of(world).drain()
        await log_of(world).guard.refresh()
        return log_of(world).guard.lag_ms == 0

    await wait_until(look, "everything is in the log")


async def closed(world: World) -> None:
    async def look() -> bool:
        await log_of(world).look()
        return log_of(world).guard.closed

    await wait_until(look, "events have waited too long")


async def asks(world: World, task: dict[str, Any]) -> tuple[int, dict[str, Any], dict[str, str]]:
    path = f"/v1/tasks/{task['task_id']}/grants"
    answer = await world.call("orchestrator", "POST", path, {"capability": "orders-read"})
    return answer.status_code, answer.json(), dict(answer.headers)


async def test_nothing_is_issued_while_events_wait_and_all_is_revoked(
    make: Callable[..., World],
) -> None:
    world = make()
    task, other = await world.open(), await world.open()
    grant = await world.grant(task)
    second = await world.grant(other)
    assert await logs_in(grant["credential"])
    await closed(world)

    status, problem, headers = await asks(world, task)
    assert (status, problem["code"]) == (503, "audit_unavailable")
    assert int(headers["retry-after"]) > 0
    ask = {"agent": "report-writer", "purpose": "x", "capabilities": ["orders-read"]}
    opened = await world.call("orchestrator", "POST", "/v1/tasks", ask)
    assert (opened.status_code, opened.json()["code"]) == (503, "audit_unavailable")
    exchanged = await world.exchange("report-writer", task["task_id"])
    assert exchanged.status_code == 503
    assert exchanged.json()["error"] == "temporarily_unavailable"
    assert "audit" in (await world.app.ready())["audit"]
    assert not (await world.app.ready())["audit"].startswith("warning")

    # Operators get in, see and revoke; whoever is done ends their task; nothing stays alive.
    revoke = {"selector": {"task_id": task["task_id"]}, "reason": "now"}
    answer = await world.call("operator", "POST", "/v1/revocations", revoke)
    assert (answer.status_code, answer.json()["revoked"]) == (200, 1)
    await world.complete(other)
    for credential in (grant, second):
        assert (await world.show_grant(credential["grant_id"]))["state"] == "revoked"
        assert not await logs_in(credential["credential"])

    await drained(world)
    assert (await asks(world, await world.open()))[0] == 201
    await drained(world)
    assert log_of(world).state() == "ok"


async def test_a_full_disk_closes_issuing_until_there_is_room(
    make: Callable[..., World], small_disk: Path
) -> None:
    world = make(log_dir=small_disk / "log")
    task = await world.open()
    await drained(world)
    ballast = filled(small_disk)
    for _ in range(3):
        await world.open()

    async def fails() -> bool:
        try:
            await log_of(world).drain()
        except AuditUnavailable as error:
            return "No space left" in error.detail
        return False

    await wait_until(fails, "the disk is full")
    await closed(world)
    assert (await asks(world, task))[1]["code"] == "audit_unavailable"
    assert "No space left" in (await world.app.ready())["audit"]
    await world.complete(task)

    ballast.unlink()
    await drained(world)
    assert (await asks(world, await world.open()))[0] == 201


async def test_a_hanging_sink_holds_up_nothing(make: Callable[..., World], tmp_path: Path) -> None:
    async with Receiver() as receiver:
        receiver.script.extend(["hang"] * 1000)
        entry = SinkEntry(name="siem", kind=SinkKind.WEBHOOK, url=receiver.url, timeout="1s")  # pyright: ignore[reportArgumentType]  as it is written in the file
        world = make(sinks=(entry,), max_lag=30_000)
        await log_of(world).start()
        for _ in range(5):
            task = await world.open()
            await world.grant(task)
            await drained(world)  # while it hangs: a log that waited for it would never be
        assert receiver.accepted == []
        assert not log_of(world).guard.closed
        receiver.script.clear()

        async def arrived() -> bool:
            return receiver.ids == [event["id"] for event in records(tmp_path / "log")]

        await wait_until(arrived, "all events arrive, in order")
        assert len(receiver.ids) > 10


async def test_a_log_that_was_removed_is_noticed(
    make: Callable[..., World], tmp_path: Path
) -> None:
    world = make(checkpoint_every=0)
    await world.open()
    await drained(world)
    note = await log_of(world).checkpoint()
    key = log_of(world).key
    for path in sorted((tmp_path / "log").rglob("*"), reverse=True):
        if path.is_file():
            path.unlink()

    # By whoever writes next: the ledger knows how far the log went.
    await world.open()

    async def notices() -> bool:
        try:
            await log_of(world).drain()
        except AuditUnavailable:
            return True
        return False

    await wait_until(notices, "the writer notices")
    # By whoever kept a checkpoint.
    report = verify(tmp_path / "log", [key], known=[note])
    assert not report.ok


async def test_a_ledger_that_was_put_right_before_the_log_is_written_again_is_held_once(
    make: Callable[..., World],
) -> None:
    """Who writes the log may come to it late: until then the dead one's lease stands."""
    world = make()
    connection = world.app.connection
    quarantine = QuarantineTable(connection)
    for _ in range(2):  # a quarantine that was ended before says nothing of a later one
        await world.open()
        await drained(world)
        await connection.command("FLUSHALL")
        assert await Outbox(connection).lease("of one that died")
        assert not (await log_of(world).drain()).holder
        await log_of(world).look()
        assert await quarantine.standing() is not None
        assert await quarantine.release(actor="operator", reason="looked")
        await world.open()

        await Outbox(connection).release("of one that died")
        await drained(world)
        assert await quarantine.standing() is None

    # It is held again if it is lost again.
    await connection.command("FLUSHALL")
    await wait_until(log_of(world).drain, "it is written again")
    await drained(world)
    assert await quarantine.standing() is not None


async def test_what_happens_to_children_is_in_the_log_too(
    make: Callable[..., World], tmp_path: Path
) -> None:
    world = make()
    root = await world.open()
    body = {"agent": "order-clerk", "purpose": "a part", "capabilities": ["orders-read"]}
    path, of = "/v1/tasks", root["task_id"]
    answer = await world.call(
        "report-writer", "POST", path, {**body, "parent_task_id": of}, task_id=of
    )
    assert answer.status_code == 201, answer.text
    child = answer.json()
    grant = await world.grant(child)
    await world.complete(root)
    await drained(world)

    events = [e for e in records(tmp_path / "log") if e.get("chain") == root["task_id"]]
    about = {(e["type"], e.get("task")) for e in events}
    assert {
        ("broker.task.opened", child["task_id"]),
        ("broker.task.ended", child["task_id"]),
        ("broker.grant.revoked", child["task_id"]),
        ("broker.task.ended", root["task_id"]),
    } <= about
    assert grant["credential"]["password"] not in json.dumps(events)


async def test_deleted_events_are_a_gap_that_auditors_see(
    make: Callable[..., World], tmp_path: Path
) -> None:
    world = make()
    task = await world.open()
    await drained(world)
    await world.grant(task)
    shard = int(task["task_id"][4:6], 16)
    name = keys.table(shard, "audit")
    await world.app.connection.command("XTRIM", name, "MAXLEN", "1")
    await drained(world)

    gaps = [e["data"] for e in records(tmp_path / "log") if e["type"] == "broker.audit.gap"]
    assert [gap["shard"] for gap in gaps] == [shard]
    assert gaps[0]["missed"] > 0


async def test_a_row_that_is_no_event_is_shown_as_such(make: Callable[..., World]) -> None:
    world = make()
    await world.open()
    name = keys.table(3, "audit")
    rows = [
        ("x", "hunter2-canary"),
        *[("type", "t", "task", "", "grant", "", "principal", "", "data", d) for d in BAD_DATA],
    ]
    for row in rows:
        await world.app.connection.command("XADD", name, "*", *row)

    async def shown() -> int:
        answer = await world.call("operator", "GET", "/v1/audit/events?limit=500")
        assert answer.status_code == 200, answer.text
        assert "canary" not in answer.text
        return [e["type"] for e in answer.json()["items"]].count("audit.malformed") == len(rows)

    await wait_until(shown, "all of them are shown")


async def test_two_replicas_share_one_log(make: Callable[..., World], tmp_path: Path) -> None:
    one, two = make(), make()
    for world in (one, two, one, two):
        task = await world.open()
        await world.grant(task)
        await world.complete(task)
    await drained(one)
    assert not (await log_of(two).drain()).holder
    await log_of(one).stop()
    await two.open()

    async def takes_over() -> bool:
        return (await log_of(two).drain()).holder

    await wait_until(takes_over, "the other replica takes over")
    await drained(two)

    found = [event["id"] for event in records(tmp_path / "log")]
    assert len(found) == len(set(found))
    assert verify(tmp_path / "log", [log_of(two).key]).ok
