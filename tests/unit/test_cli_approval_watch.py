"""``broker approval watch``, and commands that wait for a human, against a real HTTP server."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from broker.cli.approval_watch import Watch
from broker.client import Client, Secret, Unavailable
from tests.unit.consent_documents import ACCEPTED, APPROVAL, APPROVED, DENIED, page
from tests.unit.fake_broker import DSN, ISSUED, JWT, FakeBroker, problem
from tests.unit.terminal import Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.unit.cli_runner import Run

ONE = "GET /v1/approvals/apr_1"
ALL = "GET /v1/approvals"
GRANTS = "POST /v1/tasks/tsk_1/grants"
REQUEST = ("grant", "request", "tsk_1", "deploy", "--field", "dsn")


# Watch.


@pytest.fixture
def client(fake: FakeBroker) -> Iterator[Client]:
    with Client(fake.url, lambda: Secret(JWT)) as made:
        yield made


def seen(watch: Watch, client: Client) -> list[tuple[str, str]]:
    return [(a.approval_id, a.state) for a in watch.look(client)]


def test_watch_tells_each_new_one_each_vote_and_each_outcome_once(
    fake: FakeBroker, client: Client
) -> None:
    other = {**APPROVAL, "approval_id": "apr_2"}
    voted = {**other, "needs": [{"group": "security", "count": 2, "have": 2}]}
    for items in ((APPROVAL,), (APPROVAL,), (other, APPROVAL), (voted,), ()):
        fake.on(ALL, 200, page(*items))
    fake.on(ONE, 200, DENIED)
    watch = Watch()

    assert seen(watch, client) == [("apr_1", "pending")]
    assert fake.last.query == {"state": "pending"}
    assert seen(watch, client) == []
    assert seen(watch, client) == [("apr_2", "pending")]
    assert seen(watch, client) == [("apr_2", "pending"), ("apr_1", "denied")]
    # What isn't known any more has no outcome to tell.
    assert seen(watch, client) == []
    assert seen(watch, client) == []


def test_watch_isnt_fooled_by_a_page_that_moved_on(fake: FakeBroker, client: Client) -> None:
    fake.on(ALL, 200, page(APPROVAL))
    fake.on(ALL, 200, page())
    fake.on(ONE, 200, APPROVAL)
    fake.on(ONE, 200, APPROVED)
    watch = Watch()
    assert seen(watch, client) == [("apr_1", "pending")]
    assert seen(watch, client) == []
    assert seen(watch, client) == [("apr_1", "approved")]


def test_watch_looks_less_often_while_nothing_happens_and_while_it_cant(
    fake: FakeBroker, client: Client
) -> None:
    fake.on(ALL, 200, page(APPROVAL))
    watch = Watch()
    pauses: list[float] = []
    for _ in range(8):
        seen(watch, client)
        pauses.append(watch.pause_s)
    assert pauses[0] == 2
    assert pauses == sorted(pauses)
    assert pauses[-1] == 15
    watch.failed(Unavailable("down"))
    assert watch.pause_s == 30
    watch.failed(Unavailable("down", retry_after=300))
    assert watch.pause_s == 300


def test_watch_runs_until_interrupted(fake: FakeBroker) -> None:
    fake.on(ALL, 200, page({**APPROVAL, "purpose": "evil\x1b[2J"}))
    fake.on(ALL, 503, {"code": "unavailable", "detail": "Busy."})
    fake.on(ALL, 200, page())
    fake.on(ONE, 200, APPROVED)
    terminal = Terminal("approval", "watch")
    first = terminal.until("watching; Ctrl-C ends it")
    assert "\x07apr_1  report-writer, asked by ci: call deploy (privileged), pending" in first
    assert "\x1b" not in first
    terminal.until("Busy. Trying again")
    assert "\x07" not in terminal.until("apr_1  report-writer, asked by ci: call deploy")
    terminal.process.send_signal(signal.SIGINT)
    assert terminal.ended() == 130
    assert "Traceback" not in terminal.shown


def test_watch_that_never_saw_the_broker_fails(run: Run) -> None:
    ran = run("approval", "watch", "--server", "http://127.0.0.1:9")
    assert (ran.code, ran.out) == (3, "")


# A command that waits.


def test_without_waiting_it_says_what_to_do(fake: FakeBroker, run: Run) -> None:
    fake.on(GRANTS, 202, ACCEPTED, Retry_After="5")
    ran = run(*REQUEST)
    assert (ran.code, ran.out) == (5, "")
    assert "approval: apr_1" in ran.err
    assert "--wait" in ran.err
    assert "try again in" not in ran.err, "not before somebody has approved it"


def test_waiting_takes_the_credential_once_it_is_approved(fake: FakeBroker, run: Run) -> None:
    fake.on(GRANTS, 202, ACCEPTED)
    fake.on(GRANTS, 201, ISSUED)
    fake.on(ONE, 200, APPROVAL)
    fake.on(ONE, 200, APPROVED)

    ran = run(*REQUEST, "--wait", "5m")

    assert (ran.code, ran.out) == (0, f"{DSN}\n")
    assert "it needs 2 of group security (1 so far); group leads may stand in" in ran.err
    assert "this waits 5m" in ran.err
    asked = [r for r in fake.seen if r.method == "POST"]
    assert asked[0].json == asked[1].json, "what was approved is what is asked for"
    assert asked[0].headers["idempotency-key"] != asked[1].headers["idempotency-key"]


def test_for_programs_nothing_is_said_while_it_waits(fake: FakeBroker, run: Run) -> None:
    fake.on(GRANTS, 202, ACCEPTED)
    fake.on(GRANTS, 201, ISSUED)
    fake.on(ONE, 200, APPROVED)
    ran = run(*REQUEST[:4], "--wait", "5m", "--json")
    assert (ran.json["grant_id"], ran.err) == (ISSUED["grant_id"], "")


def test_a_denial_ends_the_waiting(fake: FakeBroker, run: Run) -> None:
    fake.on(GRANTS, 202, ACCEPTED)
    denied = problem(403, "approval_denied", "Denied: not today.", approval_id="apr_1")
    fake.answers[GRANTS].append(denied)
    fake.on(ONE, 200, DENIED)
    ran = run(*REQUEST, "--wait", "5m")
    assert (ran.code, ran.out) == (4, "")
    assert "not today" in ran.err
    assert "broker approval show" in ran.err


@pytest.mark.parametrize(
    ("state", "reason"),
    [("expired", None), ("cancelled", "withdrawn"), ("cancelled", "task_expired"), ("used", None)],
)
def test_what_ended_otherwise_isnt_asked_for_anew(
    fake: FakeBroker, run: Run, state: str, reason: str | None
) -> None:
    fake.on(GRANTS, 202, ACCEPTED)
    fake.on(ONE, 200, {**APPROVED, "state": state, "reason": reason})
    ran = run(*REQUEST, "--wait", "5m")
    assert (ran.code, ran.out) == (1, "")
    assert f"apr_1 is {state}" in ran.err
    assert ("to ask anew" in ran.err) is (reason != "task_expired")
    assert len([r for r in fake.seen if r.method == "POST"]) == 1


def test_when_time_is_up_it_is_still_needed(fake: FakeBroker, run: Run) -> None:
    fake.on(GRANTS, 202, ACCEPTED)
    fake.on(ONE, 200, APPROVAL)
    ran = run(*REQUEST, "--wait", "100ms")
    assert (ran.code, ran.out) == (5, "")
    assert "approval: apr_1" in ran.err
    assert run(*REQUEST, "--wait", "soon").code == 2
