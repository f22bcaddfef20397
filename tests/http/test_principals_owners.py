"""Owners who leave, hand over, and come back."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.dev.config import OWNER
from tests.http.parties import assert_oauth_error, assert_problem, bearer
from tests.register_world import WHY, RegisterWorld, newcomer, revoked

TEAM = "team@example.com"
OTHERS = "others@example.com"


@pytest.fixture
async def task(here: RegisterWorld, there: RegisterWorld) -> dict[str, Any]:
    """A task of an agent of the team's, which every replica knows."""
    await here.add("worker", owner=TEAM)
    await there.app.reaper.look()
    return await here.open(agent="worker", capabilities=["orders-api"])


async def opens(world: RegisterWorld, agent: str = "worker") -> int:
    ask = {"agent": agent, "purpose": "a test", "capabilities": ["orders-api"]}
    answer = await world.call("orchestrator", "POST", "/v1/tasks", ask)
    if answer.status_code != 201:
        assert_problem(answer, 403, "principal_suspended")
    return answer.status_code


async def test_no_living_owner_no_issuance(
    here: RegisterWorld, there: RegisterWorld, task: dict[str, Any]
) -> None:
    granted = await there.grant(task, "orders-api")
    token = await there.token("worker", task["task_id"])

    gone = await here.leave(TEAM)

    assert (gone["state"], gone["principals"], gone["changed_by"]) == (
        "left",
        ["worker"],
        "operator",
    )
    assert gone["grants"] == {"revoked": 1, "revoking": 0, "abandoned": 0}
    assert await revoked(here, granted["grant_id"])
    headers = {"Authorization": f"Bearer {token}"}
    dead = await there.http.get(f"/v1/tasks/{task['task_id']}", headers=headers)
    assert_problem(dead, 401, "invalid_token")
    assert await opens(there) == 403  # it has read nothing of it yet
    assert await opens(here) == 403
    shown = await here.shown("worker")
    assert (shown["state"], shown["owner_left"], shown["live_grants"]) == ("active", True, 0)
    refused = await here.operate("principals", newcomer("second", owner=TEAM))
    assert_problem(refused, 409, "conflict")
    assert len(await here.logged("owner.retired")) == 1


async def test_an_owners_other_tokens_die_too(here: RegisterWorld, there: RegisterWorld) -> None:
    await here.add("planner", role="orchestrator", owner=TEAM)
    headers = await bearer(there, "planner")
    assert (await there.http.get("/v1/tasks", headers=headers)).status_code == 200

    await here.leave(TEAM)

    assert_problem(await there.http.get("/v1/tasks", headers=headers), 401, "invalid_token")
    assert_oauth_error(await there.exchange("planner"), "invalid_request")


async def test_handed_over_nothing_ends(
    here: RegisterWorld, there: RegisterWorld, task: dict[str, Any]
) -> None:
    await here.add("planner", role="orchestrator", owner=TEAM)
    headers = await bearer(there, "planner")
    granted = await there.grant(task, "orders-api")

    gone = await here.leave(TEAM, hand_over_to=OTHERS)

    assert (gone["state"], gone["handed_over_to"], gone["principals"]) == ("left", OTHERS, [])
    assert gone["grants"] == {"revoked": 0, "revoking": 0, "abandoned": 0}
    assert (await here.show_grant(granted["grant_id"]))["state"] == "active"
    # The task was opened in the old owner's name, and goes on in the new one's: on every replica.
    assert (await there.grant(task, "orders-api"))["state"] == "active"
    assert (await there.http.get("/v1/tasks", headers=headers)).status_code == 200
    assert await opens(there) == 201
    assert (await here.shown("worker"))["owner"] == OTHERS
    refused = await here.operate("principals", newcomer("second", owner=TEAM))
    assert_problem(refused, 409, "conflict")
    event = (await here.logged("owner.retired"))[0]
    assert (event["handed_over_to"], event["principals"]) == (OTHERS, ["planner", "worker"])


async def test_who_was_handed_over_goes_with_the_new_owner(
    here: RegisterWorld, there: RegisterWorld, task: dict[str, Any]
) -> None:
    await here.leave(TEAM, hand_over_to=OTHERS)
    granted = await there.grant(task, "orders-api")

    gone = await there.leave(OTHERS)

    assert gone["principals"] == ["worker"]
    assert await revoked(here, granted["grant_id"])
    assert await opens(here) == 403
    assert await opens(there) == 403


async def test_the_old_owner_may_be_retired_again_without_harm(
    here: RegisterWorld, task: dict[str, Any]
) -> None:
    await here.leave(TEAM, hand_over_to=OTHERS)
    granted = await here.grant(task, "orders-api")

    await here.leave(TEAM)
    await here.leave(TEAM, hand_over_to=OTHERS)

    assert (await here.show_grant(granted["grant_id"]))["state"] == "active"
    assert len(await here.logged("owner.retired")) == 1


async def test_handed_over_late_they_work_again_with_new_tokens(
    here: RegisterWorld, there: RegisterWorld
) -> None:
    await here.add("planner", role="orchestrator", owner=TEAM)
    headers = await bearer(here, "planner")
    await here.leave(TEAM)

    await here.leave(TEAM, hand_over_to=OTHERS)
    await there.app.reaper.look()

    assert_problem(await here.http.get("/v1/tasks", headers=headers), 401, "invalid_token")
    for world in (here, there):
        fresh = await bearer(world, "planner")
        assert (await world.http.get("/v1/tasks", headers=fresh)).status_code == 200


