"""A decision point elsewhere: only a clear yes is one, and its trouble is a deny."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.policy.authzen import NAME, RemoteDecisionPoint, verdict
from broker.policy.decision import Decision, Effect, Obligations
from broker.policy.folder import default_sources
from broker.policy.policies import DENIED, POLICY_ERROR, Policies, Sources
from tests.issuers import Answer
from tests.loopback import Loopback, private_tls
from tests.unit.policy_world import question_of

if TYPE_CHECKING:
    from pathlib import Path

    from tests.loopback import Asked

FLOOR: Final = Decision(Effect.ALLOW, ("catalogue",), 3_600_000)
READING: Final = question_of({"capability": {"name": "c", "power": "read"}})
OPERATING: Final = question_of({"capability": {"name": "c", "power": "privileged"}})
JSON: Final = {"content-type": "application/json"}
YES: Final = Answer(b'{"decision": true}', headers=JSON)


def says(**answer: Any) -> Answer:
    return Answer(json.dumps(answer).encode(), headers=JSON)


def point(server: Loopback, *, instead: bool = True, **more: Any) -> RemoteDecisionPoint:
    settings: dict[str, Any] = {"timeout_s": 5.0, **more}
    return RemoteDecisionPoint(f"{server.url}/access/v1/evaluation", instead=instead, **settings)


async def decided(remote: RemoteDecisionPoint, question: Any = READING) -> Decision:
    policies = Policies(lambda: Sources(default_sources()), [], remote)
    return await policies.decide(question, FLOOR)


async def test_it_is_asked_in_authzens_words_with_all_that_is_known() -> None:
    with Loopback(lambda _: YES) as server:
        assert (await decided(point(server))).allowed

    (asked,) = server.asked
    body = json.loads(asked.body)
    assert (asked.method, asked.path) == ("POST", "/access/v1/evaluation")
    assert asked.headers["content-type"] == "application/json"
    assert body["subject"]["type"] == "agent"
    assert body["subject"]["id"] == READING.principal
    assert body["action"] == {"name": "issue_grant"}
    assert body["resource"]["type"] == "capability"
    assert body["resource"]["properties"]["power"] == "read"
    assert body["context"]["chain"]["amount"] == "0.0000"
    assert body["context"]["time"]["now"].endswith("Z")
    assert "__extn" not in asked.body.decode()


async def test_its_no_is_a_denial_by_policy() -> None:
    with Loopback(lambda _: says(decision=False)) as server:
        decision = await decided(point(server))

    assert (decision.effect, decision.reasons) == (Effect.DENY, (DENIED,))
    assert decision.policies == (NAME,)


async def test_besides_both_have_to_say_yes() -> None:
    with Loopback(lambda _: YES) as server:
        allowed = await decided(point(server, instead=False))
        server.answer = lambda _: says(decision=False)
        refused = await decided(point(server, instead=False))

    assert allowed.allowed
    assert allowed.policies == ("read-within-the-task", NAME)
    assert (refused.effect, refused.policies) == (Effect.DENY, (NAME,))


async def test_besides_it_is_not_asked_what_is_refused_here() -> None:
    with Loopback(lambda _: YES) as server:
        assert not (await decided(point(server, instead=False), question_of({"risk": 90}))).allowed

    assert server.asked == []


async def test_instead_the_policies_here_have_no_say() -> None:
    with Loopback(lambda _: YES) as server:
        assert (await decided(point(server), OPERATING)).allowed


async def test_its_obligations_count_with_ours() -> None:
    duty = {"approvals": 1, "max_ttl": "10m", "notify": ["ops"], "require_binding": False}
    with Loopback(lambda _: says(decision=True, context={"obligations": duty})) as server:
        decision = await decided(point(server, instead=False))

    assert decision.effect is Effect.NEEDS_APPROVAL
    assert decision.obligations.max_ttl_ms == 600_000
    assert decision.obligations.notify == {"ops"}


@pytest.mark.parametrize(
    ("case", "answer"),
    [
        ("an error", Answer(b'{"decision": true}', 500, JSON)),
        ("unauthorized", Answer(b'{"decision": true}', 401, JSON)),
        ("another type", Answer(b'{"decision": true}', headers={"content-type": "text/html"})),
        ("no type", Answer(b'{"decision": true}')),
        ("a redirect", Answer(b"", 302, {"location": "/elsewhere"})),
        ("nothing", Answer(b"", headers=JSON)),
        ("no JSON", Answer(b"yes", headers=JSON)),
        ("no object", Answer(b"[true]", headers=JSON)),
        ("no decision", Answer(b"{}", headers=JSON)),
        ("a text for a decision", Answer(b'{"decision": "true"}', headers=JSON)),
        ("a number for a decision", Answer(b'{"decision": 1}', headers=JSON)),
        ("a context that is none", Answer(b'{"decision": true, "context": 1}', headers=JSON)),
        ("deep", Answer(b'{"decision": true, "context": ' + b"[" * 100_000, headers=JSON)),
        ("huge", Answer(b'{"decision": true, "x": "' + b"a" * 2_000_000 + b'"}', headers=JSON)),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
async def test_whatever_is_no_clear_answer_is_a_deny(case: str, answer: Answer) -> None:
    with Loopback(lambda _: answer) as server:
        decision = await decided(point(server))

    assert (decision.effect, decision.reasons) == (Effect.DENY, (POLICY_ERROR,)), case
    assert len(server.asked) == 1, "it was asked again, or followed elsewhere"


@pytest.mark.parametrize(
    "duties",
    [
        1,
        {"unheard_of": True},
        {"approvals": -1},
        {"approvals": True},
        {"approvals": 1000},
        {"max_ttl": 600},
        {"max_ttl": "soon"},
        {"notify": "ops"},
        {"notify": [1]},
        {"require_binding": "yes"},
    ],
    ids=str,
)
def test_obligations_that_cant_be_read_cant_be_met(duties: Any) -> None:
    body = json.dumps({"decision": True, "context": {"obligations": duties}}).encode()

    with pytest.raises(ValueError, match=r".+"):
        verdict(body)


def test_every_obligation_can_be_asked_for() -> None:
    flags = {"require_binding": True, "require_instant": True, "log_arguments": True}
    body = json.dumps({"decision": True, "context": {"obligations": flags}}).encode()

    assert verdict(body).obligations == Obligations(
        require_binding=True, require_instant=True, log_arguments=True
    )


async def test_who_doesnt_answer_in_time_has_said_no() -> None:
    with Loopback(lambda _: YES) as server:
        server.open.clear()
        decision = await decided(point(server, timeout_s=0.2))

    assert decision.reasons == (POLICY_ERROR,)


async def test_who_isnt_there_has_said_no() -> None:
    with Loopback(lambda _: YES) as server:
        remote = point(server)

    assert (await decided(remote)).reasons == (POLICY_ERROR,)


async def test_it_is_asked_with_a_token_over_tls_that_is_trusted(tmp_path: Path) -> None:
    tls, ca_file = private_tls(tmp_path)
    token = tmp_path / "token"
    token.write_text("a-bearer-token\n")
    with Loopback(lambda _: YES, tls) as server:
        allowed = await decided(point(server, ca_file=ca_file, token_file=token))
        stranger = await decided(point(server))

    assert allowed.allowed
    assert [asked.headers["authorization"] for asked in server.asked] == ["Bearer a-bearer-token"]
    assert stranger.reasons == (POLICY_ERROR,)


async def test_an_error_doesnt_repeat_what_was_answered(capsys: pytest.CaptureFixture[str]) -> None:
    def answer(_: Asked) -> Answer:
        return Answer(b"canary-in-the-answer", 500)

    with Loopback(answer) as server:
        decision = await decided(point(server))
        found = await point(server).ask(READING)

    assert "canary" not in repr((decision, found)) + capsys.readouterr().err
