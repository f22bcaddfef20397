"""What the API says of effective power, and of power that nobody used."""

from __future__ import annotations

from typing import Any, Final

import pytest

from broker.dev.config import OWNER
from broker.errors import LedgerUnavailable
from broker.ledger import keys
from tests.http.parties import UNKNOWN_TASK, assert_problem
from tests.keys_check import assert_no_immortal_keys
from tests.register_world import newcomer
from tests.risk_world import ALL, WHY, RiskWorld

LETHAL: Final = (
    "private data (confidential), untrusted input (ingests:untrusted)"
    " and a way out (egress:internet), together"
)
TASK: Final = ("customers", "pages", "mail-out", "orders-post", "orders-api")
DAY_MS: Final = 86_400_000


async def shown(world: RiskWorld, name: str = "report-writer") -> dict[str, Any]:
    answer = await world.call("auditor", "GET", f"/v1/principals/{name}")
    assert answer.status_code == 200, answer.text
    return answer.json()


# Effective power.


async def test_what_siblings_hold_makes_the_parent_privileged(
    risky: RiskWorld, twin: RiskWorld
) -> None:
    root = await risky.open(capabilities=list(TASK))
    reader = await risky.below(root, "order-clerk", "customers")
    fetcher = await risky.below(root, "courier", "pages")
    found = await risky.power(root)
    assert (found["power"], found["because"]) == ("operate", ["mail-out is operate"])
    assert found["exposure"] == {"private": False, "untrusted": False, "egress": True}
    assert await twin.may_send(root)

    await risky.grant(reader, "customers")
    assert (await twin.power(root))["power"] == "operate"
    held = await twin.grant(fetcher, "pages")

    for task in (root, reader, fetcher):
        found = await twin.power(task)
        assert found["task_id"] == task["task_id"]
        assert (found["power"], found["because"]) == ("privileged", [LETHAL])
        assert found["exposure"] == {"private": True, "untrusted": True, "egress": True}
        assert found["usable"] == ["customers", "mail-out", "pages"]
        assert found["chain"]["root_task_id"] == root["task_id"]
        assert (found["chain"]["tasks"], found["chain"]["grants"]) == (3, 2)
        assert found["chain"]["data_classes"] == ["confidential", "public"]
    assert not await twin.may_send(root)
    assert (await risky.power(fetcher))["own"] == {
        "power": "read",
        "because": ["read power was used"],
        "effects": ["ingests:untrusted"],
        "data_classes": ["public"],
        "grants": 1,
        "calls": 0,
    }

    # Dead credentials can't be used, but what came in with them is in there for good.
    await risky.call("operator", "DELETE", f"/v1/grants/{held['grant_id']}")
    found = await risky.power(root)
    assert found["power"] == "privileged"
    assert found["usable"] == ["customers", "mail-out"]


async def test_a_credentials_power_ends_with_it_and_decisions_remember_it(
    risky: RiskWorld,
) -> None:
    task = await risky.open(capabilities=["orders-post", "orders-api"])
    assert (await risky.power(task))["because"] == ["nothing can be used"]
    granted = await risky.grant(task, "orders-post")
    found = await risky.power(task)
    assert (found["power"], found["because"]) == ("operate", ["orders-post is operate"])

    await risky.call("operator", "DELETE", f"/v1/grants/{granted['grant_id']}")

    found = await risky.power(task)
    assert (found["power"], found["usable"]) == ("read", [])
    assert (found["chain"]["power"], found["chain"]["because"]) == (
        "operate",
        ["operate power was used"],
    )


async def test_a_chain_that_has_ended_has_none(risky: RiskWorld) -> None:
    task = await risky.open(capabilities=["mail-out", "orders-api"])
    await risky.grant(task, "orders-api")
    await risky.complete(task)

    found = await risky.power(task)

    assert (found["power"], found["because"], found["usable"]) == (None, ["nothing is live"], [])
    assert found["chain"]["grants"] == 1


async def test_a_tool_that_the_agent_lost_counts_no_more(risky: RiskWorld) -> None:
    ask = newcomer("helper", capabilities=["mail-out"])
    assert (await risky.call("operator", "POST", "/v1/principals", ask)).status_code == 201
    task = await risky.open(agent="helper", capabilities=["mail-out"])
    assert (await risky.power(task))["usable"] == ["mail-out"]

    await risky.app.connection.command("HDEL", keys.register(), "p|helper")
    await risky.app.principals.roster.reread()

    assert (await risky.power(task))["usable"] == []


