"""Private data, untrusted input and a way out never come together without a human's yes.

In whatever order, over one task or a whole chain, by calls or by credentials.
"""

from __future__ import annotations

from itertools import permutations
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.http.deciding import EVALUATION, question
from tests.http.parties import assert_problem

if TYPE_CHECKING:
    from tests.http.deciding import DecisionWorld

PRIVATE: Final = "crm.read"
UNTRUSTED: Final = "web.fetch"
OUT: Final = "mail.send"
ORDERS: Final = list(permutations((PRIVATE, UNTRUSTED, OUT)))


async def refused(world: DecisionWorld, task: dict[str, Any], tool: str) -> dict[str, Any]:
    """A call is refused, for want of an approval and for nothing else."""
    found = await world.decide(task, tool)
    assert found["decision"] is False
    assert found["context"]["effect"] == "needs_approval"
    assert found["context"]["reason"] == "approval_required"
    assert found["context"]["advice"]
    return found


@pytest.mark.parametrize("order", ORDERS, ids=" then ".join)
async def test_over_one_task_in_any_order(deciding: DecisionWorld, order: tuple[str, ...]) -> None:
    task = await deciding.task()

    for tool in order:
        if tool == OUT and order[-1] == OUT:
            await refused(deciding, task, tool)
        else:
            assert await deciding.allows(task, tool), tool

    await refused(deciding, task, OUT)
    assert await deciding.allows(task, "note"), "what reaches nobody goes on"
    assert await deciding.allows(task, PRIVATE)


async def test_across_a_chain(deciding: DecisionWorld) -> None:
    parent = await deciding.task()
    child = await deciding.child(parent, "order-clerk")
    sibling = await deciding.child(parent, "order-clerk")
    stranger = await deciding.task()

    assert await deciding.allows(child, PRIVATE)
    assert await deciding.allows(sibling, UNTRUSTED)

    for task in (parent, child, sibling, await deciding.child(parent, "order-clerk")):
        await refused(deciding, task, OUT)
    assert await deciding.allows(stranger, OUT)
    (event,) = await deciding.decisions(parent)
    seen = event["data"]["question"]["context"]
    assert (seen["chain"]["private"], seen["chain"]["untrusted"]) == (True, True)
    assert (seen["task"]["trail"]["private"], seen["task"]["trail"]["untrusted"]) == (False, False)
    assert seen["power"] == "privileged"
    assert event["data"]["policies"] == ["lethal-combination", "operate-by-allow-list"]


async def test_what_ended_tasks_of_the_chain_have_done_still_counts(
    deciding: DecisionWorld,
) -> None:
    parent = await deciding.task()
    for tool in (PRIVATE, UNTRUSTED):
        child = await deciding.child(parent, "order-clerk")
        assert await deciding.allows(child, tool)
        await deciding.complete(child)

    await refused(deciding, parent, OUT)


async def test_a_credential_that_reaches_out_is_not_issued_afterwards(
    deciding: DecisionWorld,
) -> None:
    parent = await deciding.task()
    child = await deciding.child(parent, "order-clerk")
    for task, tool in ((parent, PRIVATE), (child, UNTRUSTED)):
        assert await deciding.allows(task, tool)

    path = f"/v1/tasks/{parent['task_id']}/grants"
    answer = await deciding.post(path, {"capability": "uplink"}, task=parent)

    assert answer.status_code == 202, answer.text  # a human is asked
    listed = await deciding.call("operator", "GET", f"/v1/grants?task_id={parent['task_id']}")
    assert listed.json()["items"] == []


@pytest.mark.parametrize("order", [(PRIVATE, UNTRUSTED), (UNTRUSTED, PRIVATE)], ids=" then ".join)
async def test_with_a_credential_that_reaches_out_the_two_don_t_come_together(
    deciding: DecisionWorld, order: tuple[str, str]
) -> None:
    """Its holder needs no decision to use it: so the last of the other two is refused."""
    parent = await deciding.task()
    child = await deciding.child(parent, "order-clerk")
    await deciding.grant(child, "uplink")

    assert await deciding.allows(parent, order[0])
    found = await refused(deciding, parent, order[1])

    assert "already holds" in found["context"]["advice"][0]
    assert await deciding.allows(child, OUT), "of the two there is one"


async def test_the_credential_may_come_between(deciding: DecisionWorld) -> None:
    task = await deciding.task()
    assert await deciding.allows(task, PRIVATE)
    await deciding.grant(task, "uplink")

    await refused(deciding, task, UNTRUSTED)


async def test_effects_that_are_said_of_a_call_count_as_the_catalogues_own(
    deciding: DecisionWorld,
) -> None:
    task = await deciding.task()
    assert await deciding.allows(task, PRIVATE)
    assert await deciding.allows(task, "note", effects=["ingests:mailbox"])

    await refused(deciding, task, OUT)
    found = await deciding.decide(task, "note", effects=["egress:pager"])
    assert found["context"]["effect"] == "needs_approval"


async def test_effects_that_are_reported_count_from_then_on(deciding: DecisionWorld) -> None:
    task = await deciding.task()
    assert await deciding.allows(task, PRIVATE)
    note = await deciding.decide(task, "note")
    assert await deciding.allows(task, OUT)

    decision = note["context"]["decision_id"]
    answer = await deciding.report(task, decision, effects=["ingests:untrusted"])

    assert answer.status_code == 200, answer.text
    await refused(deciding, task, OUT)


async def test_asking_whether_a_credential_would_be_issued_issues_nothing(
    deciding: DecisionWorld,
) -> None:
    task = await deciding.task()
    body = question(task, "uplink")
    body["action"]["name"], body["resource"]["type"] = "issue_grant", "capability"

    first = (await deciding.post(EVALUATION, body, task=task)).json()
    assert first["decision"] is True
    for tool in (PRIVATE, UNTRUSTED):
        assert await deciding.allows(task, tool), "nothing was issued, so nothing is open"
    second = (await deciding.post(EVALUATION, body, task=task)).json()

    assert second["decision"] is False
    assert second["context"]["effect"] == "needs_approval"
    assert (await deciding.call("operator", "GET", "/v1/grants")).json()["items"] == []
    closing = await deciding.report(task, first["context"]["decision_id"])
    assert_problem(closing, 409, "conflict")


@pytest.mark.parametrize("refusal", ["an unknown argument", "a bad destination"])
async def test_what_is_refused_leaves_nothing(deciding: DecisionWorld, refusal: str) -> None:
    task = await deciding.task()
    about: dict[str, Any] = (
        {"arguments": {"url": "x", "y": 1}} if "argument" in refusal else {"destination": "a b"}
    )
    assert await deciding.allows(task, PRIVATE)

    assert not await deciding.allows(task, UNTRUSTED, **about)

    assert await deciding.allows(task, OUT)
