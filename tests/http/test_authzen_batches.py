"""Several questions at once (AuthZEN 1.0 section 7): defaults, order, semantics, bad items."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.identity.models import Transport
from broker.ids import shard_of
from broker.ledger import keys
from tests.http.deciding import EVALUATIONS, GOOD, DecisionWorld, question
from tests.http.parties import assert_problem
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Mapping

CALL: Final = {"action": {"name": "call_tool"}}
HERE: Final = Transport("POST", f"http://127.0.0.1:8700{EVALUATIONS}")


def of_tool(name: str, **about: Any) -> dict[str, Any]:
    """An item that names a tool, and inherits the rest."""
    properties = {"arguments": GOOD.get(name, {}), **about}
    return {"resource": {"type": "tool", "id": name, "properties": properties}}


def batch(task: Mapping[str, Any], *items: object, **more: Any) -> dict[str, Any]:
    subject = {"type": "task", "id": task["task_id"]}
    return {"subject": subject, **CALL, "evaluations": list(items), **more}


def semantic(name: str) -> dict[str, Any]:
    return {"options": {"evaluations_semantic": name}}


async def several(
    world: DecisionWorld, task: Mapping[str, Any], *items: object, **more: Any
) -> list[dict[str, Any]]:
    answer = await world.post(EVALUATIONS, batch(task, *items, **more), task=task)
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) == {"evaluations"}
    return answer.json()["evaluations"]


def said(found: list[dict[str, Any]]) -> list[bool]:
    return [one["decision"] for one in found]


async def test_answers_are_in_the_order_of_the_questions(deciding: DecisionWorld) -> None:
    task = await deciding.task(capabilities=["note", "pay-out"])
    names = ["note", "web.fetch", "pay", "crm.read", "note"]

    found = await several(deciding, task, *map(of_tool, names))

    assert said(found) == [True, False, True, False, True]
    assert len({one["context"]["decision_id"] for one in found}) == 5
    logged = await deciding.decisions(task)
    assert [event["data"]["tool"] for event in logged] == names


async def test_items_inherit_whole_objects_and_nothing_of_those_they_bring(
    deciding: DecisionWorld,
) -> None:
    task = await deciding.task()
    other = await deciding.task("order-clerk")
    pay = of_tool("pay")["resource"]
    found = await several(
        deciding,
        task,
        {},  # all of it inherited
        {"resource": {"type": "tool", "id": "note"}},  # without the default's arguments
        {"resource": {"id": "note"}},  # not complete, and not completed from the default
        {"resource": {"type": "tool", "id": "pay"}},  # its arguments are needed
        {"subject": {"type": "task", "id": other["task_id"]}},
        {"action": {"name": "another"}},
        resource=pay,
    )
    assert said(found) == [True, True, False, False, False, False]
    assert found[2]["context"]["error"]["status"] == 400
    assert "resource.type" in found[2]["context"]["error"]["message"]
    assert found[3]["context"]["reason"] == "missing_argument"


async def test_a_context_is_inherited_whole_as_well(deciding: DecisionWorld) -> None:
    task = await deciding.task()
    note = {"resource": {"type": "tool", "id": "note"}}

    await several(
        deciding,
        task,
        note,
        {**note, "context": {"effects": ["ingests:mail"]}},
        context={"intent": "to look", "effects": ["reads:disk"]},
    )

    first, second = [event["data"] for event in await deciding.decisions(task)]
    assert (first["intent"], first["effects"]) == ("to look", ["reads:disk"])
    assert "intent" not in second
    assert second["effects"] == ["ingests:mail"]


async def test_without_defaults_each_question_stands_alone(deciding: DecisionWorld) -> None:
    one, other = await deciding.task(), await deciding.task("order-clerk", capabilities=["note"])
    items = [question(one, "pay"), question(other, "pay"), question(other, "note")]

    answer = await deciding.post(EVALUATIONS, {"evaluations": items}, by="orchestrator")

    assert said(answer.json()["evaluations"]) == [True, False, True]


BAD_ITEMS: Final[dict[str, object]] = {
    "nothing to inherit": {},
    "text": "note",
    "null": None,
    "a list": [],
    "a number": 3,
    "no type": {"resource": {"id": "note"}},
    "a number for a name": {"resource": {"type": "tool", "id": 3}},
    "a null for a default": {**of_tool("note"), "subject": None},
    "arguments that are a list": of_tool("note", arguments=[]),
}


@pytest.mark.parametrize("bad", BAD_ITEMS.values(), ids=BAD_ITEMS.keys())
async def test_a_bad_item_is_denied_in_its_place(deciding: DecisionWorld, bad: object) -> None:
    task = await deciding.task()

    found = await several(deciding, task, of_tool("note"), bad, of_tool("note"))

    assert said(found) == [True, False, True]
    assert set(found[1]) == {"decision", "context"}
    error = found[1]["context"]["error"]
    assert error["status"] == 400
    assert error["message"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("execute_all", [False, True, False, True]),
        ("deny_on_first_deny", [False]),
        ("permit_on_first_permit", [False, True]),
    ],
)
async def test_semantics_say_where_it_ends(
    deciding: DecisionWorld, name: str, expected: list[bool]
) -> None:
    task = await deciding.task(capabilities=["note"])
    items = map(of_tool, ("pay", "note", "pay", "note"))

    found = await several(deciding, task, *items, **semantic(name))

    assert said(found) == expected
    # What comes after isn't decided, and so leaves nothing.
    assert len(await deciding.decisions(task)) == len(expected)


async def test_a_bad_item_counts_as_a_denial(deciding: DecisionWorld) -> None:
    task = await deciding.task()
    items = (of_tool("note"), "bad", of_tool("note"))

    stopped = await several(deciding, task, *items, **semantic("deny_on_first_deny"))
    first = await several(deciding, task, "bad", *items, **semantic("permit_on_first_permit"))

    assert said(stopped) == [True, False]
    assert said(first) == [False, True]


@pytest.mark.parametrize("evaluations", [{}, {"evaluations": []}], ids=["absent", "empty"])
async def test_without_items_the_body_is_one_question(
    deciding: DecisionWorld, evaluations: dict[str, Any]
) -> None:
    task = await deciding.task()

    good = await deciding.post(EVALUATIONS, {**question(task, "note"), **evaluations}, task=task)
    bad = await deciding.post(EVALUATIONS, evaluations, task=task)

    assert good.json()["decision"] is True, good.text
    assert "evaluations" not in good.json()
    assert_problem(bad, 400, "invalid_request")


@pytest.mark.parametrize(
    "more",
    [
        {"evaluations": None},
        {"evaluations": {}},
        {"evaluations": "note"},
        {"options": []},
        {"options": None},
        semantic("any_of"),
        {"options": {"evaluations_semantic": None}},
        {"options": {"evaluations_semantic": ["execute_all"]}},
    ],
    ids=str,
)
async def test_a_batch_that_is_none_is_400(deciding: DecisionWorld, more: dict[str, Any]) -> None:
    task = await deciding.task()
    body = {**batch(task, of_tool("note")), **more}

    answer = await deciding.post(EVALUATIONS, body, task=task)

    assert_problem(answer, 400, "invalid_request")
    assert await deciding.decisions(task) == []


async def test_a_hundred_at_most(deciding: DecisionWorld) -> None:
    task = await deciding.task()
    items = [of_tool("note")] * 100

    assert said(await several(deciding, task, *items)) == [True] * 100
    answer = await deciding.post(EVALUATIONS, batch(task, *items, of_tool("note")), task=task)
    assert_problem(answer, 400, "invalid_request")
    assert len(await deciding.decisions(task)) == 100


async def test_an_item_sees_what_those_before_it_have_left(deciding: DecisionWorld) -> None:
    task = await deciding.task()

    found = await several(
        deciding, task, *map(of_tool, ("mail.send", "crm.read", "web.fetch", "mail.send", "note"))
    )

    assert said(found) == [True, True, True, False, True]
    assert found[3]["context"]["effect"] == "needs_approval"


async def test_what_was_allowed_is_told_though_a_later_item_fails(
    deciding: DecisionWorld,
) -> None:
    """Its effects count and it is to be reported, so its id mustn't get lost."""
    task = await deciding.task()
    headers = await deciding.headers("report-writer", task["task_id"])
    token = headers["Authorization"].partition(" ")[2]
    jti = (await deciding.app.broker.access.authenticate(token, "bearer", HERE)).lineage[-1]

    async def revoke() -> bool:
        if not await deciding.decisions(task):
            return False
        await deciding.app.connection.command("DEL", keys.token(shard_of(jti, "jti") or 0, jti))
        return True

    answer, _ = await asyncio.gather(
        deciding.post(EVALUATIONS, batch(task, *[of_tool("note")] * 100), headers=headers),
        wait_until(revoke, "the first item is written"),
    )
    found = answer.json()["evaluations"]
    assert answer.status_code == 200
    allowed = [one for one in found if one["decision"]]
    assert 0 < len(allowed) < 100
    assert {one["context"]["error"]["status"] for one in found[len(allowed) :]} == {401}
    assert len(await deciding.decisions(task)) == len(allowed)
