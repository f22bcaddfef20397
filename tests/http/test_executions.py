"""What became of a call: reported once, by whoever had to do with it, or noticed as missing."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.ids import new_id, shard_of, timed_id
from tests.http.parties import UNKNOWN_TASK, assert_problem

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.http.deciding import DecisionWorld

DAY_MS: Final = 86_400_000
LATE_MS: Final = 15 * 60_000 + 1000
"""Just after ``report_within``."""


async def allowed(
    world: DecisionWorld, task: Mapping[str, Any], tool: str = "note", **more: Any
) -> str:
    """The id of a call that was allowed."""
    found = await world.decide(task, tool, **more)
    assert found["decision"] is True
    return found["context"]["decision_id"]


async def events(world: DecisionWorld, task: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    return [e for e in await world.events(task["task_id"]) if e["type"] == kind]


async def rows(world: DecisionWorld, task: Mapping[str, Any], table: str) -> list[str]:
    """What a table of the task's shard holds about decisions."""
    shard = shard_of(task["task_id"], "tsk")
    key = f"broker:{{s{shard:02x}}}:{table}"
    members: list[bytes] = await world.app.connection.command("ZRANGE", key, 0, -1)
    return [m.decode() for m in members if m.startswith((b"d", b"do|", b"dm|"))]


async def test_a_report_closes_its_decision(deciding: DecisionWorld) -> None:
    task = await deciding.task()
    decision = await allowed(deciding, task)
    assert len(await rows(deciding, task, "index")) == len(await rows(deciding, task, "due")) == 1

    answer = await deciding.report(
        task,
        decision,
        outcome="failed",
        duration="1s250ms",
        result_digest=f"sha256:{'0a' * 32}",
        error_type="TimeoutError",
    )

    assert answer.status_code == 200, answer.text
    assert answer.json() == {
        "task_id": task["task_id"],
        "decision_id": decision,
        "outcome": "failed",
    }
    (event,) = await events(deciding, task, "execution")
    assert event["principal"] == "report-writer"
    assert event["data"] == {
        "decision": decision,
        "outcome": "failed",
        "duration_ms": 1250,
        "result_digest": f"sha256:{'0a' * 32}",
        "error_type": "TimeoutError",
    }
    assert await rows(deciding, task, "index") == await rows(deciding, task, "due") == []


async def test_a_decision_is_closed_once(deciding: DecisionWorld, beside: DecisionWorld) -> None:
    task = await deciding.task()
    decision = await allowed(deciding, task)

    answers = await asyncio.gather(
        *(one.report(task, decision, effects=["a:b"]) for one in (deciding, beside) * 3)
    )

    assert sorted(answer.status_code for answer in answers) == [200, *[409] * 5]
    assert len(await events(deciding, task, "execution")) == 1
    assert_problem(await deciding.report(task, decision), 409, "conflict")


@pytest.mark.parametrize("outcome", ["succeeded", "failed", "not_executed"])
async def test_outcomes(deciding: DecisionWorld, outcome: str) -> None:
    task = await deciding.task()
    answer = await deciding.report(task, await allowed(deciding, task), outcome=outcome)
    assert answer.json()["outcome"] == outcome


async def test_what_was_denied_or_is_unknown_can_t_be_reported(deciding: DecisionWorld) -> None:
    task, other = await deciding.task(capabilities=["note"]), await deciding.task()
    denied = (await deciding.decide(task, "pay"))["context"]["decision_id"]
    shard = shard_of(task["task_id"], "tsk") or 0
    others = await allowed(deciding, other)

    assert_problem(await deciding.report(task, denied), 409, "conflict")
    for unknown in (
        new_id("dec", shard),
        timed_id("dec", shard, await deciding.app.pipeline.queries.now()),
        others,
        task["task_id"],
        "dec_",
        f"{denied}|report-writer",
        "|",
        "\x00",
    ):
        answer = await deciding.report(task, unknown)
        assert_problem(answer, 404, "not_found")
    assert (await deciding.report(other, others)).status_code == 200


