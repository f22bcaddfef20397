"""Both clients against a real HTTP server, and the shape of the package."""

from __future__ import annotations

import inspect
import json
import socket
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest

import broker.client
from broker.client import (
    ApprovalRequired,
    AsyncClient,
    BrokerClientError,
    Client,
    ConnectionFailed,
    Denied,
    RateLimited,
    Secret,
    Unauthenticated,
    UnexpectedAnswer,
    approval_calls,
    approval_waiting,
    caller_calls,
    calls,
    decisions,
    ending_calls,
    errors,
    grant_calls,
    openings,
    overview_calls,
    policy_calls,
    reasons,
    reconcile_calls,
)
from broker.client.decoding import decode
from broker.client.models import AuditEvent
from tests.unit.fake_broker import (
    DSN,
    EVENT,
    GRANT,
    HANG_UP,
    ISSUED,
    JWT,
    TASK,
    FakeBroker,
    problem,
    running,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


CALLS: Final = (
    approval_calls,
    approval_waiting,
    caller_calls,
    calls,
    decisions,
    ending_calls,
    grant_calls,
    openings,
    overview_calls,
    policy_calls,
    reconcile_calls,
)


def identity() -> Secret:
    return Secret(JWT)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("URL", "IDENTITY_TOKEN", "IDENTITY_TOKEN_FILE", "TASK_ID"):
        monkeypatch.delenv(f"BROKER_{name}", raising=False)


@pytest.fixture
def fake() -> Iterator[FakeBroker]:
    with running() as server:
        yield server


@pytest.fixture
def client(fake: FakeBroker) -> Iterator[Client]:
    with Client(fake.url, identity) as made:
        yield made


def test_open_task(fake: FakeBroker, client: Client) -> None:
    fake.on("POST /v1/tasks", 201, TASK)
    task = client.open_task(
        "report-writer", "p", ["orders-read"], ttl="15m", context={"a": 1}, on_behalf_of="jwt"
    )
    assert task.task_id == TASK["task_id"]
    assert fake.last.json == {
        "agent": "report-writer",
        "purpose": "p",
        "capabilities": ["orders-read"],
        "ttl": "15m",
        "context": {"a": 1},
        "on_behalf_of": "jwt",
    }
    assert len(fake.last.headers["idempotency-key"]) == 36
    client.open_task("a", "p", ["c"], idempotency_key="mine")
    assert fake.last.headers["idempotency-key"] == "mine"
    assert len(fake.exchanges) == 1


def test_an_answer_that_got_lost_is_asked_for_again_with_the_same_key(
    fake: FakeBroker, client: Client
) -> None:
    fake.on("POST /v1/tasks", HANG_UP)
    fake.on("POST /v1/tasks", 201, TASK)
    client.open_task("a", "p", ["c"])
    assert len({r.headers["idempotency-key"] for r in fake.seen}) == 1
    assert len(fake.seen) == 2


def test_an_agent_names_its_task(fake: FakeBroker) -> None:
    fake.on("POST /v1/tasks/tsk_1/heartbeat", 200, TASK)
    with Client(fake.url, identity, task_id="tsk_1") as client:
        assert client.heartbeat("tsk_1").state == "active"
    details = json.loads(fake.exchanges[0].form["authorization_details"][0])
    assert details == [{"type": "broker_task", "task_id": "tsk_1"}]


def test_lists_come_page_by_page_or_as_one(fake: FakeBroker, client: Client) -> None:
    fake.on("GET /v1/tasks", 200, {"items": [TASK, TASK], "next": "c1"})
    fake.on("GET /v1/tasks", 200, {"items": [], "next": "c2"})
    fake.on("GET /v1/tasks", 200, {"items": [TASK], "next": None})
    assert len(list(client.iter_tasks(state="active", agent="a", limit=2))) == 3
    assert [r.query for r in fake.seen] == [
        {"state": "active", "agent": "a", "limit": "2"},
        {"state": "active", "agent": "a", "limit": "2", "cursor": "c1"},
        {"state": "active", "agent": "a", "limit": "2", "cursor": "c2"},
    ]
    page = client.list_tasks()
    assert (len(page.items), page.next) == (1, None)


def test_a_list_that_goes_round_in_circles_ends(fake: FakeBroker, client: Client) -> None:
    fake.on("GET /v1/grants", 200, {"items": [GRANT], "next": "c1"})
    with pytest.raises(UnexpectedAnswer):
        list(client.iter_grants(task_id="t"))


def test_the_log_goes_on_after_its_last_event(fake: FakeBroker, client: Client) -> None:
    fake.on("GET /v1/audit/events", 200, {"items": [EVENT], "next": "evt_1"})
    fake.on("GET /v1/audit/events", 200, {"items": [EVENT], "next": None})
    found = list(client.iter_audit_events(task_id="tsk_1", after="evt_0"))
    assert found[0] == decode(AuditEvent, EVENT)
    assert [r.query["after"] for r in fake.seen] == ["evt_0", "evt_1"]
    assert "cursor" not in fake.last.query


def test_request_grant(fake: FakeBroker, client: Client) -> None:
    fake.on("POST /v1/tasks/tsk_1/grants", 201, ISSUED)
    issued = client.request_grant(
        "tsk_1", "orders-read", ttl="5m", parameters={"k": "v"}, intent="count"
    )
    assert issued.credential.dsn is not None
    assert issued.credential.dsn.reveal() == DSN
    assert fake.last.json == {
        "capability": "orders-read",
        "ttl": "5m",
        "parameters": {"k": "v"},
        "intent": "count",
    }


def test_a_grant_is_carried_wrapped_renewed_and_rotated(fake: FakeBroker, client: Client) -> None:
    wrapped = {**ISSUED, "credential": {"type": "wrapped", "token": "hvs.1"}}
    fake.on("POST /v1/tasks/tsk_1/grants", 201, wrapped)
    carried = client.request_grant("tsk_1", "orders-read", delivery="wrapped", wrap_ttl="30s")
    assert fake.last.json == {
        "capability": "orders-read",
        "delivery": "wrapped",
        "wrap_ttl": "30s",
    }
    token = carried.credential.token
    assert token is not None
    assert "hvs.1" not in repr(carried)

    fake.on("POST /v1/grants/grt_1/unwrap", HANG_UP)
    with pytest.raises(ConnectionFailed):  # it may have been opened: not sent again
        client.unwrap_grant("grt_1", token)
    assert (len(fake.seen), fake.last.json) == (2, {"token": "hvs.1"})
    fake.answers["POST /v1/grants/grt_1/unwrap"].clear()
    fake.on("POST /v1/grants/grt_1/unwrap", 200, ISSUED)
    assert client.unwrap_grant("grt_1", "hvs.1").credential.dsn is not None

    fake.on("POST /v1/grants/grt_1/renew", 200, {**GRANT, "state": "active", "notes": ["less"]})
    renewed = client.renew_grant("grt_1", ttl="10m")
    assert (renewed.state, renewed.notes) == ("active", ("less",))
    assert fake.last.json == {"ttl": "10m"}

    fake.on("POST /v1/grants/grt_1/rotate", 201, {**ISSUED, "replaces": "grt_1"})
    assert client.rotate_grant("grt_1", overlap="5s").replaces == "grt_1"
    assert fake.last.json == {"overlap": "5s"}
    assert len(fake.last.headers["idempotency-key"]) == 36
    for call in (client.renew_grant, client.rotate_grant):
        fake.answers[f"POST /v1/grants/grt_2/{call.__name__.partition('_')[0]}"].append(
            problem(202, "", "", approval_id="apr_1")
        )
        with pytest.raises(ApprovalRequired):
            call("grt_2")


def test_a_grant_that_needs_approval(fake: FakeBroker, client: Client) -> None:
    fake.on("POST /v1/tasks/tsk_1/grants", 202, {"approval_id": "apr_1", "state": "pending"})
    with pytest.raises(ApprovalRequired) as caught:
        client.request_grant("tsk_1", "deploy")
    assert (caught.value.approval_id, caught.value.status) == ("apr_1", 202)


def test_ending_revoking_and_freezing(fake: FakeBroker, client: Client) -> None:
    end = {"state": "completed", "grants": {"revoked": 2, "revoking": 1}}
    fake.on("POST /v1/tasks/tsk_1/complete", 200, end)
    done = client.complete("tsk_1", summary="well")
    assert (done.state, done.grants.revoked, done.grants.revoking) == ("completed", 2, 1)
    assert fake.last.json == {"outcome": "completed", "summary": "well"}

    fake.on("DELETE /v1/grants/grt_1", 200, {**GRANT, "state": "revoking"})
    assert client.revoke_grant("grt_1").state == "revoking"
    fake.on("GET /v1/grants/grt_1", 200, GRANT)
    assert client.get_grant("grt_1").time_to_dead_ms == 12

    answer = {"revocation_id": "rev_1", "matched": 3, "revoked": 2, "revoking": 1}
    fake.on("POST /v1/revocations", 200, answer)
    assert client.revoke({"agent": "a"}, "why", freeze=True).matched == 3
    assert fake.last.json == {"selector": {"agent": "a"}, "reason": "why", "freeze": True}

    fake.on("POST /v1/freezes", 201, {"selector": {"all": True}})
    client.freeze({"all": True}, "why")
    fake.on("DELETE /v1/freezes", 200, {})
    client.thaw({"all": True}, "why not")
    assert fake.last.json == {"selector": {"all": True}, "reason": "why not"}
    fake.on("GET /v1/freezes", 200, {"items": [{"selector": {"agent": "a"}}], "next": None})
    assert client.list_freezes().items[0].selector == {"agent": "a"}

    fake.on("POST /oauth/introspect", 200, {"active": False})
    assert client.introspect(Secret("some token")) == {"active": False}
    assert fake.last.form == {"token": ["some token"]}


def test_a_refusal_arrives_whole(fake: FakeBroker, client: Client) -> None:
    refusal = problem(429, "quota_exceeded", "Ten live grants are enough.", limit=10)
    fake.answers["GET /v1/tasks/a"].append(refusal)
    with pytest.raises(RateLimited) as caught:
        client.get_task("a")
    assert (caught.value.code, caught.value.extra) == ("quota_exceeded", {"limit": 10})


def test_redirects_are_not_followed(fake: FakeBroker, client: Client) -> None:
    fake.on("GET /v1/tasks/a", 307, {}, location=f"{fake.url}/v1/tasks/b")
    with pytest.raises(UnexpectedAnswer):
        client.get_task("a")
    assert [r.path for r in fake.seen] == ["/v1/tasks/a"]


def test_proxies_of_the_environment_are_ignored(
    fake: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    fake.on("GET /v1/tasks/a", 200, TASK)
    with Client(fake.url, identity) as client:
        assert client.get_task("a").state == "active"


def test_a_broker_that_is_not_there() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with Client(url, identity) as client, pytest.raises(ConnectionFailed) as caught:
            client.get_task("a")
    assert url in caught.value.detail
    assert not caught.value.sent


def test_a_broker_that_never_answers_runs_into_the_time_limit() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        client = Client(url, identity, timeout=0.05)
        with client, pytest.raises(ConnectionFailed) as caught:
            client.get_task("a")
    assert caught.value.sent


async def test_the_asynchronous_client_does_the_same(fake: FakeBroker) -> None:
    fake.on("POST /v1/tasks", HANG_UP)
    fake.on("POST /v1/tasks", 201, TASK)
    fake.on("GET /v1/tasks", 200, {"items": [TASK], "next": "c1"})
    fake.on("GET /v1/tasks", 200, {"items": [TASK], "next": None})
    fake.on("GET /v1/tasks/a", 403, {"code": "access_denied", "detail": "No."})
    async with AsyncClient(fake.url, identity) as client:
        task = await client.open_task("a", "p", ["c"])
        assert task.task_id == TASK["task_id"]
        assert len([t async for t in client.iter_tasks(state="active")]) == 2
        with pytest.raises(Denied, match=r"No\."):
            await client.get_task("a")


def test_no_identity_is_said_before_anything_is_sent() -> None:
    with Client("http://127.0.0.1:9") as client, pytest.raises(Unauthenticated) as caught:
        client.get_task("a")
    assert "BROKER_IDENTITY_TOKEN_FILE" in caught.value.detail


def methods(kind: type) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, member in inspect.getmembers(kind, inspect.isfunction):
        if not name.startswith("_") and name not in {"run", "running", "close", "aclose"}:
            found[name] = str(inspect.signature(member).replace(return_annotation=""))
    return found


def test_both_clients_have_every_call_with_the_same_arguments() -> None:
    assert methods(Client) == methods(AsyncClient)
    made = {
        name
        for module in CALLS
        for name, f in inspect.getmembers(module, inspect.isfunction)
        if f.__doc__ and f.__module__ == module.__name__ and not name.startswith("_")
    }
    called = {name for name in methods(Client) if not name.startswith("iter_")}
    assert called == {*made, "presenting"}
    assert "Task" in str(inspect.signature(Client.open_task))


def test_the_public_names() -> None:
    assert set(broker.client.__all__) >= {"Client", "AsyncClient", "BrokerClientError", "Secret"}
    tree = {
        kind.__name__
        for module in (errors, reasons)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, BrokerClientError)
    }
    assert tree <= set(broker.client.__all__)


def test_importing_the_client_imports_no_server_and_nothing_heavy() -> None:
    code = "import sys, broker.client; print(*sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    modules = set(shown.stdout.split())
    allowed = {"client", "clock", "durations", "errors", "ids", "secret"}
    assert {m.split(".")[1] for m in modules if m.startswith("broker.")} <= allowed
    assert not modules & {"pydantic", "fastapi", "hvac", "redis", "cryptography", "rich"}
