"""Who may report a risk, of whom, and what comes of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.dev.config import OWNER
from broker.ledger.signals import SignalTable, Statement
from tests.http.parties import assert_problem, bearer
from tests.keys_check import assert_no_immortal_keys
from tests.register_world import revoked
from tests.risk_world import DETECTOR, WHY, RiskWorld, risk_config
from tests.waiting import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

AGENT: Final = {"agent": "report-writer"}
BAD: Final[dict[str, Any]] = {"verdict": "compromised"}


# What comes of it.


@pytest.mark.parametrize("kind", ["task", "agent", "owner", "orchestrator"])
async def test_a_verdict_ends_what_is_live_and_lets_nothing_more_through(
    risky: RiskWorld, twin: RiskWorld, kind: str
) -> None:
    task = await risky.open(capabilities=["orders-api", "customers"])
    child = await risky.below(task, "courier", "orders-api")
    grants = [await twin.grant(task, "orders-api"), await twin.grant(child, "orders-api")]
    about = {
        "task": {"task_id": task["task_id"]},
        "agent": AGENT,
        "owner": {"owner": OWNER},
        "orchestrator": {"agent": "orchestrator"},
    }[kind]

    done = await risky.reported(about, **BAD)

    assert done["reviewed"] == {"revoked": 2, "revoking": 0, "abandoned": 0}
    assert (done["risk"], done["verdict"], done["expires_at"]) == (0, "compromised", None)
    for grant in grants:
        assert await revoked(risky, grant["grant_id"])
        assert (await risky.show_grant(grant["grant_id"]))["reason"] == "risk"
    for world in (risky, twin):
        assert_problem(await world.ask(task, "customers"), 403, "access_denied")
        assert_problem(await world.ask(child, "orders-api"), 403, "access_denied")
    assert (await risky.show_task(task["task_id"]))["state"] == "active"
    assert_problem(await _open(twin, task), 403, "access_denied")


async def _open(world: RiskWorld, parent: dict[str, Any]) -> Any:
    ask = {
        "agent": "courier",
        "purpose": "another part",
        "capabilities": ["orders-api"],
        "parent_task_id": parent["task_id"],
    }
    return await world.call("orchestrator", "POST", "/v1/tasks", ask)


async def test_a_childs_signal_spares_what_is_above_and_beside_it(risky: RiskWorld) -> None:
    root = await risky.open(capabilities=["orders-api"])
    child = await risky.below(root, "courier", "orders-api")
    beside = await risky.below(root, "order-clerk", "orders-api")
    grants = [await risky.grant(task, "orders-api") for task in (root, child, beside)]

    done = await risky.reported({"task_id": child["task_id"]}, risk=95)

    assert done["reviewed"]["revoked"] == 1
    assert [await revoked(risky, grant["grant_id"]) for grant in grants] == [False, True, False]
    assert (await risky.ask(root, "orders-api")).status_code == 201


@pytest.mark.parametrize(
    ("said", "alive"),
    [
        ({"risk": 49}, {"read", "operate"}),
        ({"risk": 50}, {"read"}),
        ({"verdict": "suspicious"}, {"read"}),
        ({"risk": 79}, {"read"}),
        ({"risk": 80}, set[str]()),
        ({"verdict": "clean"}, {"read", "operate"}),
        ({"risk": 0, "verdict": "compromised"}, set[str]()),
    ],
    ids=["49", "50", "suspicious", "79", "80", "clean", "compromised"],
)
async def test_policy_says_which_live_credentials_may_stay(
    risky: RiskWorld, said: dict[str, Any], alive: set[str]
) -> None:
    task = await risky.open(capabilities=["orders-api", "orders-post"])
    grants = {
        "read": await risky.grant(task, "orders-api"),
        "operate": await risky.grant(task, "orders-post"),
    }

    await risky.reported(AGENT, **said)

    left = {name for name, g in grants.items() if not await revoked(risky, g["grant_id"])}
    assert left == alive


async def test_a_tool_call_is_refused_as_well(risky: RiskWorld, twin: RiskWorld) -> None:
    task = await risky.open(capabilities=["mail-out"])
    assert await twin.may_send(task)

    await risky.reported({"task_id": task["task_id"]}, **BAD)

    assert not await twin.may_send(task)
    await risky.clear({"task_id": task["task_id"]})
    assert await twin.may_send(task)


async def test_a_report_that_ends_ends_by_itself(risky: RiskWorld) -> None:
    task = await risky.open(capabilities=["orders-api"])
    done = await risky.reported(AGENT, **BAD, ttl="300ms")
    assert done["expires_at"] is not None

    async def works() -> bool:
        return (await risky.ask(task, "orders-api")).status_code == 201

    await wait_until(works, "the signal ends")
    assert (await risky.signals())["items"] == []
    assert_problem(await risky.clear(AGENT), 404, "not_found")


async def test_taken_back_work_goes_on_and_the_dead_stay_dead(
    risky: RiskWorld, twin: RiskWorld
) -> None:
    task = await risky.open(capabilities=["orders-api"])
    granted = await risky.grant(task, "orders-api")
    await risky.reported(AGENT, **BAD)

    answer = await twin.clear(AGENT)

    assert answer.json() == {"selector": "agent:report-writer", "cleared": True}
    assert (await risky.ask(task, "orders-api")).status_code == 201
    assert await revoked(risky, granted["grant_id"])
    assert_problem(await twin.clear(AGENT), 404, "not_found")


async def test_everything_is_in_the_log(risky: RiskWorld) -> None:
    task = await risky.open(capabilities=["orders-api"])
    granted = await risky.grant(task, "orders-api")
    about = {"task_id": task["task_id"]}
    await risky.reported(about, **BAD, risk=90)
    refused = assert_problem(await risky.ask(task, "orders-api"), 403, "access_denied")
    await risky.clear(about)

    events = await risky.events(task["task_id"])

    found = {event["type"]: event for event in events}
    assert found["signal.set"]["principal"] == "operator"
    assert found["signal.set"]["data"] == {
        "selector": f"task:{task['task_id']}",
        "risk": 90,
        "verdict": "compromised",
        "reason": WHY,
    }
    assert found["signal.cleared"]["data"]["reason"] == WHY
    assert found["grant.revoking"]["grant_id"] == granted["grant_id"]
    assert found["grant.revoking"]["data"]["reason"] == "risk"
    decision = next(e for e in events if e["data"].get("id") == refused["decision_id"])
    assert decision["data"]["signals"] == [f"task:{task['task_id']}"]


# Who may.


async def test_who_may_report_look_and_take_back(risky: RiskWorld) -> None:
    task = await risky.open(capabilities=["orders-api"])
    callers = ["operator", DETECTOR, "auditor", "orders-service", "orchestrator", "report-writer"]
    may: dict[str, tuple[int, int, int]] = {}
    for name in callers:
        headers = await bearer(risky, name, task["task_id"] if name == "report-writer" else None)
        body = {"selector": AGENT, "reason": WHY}
        await risky.reported(AGENT, risk=1)
        posted = await risky.http.post("/v1/signals", json={**body, "risk": 1}, headers=headers)
        read = await risky.http.get("/v1/signals", headers=headers)
        taken = await risky.http.request("DELETE", "/v1/signals", json=body, headers=headers)
        may[name] = (posted.status_code, read.status_code, taken.status_code)

    no = (403, 403, 403)
    assert may == {
        "operator": (200, 200, 200),
        DETECTOR: (200, 403, 403),
        "auditor": (403, 200, 403),
        "orders-service": no,
        "orchestrator": no,
        "report-writer": no,
    }
    for method in ("GET", "POST", "DELETE"):
        answer = await risky.http.request(method, "/v1/signals", json={})
        assert_problem(answer, 401, "unauthenticated")


async def test_without_a_policy_that_names_it_a_detector_may_not(
    engines: tuple[DevStack, Config],
) -> None:
    made = RiskWorld(engines[0].issuer, risk_config(engines[0]))
    await made.app.connection.command("FLUSHALL")
    try:
        refused = assert_problem(
            await made.signal(AGENT, by=DETECTOR, risk=1), 403, "access_denied"
        )
        assert refused["decision_id"]
        assert (await made.signal(AGENT, risk=1)).status_code == 200
        events = (await made.call("auditor", "GET", "/v1/audit/events?limit=500")).json()["items"]
        logged = [e for e in events if e["data"].get("id") == refused["decision_id"]]
        assert [(e["principal"], e["data"]["operation"]) for e in logged] == [(DETECTOR, "signal")]
    finally:
        await made.close()


async def test_an_operator_whom_policy_forbids_it_may_not(
    engines: tuple[DevStack, Config], tmp_path: Path
) -> None:
    text = 'forbid (principal, action == Action::"operate", resource == Operation::"signal");'
    (tmp_path / "no-signals.cedar").write_text(text)
    made = RiskWorld(engines[0].issuer, risk_config(engines[0], tmp_path))
    await made.app.connection.command("FLUSHALL")
    try:
        assert_problem(await made.signal(AGENT, risk=1), 403, "access_denied")
        assert (await made.signals())["items"] == []
    finally:
        await made.close()


async def test_a_detector_raises_and_only_an_operator_lowers(risky: RiskWorld) -> None:
    raised = await risky.reported(AGENT, by=DETECTOR, risk=60, verdict="suspicious")
    assert raised["by"] == DETECTOR

    for less in ({"risk": 59, "verdict": "suspicious"}, {"risk": 60}, {"verdict": "clean"}):
        answer = await risky.signal(AGENT, by=DETECTOR, **less)
        assert "operator" in assert_problem(answer, 403, "access_denied")["detail"]
    assert (await risky.signals())["items"][0]["risk"] == 60

    more = await risky.reported(AGENT, by=DETECTOR, risk=70)
    assert (more["risk"], more["verdict"]) == (70, "suspicious")
    lower = await risky.reported(AGENT, risk=10)
    assert (lower["risk"], lower["verdict"], lower["by"]) == (10, "clean", "operator")


async def test_a_signal_about_whoever_operates_stops_no_operator(risky: RiskWorld) -> None:
    await risky.reported({"owner": OWNER}, **BAD)

    assert (await risky.clear({"owner": OWNER})).status_code == 200


# Beside it.


async def test_they_are_listed_in_pages(risky: RiskWorld) -> None:
    task = await risky.open(capabilities=["orders-api"])
    for about in (AGENT, {"owner": OWNER}, {"task_id": task["task_id"]}, {"agent": "courier"}):
        await risky.reported(about, risk=5, ttl="1h")

    found: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        page = await risky.signals(query=f"?limit=3&cursor={cursor}")
        found += page["items"]
        cursor = page["next"]

    assert [row["selector"] for row in found] == [
        "agent:courier",
        "agent:report-writer",
        f"owner:{OWNER}",
        f"task:{task['task_id']}",
    ]
    assert {(row["risk"], row["by"], row["reason"]) for row in found} == {(5, "operator", WHY)}
    await assert_no_immortal_keys(risky)


async def test_a_freeze_and_a_signal_are_two_things(risky: RiskWorld) -> None:
    await risky.reported(AGENT, **BAD)
    assert (await risky.call("auditor", "GET", "/v1/freezes")).json()["items"] == []

    await risky.call("operator", "POST", "/v1/freezes", {"selector": AGENT, "reason": WHY})
    assert (await risky.clear(AGENT)).status_code == 200

    listed = (await risky.call("auditor", "GET", "/v1/freezes")).json()["items"]
    assert [row["selector"] for row in listed] == ["agent:report-writer"]
    assert (await risky.signals())["items"] == []


# Crashes.


@pytest.mark.parametrize("about", ["agent:report-writer", "task"])
async def test_what_a_crash_left_is_finished_by_any_replica(
    risky: RiskWorld, twin: RiskWorld, about: str
) -> None:
    tasks = [await risky.open(capabilities=["orders-api"]) for _ in range(8)]
    grants = [await risky.grant(task, "orders-api") for task in tasks]
    table = SignalTable(risky.app.connection)
    selector = f"task:{tasks[0]['task_id']}" if about == "task" else about
    # Written, and then the replica died: other shards and what is live know nothing of it.
    said = Statement(risk=0, verdict="compromised", reason=WHY)
    await table.report(selector, said, only_raise=False, actor="operator")
    await twin.app.reaper.look()  # too early: its maker may be at it
    assert len(await table.unsettled()) == 1

    assert await twin.app.oversight.detections.finish(older_than_ms=0) == [selector]

    await twin.app.pipeline.work.drain(20)
    dead = [await revoked(twin, grant["grant_id"]) for grant in grants]
    assert dead == ([True] + [False] * 7 if about == "task" else [True] * 8)
    assert await table.unsettled() == []
    assert await twin.app.oversight.detections.finish(older_than_ms=0) == []