async def test_whoever_runs_the_task_reports_and_nobody_else(deciding: DecisionWorld) -> None:
    parent = await deciding.task()
    child = await deciding.child(parent, "order-clerk")
    stranger = await deciding.task("order-clerk")
    path = f"/v1/tasks/{child['task_id']}/executions"

    async def by(name: str, of: Mapping[str, Any] | None, decision: str) -> int:
        body = {"decision_id": decision, "outcome": "succeeded"}
        headers = await deciding.headers(name, of["task_id"] if of else "")
        return (await deciding.post(path, body, headers=headers)).status_code

    decision = await allowed(deciding, child)
    for name, of, status in (
        ("order-clerk", stranger, 404),
        ("rival", None, 404),
        ("operator", None, 403),
        ("auditor", None, 403),
        ("orders-service", None, 404),
    ):
        assert await by(name, of, decision) == status, name
    assert await events(deciding, child, "execution") == []
    assert await by("report-writer", parent, decision) == 200
    assert await by("orchestrator", None, await allowed(deciding, child)) == 200
    unknown = await deciding.post(
        f"/v1/tasks/{UNKNOWN_TASK}/executions",
        {"decision_id": decision, "outcome": "succeeded"},
        by="orchestrator",
    )
    assert_problem(unknown, 404, "not_found")


async def test_a_resource_server_reports_what_it_asked_for_and_nothing_else(
    deciding: DecisionWorld,
) -> None:
    task = await deciding.task()
    theirs = await allowed(deciding, task, "refund", by="orders-service")
    agents = await allowed(deciding, task, "refund")

    for by, decision in (
        ("orders-service", agents),
        ("billing-service", theirs),
        ("billing-service", agents),
    ):
        assert_problem(await deciding.report(task, decision, by=by), 404, "not_found")
    assert (await deciding.report(task, theirs, by="orders-service")).status_code == 200
    assert_problem(await deciding.report(task, theirs, by="orders-service"), 409, "conflict")
    assert_problem(await deciding.report(task, theirs, by="billing-service"), 404, "not_found")
    assert (await deciding.report(task, agents)).status_code == 200
    assert_problem(await deciding.report(task, agents, by="orders-service"), 404, "not_found")


async def test_a_report_can_come_after_the_tasks_end(deciding: DecisionWorld) -> None:
    task = await deciding.task()
    mine, theirs = (
        await allowed(deciding, task),
        await allowed(deciding, task, "refund", by="orders-service"),
    )
    await deciding.complete(task)

    assert_problem(await deciding.report(task, mine), 401, "invalid_token")
    assert (await deciding.report(task, mine, by="orchestrator")).status_code == 200
    assert (await deciding.report(task, theirs, by="orders-service")).status_code == 200
    assert len(await events(deciding, task, "execution")) == 2


async def test_effects_that_are_reported_decide_the_next_call(
    deciding: DecisionWorld, beside: DecisionWorld
) -> None:
    parent = await deciding.task()
    child = await deciding.child(parent, "order-clerk")
    note = await allowed(beside, child)
    assert await deciding.allows(parent, "crm.read")
    assert await deciding.allows(parent, "mail.send"), "the chain is known to this replica now"

    await beside.report(child, note, effects=["ingests:a-mailbox", "reads:disk"])

    assert not await deciding.allows(parent, "mail.send")
    last = (await deciding.decisions(parent))[-1]["data"]["question"]["context"]
    assert {"ingests:a-mailbox", "reads:disk"} <= set(last["chain"]["effects"])
    assert last["chain"]["calls"] == 3, "a report is no call"


# Never reported.


async def test_what_is_never_reported_is_noticed_once(
    deciding: DecisionWorld, beside: DecisionWorld
) -> None:
    task = await deciding.task(ttl="1h")
    silent, told = await allowed(deciding, task), await allowed(deciding, task)
    await deciding.report(task, told)

    await deciding.sweep(ahead_ms=LATE_MS - 120_000)
    assert await events(deciding, task, "execution.missing") == []
    await asyncio.gather(*(one.sweep(ahead_ms=LATE_MS) for one in (deciding, beside) * 2))

    (event,) = await events(deciding, task, "execution.missing")
    assert event["data"] == {"decision": silent}
    assert await rows(deciding, task, "due") == []
    await beside.sweep(ahead_ms=2 * LATE_MS)
    assert len(await events(deciding, task, "execution.missing")) == 1


