"""Who may ask the decision point, about which tasks, and with what proof."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.errors import InvalidToken
from broker.identity.models import Transport
from broker.wire_authzen import read_evaluation
from tests.http.deciding import EVALUATION, EVALUATIONS, DecisionWorld, question
from tests.http.parties import (
    UNKNOWN_TASK,
    assert_problem,
    details,
    exchange_form,
)
from tests.possession import Sender

if TYPE_CHECKING:
    import httpx2

    from broker.access import Caller

HERE: Final = Transport("POST", f"http://127.0.0.1:8700{EVALUATION}")
SENDER: Final = Sender()
SUBJECT_UNKNOWN: Final = "subject_not_found: by the catalogue"


def plain(answer: dict[str, Any]) -> dict[str, Any]:
    """An answer without what is different each time."""
    answer["context"].pop("decision_id")
    return answer


# No proof, no answer.


@pytest.mark.parametrize("path", [EVALUATION, EVALUATIONS])
@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("", "unauthenticated"),
        ("Basic b3BlcmF0b3I6", "unauthenticated"),
        ("Bearer", "unauthenticated"),
        ("Bearer x", "invalid_token"),
        ("Bearer eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.e30.", "invalid_token"),
        ("DPoP x", "invalid_token"),
    ],
)
async def test_without_a_good_token_it_is_401_whatever_is_asked(
    deciding: DecisionWorld, path: str, header: str, code: str
) -> None:
    headers = {"Authorization": header} if header else {}
    for body in (question({"task_id": UNKNOWN_TASK}, "note"), b"", b"{"):
        answer = await deciding.post(path, body, headers={**headers, "X-Request-ID": "r"})
        assert_problem(answer, 401, code)
        assert "Bearer" in answer.headers["www-authenticate"]
        assert answer.headers["x-request-id"] == "r"


async def test_a_workloads_own_token_and_one_for_another_service_are_no_proof(
    deciding: DecisionWorld,
) -> None:
    task = await deciding.task(capabilities=["orders-api", "note"])
    granted = await deciding.grant(task, "orders-api")
    for token in (deciding.identity("report-writer"), granted["credential"]["access_token"]):
        headers = {"Authorization": f"Bearer {token}"}
        answer = await deciding.post(EVALUATION, question(task, "note"), headers=headers)
        assert_problem(answer, 401, "invalid_token")


async def test_a_token_changed_by_one_letter_is_no_proof(deciding: DecisionWorld) -> None:
    task = await deciding.task()
    good = (await deciding.headers("report-writer", task["task_id"]))["Authorization"]
    head, body, signature = good.split(".")
    other = "A" if signature[4] != "A" else "B"
    forged = f"{head}.{body}.{signature[:4]}{other}{signature[5:]}"

    answer = await deciding.post(
        EVALUATION, question(task, "note"), headers={"Authorization": forged}
    )

    assert_problem(answer, 401, "invalid_token")


async def test_an_expired_token_is_no_proof(deciding: DecisionWorld) -> None:
    task = await deciding.task()
    good = (await deciding.headers("report-writer", task["task_id"]))["Authorization"]
    tokens = deciding.app.tokens
    claims = tokens.verify(good.partition(" ")[2], None)
    old = replace(claims, issued_at=claims.issued_at - 7200, expires_at=claims.issued_at - 3600)
    headers = {"Authorization": f"Bearer {tokens.mint(old).reveal()}"}

    answer = await deciding.post(EVALUATION, question(task, "note"), headers=headers)

    assert_problem(answer, 401, "invalid_token")


# X-Request-ID (section 10.1.3).


@pytest.mark.parametrize("given", ["bfe9eb29-ab87-4ca3-be83-a1d5d8305716", "a b", "~" * 256, "="])
async def test_a_request_id_comes_back_with_every_answer(
    deciding: DecisionWorld, given: str
) -> None:
    task = await deciding.task(capabilities=["note"])
    agent = await deciding.headers("report-writer", task["task_id"])
    operator = await deciding.headers("operator")
    good = question(task, "note")
    asked: list[tuple[str, str, Any, dict[str, str], int]] = [
        ("POST", EVALUATION, good, agent, 200),
        ("POST", EVALUATION, question(task, "pay"), agent, 200),
        ("POST", EVALUATIONS, {**good, "evaluations": [{}]}, agent, 200),
        ("POST", EVALUATION, {}, agent, 400),
        ("POST", f"{EVALUATION}?a=1&a=2", good, agent, 400),
        ("POST", EVALUATION, good, {}, 401),
        ("POST", EVALUATION, good, operator, 403),
        ("GET", EVALUATION, None, agent, 405),
        ("POST", EVALUATIONS, {"x": "x" * 70_000}, agent, 413),
    ]
    for method, path, body, who, status in asked:
        answer = await deciding.http.request(
            method, path, json=body, headers={**who, "X-Request-ID": given}
        )
        assert answer.status_code == status, (method, path, answer.text)
        assert answer.headers.get_list("x-request-id") == [given]


@pytest.mark.parametrize(
    "given",
    [[b"\xff\xfe"], [b"a\tb"], ["\u00fc".encode()], [b"x" * 257], [b""], [b"a", b"b"]],
    ids=["no text", "a tab", "not ASCII", "too long", "empty", "two"],
)
async def test_a_request_id_that_could_do_harm_does_not(
    deciding: DecisionWorld, given: list[bytes]
) -> None:
    headers = [(b"x-request-id", value) for value in given]

    answer = await deciding.http.post(EVALUATION, content=b"{}", headers=headers)

    assert answer.status_code == 401
    assert "x-request-id" not in answer.headers


async def test_without_a_request_id_there_is_none(deciding: DecisionWorld) -> None:
    answer = await deciding.http.post(EVALUATION, content=b"{}")
    assert "x-request-id" not in answer.headers


# Whose tasks.


async def test_an_agent_asks_for_its_own_task_by_either_name(deciding: DecisionWorld) -> None:
    task = await deciding.task()
    body = question(task, "note")
    for subject in (
        {"type": "task", "id": task["task_id"]},
        {"type": "agent", "id": "report-writer"},
        {"type": "agent", "id": "report-writer", "properties": {"task_id": task["task_id"]}},
    ):
        answer = await deciding.post(EVALUATION, {**body, "subject": subject}, task=task)
        assert answer.json()["decision"] is True, subject


async def test_a_subject_that_is_another_is_not_found(deciding: DecisionWorld) -> None:
    task, other = await deciding.task(), await deciding.task("order-clerk")
    child = await deciding.child(task, "order-clerk")
    denials: list[dict[str, Any]] = []
    for subject in (
        {"type": "task", "id": UNKNOWN_TASK},
        {"type": "task", "id": other["task_id"]},
        {"type": "task", "id": child["task_id"]},  # its agent asks for itself
        {"type": "agent", "id": "order-clerk"},
        {"type": "agent", "id": "report-writer", "properties": {"task_id": other["task_id"]}},
        {"type": "Task", "id": task["task_id"]},
        {"type": "user", "id": "alice"},
        {"type": "task", "id": f"{task['task_id']} "},
    ):
        body = {**question(task, "note"), "subject": subject}
        denials.append(plain((await deciding.post(EVALUATION, body, task=task)).json()))
    assert [one["decision"] for one in denials] == [False] * 8
    assert all(one == denials[0] for one in denials), "they all look the same"
    assert await deciding.decisions(other) == await deciding.decisions(child) == []


async def test_an_orchestrator_asks_for_its_own_chains_alone(deciding: DecisionWorld) -> None:
    task = await deciding.task()
    child = await deciding.child(task, "order-clerk")
    for one in (task, child):
        assert await deciding.allows(one, "note", by="orchestrator")
        agent = {"type": "agent", "id": one["agent"], "properties": {"task_id": one["task_id"]}}
        body = {**question(one, "note"), "subject": agent}
        assert (await deciding.post(EVALUATION, body, by="orchestrator")).json()["decision"] is True
    unknown = plain(await deciding.decide({"task_id": UNKNOWN_TASK}, "note", by="rival"))
    assert plain(await deciding.decide(task, "note", by="rival")) == unknown
    body = question(task, "note")
    body["subject"]["properties"] = {"task_id": child["task_id"]}
    contradiction = await deciding.post(EVALUATION, body, by="orchestrator")
    assert contradiction.json()["decision"] is False
    nameless = {**question(task, "note"), "subject": {"type": "agent", "id": "report-writer"}}
    answer = await deciding.post(EVALUATION, nameless, by="orchestrator")
    assert answer.json()["context"]["reason_admin"]["en"] == SUBJECT_UNKNOWN


@pytest.mark.parametrize("by", ["operator", "auditor"])
@pytest.mark.parametrize("path", [EVALUATION, EVALUATIONS])
async def test_who_watches_over_everything_has_no_business_here(
    deciding: DecisionWorld, by: str, path: str
) -> None:
    task = await deciding.task()
    body: dict[str, Any] = {**question(task, "note"), "evaluations": [{}, {}]}

    assert_problem(await deciding.post(path, body, by=by), 403, "access_denied")
    assert await deciding.decisions(task) == []


async def test_a_resource_server_asks_about_tools_that_name_it_and_learns_of_no_other(
    deciding: DecisionWorld,
) -> None:
    task = await deciding.task(capabilities=["refund", "note", "orders-api"])
    ended = await deciding.task(capabilities=["refund", "note"])
    await deciding.complete(ended)

    assert await deciding.allows(task, "refund", by="orders-service")
    assert not await deciding.allows(ended, "refund", by="orders-service")
    unknown = plain(await deciding.decide({"task_id": UNKNOWN_TASK}, "refund", by="orders-service"))
    assert unknown["context"]["reason_admin"]["en"] == SUBJECT_UNKNOWN
    for one in (task, ended):
        for by, tool in (
            ("billing-service", "refund"),
            ("orders-service", "note"),
            ("orders-service", "orders-api"),
            ("orders-service", "no.such.tool"),
        ):
            assert plain(await deciding.decide(one, tool, by=by)) == unknown, (by, tool)
        body = question(one, "orders-api")
        body["resource"]["type"], body["action"]["name"] = "capability", "issue_grant"
        answer = await deciding.post(EVALUATION, body, by="orders-service")
        assert plain(answer.json()) == unknown


async def test_what_a_resource_server_asked_is_logged_as_its_own(deciding: DecisionWorld) -> None:
    task = await deciding.task()
    await deciding.decide(task, "refund", by="orders-service")

    (event,) = await deciding.decisions(task)
    assert event["principal"] == "orders-service"
    assert event["data"]["question"]["context"]["caller"] == "resource_server"
    assert event["data"]["question"]["principal"]["id"] == "report-writer"


# What the token is.


async def test_a_narrowed_token_asks_for_what_it_is_good_for(deciding: DecisionWorld) -> None:
    task = await deciding.task(capabilities=["note", "pay-out"])
    form = exchange_form(deciding, "report-writer")
    form["authorization_details"] = details(task["task_id"], capabilities=["note"])
    token = (await deciding.http.post("/oauth/token", data=form)).json()["access_token"]
    narrow = {"Authorization": f"Bearer {token}"}

    for tool, allowed in (("note", True), ("pay", False)):
        answer = await deciding.post(EVALUATION, question(task, tool), headers=narrow)
        assert answer.json()["decision"] is allowed
        assert await deciding.allows(task, tool)
    reasons = [event["data"]["reasons"] for event in await deciding.decisions(task)]
    assert reasons.count("token_is_narrower") == 1


async def bound_token(world: DecisionWorld, task: dict[str, Any]) -> str:
    url = f"{world.config.broker.issuer}/oauth/token"
    form = exchange_form(world, task["agent"], task["task_id"])
    proof = SENDER.proof("POST", url, time.time())
    answer = await world.http.post("/oauth/token", data=form, headers={"DPoP": proof})
    if answer.status_code == 400:
        proof = SENDER.proof("POST", url, time.time(), nonce=answer.headers["dpop-nonce"])
        answer = await world.http.post("/oauth/token", data=form, headers={"DPoP": proof})
    assert answer.json()["token_type"] == "DPoP", answer.text
    return answer.json()["access_token"]


async def bound_ask(world: DecisionWorld, token: str, body: Any, sender: Sender) -> httpx2.Response:
    async def once(nonce: str | None) -> httpx2.Response:
        proof = sender.proof("POST", HERE.url, time.time(), nonce=nonce, access_token=token)
        headers = {"Authorization": f"DPoP {token}", "DPoP": proof, "X-Request-ID": "bound"}
        answer = await world.post(EVALUATION, body, headers=headers)
        assert answer.headers["x-request-id"] == "bound"
        return answer

    first = await once(None)
    nonce = first.headers.get("dpop-nonce")
    return await once(nonce) if first.status_code == 401 and nonce else first


async def test_a_bound_token_asks_with_its_key_and_for_what_wants_one(
    deciding: DecisionWorld,
) -> None:
    task = await deciding.task()
    token, body = await bound_token(deciding, task), question(task, "sealed")

    assert (await bound_ask(deciding, token, body, SENDER)).json()["decision"] is True
    assert_problem(await bound_ask(deciding, token, body, Sender()), 401, "invalid_token")
    stolen = await deciding.post(EVALUATION, body, headers={"Authorization": f"Bearer {token}"})
    assert_problem(stolen, 401, "invalid_token")
    unbound = await deciding.decide(task, "sealed")
    assert unbound["decision"] is False
    assert unbound["context"]["reason"] == "binding_required"
    (event, *_) = await deciding.decisions(task)
    assert event["data"]["question"]["context"]["proof"]["bound"] is True


# What ends between authentication and writing: the caller was proved, and then it happens.


async def proved(world: DecisionWorld, task: dict[str, Any]) -> Caller:
    """The task's agent, proved by now; and its replica knows the chain already."""
    assert await world.allows(task, "note")
    headers = await world.headers(task["agent"], task["task_id"])
    token = headers["Authorization"].partition(" ")[2]
    return await world.app.broker.access.authenticate(token, "bearer", HERE)


