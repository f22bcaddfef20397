"""What the client makes of answers, of arguments and of its environment."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import httpx2
import pytest

from broker.client import (
    BrokerClientError,
    Conflict,
    ConnectionFailed,
    Credential,
    Denied,
    Identity,
    IdentityRefused,
    InvalidAuthorizationDetails,
    InvalidRequest,
    InvalidTarget,
    MintedIdentity,
    NotFound,
    RateLimited,
    Task,
    Unauthenticated,
    Unavailable,
    UnexpectedAnswer,
    answers,
    calls,
    token_file,
    transport,
)
from broker.client.decoding import decode, encode
from broker.client.environment import checked_url, from_environment
from broker.client.messages import Response
from broker.client.models import Freeze, IssuedGrant
from tests.unit.fake_broker import (
    ISSUED,
    JWT,
    PASSWORD,
    TASK,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from broker.secret import Secret

URL = "https://broker.example"


def ok(document: object, status: int = 200) -> Response:
    return Response(status, {}, json.dumps(document).encode())


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidRequest),
        (401, Unauthenticated),
        (403, Denied),
        (404, NotFound),
        (409, Conflict),
        (413, InvalidRequest),
        (422, InvalidRequest),
        (429, RateLimited),
        (500, Unavailable),
        (502, Unavailable),
        (503, Unavailable),
        (302, UnexpectedAnswer),
    ],
)
def test_every_status_has_its_error(status: int, kind: type[BrokerClientError]) -> None:
    document = {"code": "a_code", "title": "T", "detail": "Why.", "status": 1, "decision_id": "d"}
    error = answers.from_response(
        Response(status, {"retry-after": "7"}, json.dumps(document).encode())
    )
    assert type(error) is kind
    assert (error.code, error.detail, error.status) == ("a_code", "Why.", status)
    assert (error.retry_after, error.extra) == (7, {"decision_id": "d"})
    assert error.as_problem()["decision_id"] == "d"


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"detail": [1]}', b"\xff"])
def test_an_error_that_is_no_problem_document_still_says_something(body: bytes) -> None:
    error = answers.from_response(Response(502, {"retry-after": "soon"}, body))
    assert type(error) is Unavailable
    assert (error.code, error.retry_after) == ("http_502", None)
    assert "HTTP 502" in error.detail


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("invalid_request", IdentityRefused),
        ("invalid_authorization_details", InvalidAuthorizationDetails),
        ("invalid_target", InvalidTarget),
        ("temporarily_unavailable", Unavailable),
        ("something_new", InvalidRequest),
    ],
)
def test_oauth_errors_become_the_clients(code: str, kind: type[BrokerClientError]) -> None:
    error = answers.from_token_response(ok({"error": code, "error_description": "Since."}, 400))
    assert type(error) is kind
    assert error.code == code
    assert "Since." in error.detail


def test_every_error_of_the_http_library_becomes_ours() -> None:
    cannot_happen = {"HTTPStatusError", "InvalidURL", "CookieConflict", "HTTPError", "SSEError"}
    for name, kind in inspect.getmembers(httpx2, inspect.isclass):
        if not issubclass(kind, Exception) or issubclass(kind, httpx2.StreamError):
            continue
        if name in cannot_happen:
            continue
        assert issubclass(kind, httpx2.RequestError), name
        assert isinstance(transport.failed(URL, kind("x")), ConnectionFailed)
    assert not transport.failed(URL, httpx2.ConnectError("x")).sent
    assert transport.failed(URL, httpx2.ReadTimeout("x")).sent


def test_a_task_is_read_with_its_times_and_what_is_new_is_kept() -> None:
    task = decode(Task, TASK)
    assert task.created_at == datetime(2026, 1, 2, 3, 4, 5, 678000, UTC)
    assert task.capabilities == ("orders-read",)
    assert task.parent_task_id is None
    assert task.extra == {"new_in_a_later_version": 7}
    again = json.loads(json.dumps(encode(task)))
    assert {name: again[name] for name in TASK} == TASK


@pytest.mark.parametrize(
    "document",
    [
        None,
        [],
        {},
        {"task_id": "t"},
        {**TASK, "task_id": 1},
        {**TASK, "created_at": "noon"},
        {**TASK, "capabilities": "all"},
        {**TASK, "notes": [1]},
    ],
)
def test_a_wrong_answer_is_refused(document: object) -> None:
    with pytest.raises(UnexpectedAnswer):
        decode(Task, document)


def test_a_freeze_is_read_in_either_notation() -> None:
    assert decode(Freeze, {"selector": "agent:a:b"}).selector == {"agent": "a:b"}
    assert decode(Freeze, {"selector": "all"}).selector == {"all": True}
    assert decode(Freeze, {"selector": {"agent": "a"}}).selector == {"agent": "a"}


def test_a_credential_shows_nothing_by_accident() -> None:
    issued = decode(IssuedGrant, ISSUED)
    shown = [repr(issued), str(issued), f"{issued}", repr(encode(issued)), repr([issued])]
    assert not any("canary" in text for text in shown)
    with pytest.raises(TypeError):
        pickle.dumps(issued.credential)
    with pytest.raises(TypeError):
        copy.deepcopy(issued)
    credential = issued.credential
    assert (credential.type, credential.username) == ("database", "v-orders")
    assert credential.password is not None
    assert credential.password.reveal() == PASSWORD
    assert credential.dsn is not None
    assert credential.token is None
    port = credential.get("port")
    assert port is not None
    assert port.reveal() == "5432"
    assert encode(issued, reveal=True)["credential"] == ISSUED["credential"]
    assert Credential({"type": "x"}) != Credential({"type": "x"})


def test_each_shape_of_a_credential_has_its_members_by_name() -> None:
    def of(kind: str, **members: str) -> Credential:
        return Credential({"type": kind, **members})

    def revealed(secret: Secret | None) -> str | None:
        return secret.reveal() if secret else None

    aws = of("aws", access_key="AKIA", secret_key="a", session_token="b")
    assert (aws.access_key, revealed(aws.secret_key)) == ("AKIA", "a")
    assert revealed(aws.session_token) == "b"
    assert revealed(of("aws", security_token="old").session_token) == "old"
    azure = of("azure", client_id="id", client_secret="c")
    assert (azure.access_key, revealed(azure.secret_key)) == ("id", "c")
    assert revealed(of("gcp", private_key_data="d").secret_key) == "d"
    assert revealed(of("gcp", token="e").token) == "e"
    assert revealed(of("kubernetes", service_account_token="f").token) == "f"
    pki = of("pki", certificate="-----BEGIN", private_key="g")
    assert (pki.certificate, revealed(pki.private_key)) == ("-----BEGIN", "g")
    assert of("ssh", signed_key="ssh-ed25519-cert").certificate == "ssh-ed25519-cert"
    # In a static secret any name may be anything's.
    static = of("kv", username="h", access_key="i", certificate="j")
    assert (static.username, static.access_key, static.certificate) == (None, None, None)
    assert revealed(static.get("username")) == "h"
    assert not set("hij") & set(static.redacted().values())
    assert (aws.username, aws.token, aws.certificate, aws.private_key) == (None,) * 4


def test_an_answer_that_is_not_json_is_not_repeated_in_the_error() -> None:
    with pytest.raises(UnexpectedAnswer) as caught:
        Response(200, {}, f"password={PASSWORD}".encode()).json()
    assert "canary" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


def test_ids_cannot_lead_to_another_path() -> None:
    assert calls.get_task("a/../b?c#d").request.path == "/v1/tasks/a%2F..%2Fb%3Fc%23d"
    for bad in ("", ".", ".."):
        with pytest.raises(InvalidRequest):
            calls.revoke_grant(bad)


BAD_CALLS: dict[str, Callable[[], object]] = {
    "duration in words": lambda: calls.open_task("a", "p", ["c"], ttl="5 minutes"),
    "no duration": lambda: calls.open_task("a", "p", ["c"], ttl=timedelta(0)),
    "negative": lambda: calls.open_task("a", "p", ["c"], heartbeat=timedelta(seconds=-1)),
    "one capability": lambda: calls.open_task("a", "p", "c"),
    "key of two lines": lambda: calls.open_task("a", "p", ["c"], idempotency_key="a\nb"),
    "selector of none": lambda: calls.revoke({}, "r"),
    "selector of two": lambda: calls.revoke({"agent": "a", "owner": "b"}, "r"),
    "selector of an empty name": lambda: calls.freeze({"agent": ""}, "r"),
    "selector of not all": lambda: calls.thaw({"all": False}, "r"),
}


@pytest.mark.parametrize("make", BAD_CALLS.values(), ids=BAD_CALLS.keys())
def test_what_makes_no_sense_is_never_sent(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidRequest):
        make()


def test_a_duration_may_be_a_timedelta() -> None:
    body = json.loads(calls.open_task("a", "p", ["c"], ttl=timedelta(minutes=90)).request.content)
    assert body == {"agent": "a", "purpose": "p", "capabilities": ["c"], "ttl": "1h30m"}


def told(source: Identity) -> str:
    assert not isinstance(source, MintedIdentity)
    return source().reveal()


def test_the_environment_says_where_and_who(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text(f"{JWT}\n")
    found = from_environment(
        {
            "BROKER_URL": "https://b",
            "BROKER_TASK_ID": "tsk_1",
            "BROKER_IDENTITY_TOKEN_FILE": str(file),
            "BROKER_IDENTITY_TOKEN": "another",
        }
    )
    assert (found.url, found.task_id) == ("https://b", "tsk_1")
    assert told(found.identity) == JWT
    file.write_text("rotated")
    assert told(found.identity) == "rotated"
    found = from_environment({"BROKER_IDENTITY_TOKEN": "direct", "BROKER_URL": ""})
    assert (found.url, found.task_id) == ("http://127.0.0.1:8700", None)
    assert told(found.identity) == "direct"


@pytest.mark.parametrize("content", ["", " \n", "two words", "a\nb", "caf\u00e9"])
def test_a_file_that_holds_no_token_is_refused_by_name(tmp_path: Path, content: str) -> None:
    file = tmp_path / "token"
    file.write_text(content)
    with pytest.raises(Unauthenticated, match="token") as caught:
        token_file(file)()
    assert caught.value.code == "identity_missing"
    with pytest.raises(Unauthenticated, match="No such file"):
        token_file(tmp_path / "absent")()


@pytest.mark.parametrize(
    "url", ["", "broker", "ftp://b", "http://", "http://u:canary@b", "http://b?x=1", "http://b:x"]
)
def test_a_url_that_is_not_a_servers_is_refused_and_not_repeated(url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        checked_url(url)
    assert "canary" not in str(caught.value)
