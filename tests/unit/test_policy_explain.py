"""Explanations: what decided, what came near, and changes that do change the answer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.catalog import Capability, Catalog, Power, Principal, PrincipalState
from broker.identity.models import Role
from broker.policy.case_file import Case, read_cases
from broker.policy.case_request import CaseRequest
from broker.policy.cedar import CedarPolicies, Schema, Source
from broker.policy.changes import changes
from broker.policy.decision import Decision, Effect
from broker.policy.explain import Explanation, explain
from broker.policy.folder import default_cases, default_sources
from broker.policy.policies import conclude
from broker.policy.question import Moment, Question
from broker.policy.who_can import Who, who_can
from broker.power import PRIVATE

SEND: Final = Capability(
    "send",
    Power.OPERATE,
    "tool",
    300_000,
    900_000,
    effects=frozenset(("egress:internet",)),
    arguments={"to": ("string", False), "cc": ("strings", True)},
)
OWN: Final = Source(
    "own.cedar",
    """
    @id("only-to-us")
    @advice("Send to addresses of ours.")
    forbid (principal, action == Action::"call:send", resource)
    unless { context.arguments.to like "*@example.com" };

    @id("bot-breaks-glass")
    permit (principal == Principal::"incident-bot", action == Action::"break_glass", resource);
    """,
)
POLICIES: Final = CedarPolicies([*default_sources(), OWN], Schema([SEND]))


def asked(**said: Any) -> Question:
    told = {"rule": "r", "name": "n", "expect": "allow", **said}
    catalog = Catalog([], [SEND]) if said.get("tool") == "send" else None
    return CaseRequest(Case.model_validate(told), catalog, PRIVATE).question()


def decision_of(question: Question, policies: CedarPolicies = POLICIES) -> Decision:
    ttl_ms = question.context.get("ttl", 0) * 1000
    return conclude(
        question, Decision(Effect.ALLOW, ("catalogue",), ttl_ms), policies.ask(question)
    )


def explained(question: Question) -> Explanation:
    return explain(POLICIES, question, decision_of(question))


def would(explanation: Explanation) -> dict[str, Effect]:
    return {change.code: change.effect for change in explanation.changes}


def test_what_is_allowed_names_who_allows_it_and_what_they_ask_for() -> None:
    found = explained(asked(capability={"power": "operate"}))

    assert found.effect is Effect.ALLOW
    assert [(fact.name, fact.source) for fact in found.decided] == [
        ("operate-by-allow-list", "default/power.cedar")
    ]
    assert found.as_json()["decided_by"][0]["obligations"] == {"notify": ["watch"]}
    assert (found.near, found.changes, found.notes) == ((), (), ())


@pytest.mark.parametrize(
    ("said", "changed"),
    [
        ({"capability": {"power": "privileged"}}, {"one_approval", "two_approvals", "read_power"}),
        ({"risk": 80}, {"no_risk"}),
        ({"verdict": "compromised"}, {"no_risk"}),
        ({"capability": {"power": "operate", "instant": False}}, {"instant", "read_power"}),
        ({"agent": {"capabilities": []}}, {"allow_list"}),
        ({"task": {"capabilities": []}}, {"allow_list"}),
        (
            {
                "trail": {"data_classes": ["secret"], "effects": ["ingests:web"]},
                "capability": {"power": "operate", "effects": ["egress:mail"]},
            },
            {"one_approval", "two_approvals", "no_egress", "fresh_task"},
        ),
        (
            {"action": "delegate", "asks": ["a", "b"], "parent": {"capabilities": ["a"]}},
            {"fewer_capabilities"},
        ),
        ({"action": "operate", "caller": {"role": "auditor"}}, {"operator"}),
        (
            {"action": "approve", "caller": {"name": "agent", "owner": "x"}},
            {"another_approver"},
        ),
        (
            {
                "action": "break_glass",
                "agent": {"name": "incident-bot"},
                "proof": {"bound": True},
            },
            {"intent"},
        ),
    ],
    ids=lambda value: ",".join(sorted(value)),
)
def test_single_changes_that_would_do_are_named(said: dict[str, Any], changed: set[str]) -> None:
    assert set(would(explained(asked(**said)))) == changed


def test_a_change_that_only_gets_nearer_says_so() -> None:
    found = explained(asked(capability={"power": "privileged"}, risk=90, approvals=0))
    assert would(found) == {"no_risk": Effect.NEEDS_APPROVAL}


def test_nothing_single_may_be_enough() -> None:
    found = explained(asked(action="break_glass", agent={"name": "incident-bot"}))
    assert found.changes == (), "it takes a bound token and a word"
    assert [fact.name for fact in found.decided] == ["break-glass-is-strict"]


def test_what_came_near_says_what_it_lacks() -> None:
    found = explained(asked(action="open_task", agent={"capabilities": []}))
    (near,) = found.near
    assert near.name == "orchestrators-open-tasks"
    assert near.missing == ("resource.capabilities.containsAll(context.capabilities)",)

    forbidden = explained(asked(risk=80))
    assert ("read-within-the-task", ()) in [(n.name, n.missing) for n in forbidden.near]


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_what_is_said_to_change_the_answer_does(data: st.DataObject) -> None:
    cases = [case for file in read_cases(default_cases()) for case in file.cases if not case.tool]
    question = CaseRequest(data.draw(st.sampled_from(cases)), None, PRIVATE).question()
    found = explain(POLICIES, question, decision_of(question))
    by_code = {code: changed for code, _, changed in changes(question)}

    for change in found.changes:
        assert decision_of(by_code[change.code]).effect is change.effect
        assert change.effect is not found.effect
    if found.effect is not Effect.ALLOW:
        silent = set(by_code) - {change.code for change in found.changes}
        assert not any(decision_of(by_code[code]).allowed for code in silent)


def test_a_changed_question_fits_the_schema() -> None:
    for file in read_cases(default_cases()):
        for case in file.cases:
            if case.tool is not None:
                continue
            question = CaseRequest(case, None, PRIVATE).question()
            for code, _, changed in changes(question):
                assert not POLICIES.ask(changed).errors, code


# ── what the log doesn't have ────────────────────────────────────────────────────────────────────


def logged(question: Question) -> Question:
    return Question.read(question.as_json())


def test_a_call_is_explained_without_its_arguments() -> None:
    question = asked(tool="send", arguments={"to": "x@evil.example"})
    decision = decision_of(question)
    assert decision.policies == ("only-to-us",)

    found = explain(POLICIES, logged(question), decision)
    assert [fact.name for fact in found.decided] == ["only-to-us"]
    assert found.changes == (), "what forbade by the arguments is taken to forbid"
    assert found.left_out == ()
    assert found.notes == ()


def test_policies_that_look_at_arguments_and_didnt_decide_are_left_out() -> None:
    question = asked(tool="send", arguments={"to": "x@example.com"}, risk=60)
    decision = decision_of(question)
    assert decision.effect is Effect.NEEDS_APPROVAL

    found = explain(POLICIES, logged(question), decision)
    assert would(found).keys() == {"one_approval", "two_approvals", "no_risk", "read_power"}
    assert found.left_out == ("only-to-us",)
    assert found.notes == ()


def test_what_has_changed_since_is_said() -> None:
    question = asked(risk=10)
    old = Decision(Effect.DENY, ("denied_by_policy",), policies=("gone", "high-risk-gets-nothing"))
    found = explain(POLICIES, question, old)

    assert found.effect is Effect.DENY
    assert [fact.name for fact in found.decided] == ["high-risk-gets-nothing"]
    assert found.notes == (
        "not in force any more: gone",
        "the policies in force now would say allow",
    )


# ── who can ──────────────────────────────────────────────────────────────────────────────────────

MOMENT: Final = Moment(1_800_000_000_000, "production", "jwt", bound=False, private=PRIVATE)
DEPLOY: Final = Capability("deploy", Power.PRIVILEGED, "vault", 300_000, 900_000)


def agent(name: str, *allowed: str, **more: Any) -> Principal:
    return Principal(name=name, role=Role.AGENT, owner="o", capabilities=frozenset(allowed), **more)


CATALOG: Final = Catalog(
    [
        agent("writer", "send"),
        agent("deployer", "deploy"),
        agent("sleeper", "deploy", "send", state=PrincipalState.SUSPENDED),
        Principal(name="boss", role=Role.ORCHESTRATOR, owner="o"),
    ],
    [SEND, DEPLOY],
)


def by_agent(capability: Capability, policies: CedarPolicies = POLICIES) -> dict[str, Who]:
    return {who.agent: who for who in who_can(policies, CATALOG, capability, MOMENT)}


def test_who_can_says_of_each_agent_why() -> None:
    found = by_agent(DEPLOY)

    assert list(found) == ["deployer", "sleeper", "writer"]
    assert found["deployer"].decision.effect is Effect.NEEDS_APPROVAL
    assert found["deployer"].decision.policies == ("privileged-by-approval",)
    assert found["deployer"].as_json()["obligations"]["approvals"] == 1
    assert found["writer"].decision.reasons == ("capability_not_allowed",)
    assert found["sleeper"].decision.reasons == ("principal_not_active",)


def test_of_a_tool_it_says_which_policies_depend_on_the_call() -> None:
    found = by_agent(SEND)

    assert found["writer"].decision.allowed
    assert found["writer"].arguments == ("only-to-us",)
    assert found["deployer"].decision.effect is Effect.DENY


def test_policies_and_the_floor_count_together() -> None:
    never = Source("x", '@id("no") forbid (principal == Principal::"deployer", action, resource);')
    policies = CedarPolicies([*default_sources(), never], Schema([SEND]))
    assert by_agent(DEPLOY, policies)["deployer"].decision.policies == ("no",)

    bound = replace(DEPLOY, require_binding=True)
    assert by_agent(bound)["deployer"].decision.reasons == ("binding_required",)
