"""Approvals: a human yes to one exact request, once, for a while, and not beyond its task."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from broker.approvals import Approval
from tests.http.consenting import ConsentWorld, consent_config
from tests.http.parties import assert_problem
from tests.waiting import wait_until
from tests.world import logs_in

if TYPE_CHECKING:
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack


async def test_what_needs_approval_waits_for_it_and_is_issued_once_approved(
    consent: ConsentWorld,
) -> None:
    task = await consent.open(capabilities=["orders-admin"])
    answer = await consent.ask(task, intent="mend an order")

    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert body["state"] == "pending"
    assert answer.headers["location"] == f"/v1/approvals/{body['approval_id']}"
    assert int(answer.headers["retry-after"]) > 0
    shown = await consent.approval(body["approval_id"])
    assert shown["request"] == {"parameters": {}, "ttl_ms": 0}
    assert (shown["requester"], shown["intent"]) == ("report-writer", "mend an order")
    assert shown["needs"] == [{"group": None, "count": 1, "have": 0}]

    said = await consent.say(body["approval_id"], reason="ticket 7")
    assert said.json()["state"] == "approved", said.text
    assert said.json()["votes"][0]["by"] == "alice"
    issued = await consent.ask(task)
    assert issued.status_code == 201, issued.text
    assert await logs_in(issued.json()["credential"])
    used = await consent.approval(body["approval_id"])
    assert (used["state"], used["used_by"]) == ("used", issued.json()["grant_id"])
    assert used["request"] is None

    kinds = await consent.kinds(task)
    for kind in ("requested", "voted", "approved", "used"):
        assert f"approval.{kind}" in kinds
    await consent.complete(task)
    assert not await logs_in(issued.json()["credential"])


async def test_an_approval_is_good_for_exactly_its_request_and_once(consent: ConsentWorld) -> None:
    """Pitfall 21: not for other parameters, another task, another capability, nor twice."""
    task = await consent.open(capabilities=["orders-admin", "deploy"])
    other = await consent.open(capabilities=["orders-admin"])
    approval = await consent.asked(task, ttl="2m")
    assert (await consent.say(approval)).status_code == 200

    assert await consent.asked(task) != approval
    assert await consent.asked(task, ttl="3m") != approval
    assert await consent.asked(task, "deploy", ttl="2m") != approval
    assert await consent.asked(other, ttl="2m") != approval
    assert (await consent.ask(task, ttl="2m")).status_code == 201
    again = await consent.ask(task, ttl="2m")
    assert again.status_code == 202
    assert again.json()["approval_id"] != approval


async def test_an_approval_is_good_for_nobody_else_and_not_after_its_task(
    consent: ConsentWorld,
) -> None:
    """Pitfall 21: the requester has no yes of their own, and a yes dies with its task."""
    task = await consent.open(capabilities=["orders-admin", "deploy"])
    approval = await consent.asked(task)
    yes = await consent.asked(task, "deploy")
    own = await consent.api(
        "report-writer", "POST", f"/v1/approvals/{approval}/approve", {"reason": "me"}, task=task
    )
    assert_problem(own, 403, "access_denied")
    assert (await consent.approval(approval))["needs"][0]["have"] == 0
    await consent.say(yes)
    path = f"/v1/tasks/{task['task_id']}/complete"
    await consent.api("orchestrator", "POST", path, {"outcome": "completed"})

    assert (await consent.approval(yes))["state"] == "cancelled"
    for gone in (approval, yes):
        assert_problem(await consent.say(gone), 409, "conflict")
    assert (await consent.ask(task, "deploy")).status_code in (401, 403, 409)
    # The same agent's next task for the same work starts with nobody's yes.
    following = await consent.open(capabilities=["deploy"])
    assert await consent.asked(following, "deploy") not in (approval, yes)


async def test_a_no_is_not_shown_as_a_yes(consent: ConsentWorld) -> None:
    task = await consent.open(capabilities=["deploy-twice"])
    approval = await consent.asked(task, "deploy-twice")
    await consent.say(approval, "alice")
    await consent.say(approval, "bob", yes=False)
    assert (await consent.approval(approval))["needs"] == [
        {"group": "security", "count": 2, "have": 1}
    ]


async def test_a_repeat_waits_for_the_same_approval(consent: ConsentWorld) -> None:
    task = await consent.open(capabilities=["orders-admin"])
    first = await consent.asked(task, intent="one way to say it")
    assert await consent.asked(task, intent="another") == first
    answers = await asyncio.gather(*(consent.ask(task) for _ in range(5)))
    assert {a.json()["approval_id"] for a in answers} == {first}
    assert (await consent.kinds(task)).count("approval.requested") == 1


async def test_a_no_is_told_and_answers_repeats(consent: ConsentWorld) -> None:
    task = await consent.open(capabilities=["orders-admin"])
    approval = await consent.asked(task)
    said = await consent.say(approval, yes=False, reason="not today")
    assert said.json()["state"] == "denied"

    body = assert_problem(await consent.ask(task), 403, "approval_denied")
    assert body["approval_id"] == approval
    assert_problem(await consent.say(approval), 409, "conflict")


async def test_nobody_approves_their_own_nor_without_being_an_operator(
    consent: ConsentWorld,
) -> None:
    task = await consent.open(capabilities=["orders-admin"])
    approval = await consent.asked(task)
    for name in ("report-writer", "orchestrator", "auditor"):
        answer = await consent.api(
            name,
            "POST",
            f"/v1/approvals/{approval}/approve",
            {"reason": "me"},
            task=task if name == "report-writer" else None,
        )
        assert_problem(answer, 403, "access_denied")
    # The dev operator answers for the agent's owner.
    assert_problem(await consent.say(approval, "operator"), 403, "access_denied")
    assert (await consent.approval(approval))["state"] == "pending"


async def test_two_of_a_group_have_to_say_yes(consent: ConsentWorld) -> None:
    task = await consent.open(capabilities=["deploy-twice"])
    approval = await consent.asked(task, "deploy-twice")
    assert (await consent.approval(approval))["needs"] == [
        {"group": "security", "count": 2, "have": 0}
    ]

    assert_problem(await consent.say(approval, "carol"), 403, "access_denied")
    first = await consent.say(approval, "alice")
    assert (first.json()["state"], first.json()["needs"][0]["have"]) == ("pending", 1)
    assert_problem(await consent.say(approval, "alice"), 409, "conflict")
    assert (await consent.ask(task, "deploy-twice")).status_code == 202
    assert (await consent.say(approval, "bob")).json()["state"] == "approved"
    assert (await consent.ask(task, "deploy-twice")).status_code == 201


async def test_the_next_group_is_asked_after_a_while(consent: ConsentWorld) -> None:
    task = await consent.open(capabilities=["deploy-twice"])
    approval = await consent.asked(task, "deploy-twice")
    await consent.sweep(ahead_ms=11 * 60_000)

    assert (await consent.approval(approval))["escalated_to"] == ["leads"]
    escalated = [
        e for e in await consent.events(task["task_id"]) if e["type"] == "approval.escalated"
    ]
    assert escalated[0]["data"]["groups"] == ["leads"]
    assert (await consent.say(approval, "carol")).json()["needs"][0]["have"] == 1
    assert (await consent.say(approval, "bob")).json()["state"] == "approved"


async def test_it_ends_with_its_time_and_with_its_task(consent: ConsentWorld) -> None:
    task = await consent.open(capabilities=["orders-admin", "deploy"], ttl="3h")
    waits, yes = await consent.asked(task), await consent.asked(task, "deploy")
    await consent.say(yes)
    await consent.sweep(ahead_ms=61 * 60_000)
    assert (await consent.approval(waits))["state"] == "expired"
    assert (await consent.approval(yes))["state"] == "expired"

    waits = await consent.asked(task)
    await consent.complete(task)
    over = await consent.approval(waits)
    assert (over["state"], over["reason"]) == ("cancelled", "task_completed")
    assert_problem(await consent.say(waits), 409, "conflict")


async def test_waiting_is_one_long_request(
    consent: ConsentWorld, consent_twin: ConsentWorld
) -> None:
    task = await consent.open(capabilities=["orders-admin"])
    approval = await consent.asked(task)
    path = f"/v1/approvals/{approval}?wait=30s"
    waiting = asyncio.ensure_future(consent.api("report-writer", "GET", path, task=task))

    async def somebody_waits() -> bool:
        return consent.app.broker.approvals.waiting == 1

    await wait_until(somebody_waits, "the long poll waits")
    assert (await consent_twin.say(approval)).status_code == 200
    body = (await asyncio.wait_for(waiting, 10)).json()
    assert (body["state"], body["votes"]) == ("approved", [])
    assert_problem(
        await consent.api("alice", "GET", f"/v1/approvals/{approval}?wait=61s"),
        400,
        "invalid_request",
    )


async def test_a_yes_counts_no_more_once_whoever_said_it_may_not(consent: ConsentWorld) -> None:
    task = await consent.open(capabilities=["orders-admin"])
    approval = await consent.asked(task)
    await consent.say(approval, "bob")
    answer = await consent.api(
        "alice", "POST", "/v1/principals/bob/suspend", {"reason": "left the building"}
    )
    assert answer.status_code == 200, answer.text
    again = await consent.ask(task)
    assert again.status_code == 202
    assert again.json()["approval_id"] != approval
    assert (await consent.approval(approval))["reason"] == "votes_void"
    await consent.api("alice", "POST", "/v1/principals/bob/resume", {"reason": "is back"})


async def test_a_tool_call_waits_for_its_approval_too(consent: ConsentWorld) -> None:
    task = await consent.open(capabilities=["deploy-tool"])

    async def decide(version: str) -> dict[str, Any]:
        question = {
            "subject": {"type": "task", "id": task["task_id"]},
            "action": {"name": "call_tool"},
            "resource": {"type": "tool", "id": "deploy"},
            "context": {"arguments": {"service": "shop", "version": version}},
        }
        answer = await consent.api(
            "report-writer", "POST", "/access/v1/evaluation", question, task=task
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    denied = await decide("1.2")
    request = denied["context"]["access_request"]
    assert denied["decision"] is False
    shown = await consent.approval(request["id"])
    assert shown["request"]["arguments"] == {"service": "shop", "version": "1.2"}
    await consent.say(request["id"])

    assert (await decide("1.3"))["decision"] is False
    assert (await decide("1.2"))["decision"] is True
    assert (await decide("1.2"))["decision"] is False


async def test_nobody_waits_longer_than_there_is_a_task(consent: ConsentWorld) -> None:
    task = await consent.open(capabilities=["orders-admin"], ttl="5m")
    approval = await consent.asked(task)
    assert (await consent.approval(approval))["expires_at"] <= task["expires_at"]
    await consent.say(approval)
    assert (await consent.approval(approval))["expires_at"] <= task["expires_at"]


async def test_the_approvals_of_a_task_come_page_by_page_and_say_no_policies(
    consent: ConsentWorld,
) -> None:
    task = await consent.open(capabilities=["orders-admin"])
    asked = [await consent.asked(task, ttl=f"{minutes}m") for minutes in range(2, 5)]
    seen: list[dict[str, Any]] = []
    cursor = ""
    while cursor is not None:
        path = f"/v1/approvals?task_id={task['task_id']}&limit=2&cursor={cursor}"
        page = (await consent.api("report-writer", "GET", path, task=task)).json()
        seen += page["items"]
        cursor = page["next"]
    assert sorted(row["approval_id"] for row in seen) == sorted(asked)
    assert not any(row["policies"] for row in seen)
    assert (await consent.approval(asked[0]))["policies"]


async def test_what_runs_on_behalf_of_an_operator_is_for_another_to_approve(
    consent: ConsentWorld,
) -> None:
    task = await consent.open(capabilities=["orders-admin"], on_behalf_of=consent.identity("alice"))
    approval = await consent.asked(task)
    assert_problem(await consent.say(approval, "alice"), 403, "access_denied")
    assert (await consent.say(approval, "bob")).status_code == 200


async def test_nobody_is_called_over_and_over(
    engines: tuple[DevStack, Config], tmp_path: Path
) -> None:
    few = consent_config(engines[0], tmp_path / "policies", approvals={"max_pending": 1})
    consent = ConsentWorld(engines[0].issuer, few)
    try:
        task = await consent.open(capabilities=["orders-admin"])
        for _ in range(10):
            approval = await consent.asked(task)
            answer = await consent.api(
                "report-writer", "DELETE", f"/v1/approvals/{approval}", task=task
            )
            assert answer.status_code == 200
        assert_problem(await consent.ask(task), 429, "quota_exceeded")
    finally:
        await consent.close()


async def test_a_task_that_would_take_a_human_is_refused_in_those_words(
    consent: ConsentWorld,
) -> None:
    body = {
        "agent": "report-writer",
        "purpose": "something that a human has to approve",
        "capabilities": ["orders-read"],
    }
    problem = assert_problem(
        await consent.api("orchestrator", "POST", "/v1/tasks", body), 403, "approval_required"
    )
    assert "none can be asked for" in problem["detail"]
    assert "approval_id" not in problem


async def test_what_an_orchestrator_asked_for_is_decided_again_as_its_own(
    consent: ConsentWorld,
) -> None:
    task = await consent.open(capabilities=["release"])
    assert_problem(await consent.ask(task, "release"), 403, "access_denied")
    path = f"/v1/tasks/{task['task_id']}/grants"
    issued = await consent.api("orchestrator", "POST", path, {"capability": "release"})
    assert issued.status_code == 201, issued.text
    outcome = await consent.app.oversight.watch.review(
        f"task:{task['task_id']}", reason="policy_changed"
    )
    assert outcome.matched == 0
    assert (await consent.show_grant(issued.json()["grant_id"]))["state"] == "active"


def test_what_is_asked_for_is_in_no_repr() -> None:
    canary = "canary-c0ffee"
    approval = Approval(
        id="apr_1",
        task_id="tsk_1",
        agent="a",
        owner="o",
        orchestrator="b",
        requester="a",
        action="call_tool",
        digest="d",
        needs={"": 1},
        use_ms=1,
        request=canary,
    )
    assert canary not in repr(approval)