@pytest.mark.parametrize(
    ("stop", "reason"),
    [
        ("complete", "task_not_active"),
        ("suspend", "task_not_active"),
        ("freeze the capability", "frozen"),
        ("freeze the agent", "frozen"),
        ("freeze all", "frozen"),
        ("revoke the task", "task_not_active"),
    ],
)
async def test_what_is_stopped_after_authentication_is_not_allowed(
    deciding: DecisionWorld, beside: DecisionWorld, stop: str, reason: str
) -> None:
    task = await deciding.task()
    caller = await proved(deciding, task)
    why = {"reason": "a test"}
    asked: dict[str, tuple[str, str, dict[str, Any]]] = {
        "complete": ("orchestrator", f"tasks/{task['task_id']}/complete", {}),
        "suspend": ("operator", "principals/report-writer/suspend", why),
        "freeze the capability": ("operator", "freezes", {"selector": {"capability": "note"}}),
        "freeze the agent": ("operator", "freezes", {"selector": {"agent": "report-writer"}}),
        "freeze all": ("operator", "freezes", {"selector": {"all": True}}),
        "revoke the task": ("operator", "revocations", {"selector": {"task_id": task["task_id"]}}),
    }
    by, path, body = asked[stop]
    done = await beside.post(f"/v1/{path}", body if stop == "complete" else {**why, **body}, by=by)
    assert done.status_code in (200, 201), done.text

    ruling = await deciding.app.broker.decisions.evaluate(
        caller, read_evaluation(question(task, "note"))
    )

    assert not ruling.decision.allowed
    assert ruling.decision.reasons == (reason,)
    allowed = [e for e in await deciding.decisions(task) if e["data"]["effect"] == "allow"]
    assert len(allowed) == 1


async def test_a_token_that_is_revoked_after_authentication_is_no_proof_any_more(
    deciding: DecisionWorld, beside: DecisionWorld
) -> None:
    task = await deciding.task()
    caller = await proved(deciding, task)
    headers = await deciding.headers("report-writer", task["task_id"])
    token = headers["Authorization"].partition(" ")[2]
    done = await beside.http.post("/oauth/revoke", data={"token": token}, headers=headers)
    assert done.status_code == 200

    with pytest.raises(InvalidToken):
        await deciding.app.broker.decisions.evaluate(
            caller, read_evaluation(question(task, "note"))
        )

    assert len(await deciding.decisions(task)) == 1


async def test_stopped_is_told_without_saying_who(deciding: DecisionWorld) -> None:
    task = await deciding.task()
    freeze = {"selector": {"capability": "note"}, "reason": "the quiet reason"}
    await deciding.post("/v1/freezes", freeze, by="operator")

    found = await deciding.decide(task, "note")

    assert found["context"]["reason"] == "frozen"
    assert "quiet" not in json.dumps(found)
    assert await deciding.allows(task, "pay")
