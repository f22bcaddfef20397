"""What the log says of decisions: all that they were made on, and nothing that was a secret."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.audit.fingerprint import Fingerprints
from broker.wire_authzen import read_evaluation
from tests.http.deciding import (
    EVALUATION,
    EVALUATIONS,
    DecisionWorld,
    decision_config,
    question,
)
from tests.http.test_canary import read_all

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

CANARY: Final = "canary-5f2c9d-f00d-5f2c9d"
LOGGED: Final = """
@id("customers-are-logged")
@log_arguments
permit (principal, action == Action::"call:crm-read", resource);
"""


@pytest.fixture
async def telling(
    engines: tuple[DevStack, Config], tmp_path: Path
) -> AsyncGenerator[DecisionWorld]:
    """A broker that logs the arguments of one tool."""
    (tmp_path / "own.cedar").write_text(LOGGED, "utf-8")
    made = DecisionWorld(engines[0].issuer, decision_config(engines[0], policies=tmp_path))
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


async def test_an_event_has_the_decision_and_all_that_it_was_made_on(
    deciding: DecisionWorld,
) -> None:
    task = await deciding.task()
    found = await deciding.decide(
        task,
        "mail.send",
        intent="tell them",
        destination="https://user-less.example.com/x?token=1",
        effects=["egress:mail"],
    )

    (event,) = await deciding.decisions(task)

    data = event["data"]
    assert event["task_id"] == task["task_id"]
    assert event["principal"] == "report-writer"
    assert data["id"] == found["context"]["decision_id"]
    assert data["effect"] == "allow"
    assert data["reasons"] == "policy"
    assert data["policies"] == ["operate-by-allow-list"]
    assert data["obligations"] == {"notify": ["watch"]}
    assert data["intent"] == "tell them"
    assert data["tool"] == "mail.send"
    assert data["capability"] == "mail-out"
    assert data["effects"] == ["egress:internet", "egress:mail"]
    asked = data["question"]
    assert asked["action"] == "call:mail-out"
    assert asked["principal"]["id"] == "report-writer"
    assert asked["resource"]["id"] == "mail-out"
    assert asked["context"]["destination"] == {
        "host": "user-less.example.com",
        "within": ["user-less.example.com", "example.com", "com"],
        "scheme": "https",
        "port": 443,
        "ip": False,
    }
    assert asked["context"]["after"]["effects"] == ["egress:internet", "egress:mail"]
    assert "arguments" not in asked["context"]
    assert found["context"]["obligations"] == {"notify": ["watch"]}


async def test_an_event_names_its_chain_and_its_decision_beside_the_data(
    deciding: DecisionWorld,
) -> None:
    parent = await deciding.task()
    child = await deciding.child(parent, "order-clerk")
    decision = (await deciding.decide(child, "note"))["context"]["decision_id"]
    await deciding.report(child, decision)

    event = await deciding.app.pipeline.queries.decision(decision)

    assert event is not None
    assert (event.chain, event.task_id) == (parent["task_id"], child["task_id"])
    assert event.decision == decision
    page = await deciding.app.pipeline.queries.events(task_id=child["task_id"])
    (execution,) = [e for e in page.items if e.type == "execution"]
    assert (execution.decision, execution.chain) == (decision, parent["task_id"])


async def test_arguments_are_fingerprints_by_which_they_are_found_again(
    deciding: DecisionWorld,
) -> None:
    task = await deciding.task()
    arguments = {"to": ["a@example.com"], "subject": "hello", "copies": 2, "urgent": True}
    await deciding.decide(task, "mail.send", arguments=arguments)
    await deciding.decide(task, "mail.send", arguments={**arguments, "copies": 3})

    first, second = [e["data"]["arguments"] for e in await deciding.decisions(task)]

    config = deciding.config
    key = config.audit.fingerprint_key(config.broker.state_dir)
    print_of = Fingerprints.load(key).of_value
    assert first == {name: print_of(value) for name, value in arguments.items()}
    assert {name for name in first if first[name] != second[name]} == {"copies"}
    assert all(value.startswith("fp_") for value in first.values())


async def test_arguments_are_told_where_policy_says_so_and_the_call_is_allowed(
    telling: DecisionWorld,
) -> None:
    task, narrow = await telling.task(), await telling.task(capabilities=["note"])
    arguments = {"query": "acme", "limit": 3}
    assert await telling.allows(task, "crm.read", arguments=arguments)
    assert not await telling.allows(task, "crm.read", arguments={**arguments, "limit": "x"})
    assert not await telling.allows(narrow, "crm.read", arguments=arguments)
    assert await telling.allows(task, "pay")

    told, spoiled, other = [e["data"] for e in await telling.decisions(task)]
    (denied,) = [e["data"] for e in await telling.decisions(narrow)]

    assert told["arguments"] == arguments
    assert told["arguments_logged"] is True
    assert "arguments" not in told["question"]["context"]
    for data in (spoiled, other, denied):
        assert all(value.startswith("fp_") for value in data["arguments"].values())
        assert "arguments_logged" not in data


async def test_a_refusal_at_the_last_moment_is_logged_with_its_question(
    deciding: DecisionWorld, beside: DecisionWorld
) -> None:
    task = await deciding.task()
    freeze = {"selector": {"capability": "note"}, "reason": "a drill"}
    await beside.post("/v1/freezes", freeze, by="operator")

    found = await deciding.decide(task, "note", intent="to see")

    (event,) = await deciding.decisions(task)
    assert event["data"]["id"] == found["context"]["decision_id"]
    assert (event["data"]["effect"], event["data"]["reasons"]) == ("deny", "frozen")
    assert event["data"]["intent"] == "to see"
    assert event["data"]["question"]["action"] == "call:note"


def places(task: dict[str, Any]) -> list[Any]:
    """Questions with a secret wherever one could be put, by mistake or not."""
    good = question(task, "mail.send")
    url = f"https://example.com/{CANARY}?key={CANARY}#{CANARY}"
    calls: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
        ("mail.send", {"to": [CANARY], "subject": CANARY}, {}),
        ("mail.send", {"to": [CANARY, 1], "subject": CANARY}, {}),
        ("mail.send", {"to": CANARY}, {}),
        ("mail.send", {"to": [], CANARY: CANARY}, {}),
        ("mail.send", {"to": [], "copies": CANARY}, {}),
        ("mail.send", {"to": [], "weight": {CANARY: [CANARY]}}, {}),
        ("crm.read", {"query": CANARY, "limit": CANARY}, {}),
        ("web.fetch", {"url": url}, {"destination": url}),
        ("web.fetch", {"url": url}, {"destination": f"https://u:{CANARY}@example.com"}),
        ("web.fetch", {"url": url}, {"destination": f"postgresql://h/?password={CANARY}"}),
        ("web.fetch", {"url": url}, {"effects": [f"a:{CANARY}", CANARY.upper()]}),
        ("web.fetch", {"url": url}, {"more": CANARY}),
        (f"tool {CANARY}", {}, {}),
        (f"{CANARY}" * 6, {}, {}),
    ]
    spoiled = [
        question(task, tool, arguments=arguments, **about) for tool, arguments, about in calls
    ]
    spoiled += [
        {**good, "context": {"session": CANARY, CANARY: {}}},
        {**good, "action": {"name": f"call tool {CANARY}"}},
        {**good, "action": {"name": "call_tool", "properties": {"key": CANARY}}},
        {**good, "subject": {"type": "task", "id": CANARY}},
        {**good, "subject": {"type": CANARY, "id": task["task_id"]}},
        {**good, "subject": {**good["subject"], "properties": {"token": CANARY}}},
        {**good, "resource": {"type": f"a {CANARY}", "id": f"a {CANARY}"}},
        {
            **good,
            "action": {"name": "issue_grant"},
            "resource": {"type": "capability", "id": f"a {CANARY}"},
        },
        {CANARY: CANARY},
    ]
    return spoiled


async def test_no_secret_of_a_call_is_anywhere(
    deciding: DecisionWorld, capfd: pytest.CaptureFixture[str]
) -> None:
    task = await deciding.task()
    answers: list[str] = []
    for body in places(task):
        for by in ("", "orchestrator"):
            for path, sent in (
                (EVALUATION, body),
                (EVALUATIONS, {"evaluations": [body, {**body, "subject": 7}]}),
            ):
                answer = await deciding.post(path, sent, by=by, task=task)
                assert answer.status_code in (200, 400), answer.text
                answers.append(answer.text + json.dumps(dict(answer.headers)))
    broken = json.dumps(places(task)[0])[:-1].encode()
    answers.append((await deciding.post(EVALUATION, broken, task=task)).text)
    # Its own sender alone is told again.
    await deciding.post(EVALUATION, {}, headers={"X-Request-ID": CANARY})
    assert await deciding.allows(task, "note", intent=f"said as given: {CANARY[7:]}")

    assert not [text for text in answers if CANARY in text]
    redis: Any = deciding.app.connection.client
    rows = await read_all(redis)
    assert [key for key, row in rows if CANARY.encode() in row] == []
    assert [key for key, row in rows if CANARY[7:].encode() in row], (
        "the search finds what is there"
    )
    printed = capfd.readouterr()
    assert CANARY not in printed.out + printed.err
    allowed = [e for e in await deciding.decisions(task) if e["data"]["effect"] == "allow"]
    assert len(allowed) > 10, "secrets went through allowed calls as well"


def test_what_was_asked_prints_no_argument_and_no_destination() -> None:
    body = question({"task_id": "tsk"}, "x", arguments={"a": CANARY}, destination=CANARY)
    asked = read_evaluation(body)
    assert asked.arguments == {"a": CANARY}
    assert CANARY not in f"{asked!r}"