async def test_who_sees_whose_power(risky: RiskWorld) -> None:
    root = await risky.open(capabilities=["customers", "pages", "mail-out"])
    child = await risky.below(root, "courier", "pages")
    await risky.grant(root, "customers")
    await risky.grant(child, "pages")

    for name in ("operator", "auditor", "orchestrator"):
        assert (await risky.power(child, by=name))["chain"]["tasks"] == 2
    # An agent isn't told what goes on above and beside it.
    mine = await risky.power(child, by="courier")
    assert mine["chain"] is None
    assert (mine["power"], mine["usable"]) == ("read", ["pages"])
    assert not mine["exposure"]["private"]
    above = await risky.power(root, by="report-writer")
    assert (above["power"], above["chain"]) == ("privileged", None)
    path = f"/v1/tasks/{root['task_id']}/power"
    other = await risky.call("courier", "GET", path, task_id=child["task_id"])
    assert_problem(other, 404, "not_found")
    assert_problem(await risky.call("orders-service", "GET", path), 404, "not_found")
    assert_problem(await risky.call(None, "GET", path), 401, "unauthenticated")
    unknown = await risky.call("operator", "GET", f"/v1/tasks/{UNKNOWN_TASK}/power")
    assert_problem(unknown, 404, "not_found")


async def test_an_agents_power_is_that_of_its_strongest_chain(risky: RiskWorld) -> None:
    found = (await shown(risky))["effective_power"]
    assert found == {"power": None, "because": ["nothing is live"]}
    quiet = await risky.open(capabilities=["orders-api"])
    await risky.grant(quiet, "orders-api")
    assert (await shown(risky))["effective_power"]["because"] == ["orders-api is read"]

    # Another agent's task, above its own.
    root = await risky.open(agent="courier", capabilities=["mail-out", "customers", "pages"])
    below = await risky.below(root, "report-writer", "customers", "pages")
    await risky.grant(below, "customers")
    await risky.grant(below, "pages")

    assert (await shown(risky))["effective_power"] == {"power": "privileged", "because": [LETHAL]}
    assert (await shown(risky, "courier"))["effective_power"]["power"] == "privileged"
    assert (await shown(risky, "order-clerk"))["effective_power"]["power"] is None
    await risky.complete(root)
    assert (await shown(risky))["effective_power"]["power"] == "read"


async def test_only_agents_have_a_power(risky: RiskWorld) -> None:
    for name in ("operator", "orchestrator", "orders-service"):
        found = await shown(risky, name)
        assert (found["effective_power"], found["granted"], found["used"]) == (None, [], [])
    listed = (await risky.call("operator", "GET", "/v1/principals")).json()["items"]
    assert "effective_power" not in listed[0]


# What was granted, and what was used.


async def report(world: RiskWorld, query: str = "") -> dict[str, Any]:
    answer = await world.call("auditor", "GET", f"/v1/reports/unused-power{query}")
    assert answer.status_code == 200, answer.text
    return answer.json()


async def grow_old(world: RiskWorld, *days: tuple[str, int]) -> None:
    """Put what the register says of times as many days back, by the start of its field."""
    redis: Any = world.app.connection.client
    for prefix, back in days:
        for field, text in (await redis.hgetall(keys.register())).items():
            if field.decode().startswith(prefix):
                await redis.hset(keys.register(), field, int(text) - back * DAY_MS)


async def test_uses_are_written_down_by_credential_and_by_call(
    risky: RiskWorld, twin: RiskWorld
) -> None:
    task = await risky.open(capabilities=["orders-api", "customers", "mail-out"])
    await risky.grant(task, "orders-api")
    assert await twin.may_send(task)
    for world in (risky, twin):
        await world.app.reaper.look()

    found = await shown(twin)

    assert [row["capability"] for row in found["granted"]] == sorted(ALL)
    assert [row["capability"] for row in found["used"]] == ["mail-out", "orders-api"]
    assert all(row["last_used_at"] for row in found["used"])
    assert (await shown(twin, "courier"))["used"] == []


async def test_what_is_refused_is_no_use(risky: RiskWorld) -> None:
    task = await risky.open(capabilities=["orders-api"])
    assert (await risky.ask(task, "customers")).status_code == 403
    await risky.app.reaper.look()

    assert (await shown(risky))["used"] == []


async def test_the_report_says_what_would_have_been_enough(risky: RiskWorld) -> None:
    await risky.app.principals.sweep()
    task = await risky.open(capabilities=["orders-api", "orders-post"])
    await risky.grant(task, "orders-api")
    await risky.grant(task, "orders-post")
    await risky.app.reaper.look()
    await grow_old(risky, ("a|", 60), ("recorded", 60), ("c|report-writer|orders-post", 40))

    found = await report(risky)

    rows = {row["agent"]: row for row in found["items"]}
    assert set(rows) == {"report-writer", "order-clerk", "courier"}
    row = rows["report-writer"]
    assert (row["owner"], row["state"]) == (OWNER, "active")
    assert row["least"] == ["orders-api"]
    assert [use["capability"] for use in row["used"]] == ["orders-api"]
    assert row["used"][0]["last_used_at"] is not None
    unused = {use["capability"]: use for use in row["unused"]}
    assert set(unused) == set(ALL) - {"orders-api"}
    assert not any(use["too_new"] for use in unused.values())
    assert unused["orders-post"]["last_used_at"] is not None, "it was, long ago"
    assert unused["customers"]["last_used_at"] is None
    assert row["power"] == {"allowed": "operate", "used": "read"}
    assert {use["power"] for use in row["allowed"]} == {"read", "operate"}
    assert rows["courier"]["power"] == {"allowed": "operate", "used": None}
    assert rows["courier"]["least"] == []
    longer = {row["agent"]: row for row in (await report(risky, "?since=50d"))["items"]}
    assert longer["report-writer"]["least"] == ["orders-api", "orders-post"]


