"""A decision point elsewhere: what it is asked, and that nothing but a clear yes is one.

The server is a real one, which misbehaves in each way that servers do.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.catalog import Capability, Catalog, Power
from broker.errors import ConfigError
from broker.identity.fetching import MAX_AT_ONCE
from broker.policy.authzen import RemoteDecisionPoint
from broker.policy.case_file import Case
from broker.policy.case_request import CaseRequest
from broker.policy.cedar import Source
from broker.policy.decision import Decision, Effect, Obligations
from broker.policy.folder import default_sources
from broker.policy.policies import POLICY_ERROR, Policies, Sources
from broker.power import PRIVATE
from tests.issuers import Answer
from tests.loopback import Loopback, private_tls
from tests.receiver import Receiver

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    from broker.policy.question import Question

PATH: Final = "/access/v1/evaluation"
CANARY: Final = "canary-in-the-answer"
JSON: Final = {"content-type": "application/json"}
SEND: Final = Capability(
    "send",
    Power.OPERATE,
    "tool",
    1,
    1,
    effects=frozenset(("egress:mail",)),
    arguments={"to": ("string", False), "cost": ("number", True)},
    amount="cost",
)


def question(**said: Any) -> Question:
    told = {"rule": "r", "name": "n", "expect": "allow", **said}
    return CaseRequest(Case.model_validate(told), Catalog([], [SEND]), PRIVATE).question()


def saying(document: object, status: int = 200, **headers: str) -> Answer:
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(body, status, {**JSON, **names})


@pytest.fixture
def server() -> Generator[Loopback]:
    with Loopback(lambda _: saying({"decision": True})) as running:
        yield running


def point(server: Loopback | Receiver, *, timeout_s: float = 5, **more: Any) -> RemoteDecisionPoint:
    return RemoteDecisionPoint(server.url + PATH, instead=True, timeout_s=timeout_s, **more)


async def test_a_yes_is_one_and_names_who_said_so(server: Loopback) -> None:
    verdict = await point(server).ask(question())

    assert verdict.allowed
    assert verdict.policies == ("remote",)
    assert verdict.obligations == Obligations()
    assert verdict.errors == ()


async def test_a_no_is_no_error(server: Loopback) -> None:
    server.answer = lambda _: saying({"decision": False, "context": {"reason": CANARY}})

    verdict = await point(server).ask(question())
    assert (verdict.allowed, verdict.errors) == (False, ())
    assert CANARY not in repr(verdict)


async def test_it_is_asked_as_authzen_says(server: Loopback) -> None:
    asked = question(
        tool="send",
        agent={"name": "writer", "capabilities": ["send"]},
        arguments={"to": "a@example.com", "cost": 2.5},
        destination="https://mail.example.com",
    )
    await point(server).ask(asked)
    (request,) = server.asked
    body = json.loads(request.body)

    assert (request.method, request.path) == ("POST", PATH)
    assert request.headers["content-type"] == "application/json"
    assert len(request.headers["x-request-id"]) == 32
    assert set(body) == {"subject", "action", "resource", "context"}
    assert body["subject"]["type"] == "agent"
    assert body["subject"]["id"] == "writer"
    assert body["subject"]["properties"]["capabilities"] == ["send"]
    assert body["action"] == {"name": "call_tool"}
    assert (body["resource"]["type"], body["resource"]["id"]) == ("tool", "send")
    assert body["resource"]["properties"]["power"] == "operate"
    assert body["context"]["arguments"] == {"to": "a@example.com", "cost": "2.5000"}
    assert body["context"]["adds"]["amount"] == "2.5000"
    assert body["context"]["time"]["now"] == "2026-01-07T12:00:00.000Z"
    assert body["context"]["destination"]["host"] == "mail.example.com"
    assert b"__extn" not in request.body


async def test_each_request_has_a_number_of_its_own(server: Loopback) -> None:
    remote = point(server)
    await remote.ask(question())
    await remote.ask(question())
    assert len({asked.headers["x-request-id"] for asked in server.asked}) == 2


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({}, Obligations()),
        ({"approvals": 2}, Obligations(approvals=2)),
        ({"max_ttl": "10m"}, Obligations(max_ttl_ms=600_000)),
        ({"notify": ["a", "b"]}, Obligations(notify=frozenset("ab"))),
        ({"require_binding": True}, Obligations(require_binding=True)),
        (
            {"require_instant": True, "log_arguments": True, "require_binding": False},
            Obligations(require_instant=True, log_arguments=True),
        ),
    ],
    ids=lambda value: "" if isinstance(value, Obligations) else str(value),
)
async def test_obligations_are_read(
    server: Loopback, asked: dict[str, Any], found: Obligations
) -> None:
    server.answer = lambda _: saying({"decision": True, "context": {"obligations": asked}})
    assert (await point(server).ask(question())).obligations == found


@pytest.mark.parametrize(
    "obligations",
    [
        [],
        "approvals",
        {"approvals": -1},
        {"approvals": 11},
        {"approvals": True},
        {"approvals": "1"},
        {"approvals": 1.0},
        {"max_ttl": 600},
        {"max_ttl": "soon"},
        {"max_ttl": "0s"},
        {"notify": "security"},
        {"notify": [1]},
        {"require_binding": "yes"},
        {"watermark": True},
        None,
    ],
    ids=str,
)
async def test_obligations_that_cant_be_met_are_a_no(server: Loopback, obligations: object) -> None:
    server.answer = lambda _: saying({"decision": True, "context": {"obligations": obligations}})

    verdict = await point(server).ask(question())
    assert not verdict.allowed
    assert verdict.errors


YES: Final = {"decision": True, "context": {"id": CANARY}}
MISBEHAVING: Final = {
    "no JSON": Answer(CANARY.encode(), 200, JSON),
    "empty": Answer(b"", 200, JSON),
    "a list": saying([True]),
    "a text": saying("true"),
    "no decision": saying({"allow": True, "x": CANARY}),
    "a decision in words": saying({"decision": "true"}),
    "a decision as number": saying({"decision": 1}),
    "null": saying({"decision": None}),
    "two decisions": saying(b'{"decision": false, "decision": true}'),
    "a context that is none": saying({"decision": True, "context": CANARY}),
    "deep": saying(b"[" * 100_000),
    "not UTF-8": saying(b'{"decision": true, "x": "\xff"}'),
    "another type": Answer(json.dumps(YES).encode(), 200, {"content-type": "text/html"}),
    "no type": Answer(json.dumps(YES).encode(), 200),
    "created": saying(YES, 201),
    "no content": Answer(b"", 204),
    "bad request": saying(YES, 400),
    "not authorised": saying(YES, 401),
    "forbidden": saying(YES, 403),
    "an error": saying(YES, 500),
    "unavailable": saying(YES, 503, retry_after="1"),
    "moved": saying(YES, 307, location=PATH),
    "large": saying({"decision": True, "context": {"x": "x" * (1 << 20)}}),
}


@pytest.mark.parametrize("answer", MISBEHAVING.values(), ids=MISBEHAVING.keys())
async def test_whatever_is_no_clear_answer_is_a_no(
    server: Loopback, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    server.answer = lambda _: answer

    verdict = await point(server).ask(question())

    assert not verdict.allowed
    assert len(verdict.errors) == 1
    assert len(server.asked) == 1, "it is asked once, and nowhere else"
    assert CANARY not in repr(verdict) + caplog.text


@pytest.mark.parametrize("how", ["hang", "drip", "reset"])
async def test_it_is_not_waited_for(how: str) -> None:
    async with Receiver() as server:
        server.script.append(how)
        verdict = await point(server, timeout_s=0.2).ask(question())

    assert not verdict.allowed
    assert verdict.errors


async def test_nobody_there_is_a_no() -> None:
    with Loopback(lambda _: saying(YES)) as server:
        gone = point(server)
    assert not (await gone.ask(question())).allowed


async def test_more_than_some_questions_wait_and_none_for_long(server: Loopback) -> None:
    server.open.clear()
    remote = point(server, timeout_s=1)
    asking = [asyncio.create_task(remote.ask(question())) for _ in range(40)]
    for _ in range(MAX_AT_ONCE):
        assert await asyncio.to_thread(server.arrived.acquire, timeout=5)
    assert len(server.asked) == MAX_AT_ONCE

    verdicts = await asyncio.gather(*asking)
    assert not any(verdict.allowed for verdict in verdicts)


# ── who is asked ─────────────────────────────────────────────────────────────────────────────────


async def test_the_token_is_sent_and_read_again(server: Loopback, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    remote = point(server, token_file=file)
    await remote.ask(question())
    file.write_text("second")
    await remote.ask(question())
    file.write_text("not a token")
    last = await remote.ask(question())

    sent = [asked.headers.get("authorization") for asked in server.asked]
    assert sent == ["Bearer first", "Bearer second"]
    assert not last.allowed
    assert "not a token" not in repr(last)


async def test_only_a_server_of_the_named_ca_is_believed(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    tls, ca = private_tls(tmp_path / "one")
    _, other = private_tls(tmp_path / "two")
    with Loopback(lambda _: saying({"decision": True}), tls) as server:
        assert (await point(server, ca_file=ca).ask(question())).allowed
        assert not (await point(server, ca_file=other).ask(question())).allowed
        assert not (await point(server).ask(question())).allowed

    (tmp_path / "none").write_text("x")
    with pytest.raises(ConfigError, match="CA certificates"):
        point(server, ca_file=tmp_path / "none")


# ── with the policies here ───────────────────────────────────────────────────────────────────────

FLOOR: Final = Decision(Effect.ALLOW, ("catalogue",), 3_600_000)


def policies(server: Loopback, *, instead: bool, own: str = "") -> Policies:
    remote = RemoteDecisionPoint(server.url + PATH, instead=instead, timeout_s=5)
    sources = (*default_sources(), Source("own.cedar", own))
    return Policies(lambda: Sources(sources), [SEND], remote)


async def decided(policies: Policies, asked: Question, floor: Decision = FLOOR) -> Decision:
    return await policies.decide(asked, floor)


async def test_besides_both_must_allow_and_both_are_heard(server: Loopback) -> None:
    server.answer = lambda _: saying(
        {"decision": True, "context": {"obligations": {"max_ttl": "1m", "notify": ["theirs"]}}}
    )
    found = await decided(
        policies(server, instead=False), question(capability={"power": "operate"})
    )

    assert found.allowed
    assert found.policies == ("operate-by-allow-list", "remote")
    assert found.obligations.notify == {"watch", "theirs"}
    assert found.ttl_ms == 60_000

    server.answer = lambda _: saying({"decision": False})
    no = await decided(policies(server, instead=False), question())
    assert (no.effect, no.policies) == (Effect.DENY, ("remote",))


async def test_what_is_denied_here_isnt_asked_there(server: Loopback) -> None:
    found = await decided(policies(server, instead=False), question(risk=90))

    assert found.policies == ("high-risk-gets-nothing",)
    assert server.asked == []


async def test_instead_it_is_asked_alone_and_the_catalogue_still_comes_first(
    server: Loopback,
) -> None:
    alone = policies(server, instead=True)
    assert (await decided(alone, question(risk=90))).allowed

    server.asked.clear()
    denied = FLOOR.denied("capability_not_allowed")
    assert await decided(alone, question(), denied) == denied
    assert server.asked == []


@pytest.mark.parametrize("instead", [True, False])
async def test_without_an_answer_nothing_is_allowed(server: Loopback, *, instead: bool) -> None:
    server.answer = lambda _: Answer(status=500)
    found = await decided(policies(server, instead=instead), question())

    assert (found.effect, found.reasons) == (Effect.DENY, (POLICY_ERROR,))


async def test_an_approval_that_is_asked_for_there_counts(server: Loopback) -> None:
    server.answer = lambda _: saying(
        {"decision": True, "context": {"obligations": {"approvals": 2}}}
    )
    both = policies(server, instead=False)

    assert (await decided(both, question())).effect is Effect.NEEDS_APPROVAL
    assert (await decided(both, question(approvals=2))).allowed
