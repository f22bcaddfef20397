"""Elevations and break-glass: one capability more for a window, and everything dead afterwards."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.http.parties import assert_problem, details, exchange_form
from tests.world import logs_in

if TYPE_CHECKING:
    from tests.http.consenting import ConsentWorld


async def settled(consent: ConsentWorld, task: dict[str, Any]) -> dict[str, Any]:
    """The task's newest elevation, once nothing is left to do after its end."""
    return await consent.settled(task)


async def test_a_task_has_a_capability_more_for_a_window(consent: ConsentWorld) -> None:
    task = await consent.open(capabilities=["orders-read"])
    assert_problem(await consent.ask(task), 403, "access_denied")
    elevation = await consent.elevated(task, ttl="2m")

    first, second = await consent.ask(task), await consent.ask(task)
    assert first.status_code == second.status_code == 201, first.text + second.text
    assert first.json()["expires_at"] <= elevation["expires_at"]
    assert await logs_in(first.json()["credential"])
    read = await consent.grant(task)

    await consent.sweep(ahead_ms=121_000)
    over = await settled(consent, task)
    assert over["state"] == "ended"
    assert over["settled_at"]
    assert not await logs_in(first.json()["credential"])
    assert not await logs_in(second.json()["credential"])
    assert_problem(await consent.ask(task), 403, "access_denied")
    marks = [
        event["data"].get("elevation")
        for event in await consent.events(task["task_id"])
        if event["type"] == "grant.reserved"
    ]
    assert marks == [elevation["elevation_id"]] * 2 + [None]
    assert await consent.show_grant(read["grant_id"])


async def test_silence_ends_it_and_a_heartbeat_keeps_it(consent: ConsentWorld) -> None:
    task = await consent.open(capabilities=["orders-read"])
    await consent.elevated(task, heartbeat="20s")
    issued = (await consent.ask(task)).json()
    beat = f"/v1/tasks/{task['task_id']}/heartbeat"
    assert (await consent.api("report-writer", "POST", beat, task=task)).status_code == 200
    await consent.sweep(ahead_ms=15_000)
    assert await logs_in(issued["credential"])

    await consent.sweep(ahead_ms=25_000)
    over = await settled(consent, task)
    assert (over["state"], over["reason"]) == ("ended", "heartbeat_lost")
    assert not await logs_in(issued["credential"])
    assert (await consent.show_task(task["task_id"]))["state"] == "active"


@pytest.mark.parametrize("how", ["operator", "agent", "task"])
async def test_it_ends_with_whoever_ends_it(consent: ConsentWorld, how: str) -> None:
    task = await consent.open(capabilities=["orders-read"])
    elevation = await consent.elevated(task)
    issued = (await consent.ask(task)).json()
    path = f"/v1/tasks/{task['task_id']}/elevations/{elevation['elevation_id']}"
    if how == "task":
        await consent.complete(task)
    else:
        name = "alice" if how == "operator" else "report-writer"
        answer = await consent.api(name, "DELETE", path, task=task)
        assert answer.status_code == 200, answer.text
        assert answer.json()["state"] == "ended"
    assert not await logs_in(issued["credential"])
    assert (await settled(consent, task))["settled_at"]


async def test_it_is_for_what_the_agent_may_and_the_parent_has(consent: ConsentWorld) -> None:
    task = await consent.open(capabilities=["orders-read"])
    assert_problem(await consent.elevation(task, capability="nothing"), 403, "access_denied")
    assert_problem(await consent.elevation(task, capability="orders-read"), 403, "access_denied")
    assert_problem(await consent.elevation(task, intent=""), 400, "invalid_request")
    await consent.elevated(task)
    child = await consent.open(
        agent="order-clerk", capabilities=["orders-read"], parent_task_id=task["task_id"]
    )
    # The window is the parent's alone: what is below it gets nothing of it.
    assert_problem(await consent.ask(child), 403, "access_denied")
    assert_problem(await consent.elevation(child), 403, "access_denied")