async def test_no_evidence_is_not_taken_for_evidence(risky: RiskWorld) -> None:
    found = await report(risky)
    assert found["recorded_since"] is not None, "it is recorded from when somebody looks"
    assert all(use["too_new"] for row in found["items"] for use in row["unused"])
    await risky.app.principals.sweep()
    await grow_old(risky, ("a|", 60))
    assert all(use["too_new"] for row in (await report(risky))["items"] for use in row["unused"])

    await grow_old(risky, ("recorded", 60))
    assert not any(
        use["too_new"] for row in (await report(risky))["items"] for use in row["unused"]
    )

    ask = newcomer("helper", capabilities=["mail-out"])
    assert (await risky.call("operator", "POST", "/v1/principals", ask)).status_code == 201
    await risky.app.principals.sweep()
    rows = {row["agent"]: row for row in (await report(risky))["items"]}
    assert [use["too_new"] for use in rows["helper"]["unused"]] == [True]
    assert not any(use["too_new"] for use in rows["courier"]["unused"])


async def test_what_was_taken_away_and_given_again_is_new(risky: RiskWorld) -> None:
    ask = newcomer("helper", capabilities=["mail-out"])
    assert (await risky.call("operator", "POST", "/v1/principals", ask)).status_code == 201
    await risky.app.principals.sweep()
    await grow_old(risky, ("a|", 60), ("recorded", 60))

    async def too_new() -> list[bool]:
        rows = {row["agent"]: row for row in (await report(risky))["items"]}
        return [use["too_new"] for use in rows.get("helper", {"unused": []})["unused"]]

    assert await too_new() == [False]
    path = "/v1/principals/helper/retire"
    assert (await risky.call("operator", "POST", path, {"reason": WHY})).status_code == 200
    assert await too_new() == [], "who is retired is no longer reported"
    await risky.app.principals.sweep()

    held = await risky.app.connection.command("HGET", keys.register(), "a|helper|mail-out")
    assert held is None


async def test_only_those_with_something_unused_unless_all_are_wanted(risky: RiskWorld) -> None:
    for name in ("idle", "busy"):
        ask = newcomer(name, capabilities=["mail-out"])
        assert (await risky.call("operator", "POST", "/v1/principals", ask)).status_code == 201
    task = await risky.open(agent="busy", capabilities=["mail-out"])
    assert await risky.may_send(task)

    listed = [row["agent"] for row in (await report(risky))["items"]]
    every = [row["agent"] for row in (await report(risky, "?all=true"))["items"]]

    assert "idle" in listed
    assert "busy" not in listed
    assert every == sorted([*listed, "busy"])


async def test_the_report_comes_in_pages(risky: RiskWorld) -> None:
    whole = [row["agent"] for row in (await report(risky))["items"]]

    found: list[str] = []
    cursor = ""
    while cursor is not None:
        page = await report(risky, f"?limit=2&cursor={cursor}")
        found += [row["agent"] for row in page["items"]]
        cursor = page["next"]

    assert found == whole
    await assert_no_immortal_keys(risky)


@pytest.mark.parametrize(
    "query",
    ["since=soon", "since=", "since=0d", "since=5000d", "all=perhaps", "limit=0", "cursor=A"],
)
async def test_bad_queries_are_refused(risky: RiskWorld, query: str) -> None:
    answer = await risky.call("operator", "GET", f"/v1/reports/unused-power?{query}")

    assert assert_problem(answer, 400, "invalid_request")["errors"]


async def test_the_report_is_for_operators_and_auditors(risky: RiskWorld) -> None:
    path = "/v1/reports/unused-power"
    for name in ("orchestrator", "orders-service"):
        assert_problem(await risky.call(name, "GET", path), 403, "access_denied")
    assert (await risky.call("operator", "GET", path)).status_code == 200
    assert_problem(await risky.call(None, "GET", path), 401, "unauthenticated")


async def test_a_use_that_could_not_be_written_down_is_written_later(risky: RiskWorld) -> None:
    roster, command = risky.app.principals.roster, risky.app.connection.command
    await command("SET", keys.register(), "of another kind, so every write fails")
    roster.used_capability("report-writer", "orders-api")
    with pytest.raises(LedgerUnavailable):
        await roster.write_down()
    await command("DEL", keys.register())

    await roster.write_down()

    assert set((await roster.registry.load()).uses) == {("report-writer", "orders-api")}
