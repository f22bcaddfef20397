"""When the client sends again, with which key, and how long it waits: the core, played by hand."""

from __future__ import annotations

import json
import socket
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from broker.client import (
    AlreadyDelivered,
    AsyncClient,
    BrokerClientError,
    Client,
    ConnectionFailed,
    IdentityUnavailable,
    MintedIdentity,
    Quarantined,
    QuotaExceeded,
    RateLimited,
    Retries,
    Secret,
    Unauthenticated,
    calls,
    decisions,
    ending_calls,
    grant_calls,
)
from broker.client.messages import Request, Response
from broker.client.session import Session
from tests.clocks import ManualClock
from tests.unit.fake_broker import HANG_UP, ISSUED, JWT, TASK, running
from tests.unit.test_client_core import METADATA, URL, identity, ok, play, token

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from broker.client.messages import Call

LOST = ConnectionFailed("lost", sent=True)


def core(clock: ManualClock | None = None, jitter: float = 0.0, **changes: Any) -> Session:
    """A session that has its token already."""
    retries = Retries(jitter=lambda: jitter, **changes)
    made = Session(URL, identity, task_id=None, clock=clock or ManualClock(), retries=retries)
    play(made.run(calls.get_task("a")), METADATA, token("t1", 10_000), ok(TASK))
    return made


def refused(status: int, code: str, after: int | None = None, **members: object) -> Response:
    headers = {} if after is None else {"retry-after": str(after)}
    document = {"code": code, "detail": "No.", "status": status, **members}
    return Response(status, headers, json.dumps(document).encode())


def grant() -> Call[Any]:
    return grant_calls.request_grant("tsk_1", "orders-read")


def test_waits_grow_and_are_drawn_at_random_up_to_a_limit() -> None:
    retries = Retries(first=0.2, longest=5, jitter=lambda: 0.5)
    assert [retries.wait(n) for n in (0, 1, 2, 3, 10)] == [0.1, 0.2, 0.4, 0.8, 2.5]
    drawn = {Retries().wait(5) for _ in range(50)}
    assert len(drawn) > 10
    assert all(0 <= wait <= 5 for wait in drawn)


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (lambda: calls.revoke({"all": True}, "r"), refused(429, "rate_limited", 3)),
        (lambda: decisions.check_tool_call("tsk_1", "t"), refused(429, "rate_limited", 3)),
        (lambda: calls.get_task("a"), refused(503, "ledger_unavailable", 3)),
        (lambda: calls.open_task("a", "p", ["c"]), refused(503, "audit_unavailable", 3)),
        (grant, refused(409, "request_in_progress", 3)),
    ],
    ids=["rate", "decision", "read", "task", "in-progress"],
)
def test_retry_after_is_waited_for(call: Callable[[], Call[Any]], answer: Response) -> None:
    flow = core().run(call())
    first = next(flow)
    again = flow.send(answer)
    assert (first.delay, again.delay) == (0, 3)
    assert again.content == first.content


@pytest.mark.parametrize(
    ("call", "answer"),
    [
        (lambda: calls.revoke({"all": True}, "r"), refused(503, "ledger_unavailable", 1)),
        (lambda: decisions.check_tool_call("tsk_1", "t"), refused(503, "audit_unavailable", 1)),
        (lambda: decisions.check_tool_call("tsk_1", "t"), refused(502, "bad_gateway")),
        (lambda: calls.get_task("a"), refused(503, "quarantined", 1)),
        (lambda: calls.get_task("a"), refused(503, "ledger_unavailable")),
        (lambda: calls.get_task("a"), refused(500, "internal_error", 1)),
        (grant, refused(429, "quota_exceeded", 1)),
        (lambda: ending_calls.get_receipt("grt_1"), refused(409, "not_dead_yet", 1)),
    ],
    ids=["revoke", "decision", "gateway", "quarantine", "unsaid", "broken", "quota", "receipt"],
)
def test_what_is_not_safe_or_of_no_use_is_not_sent_again(
    call: Callable[[], Call[Any]], answer: Response
) -> None:
    sent = play_until_error(core(), call(), answer)
    assert len(sent) == 1


def play_until_error(session: Session, call: Call[Any], *answers: Response) -> list[Request]:
    flow = session.run(call)
    sent = [next(flow)]
    with pytest.raises(BrokerClientError):
        sent.extend(flow.send(answer) for answer in answers)
    return sent


