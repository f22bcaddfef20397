"""AuthZEN 1.0 as its text has it: metadata, one question, its answers, its errors, its headers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.http.deciding import EVALUATION, EVALUATIONS, DecisionWorld, decision_config, question
from tests.http.parties import UNKNOWN_TASK, assert_problem

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.config import Config
    from broker.dev.stack import DevStack

ENDPOINTS: Final = (EVALUATION, EVALUATIONS)
METADATA: Final = "/.well-known/authzen-configuration"
ASKED: Final = question({"task_id": UNKNOWN_TASK}, "note")
BOTH = pytest.mark.parametrize("path", ENDPOINTS)


def without(*where: str) -> dict[str, Any]:
    """The question, and one member of it missing."""
    body = json.loads(json.dumps(ASKED))
    inside = body
    for name in where[:-1]:
        inside = inside[name]
    del inside[where[-1]]
    return body


def changed(value: object, *where: str) -> dict[str, Any]:
    """The question, and one member of it another."""
    body = json.loads(json.dumps(ASKED))
    inside = body
    for name in where[:-1]:
        inside = inside.setdefault(name, {})
    inside[where[-1]] = value
    return body


# Metadata (section 9).


async def test_metadata_names_what_there_is_and_nothing_else(deciding: DecisionWorld) -> None:
    answer = await deciding.http.get(METADATA)

    issuer = deciding.config.broker.issuer
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "policy_decision_point": issuer,
        "access_evaluation_endpoint": f"{issuer}{EVALUATION}",
        "access_evaluations_endpoint": f"{issuer}{EVALUATIONS}",
    }


async def test_below_a_path_the_metadata_is_inserted_and_its_endpoints_answer(
    engines: tuple[DevStack, Config],
) -> None:
    issuer = "http://127.0.0.1:8700/tenant/one"
    world = DecisionWorld(engines[0].issuer, decision_config(engines[0], broker={"issuer": issuer}))
    try:
        answer = await world.http.get(f"http://127.0.0.1:8700{METADATA}/tenant/one")
        assert answer.status_code == 200, answer.text
        found = answer.json()
        assert found["policy_decision_point"] == issuer
        for name in ("access_evaluation_endpoint", "access_evaluations_endpoint"):
            assert found[name].startswith(f"{issuer}/access/v1/")
            headers = {"X-Request-ID": "r-1"}
            asked = await world.http.post(found[name], json=ASKED, headers=headers)
            assert_problem(asked, 401, "unauthenticated")
            assert asked.headers["x-request-id"] == "r-1"
        other = await world.http.get(f"http://127.0.0.1:8700/tenant/one{METADATA}")
        assert other.status_code == 404
    finally:
        await world.close()


# Answers (section 6.2).


async def test_what_may_be_done_is_true_and_has_a_decision_to_report(
    deciding: DecisionWorld,
) -> None:
    task = await deciding.task()

    answer = await deciding.post(EVALUATION, question(task, "note"), task=task)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body["decision"] is True
    assert set(body) == {"decision", "context"}
    assert body["context"]["decision_id"].startswith("dec_")


async def test_a_denial_is_200_and_says_why_to_whoever_may_know(deciding: DecisionWorld) -> None:
    task = await deciding.task(capabilities=["note"])

    for by, insider in (("", False), ("orchestrator", True)):
        body = await deciding.decide(task, "pay", by=by)
        assert body["decision"] is False
        context = body["context"]
        assert context["effect"] == "deny"
        assert context["reason"] == "access_denied"
        assert "no such capability" in context["reason_user"]["en"]
        assert ("reason_admin" in context) is insider
        assert ("capability_not_allowed" in json.dumps(body)) is insider


async def test_the_same_question_has_the_same_answer_again(deciding: DecisionWorld) -> None:
    task = await deciding.task(capabilities=["note"])
    for tool, answer in (("note", True), ("pay", False)):
        assert {await deciding.allows(task, tool) for _ in range(3)} == {answer}


@BOTH
async def test_members_that_nobody_knows_are_ignored(deciding: DecisionWorld, path: str) -> None:
    task = await deciding.task()
    body = question(task, "note", colour="red")
    body |= {"foo": "bar", "futureField": {"nested": True}, "options": {"another": 1}}
    body["subject"] |= {"properties": {"department": "Sales"}, "more": 1}
    body["action"] |= {"properties": {"method": "GET"}, "more": [None]}
    body["context"] = {"time": "2025-06-27T18:03-07:00", "ip": "192.168.1.1"}

    answer = await deciding.post(path, body, task=task)

    assert answer.json()["decision"] is True, answer.text


@pytest.mark.parametrize("place", ["resource", "action", "context"])
async def test_what_a_call_is_about_may_stand_in_any_of_three_places_and_once(
    deciding: DecisionWorld, place: str
) -> None:
    task = await deciding.task()
    body = question(task, "pay")
    arguments = body["resource"].pop("properties")["arguments"]
    where = body.setdefault("context", {}) if place == "context" else body[place]
    where |= (
        {"arguments": arguments} if place == "context" else {"properties": {"arguments": arguments}}
    )

    assert (await deciding.post(EVALUATION, body, task=task)).json()["decision"] is True
    other = "action" if place != "action" else "resource"
    body[other].setdefault("properties", {})["arguments"] = {**arguments, "amount": 1}
    problem = assert_problem(
        await deciding.post(EVALUATION, body, task=task), 400, "invalid_request"
    )
    assert problem["field"] == "arguments"


# Errors (sections 6.1 and 10.1).

MISSING: Final = (
    ("subject",),
    ("action",),
    ("resource",),
    ("subject", "type"),
    ("subject", "id"),
    ("action", "name"),
    ("resource", "type"),
    ("resource", "id"),
)


@BOTH
@pytest.mark.parametrize("where", MISSING, ids=".".join)
async def test_a_missing_member_is_400(
    deciding: DecisionWorld, path: str, where: tuple[str, ...]
) -> None:
    answer = await deciding.post(path, without(*where), by="orchestrator")

    problem = assert_problem(answer, 400, "invalid_request")
    assert problem["field"] == ".".join(where)


OF_ANOTHER_TYPE: Final[list[tuple[tuple[str, ...], object]]] = [
    *((where, value) for where in MISSING for value in (None, 123, True, ["a"])),
    *(((name,), "alice") for name in ("subject", "action", "resource", "context")),
    (("context",), None),
    (("subject", "id"), ""),
    *(((name, "properties"), value) for name in ("subject", "action", "resource")
      for value in (None, ["a"], "x")),
    (("subject", "properties", "task_id"), 7),
    (("resource", "properties", "arguments"), []),
    (("resource", "properties", "arguments"), None),
    (("resource", "properties", "destination"), {}),
    (("context", "effects"), "egress:internet"),
    (("context", "effects"), ["egress"]),
    (("context", "effects"), [7]),
    (("context", "effects"), ["a:b"] * 21),
    (("context", "intent"), 1),
    (("context", "intent"), "x" * 1001),
    (("context", "intent"), "\x1b[2Jhidden"),
]  # fmt: skip


@BOTH
@pytest.mark.parametrize(
    ("where", "value"), OF_ANOTHER_TYPE, ids=lambda v: str(v)[:40].encode("unicode_escape").decode()
)
async def test_a_member_of_another_type_is_400(
    deciding: DecisionWorld, path: str, where: tuple[str, ...], value: object
) -> None:
    answer = await deciding.post(path, changed(value, *where), by="orchestrator")

    assert_problem(answer, 400, "invalid_request")


@BOTH
@pytest.mark.parametrize(
    "kind", ["", "text/plain", "application/x-www-form-urlencoded", "application/jsonp",
             "application/authzen+json", "multipart/form-data; boundary=x"]
)  # fmt: skip
async def test_another_content_type_is_400(deciding: DecisionWorld, path: str, kind: str) -> None:
    headers = await deciding.headers("orchestrator")
    if kind:
        headers = {**headers, "Content-Type": kind}
    body = json.dumps(ASKED).encode()

    answer = await deciding.http.post(path, content=body, headers=headers)

    assert_problem(answer, 400, "invalid_request")


@pytest.mark.parametrize("kind", ["application/json; charset=utf-8", "Application/JSON"])
async def test_the_content_type_may_be_written_otherwise(
    deciding: DecisionWorld, kind: str
) -> None:
    headers = {**await deciding.headers("orchestrator"), "Content-Type": kind}
    body = json.dumps(ASKED).encode()

    answer = await deciding.http.post(EVALUATION, content=body, headers=headers)

    assert answer.status_code == 200, answer.text


def spoiled(change: Callable[[str], str | bytes]) -> bytes:
    text = change(json.dumps(ASKED))
    return text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")


BODIES: Final = {
    "empty": b"",
    "blank": b"  ",
    "no JSON": b"{",
    "more after it": spoiled(lambda t: t + "x"),
    "two documents": spoiled(lambda t: t + t),
    "an array": spoiled(lambda t: f"[{t}]"),
    "a string": b'"subject"',
    "null": b"null",
    "a number": b"1",
    "a byte order mark": spoiled(lambda t: b"\xef\xbb\xbf" + t.encode()),
    "UTF-16": spoiled(lambda t: t.encode("utf-16")),
    "UTF-32": spoiled(lambda t: t.encode("utf-32-le")),
    "no UTF-8": spoiled(lambda t: t.replace("note", "\xff").encode("latin-1")),
    "a raw surrogate": spoiled(lambda t: t.replace("note", "\ud800")),
    "half of a pair": spoiled(lambda t: t.replace("note", "\\ud800")),
    "half of a pair, in a name": spoiled(lambda t: t[:-1] + ', "\\udfff": 1}'),
    "a pair the wrong way": spoiled(lambda t: t.replace("note", "\\udc00\\ud800")),
    "a name twice": spoiled(lambda t: t[:-1] + ', "action": {"name": "call_tool"}}'),
    "a name twice, inside": spoiled(lambda t: t.replace('"id":', '"id": "x", "id":', 1)),
    "a name twice, escaped": spoiled(lambda t: t[:-1] + ', "\\u0061ction": {"name": "x"}}'),
    "NaN": spoiled(lambda t: t[:-1] + ', "x": NaN}'),
    "Infinity": spoiled(lambda t: t[:-1] + ', "x": Infinity}'),
    "-Infinity": spoiled(lambda t: t[:-1] + ', "x": -Infinity}'),
    "1e999": spoiled(lambda t: t[:-1] + ', "x": 1e999}'),
    "-1e999, deep inside": spoiled(lambda t: t[:-1] + ', "x": [{"y": [-1e999]}]}'),
    "an endless integer": spoiled(lambda t: t[:-1] + f', "x": {"9" * 5000}}}'),
    "33 levels": spoiled(lambda t: t[:-1] + f', "x": {"[" * 32}{"]" * 32}}}'),
    "20000 levels": spoiled(lambda t: t[:-1] + f', "x": {"[" * 20_000}{"]" * 20_000}}}'),
    "a comment": spoiled(lambda t: t + "//"),
    "a control character": spoiled(lambda t: t.replace("note", "a\nb")),
}


@BOTH
@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
async def test_a_body_that_not_every_reader_would_see_the_same_is_400(
    deciding: DecisionWorld, path: str, body: bytes
) -> None:
    answer = await deciding.post(path, body, by="orchestrator")

    assert_problem(answer, 400, "invalid_request")
    assert await deciding.decisions() == []


async def test_what_is_odd_and_means_one_thing_is_read(deciding: DecisionWorld) -> None:
    for odd in ('"\\ud83d\\ude00"', f"{'[' * 31}{']' * 31}", "9" * 4000, '"\\u0000"', "1e-999"):
        body = json.dumps(ASKED)[:-1] + f', "x": {odd}}}'
        answer = await deciding.post(EVALUATION, body.encode(), by="orchestrator")
        assert answer.status_code == 200, (odd[:20], answer.text)


async def test_a_body_over_the_limit_is_refused_before_it_is_read(deciding: DecisionWorld) -> None:
    body = {**ASKED, "x": "x" * 70_000}

    answer = await deciding.post(EVALUATION, body, headers={"X-Request-ID": "big"})

    assert_problem(answer, 413, "payload_too_large")
    assert answer.headers["x-request-id"] == "big"