async def test_the_yes_is_for_this_window(consent: ConsentWorld) -> None:
    task = await consent.open(capabilities=["orders-read"])
    approval = (await consent.elevation(task, ttl="2m")).json()["approval_id"]
    assert (await consent.approval(approval))["request"]["ttl_ms"] == 120_000
    await consent.say(approval)
    longer = await consent.elevation(task, ttl="20m")
    assert longer.status_code == 202
    assert longer.json()["approval_id"] != approval
    assert (await consent.elevation(task, ttl="2m")).status_code == 201
    assert (await consent.elevation(task, ttl="2m")).status_code == 202


async def test_the_glass_is_broken_with_nobody_asked_and_somebody_looks_at_it(
    consent: ConsentWorld,
) -> None:
    task = await consent.open(capabilities=["orders-read"])
    broken = await consent.break_glass(task, ttl="2m")
    assert broken.status_code == 201, broken.text
    body = broken.json()
    assert (body["break_glass"], body["review"]) == (True, "open")
    assert body["rotation"] == {"database/rotate-root/orders": "pending"}
    path = f"/v1/tasks/{task['task_id']}/grants"
    issued = await consent.bound(task, "POST", path, {"capability": "orders-admin"})
    assert issued.status_code == 201, issued.text
    assert await logs_in(issued.json()["credential"])
    # Each use is decided again: a token that anybody could have stolen isn't enough.
    assert_problem(await consent.ask(task), 403, "access_denied")
    assert_problem(await consent.break_glass(task, capability="deploy"), 403, "access_denied")

    kinds = await consent.kinds(task)
    assert {"glass.broken", "review.opened", "elevation.started"} <= set(kinds)
    assert "approval.requested" not in kinds
    review = f"/v1/reviews/{body['elevation_id']}/close"
    told = {"findings": "the site was down, the password was changed"}
    assert_problem(await consent.api("alice", "POST", review, told), 409, "conflict")
    await consent.complete(task)
    over = await settled(consent, task)
    assert over["rotation"] == {"database/rotate-root/orders": "done"}
    assert not await logs_in(issued.json()["credential"])

    listed = await consent.api("auditor", "GET", "/v1/reviews")
    assert body["elevation_id"] in [row["elevation_id"] for row in listed.json()["items"]]
    closed = await consent.api("alice", "POST", review, told)
    assert closed.status_code == 200, closed.text
    assert (closed.json()["review"], closed.json()["reviewed_by"]) == ("closed", "alice")
    assert_problem(await consent.api("bob", "POST", review, told), 409, "conflict")
    listed = await consent.api("auditor", "GET", "/v1/reviews")
    assert body["elevation_id"] not in [row["elevation_id"] for row in listed.json()["items"]]
    done = await consent.api("auditor", "GET", "/v1/reviews?state=closed")
    assert body["elevation_id"] in [row["elevation_id"] for row in done.json()["items"]]
    # After the rotation credentials are made as before.
    assert await logs_in((await consent.grant(await consent.open()))["credential"])


async def test_one_glass_at_a_time_for_an_agent_wherever_its_tasks_are(
    consent: ConsentWorld,
) -> None:
    first, second = await consent.open(), await consent.open()
    broken = (await consent.break_glass(first)).json()
    body = assert_problem(await consent.break_glass(second), 409, "conflict")
    assert body["elevation_id"] == broken["elevation_id"]
    await consent.complete(first)
    await consent.sweep()
    assert (await consent.break_glass(second)).status_code == 201