async def test_a_late_report_counts_as_long_as_the_task_is_kept(deciding: DecisionWorld) -> None:
    task = await deciding.task(ttl="1h")
    late = await allowed(deciding, task, "refund", by="orders-service")
    await deciding.sweep(ahead_ms=LATE_MS)
    assert await deciding.allows(task, "crm.read")

    assert_problem(await deciding.report(task, late, by="billing-service"), 404, "not_found")
    answer = await deciding.report(task, late, by="orders-service", effects=["ingests:page"])

    assert answer.status_code == 200, answer.text
    assert not await deciding.allows(task, "mail.send"), "what it brought in counts"
    assert_problem(await deciding.report(task, late, by="orders-service"), 409, "conflict")
    kinds = [e["type"] for e in await deciding.events(task["task_id"])]
    assert kinds.index("execution.missing") < kinds.index("execution")


async def test_nothing_of_it_is_left_when_the_task_is_forgotten(deciding: DecisionWorld) -> None:
    task = await deciding.task()
    for _ in range(3):
        await allowed(deciding, task)
    await deciding.sweep(ahead_ms=LATE_MS)
    assert len(await rows(deciding, task, "index")) == 3
    await deciding.sweep(ahead_ms=DAY_MS)
    shard = shard_of(task["task_id"], "tsk")
    key = f"broker:{{s{shard:02x}}}:purge"
    assert await deciding.app.connection.command("ZADD", key, "XX", "CH", 1, f"t|{task['task_id']}")

    await deciding.app.reaper.prune()

    assert await rows(deciding, task, "index") == []
    assert await deciding.app.pipeline.queries.task(task["task_id"]) is None


async def test_a_report_that_races_the_sweep_is_counted(
    deciding: DecisionWorld, beside: DecisionWorld
) -> None:
    task = await deciding.task(ttl="1h")
    decisions = [await allowed(deciding, task) for _ in range(20)]

    answers = await asyncio.gather(
        *(deciding.report(task, decision) for decision in decisions),
        beside.sweep(ahead_ms=LATE_MS),
    )

    assert {answer.status_code for answer in answers if answer is not None} == {200}
    assert len(await events(deciding, task, "execution")) == 20
    assert await rows(deciding, task, "index") == await rows(deciding, task, "due") == []


# What is none.

WRONG: Final[list[dict[str, Any]]] = [
    {"outcome": "done"},
    {"outcome": None},
    {"decision_id": None},
    {"decision_id": "\ud800"},
    {"decision_id": "x" * 65},
    {"duration": 5},
    {"duration": "-1s"},
    {"result_digest": "sha256:xyz"},
    {"result_digest": f"sha256:{'0' * 64}\n"},
    {"error_type": "it's a \x1b[2J"},
    {"error_type": "x" * 101},
    {"effects": "a:b"},
    {"effects": ["egress"]},
    {"effects": ["a:b\n"]},
    {"effects": ["a:b"] * 21},
    {"result": "the whole of it"},
]


@pytest.mark.parametrize("fields", WRONG, ids=lambda fields: json.dumps(fields)[:50])
async def test_a_report_that_is_none_is_400(
    deciding: DecisionWorld, fields: dict[str, Any]
) -> None:
    task = await deciding.task()
    decision = await allowed(deciding, task)

    answer = await deciding.post(
        f"/v1/tasks/{task['task_id']}/executions",
        {"decision_id": decision, "outcome": "succeeded", **fields},
        task=task,
    )

    assert_problem(answer, 400, "invalid_request")
    assert (await deciding.report(task, decision)).status_code == 200


async def test_a_chain_leaves_so_many_effects_and_no_more(deciding: DecisionWorld) -> None:
    task = await deciding.task()
    decision = await allowed(deciding, task)
    for n in range(10):
        assert await deciding.allows(task, "note", effects=[f"a:{n}.{m}" for m in range(20)])

    found = await deciding.decide(task, "note", effects=["one:more"])

    assert found["context"]["reason"] == "too_many_effects"
    assert_problem(await deciding.report(task, decision, effects=["x:y"]), 400, "invalid_request")
    assert await deciding.allows(task, "note", effects=["a:1.1"])
    assert (await deciding.report(task, decision, effects=["a:2.2"])).status_code == 200