def test_a_wait_that_would_not_end_in_time_is_not_begun() -> None:
    clock = ManualClock()
    with pytest.raises(RateLimited) as caught:
        play(core(clock, total=60).run(calls.get_task("a")), refused(429, "rate_limited", 60))
    assert caught.value.retry_after == 60
    flow = core(clock, total=60).run(calls.get_task("a"))
    assert next(flow).within == 60
    clock.advance(50)
    again = flow.send(refused(429, "rate_limited", 4))
    assert (again.delay, again.within) == (4, 6)
    clock.advance(6)
    with pytest.raises(RateLimited):
        flow.send(refused(429, "rate_limited", 4))


def test_the_kinds_of_refusal_are_told_apart() -> None:
    for answer, kind in (
        (refused(429, "quota_exceeded", 30), QuotaExceeded),
        (refused(503, "quarantined", 30), Quarantined),
    ):
        with pytest.raises(kind):
            play(core().run(calls.get_task("a")), answer)


def test_attempts_have_an_end() -> None:
    sent = play_until_error(core(attempts=3), calls.get_task("a"), *[refused(502, "x")] * 5)
    assert len(sent) == 3


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────


def keys_of(sent: list[Request]) -> list[str]:
    return [request.headers["idempotency-key"] for request in sent]


def test_a_lost_credential_is_asked_for_with_the_same_key_and_never_twice() -> None:
    delivered = refused(
        409, "credential_already_delivered", grant_id="grt_1", state="active", after=None
    )
    flow = core().run(grant())
    sent = [next(flow), flow.throw(LOST)]
    with pytest.raises(AlreadyDelivered) as caught:
        flow.send(delivered)
    assert len(set(keys_of(sent))) == 1
    assert (caught.value.grant_id, caught.value.extra["state"]) == ("grt_1", "active")


def test_a_refused_credential_is_asked_for_with_another_key() -> None:
    down = refused(503, "backend_unavailable", 1)
    sent, issued = play(core().run(grant()), down, ok(ISSUED, 201))
    assert issued.state == "active"
    assert len(set(keys_of(sent))) == 2
    assert len({request.content for request in sent}) == 1


def test_but_not_once_an_answer_was_lost_or_a_proxy_answered_for_the_broker() -> None:
    down = refused(503, "backend_unavailable", 1)
    for lost in (LOST, refused(504, "timeout")):
        sent, _ = play(core().run(grant()), lost, down, ok(ISSUED, 201))
        assert len(set(keys_of(sent))) == 1


def test_a_key_of_the_callers_own_is_kept_and_so_is_a_tasks() -> None:
    down = refused(503, "ledger_unavailable", 1)
    mine = grant_calls.request_grant("tsk_1", "orders-read", idempotency_key="mine")
    sent, _ = play(core().run(mine), down, ok(ISSUED, 201))
    assert keys_of(sent) == ["mine", "mine"]
    sent, _ = play(core().run(calls.open_task("a", "p", ["c"])), down, ok(TASK, 201))
    assert len(set(keys_of(sent))) == 1


# ── the way to a token ───────────────────────────────────────────────────────────────────────────


def test_a_lost_token_is_asked_for_again() -> None:
    session = Session(URL, identity, task_id=None, clock=ManualClock())
    sent, _ = play(session.run(calls.get_task("a")), METADATA, LOST, token("t"), ok(TASK))
    assert [r.path for r in sent][1:] == ["/oauth/token", "/oauth/token", "/v1/tasks/a"]


def test_an_identity_that_is_late_is_asked_for_again_and_counts_as_never_sent() -> None:
    asked: list[str | None] = []

    def mint(audience: str | None) -> Secret:
        asked.append(audience)
        if len(asked) < 3:
            raise IdentityUnavailable("down")
        return Secret(JWT)

    with running() as fake:
        fake.issuer = fake.url
        fake.on("GET /v1/tasks/a", 200, TASK)
        with Client(fake.url, MintedIdentity(mint), retries=Retries(first=0.001)) as client:
            assert client.get_task("a").state == "active"
    assert asked == [fake.url] * 3


