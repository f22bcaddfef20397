"""The client's calls about approvals, elevations and reviews, and how it waits for humans."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from broker.client import (
    ApprovalDenied,
    ApprovalNeed,
    ApprovalRequired,
    AsyncClient,
    Client,
    ConnectionFailed,
    Denied,
    InvalidRequest,
    NotFound,
    RateLimited,
    Secret,
)
from broker.client.approval_waiting import wait_for_approval
from broker.client.decoding import encode
from broker.client.messages import Flow, Request, Response
from broker.client.retrying import Retries
from broker.client.session import Session
from tests.clocks import ManualClock
from tests.unit.consent_documents import (
    ACCEPTED,
    APPROVAL,
    APPROVED,
    DENIED,
    ELEVATION,
    GLASS,
    page,
)
from tests.unit.fake_broker import HANG_UP, ISSUED, JWT, FakeBroker, problem, running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from broker.client import Approval

ONE = "GET /v1/approvals/apr_1"


def identity() -> Secret:
    return Secret(JWT)


@pytest.fixture
def fake() -> Iterator[FakeBroker]:
    with running() as server:
        yield server


@pytest.fixture
def client(fake: FakeBroker) -> Iterator[Client]:
    with Client(fake.url, identity, task_id="") as made:
        yield made


def test_what_an_approval_says(fake: FakeBroker, client: Client) -> None:
    fake.on("GET /v1/approvals", 200, page(APPROVAL, following="c"))
    fake.on("GET /v1/approvals", 200, page(APPROVED))

    first, second = client.iter_approvals(state="pending", task_id="tsk_1", limit=1)

    assert fake.last.query == {"state": "pending", "task_id": "tsk_1", "limit": "1", "cursor": "c"}
    assert first.needs == (ApprovalNeed(group="security", count=2, have=1),)
    assert (first.votes[0].by, first.votes[0].reason) == ("alice", "ticket 7")
    assert first.request == APPROVAL["request"]
    assert second.request is None
    assert json.loads(json.dumps(encode(first), default=str)) == APPROVAL


def test_voting_and_withdrawing(fake: FakeBroker, client: Client) -> None:
    fake.on("POST /v1/approvals/apr_1/approve", 200, APPROVED)
    fake.on("POST /v1/approvals/apr_1/deny", 200, DENIED)
    fake.on("DELETE /v1/approvals/apr_1", 200, {**APPROVAL, "state": "cancelled"})

    assert client.approve("apr_1", "ticket 7").state == "approved"
    assert fake.last.json == {"reason": "ticket 7"}
    assert client.deny("apr_1", "no").reason == "not today"
    assert fake.last.json == {"reason": "no"}
    assert client.withdraw_approval("apr_1").state == "cancelled"
    with pytest.raises(InvalidRequest):
        client.approve("..", "x")


def test_a_vote_whose_answer_was_lost_isnt_cast_again(fake: FakeBroker, client: Client) -> None:
    fake.on("POST /v1/approvals/apr_1/approve", HANG_UP)
    with pytest.raises(ConnectionFailed) as caught:
        client.approve("apr_1", "ticket 7")
    assert caught.value.sent
    assert len(fake.seen) == 1


def test_elevations_and_reviews(fake: FakeBroker, client: Client) -> None:
    fake.on("POST /v1/tasks/tsk_1/elevations", 201, ELEVATION)
    fake.on("GET /v1/tasks/tsk_1/elevations", 200, page(ELEVATION))
    fake.on("DELETE /v1/tasks/tsk_1/elevations/elv_1", 200, {**ELEVATION, "state": "ended"})
    fake.on("POST /v1/tasks/tsk_1/break-glass", 201, GLASS)
    fake.on("GET /v1/reviews", 200, page(GLASS))
    fake.on("POST /v1/reviews/elv_1/close", 200, {**GLASS, "review": "closed"})

    got = client.elevate("tsk_1", "deploy", intent="why", ttl=timedelta(minutes=5), heartbeat="30s")
    assert fake.last.json == {
        "capability": "deploy",
        "ttl": "5m",
        "heartbeat": "30s",
        "intent": "why",
    }
    assert (got.elevation_id, got.state, got.break_glass) == ("elv_1", "active", False)
    assert json.loads(json.dumps(encode(got), default=str)) == ELEVATION
    assert [e.capability for e in client.iter_elevations("tsk_1")] == ["deploy"]
    assert client.end_elevation("tsk_1", "elv_1").state == "ended"

    broken = client.break_glass("tsk_1", "deploy", intent="the shop is down")
    assert fake.last.json == {"capability": "deploy", "intent": "the shop is down"}
    assert broken.rotation == {"database/rotate-root/orders": "failed"}
    (review,) = client.iter_reviews(state="open")
    assert (fake.last.query, review.review) == ({"state": "open"}, "open")
    assert client.close_review("elv_1", "nothing was read").review == "closed"
    assert fake.last.json == {"findings": "nothing was read"}


@pytest.mark.parametrize("call", [Client.request_grant, Client.elevate])
def test_what_needs_approval_says_what_to_wait_for(
    fake: FakeBroker, client: Client, call: Callable[..., object]
) -> None:
    for route in ("grants", "elevations"):
        fake.on(f"POST /v1/tasks/tsk_1/{route}", 202, ACCEPTED, Retry_After="5")
    with pytest.raises(ApprovalRequired) as caught:
        call(client, "tsk_1", "deploy", intent="why")
    error = caught.value
    assert (error.approval_id, error.retry_after, error.code) == ("apr_1", 5, "approval_required")
    assert error.expires_at == datetime(2026, 1, 2, 4, 4, 5, 678000, UTC)
    assert error.detail == "Somebody has to approve this."


def test_what_needs_approval_and_cant_wait_is_the_same_error(
    fake: FakeBroker, client: Client
) -> None:
    fake.answers["POST /v1/tasks"].append(problem(403, "approval_required", "Not that way."))
    with pytest.raises(ApprovalRequired) as caught:
        client.open_task("a", "p", ["c"])
    assert (caught.value.approval_id, caught.value.expires_at) == ("", None)


def test_a_denied_approval_is_a_denial_of_its_own(fake: FakeBroker, client: Client) -> None:
    answer = problem(403, "approval_denied", "Denied.", approval_id="apr_1")
    fake.answers["POST /v1/tasks/tsk_1/grants"].append(answer)
    with pytest.raises(ApprovalDenied) as caught:
        client.request_grant("tsk_1", "deploy")
    assert caught.value.approval_id == "apr_1"
    assert isinstance(caught.value, Denied)


def test_waiting_then_asking_again(fake: FakeBroker, client: Client) -> None:
    fake.on("POST /v1/tasks/tsk_1/grants", 202, ACCEPTED)
    fake.on("POST /v1/tasks/tsk_1/grants", 201, ISSUED)
    fake.on(ONE, HANG_UP)
    fake.on(ONE, 200, APPROVED)

    with pytest.raises(ApprovalRequired) as caught:
        client.request_grant("tsk_1", "deploy")
    assert client.wait_for_approval(caught.value.approval_id, "5m").state == "approved"
    assert fake.last.query == {"wait": "30s"}
    assert client.request_grant("tsk_1", "deploy").grant_id == ISSUED["grant_id"]


async def test_the_asynchronous_client_waits_as_well(fake: FakeBroker) -> None:
    fake.on(ONE, 200, DENIED)
    async with AsyncClient(fake.url, identity, task_id="") as client:
        assert (await client.wait_for_approval("apr_1", "1m")).state == "denied"


def test_a_long_poll_may_take_longer_than_the_clients_time_limit(fake: FakeBroker) -> None:
    fake.on(ONE, 200, APPROVED)
    with Client(fake.url, identity, task_id="", timeout=5) as client:
        assert client.get_approval("apr_1", wait="60s").state == "approved"
    assert fake.last.query == {"wait": "60s"}


# How it waits, played by hand, with a clock that stands still.


class Waiting:
    """A conversation whose every request is answered by hand."""

    def __init__(self, timeout: str) -> None:
        self.clock = ManualClock()
        self.pending: list[str] = []
        session = Session(
            "https://broker.example",
            identity,
            task_id=None,
            clock=self.clock,
            retries=Retries(attempts=3, jitter=lambda: 0.0),
        )
        asked = wait_for_approval("apr_1", timeout, on_pending=self._note)
        self.flow: Flow[Approval] = asked.hold(session)
        self.request = next(self.flow)
        self.result: Approval | None = None
        assert self.request.work is not None
        self._go(self.request.work())
        self.answer({"issuer": "https://issuer.example"})
        self.answer({"access_token": "t", "token_type": "Bearer", "expires_in": 36_000})

    def _note(self, approval: Approval) -> None:
        self.pending.append(approval.approval_id)

    def answer(
        self, document: Any, status: int = 200, *, after: float = 0, retry: str = ""
    ) -> Request:
        """Answer the request, ``after`` so many seconds; returns the next one."""
        self.clock.advance(after)
        headers = {"retry-after": retry} if retry else {}
        return self._go(Response(status, headers, json.dumps(document).encode()))

    def lose(self, *, sent: bool) -> Request:
        """Lose the answer, as often as one request is sent again by itself."""
        for _ in range(3):
            self._go(ConnectionFailed("lost", sent=sent))
        return self.request

    def _go(self, answer: Response | ConnectionFailed) -> Request:
        try:
            if isinstance(answer, Response):
                self.request = self.flow.send(answer)
            else:
                self.request = self.flow.throw(answer)
        except StopIteration as end:
            self.result = end.value
        # The transport waits as long as it is told to.
        self.clock.advance(self.request.delay if self.result is None else 0)
        return self.request


def test_it_lets_the_broker_hold_the_answer_back_and_asks_again_at_once() -> None:
    waiting = Waiting("5m")
    assert waiting.request.path == "/v1/approvals/apr_1?wait=30s"
    assert waiting.request.patience == 30
    for _ in range(3):
        assert waiting.answer(APPROVAL, after=30).delay == 0
    assert waiting.pending == ["apr_1"] * 3
    waiting.answer(APPROVED, after=1)
    assert waiting.result is not None
    assert waiting.result.state == "approved"


def test_a_broker_that_answers_at_once_isnt_asked_again_at_once() -> None:
    waiting = Waiting("5m")
    delays = [waiting.answer(APPROVAL, after=0.1).delay for _ in range(5)]
    assert delays == [pytest.approx(4.9)] * 5


def test_it_leaves_as_long_as_the_broker_says() -> None:
    waiting = Waiting("5m")
    assert waiting.answer(APPROVAL, after=30, retry="7").delay == 7
    assert waiting.answer({"code": "rate_limited"}, 429, retry="20").delay == 20


@pytest.mark.parametrize("sent", [True, False])
def test_lost_connections_are_outlived_with_growing_delays(sent: bool) -> None:
    waiting = Waiting("5m")
    assert [waiting.lose(sent=sent).delay for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert waiting.answer(APPROVAL, after=30).delay == 0, "and all is forgotten once it answers"
    assert waiting.answer({}, 503).delay == 1


def test_when_time_is_up_it_looks_a_last_time_and_returns_what_it_finds() -> None:
    waiting = Waiting("40s")
    assert waiting.answer(APPROVAL, after=30).path.endswith("?wait=10s")
    last = waiting.answer(APPROVAL, after=10)
    assert (last.path, last.patience) == ("/v1/approvals/apr_1", 0)
    waiting.answer(APPROVAL)
    assert waiting.result is not None
    assert waiting.result.state == "pending"


def test_no_delay_is_longer_than_the_time_that_is_left() -> None:
    waiting = Waiting("10s")
    request = waiting.answer({"code": "rate_limited"}, 429, retry="600")
    assert (request.delay, request.path) == (10, "/v1/approvals/apr_1")
    waiting.answer(APPROVED)
    assert waiting.result is not None
    assert waiting.result.state == "approved"


def test_a_broker_that_is_down_when_time_is_up_is_an_error() -> None:
    waiting = Waiting("10s")
    while waiting.answer({"code": "rate_limited"}, 429, retry="2").patience:
        assert waiting.request.delay >= 2
    for _ in range(2):  # the last look is repeated too, as any call
        waiting.answer({"code": "rate_limited"}, 429, retry="2")
    with pytest.raises(RateLimited):
        waiting.answer({"code": "rate_limited"}, 429, retry="2")


@pytest.mark.parametrize(("status", "error"), [(404, NotFound), (403, Denied)])
def test_an_answer_that_wont_change_ends_it(status: int, error: type[Exception]) -> None:
    with pytest.raises(error):
        Waiting("5m").answer({}, status)


@pytest.mark.parametrize("timeout", ["", "soon", "0s", timedelta(0), timedelta(days=9999)])
def test_a_time_that_is_none_is_refused_before_anything_is_sent(timeout: Any) -> None:
    with pytest.raises(InvalidRequest):
        wait_for_approval("apr_1", timeout)