async def test_who_isnt_named_or_isnt_bound_breaks_no_glass(consent: ConsentWorld) -> None:
    task = await consent.open(agent="order-clerk")
    assert_problem(await consent.break_glass(task), 403, "access_denied")
    mine = await consent.open()
    path = f"/v1/tasks/{mine['task_id']}/break-glass"
    ask = {"capability": "orders-admin", "intent": "now"}
    plain = await consent.api("report-writer", "POST", path, ask, task=mine)
    assert_problem(plain, 403, "access_denied")
    assert_problem(await consent.break_glass(mine, ttl="10m"), 403, "access_denied")


async def test_an_operator_who_is_named_breaks_it_for_an_agent_and_reviews_nothing_of_that(
    consent: ConsentWorld,
) -> None:
    task = await consent.open(agent="order-clerk")
    path = f"/v1/tasks/{task['task_id']}/break-glass"
    ask = {"capability": "orders-admin", "intent": "the agent is stuck"}
    assert_problem(await consent.bound(task, "POST", path, ask, name="bob"), 403, "access_denied")
    broken = await consent.bound(task, "POST", path, ask, name="alice")
    assert broken.status_code == 201, broken.text
    grants = f"/v1/tasks/{task['task_id']}/grants"
    issued = await consent.bound(task, "POST", grants, {"capability": "orders-admin"})
    assert issued.status_code == 201, issued.text
    await consent.complete(task)
    review = f"/v1/reviews/{broken.json()['elevation_id']}/close"
    told = {"findings": "all well"}
    assert_problem(await consent.api("alice", "POST", review, told), 403, "access_denied")
    assert (await consent.api("bob", "POST", review, told)).status_code == 200


async def test_a_token_made_for_less_gets_nothing_of_it(consent: ConsentWorld) -> None:
    task = await consent.open(capabilities=["orders-read"])
    form = exchange_form(consent, "report-writer", task["task_id"])
    form["authorization_details"] = details(task["task_id"], capabilities=["orders-read"])
    exchanged = await consent.http.post("/oauth/token", data=form)
    less = {"Authorization": f"Bearer {exchanged.json()['access_token']}"}
    path = f"/v1/tasks/{task['task_id']}"
    asked = {"capability": "orders-admin", "intent": "more"}
    answer = await consent.http.post(f"{path}/elevations", json=asked, headers=less)
    assert_problem(answer, 403, "access_denied")

    await consent.elevated(task)
    wanted = {"capability": "orders-admin"}
    answer = await consent.http.post(f"{path}/grants", json=wanted, headers=less)
    assert_problem(answer, 403, "access_denied")
    assert (await consent.ask(task)).status_code == 201


async def test_nobody_above_breaks_an_agents_glass_or_uses_it(consent: ConsentWorld) -> None:
    """The policy names the agent: not who opened its task, nor the agent of the task above."""
    parent = await consent.open(agent="order-clerk", capabilities=["orders-read", "orders-admin"])
    child = await consent.open(
        agent="report-writer", capabilities=["orders-read"], parent_task_id=parent["task_id"]
    )
    path = f"/v1/tasks/{child['task_id']}"
    ask = {"capability": "orders-admin", "intent": "it is down"}
    above = [(child, "orchestrator"), (parent, "order-clerk")]
    for task, name in above:
        answer = await consent.bound(task, "POST", f"{path}/break-glass", ask, name=name)
        assert_problem(answer, 403, "access_denied")

    assert (await consent.break_glass(child)).status_code == 201
    wanted = {"capability": "orders-admin"}
    for task, name in above:
        answer = await consent.bound(task, "POST", f"{path}/grants", wanted, name=name)
        assert_problem(answer, 403, "access_denied")
    issued = await consent.bound(child, "POST", f"{path}/grants", wanted)
    assert issued.status_code == 201, issued.text


async def test_whoever_approves_sees_the_window_as_it_would_be(consent: ConsentWorld) -> None:
    task = await consent.open(capabilities=["orders-read"], ttl="8h")
    approval = (await consent.elevation(task, ttl="5h")).json()["approval_id"]
    assert (await consent.approval(approval))["request"]["ttl_ms"] == 30 * 60_000
