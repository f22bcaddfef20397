"""The client's core, played by hand: no I/O."""

from __future__ import annotations

import json
from typing import Any

import pytest

from broker.client import (
    ConnectionFailed,
    Secret,
    Unauthenticated,
    UnexpectedAnswer,
    calls,
)
from broker.client.messages import Flow, Request, Response
from broker.client.retrying import Retries
from broker.client.session import Session
from tests.clocks import ManualClock
from tests.unit.fake_broker import (
    ISSUED,
    JWT,
    PASSWORD,
    TASK,
)

URL = "https://broker.example"


def identity() -> Secret:
    return Secret(JWT)


def session(clock: ManualClock | None = None, task_id: str | None = None) -> Session:
    retries = Retries(attempts=3, jitter=lambda: 1.0)
    return Session(URL, identity, task_id=task_id, clock=clock or ManualClock(), retries=retries)


def ok(document: object, status: int = 200) -> Response:
    return Response(status, {}, json.dumps(document).encode())


def token(text: str, lifetime: float | None = 300) -> Response:
    return ok({"access_token": text, "token_type": "bearer", "expires_in": lifetime})


def play(flow: Flow[Any], *answers: Response | ConnectionFailed) -> tuple[list[Request], Any]:
    """Give the core these answers; return what it sent, and what came of it.

    What is asked on this machine is asked, and neither sent nor among the answers.
    """
    sent: list[Request] = []
    left = iter(answers)
    try:
        request = next(flow)
        while True:
            if request.work is not None:
                request = flow.send(request.work())
                continue
            sent.append(request)
            answer = next(left, None)
            assert answer is not None, f"the core waits for an answer to {request}"
            request = flow.send(answer) if isinstance(answer, Response) else flow.throw(answer)
    except StopIteration as end:
        return sent, end.value


METADATA = ok({"issuer": "https://issuer.example"})


def test_the_first_call_asks_for_the_issuer_then_exchanges_then_calls() -> None:
    sent, task = play(
        session(task_id="tsk_x").run(calls.get_task("tsk_x")), METADATA, token("t1"), ok(TASK)
    )
    assert [r.path for r in sent] == [
        "/.well-known/oauth-authorization-server",
        "/oauth/token",
        "/v1/tasks/tsk_x",
    ]
    assert b"resource=https%3A%2F%2Fissuer.example" in sent[1].content
    assert b"%22broker_task%22%2C%22task_id%22%3A%22tsk_x%22" in sent[1].content
    assert sent[2].headers["authorization"] == "Bearer t1"
    assert task.agent == "report-writer"


def test_a_token_is_used_until_shortly_before_it_expires() -> None:
    clock = ManualClock()
    core = session(clock)
    play(core.run(calls.get_task("a")), METADATA, token("t1", 300), ok(TASK))
    clock.advance(269)
    sent, _ = play(core.run(calls.get_task("a")), ok(TASK))
    assert sent[0].headers["authorization"] == "Bearer t1"
    clock.advance(1)
    sent, _ = play(core.run(calls.get_task("a")), token("t2"), ok(TASK))
    assert sent[1].headers["authorization"] == "Bearer t2"


def test_a_token_without_a_lifetime_is_used_once() -> None:
    core = session()
    play(core.run(calls.get_task("a")), METADATA, token("t1", None), ok(TASK))
    sent, _ = play(core.run(calls.get_task("a")), token("t2"), ok(TASK))
    assert sent[0].path == "/oauth/token"


def test_a_refused_token_at_hand_is_exchanged_anew_once() -> None:
    core = session()
    play(core.run(calls.get_task("a")), METADATA, token("t1"), ok(TASK))
    sent, _ = play(core.run(calls.get_task("a")), Response(401), token("t2"), ok(TASK))
    assert [r.path for r in sent] == ["/v1/tasks/a", "/oauth/token", "/v1/tasks/a"]


def test_a_fresh_token_that_is_refused_is_an_error_at_once() -> None:
    with pytest.raises(Unauthenticated):
        play(session().run(calls.get_task("a")), METADATA, token("t1"), Response(401))


def test_what_never_left_is_sent_again_with_growing_delays() -> None:
    unsent = ConnectionFailed("refused")
    core = session()
    play(core.run(calls.get_task("a")), METADATA, token("t1"), ok(TASK))
    ask = calls.complete("a")
    sent, _ = play(core.run(ask), unsent, unsent, ok({"state": "completed"}))
    assert [r.delay for r in sent] == [0, 0.2, 0.4]
    with pytest.raises(ConnectionFailed):
        play(core.run(ask), unsent, unsent, unsent)


def test_a_lost_answer_is_asked_for_again_only_where_that_does_no_harm() -> None:
    lost = ConnectionFailed("lost", sent=True)
    core = session()
    play(core.run(calls.get_task("a")), METADATA, token("t1"), ok(TASK))
    sent, _ = play(core.run(calls.open_task("a", "p", ["c"])), lost, lost, ok(TASK))
    assert len({r.headers["idempotency-key"] for r in sent}) == 1
    assert len({r.content for r in sent}) == 1
    with pytest.raises(ConnectionFailed) as caught:
        play(core.run(calls.revoke({"all": True}, "r")), lost, ok({}))
    assert caught.value.code == "no_answer"


def test_without_an_issuer_in_the_metadata_the_url_itself_is_the_resource() -> None:
    sent, _ = play(session().run(calls.get_task("a")), Response(404), token("t"), ok(TASK))
    assert b"resource=https%3A%2F%2Fbroker.example&" in sent[1].content + b"&"


@pytest.mark.parametrize(
    "answer", [ok({}), ok({"access_token": 1}), ok({"access_token": "t", "token_type": "DPoP"})]
)
def test_a_token_answer_that_cannot_be_used_is_an_error(answer: Response) -> None:
    with pytest.raises(UnexpectedAnswer):
        play(session().run(calls.get_task("a")), METADATA, answer)


def test_requests_and_answers_do_not_show_their_contents() -> None:
    sent, _ = play(session().run(calls.get_task("a")), METADATA, token("hush"), ok(TASK))
    assert JWT not in repr(sent)
    assert "hush" not in repr(sent)
    assert PASSWORD not in repr(ok(ISSUED))
