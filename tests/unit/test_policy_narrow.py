"""What Cedar is told is narrowed to what policies name, and its answers stay the same."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import cedarpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.policy.cedar import CedarPolicies
from broker.policy.folder import default_sources
from broker.policy.narrow import needs_of, project
from tests.unit.policy_world import QUESTIONS, SCHEMA, engine, policies, question_of

if TYPE_CHECKING:
    from broker.policy.question import Question

CEDAR: Any = cedarpy
DEFAULTS = "\n".join(source.text for source in default_sources())


def whole(question: Question, text: str) -> tuple[bool, int]:
    """Ask Cedar itself with all that is known, held against the whole schema."""
    kind, name = question.resource
    who = {"type": "Principal", "id": question.principal}
    what = {"type": kind, "id": name}
    team = [{"type": "Team", "id": question.principal_attributes["owner"]}]
    entities: list[dict[str, Any]] = [
        {"uid": who, "attrs": dict(question.principal_attributes), "parents": team},
        {"uid": what, "attrs": dict(question.resource_attributes), "parents": []},
    ]
    request = {
        "principal": who,
        "action": {"type": "Action", "id": question.action},
        "resource": what,
        "context": json.dumps(dict(question.context)),
    }
    parsed = CEDAR.Entities.from_json_str(json.dumps(entities), SCHEMA.parsed)
    result = CEDAR.is_authorized(request, CEDAR.PolicySet.from_str(text), parsed, SCHEMA.parsed)
    assert not result.diagnostics.errors, result.diagnostics.errors
    return result.allowed, len(result.diagnostics.reasons)


@settings(deadline=None)
@given(texts=st.lists(policies(), max_size=4), question=QUESTIONS)
def test_any_policies_answer_as_with_all_that_is_known(
    texts: list[str], question: Question
) -> None:
    named = [f'@id("p{i}") {text}' for i, text in enumerate(texts)]
    verdict = engine(*named).ask(question)

    assert (verdict.allowed, len(verdict.policies)) == whole(question, "\n".join(named))


@settings(deadline=None)
@given(question=QUESTIONS)
def test_the_default_policies_answer_as_with_all_that_is_known(question: Question) -> None:
    verdict = CedarPolicies(default_sources(), SCHEMA).ask(question)

    assert not verdict.errors
    assert (verdict.allowed, len(verdict.policies)) == whole(question, DEFAULTS)


def needs(condition: str) -> dict[str, Any]:
    text = f"permit (principal, action, resource) when {{ {condition} }};"
    found = needs_of(CEDAR.policies_to_pst(text).static_policies.values())
    return {"context": dict(found.context), "entity": dict(found.entity)}


@pytest.mark.parametrize(
    ("condition", "context"),
    [
        ("context.risk > 1", {"risk": {}}),
        ("context.chain.calls > 1", {"chain": {"calls": {}}}),
        ("context.chain.calls > 1 || context.chain.grants > 1",
         {"chain": {"calls": {}, "grants": {}}}),
        ("context has destination && context.destination.ip",
         {"destination": {}}),
        ("context.chain == context.chain && context.chain.calls > 1", {"chain": {}}),
        ("context.chain.calls > 1 && context.chain == context.chain", {"chain": {}}),
        ("if context.risk > 1 then context.proof.bound else false",
         {"risk": {}, "proof": {"bound": {}}}),
        ("[context.risk].contains(1)", {"risk": {}}),
        ('{"a": context.risk} == {"a": 1}', {"risk": {}}),
    ],
)  # fmt: skip
def test_each_chain_of_attributes_is_found(condition: str, context: dict[str, Any]) -> None:
    found = needs(condition)["context"]
    found.pop("-")

    assert found == context


@pytest.mark.parametrize(
    ("condition", "counts"),
    [
        ("context.risk > 1 && context.task.depth > 1 && context.chain.way_out", False),
        ('context.adds.amount.greaterThan(decimal("1.0"))', False),
        ("context.chain.calls > 1", True),
        ('context.after.amount.greaterThan(decimal("1.0"))', True),
        ("context.task.trail.grants > 1", True),
        ("context.chain == context.chain", True),
        ("context.task == context.task", True),
        ("context == context", True),
    ],
)
def test_whether_it_matters_how_often(condition: str, counts: bool) -> None:
    scope = 'principal, action in Action::"call_tool", resource'
    assert engine(f"permit ({scope}) when {{ {condition} }};").counting is counts


def test_the_default_policies_look_at_what_was_done_and_not_how_often() -> None:
    assert not CedarPolicies(default_sources(), SCHEMA).counting


def test_an_answer_is_kept_for_the_same_question_to_the_same_policies() -> None:
    asked = question_of({})
    yes = engine('@id("yes") permit (principal, action, resource) when { context.risk < 5 };')
    first = yes.ask(asked)

    assert yes.ask(question_of({})) is first
    assert first.allowed
    assert not yes.ask(asked.with_context(risk=7)).allowed
    assert yes.ask(asked) is first
    assert not yes.only({}).ask(asked).allowed
    assert not engine('@id("no") forbid (principal, action, resource);').ask(asked).allowed


def test_a_context_used_as_a_whole_is_kept_whole() -> None:
    assert needs("context == context && context.risk > 1")["context"] == {}
    assert project({"a": {"b": 1}, "c": 2}, {}) == {"a": {"b": 1}, "c": 2}


def test_attributes_of_who_and_what_are_found() -> None:
    found = needs('principal.owner == "o" && resource.power == "read" && principal == resource')

    assert found["entity"] == {"-": {}, "owner": {}, "power": {}}


def test_what_nobody_asks_about_is_not_handed_over() -> None:
    question = question_of({})
    kept = project(question.context, needs("context.chain.calls > 1")["context"])

    assert kept == {"chain": {"calls": question.context["chain"]["calls"]}}