async def test_the_asynchronous_client_asks_for_identities_beside_its_loop() -> None:
    threads: set[int] = set()

    def mint(_: str | None) -> Secret:
        threads.add(threading.get_ident())
        return Secret(JWT)

    with running() as fake:
        fake.issuer = fake.url
        fake.on("GET /v1/tasks/a", 200, TASK)
        async with AsyncClient(fake.url, MintedIdentity(mint)) as client:
            assert (await client.get_task("a")).state == "active"
    assert threads
    assert threading.get_ident() not in threads


def test_an_identity_that_was_refused_is_minted_anew() -> None:
    made: list[int] = []

    def mint(_: str | None) -> Secret:
        made.append(1)
        return Secret("h.eyJleHAiOjE5MDAwMDAwMDB9.s")

    minted = MintedIdentity(mint, clock=ManualClock())
    session = Session(URL, minted, task_id=None, clock=ManualClock(), audience="broker")
    no = Response(400, {}, b'{"error": "invalid_request", "error_description": "old key"}')
    with pytest.raises(Unauthenticated):
        play(session.run(calls.get_task("a")), METADATA, no)
    play(session.run(calls.get_task("a")), token("t"), ok(TASK))
    play(session.run(calls.get_task("a")), ok(TASK))
    assert len(made) == 2


def test_a_token_is_minted_for_the_broker_and_for_nobody_a_stranger_names() -> None:
    asked: list[str | None] = []

    def mint(audience: str | None) -> Secret:
        asked.append(audience)
        return Secret(JWT)

    def session(needs: str | None, audience: str | None = None) -> Session:
        minted = MintedIdentity(mint, needs_audience=needs)
        return Session(URL, minted, task_id=None, clock=ManualClock(), audience=audience)

    with pytest.raises(Unauthenticated, match="BROKER_AUDIENCE"):
        play(session("GitHub Actions").run(calls.get_task("a")), METADATA)
    assert asked == []
    own = ok({"issuer": "https://Broker.example:443/"})
    for made, metadata in (
        (session("GitHub Actions", "broker"), METADATA),
        (session("GitHub Actions"), own),
        (session(None), METADATA),  # a command may do without
    ):
        play(made.run(calls.get_task("a")), metadata, token("t"), ok(TASK))
    assert asked == ["broker", "https://Broker.example:443/", None]


@pytest.mark.parametrize("issuer", ["https://x:99999", "javascript:1", "https://u:p@x", "", " "])
def test_an_issuer_that_is_no_url_is_not_believed(issuer: str) -> None:
    session = Session(URL, identity, task_id=None, clock=ManualClock())
    sent, _ = play(session.run(calls.get_task("a")), ok({"issuer": issuer}), token("t"), ok(TASK))
    assert b"resource=https%3A%2F%2Fbroker.example&" in sent[1].content + b"&"


# ── time limits ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def dripping() -> Iterator[str]:
    """A server whose answers come a byte at a time, without end."""
    stop = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))

    def drip(connection: socket.socket) -> None:
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n")
            while not stop.wait(0.02):
                try:
                    connection.sendall(b" ")
                except OSError:
                    return

    def serve() -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=drip, args=(connection,), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    yield f"http://127.0.0.1:{server.getsockname()[1]}"
    stop.set()
    server.close()


def test_an_answer_that_never_ends_has_a_limit(dripping: str) -> None:
    began = time.monotonic()
    with (
        Client(dripping, identity, timeout=30, retries=Retries(total=0.3)) as client,
        pytest.raises(ConnectionFailed, match="no answer in time"),
    ):
        client.get_task("a")
    assert time.monotonic() - began < 15


async def test_nor_does_it_hold_up_the_asynchronous_client(dripping: str) -> None:
    async with AsyncClient(dripping, identity, timeout=30, retries=Retries(total=0.3)) as client:
        with pytest.raises(ConnectionFailed, match="no answer in time"):
            await client.get_task("a")


def test_a_broker_that_hangs_up_once_is_asked_again() -> None:
    with running() as fake:
        fake.on("POST /v1/tasks/tsk_1/grants", HANG_UP)
        fake.on("POST /v1/tasks/tsk_1/grants", 201, ISSUED)
        with Client(fake.url, identity, retries=Retries(first=0.001)) as client:
            assert client.request_grant("tsk_1", "orders-read").state == "active"
        assert len({r.headers["idempotency-key"] for r in fake.seen}) == 1