async def test_a_reinstated_owners_principals_work_again_with_new_tokens(
    here: RegisterWorld, there: RegisterWorld
) -> None:
    await here.add("planner", role="orchestrator", owner=TEAM)
    await here.add("worker", owner=TEAM)
    headers = await bearer(here, "planner")
    await here.move("worker", "suspend")
    await here.leave(TEAM)

    back = await here.operate("owners/reinstate", {"owner": TEAM, "reason": WHY})
    await here.operate("owners/reinstate", {"owner": TEAM, "reason": WHY})
    await there.app.reaper.look()

    assert back.json()["state"] == "active"
    assert len(await here.logged("owner.reinstated")) == 1
    assert_problem(await here.http.get("/v1/tasks", headers=headers), 401, "invalid_token")
    for world in (here, there):
        assert (await world.exchange("planner")).status_code == 200
    assert await opens(there) == 403  # suspended by itself, it stays so
    await here.add("second", owner=TEAM)


async def test_one_who_comes_back_doesnt_kill_what_was_handed_over_meanwhile(
    here: RegisterWorld,
) -> None:
    await here.add("planner", role="orchestrator", owner=OTHERS)
    await here.add("filler", role="orchestrator", owner=TEAM)
    headers = await bearer(here, "planner")
    await here.leave(TEAM)
    await here.operate("owners/reinstate", {"owner": TEAM, "reason": WHY})

    await here.leave(OTHERS, hand_over_to=TEAM)

    assert (await here.http.get("/v1/tasks", headers=headers)).status_code == 200


async def test_nobody_retires_their_own_owner_but_may_hand_over(here: RegisterWorld) -> None:
    refused = await here.operate("owners/retire", {"owner": OWNER, "reason": WHY})
    assert_problem(refused, 409, "conflict")
    assert (await here.exchange("operator")).status_code == 200

    gone = await here.leave(OWNER, hand_over_to=OTHERS)

    assert "operator" in (await here.call("operator", "GET", "/v1/owners")).text
    assert gone["principals"] == []


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("retire", {"owner": "nobody@example.com", "reason": WHY}, 404),
        ("retire", {"owner": TEAM, "reason": WHY, "hand_over_to": TEAM}, 400),
        ("retire", {"owner": TEAM, "reason": WHY, "hand_over_to": ""}, 400),
        ("retire", {"owner": TEAM, "reason": WHY, "hand_over_to": "a|b"}, 400),
        ("retire", {"owner": TEAM}, 400),
        ("retire", {"owner": "", "reason": WHY}, 400),
        ("retire", {"reason": WHY}, 400),
        ("retire", {"owner": [TEAM], "reason": WHY}, 400),
        ("retire", {"owner": TEAM, "reason": WHY, "force": True}, 400),
        ("reinstate", {"owner": TEAM, "reason": WHY}, 404),
        ("reinstate", {"owner": TEAM}, 400),
        ("reinstate", {"owner": TEAM, "reason": WHY, "hand_over_to": OTHERS}, 400),
    ],
)
async def test_what_cant_be_done_is_refused(
    here: RegisterWorld, path: str, body: dict[str, Any], status: int
) -> None:
    await here.add("worker", owner=TEAM)

    answer = await here.operate(f"owners/{path}", body)

    codes = {400: "invalid_request", 404: "not_found"}
    assert_problem(answer, status, codes[status])
    assert (await here.shown("worker"))["owner_left"] is False


async def test_nothing_is_handed_to_somebody_who_has_left(here: RegisterWorld) -> None:
    await here.add("worker", owner=TEAM)
    await here.add("other", owner=OTHERS)
    await here.leave(OTHERS)

    body = {"owner": TEAM, "reason": WHY, "hand_over_to": OTHERS}

    assert_problem(await here.operate("owners/retire", body), 409, "conflict")


async def test_of_two_owners_who_hand_over_to_each_other_one_stays(
    here: RegisterWorld, there: RegisterWorld
) -> None:
    await here.add("worker", owner=TEAM)
    await here.add("other", owner=OTHERS)

    answers = await asyncio.gather(
        here.operate("owners/retire", {"owner": TEAM, "reason": WHY, "hand_over_to": OTHERS}),
        there.operate("owners/retire", {"owner": OTHERS, "reason": WHY, "hand_over_to": TEAM}),
    )

    assert sorted(a.status_code for a in answers) == [200, 409]
    owners = {(await here.shown(name))["owner"] for name in ("worker", "other")}
    assert len(owners) == 1
    assert not (await here.shown("worker"))["owner_left"]


async def test_nobody_slips_in_below_an_owner_who_leaves(
    here: RegisterWorld, there: RegisterWorld
) -> None:
    await here.add("worker", owner=TEAM)
    added, _ = await asyncio.gather(
        there.operate("principals", newcomer("second", role="orchestrator", owner=TEAM)),
        here.leave(TEAM),
    )

    assert added.status_code in {201, 409}
    for world in (here, there):
        assert (await world.exchange("second")).status_code == 400


async def test_every_owner_is_listed(here: RegisterWorld, task: dict[str, Any]) -> None:
    await here.grant(task, "orders-api")
    await here.add("other", owner=OTHERS)
    await here.move("other", "retire")

    listed = (await here.call("auditor", "GET", "/v1/owners")).json()

    rows = {row["owner"]: row for row in listed["items"]}
    assert set(rows) == {OWNER, TEAM, OTHERS}
    assert (rows[TEAM]["principals"], rows[TEAM]["live_grants"]) == (["worker"], 1)
    assert rows[OTHERS]["principals"] == []
    assert listed["next"] is None
