"""What holds of any policies: they can be read in any order, and adding one never loosens another.

And pitfall 19: Cedar skips what errs, a forbid as well, so that an error must be a deny.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.errors import ConfigError
from broker.policy.cedar import CedarPolicies, Source
from broker.policy.decision import Decision, Effect, Verdict
from broker.policy.policies import NOT_ALLOWED, POLICY_ERROR, conclude
from tests.unit.policy_world import QUESTIONS, SCHEMA, decided, engine, policies, question_of

if TYPE_CHECKING:
    from broker.policy.question import Question

SETS = st.lists(policies(duties=True), max_size=5)
PERMITS = policies(effects=("permit",), duties=True)
FORBIDS = policies(effects=("forbid",))
RANK: Final = {Effect.DENY: 0, Effect.NEEDS_APPROVAL: 1, Effect.ALLOW: 2}
QUESTION: Final = question_of({})
ALLOW_ALL: Final = '@id("all") permit (principal, action, resource);'


def named(texts: list[str]) -> list[str]:
    return [f'@id("p{i}") {text}' for i, text in enumerate(texts)]


@settings(deadline=None)
@given(data=st.data(), texts=SETS, question=QUESTIONS)
def test_the_order_of_policies_means_nothing(
    data: st.DataObject, texts: list[str], question: Question
) -> None:
    texts = named(texts)
    other = data.draw(st.permutations(texts))
    files = [Source(f"{i}.cedar", text) for i, text in enumerate(other)]
    again = conclude(
        question,
        Decision(Effect.ALLOW, ("catalogue",), 3_600_000),
        CedarPolicies(files, SCHEMA).ask(question),
    )

    assert decided(question, *texts) == again


@settings(deadline=None)
@given(question=QUESTIONS)
def test_without_policies_all_is_denied(question: Question) -> None:
    assert engine().ask(question) == Verdict(allowed=False)
    decision = decided(question)
    assert (decision.effect, decision.reasons) == (Effect.DENY, (NOT_ALLOWED,))
    assert decision.ttl_ms == 0


@settings(deadline=None, max_examples=200)
@given(texts=SETS, forbid=FORBIDS, question=QUESTIONS)
def test_a_forbid_more_never_allows_more(texts: list[str], forbid: str, question: Question) -> None:
    before = decided(question, *named(texts))
    after = decided(question, *named([*texts, forbid]))

    assert RANK[after.effect] <= RANK[before.effect]
    if after.effect is not Effect.DENY:
        assert after == before, "a forbid forbids, and changes nothing else"


@settings(deadline=None, max_examples=200)
@given(texts=SETS, permit=PERMITS, question=QUESTIONS)
def test_a_permit_more_never_takes_an_obligation_away(
    texts: list[str], permit: str, question: Question
) -> None:
    before = engine(*named(texts)).ask(question)
    after = engine(*named([*texts, permit])).ask(question)

    if before.allowed:
        assert after.allowed
        assert before.obligations | after.obligations == after.obligations
        was, now = decided(question, *named(texts)), decided(question, *named([*texts, permit]))
        assert RANK[now.effect] <= RANK[was.effect], "what was allowed is not allowed more easily"
        if now.allowed:
            assert 0 < now.ttl_ms <= was.ttl_ms


@settings(deadline=None)
@given(texts=SETS, approvals=st.integers(0, 3), question=QUESTIONS)
def test_more_approvals_never_make_a_deny_of_a_yes(
    texts: list[str], approvals: int, question: Question
) -> None:
    fewer = decided(question, *named(texts))
    most = decided(
        question.with_context(approvals=question.context["approvals"] + approvals), *named(texts)
    )
    assert RANK[most.effect] >= RANK[fewer.effect]


# ── errors ───────────────────────────────────────────────────────────────────────────────────────

OVERFLOW: Final = "context.chain.calls * 9223372036854775807 > 0"
SCOPE: Final = '(principal, action == Action::"issue_grant", resource)'


@pytest.mark.parametrize("effect", ["permit", "forbid"])
def test_an_overflow_denies_whatever_else_permits(effect: str) -> None:
    text = f'@id("o") {effect} {SCOPE} when {{ {OVERFLOW} }};'
    fine, bad = question_of({"chain": {"calls": 1}}), question_of({"chain": {"calls": 2}})

    verdict = engine(ALLOW_ALL, text).ask(bad)
    assert not verdict.allowed
    assert "overflow" in verdict.errors[0]
    assert decided(bad, ALLOW_ALL, text).reasons == (POLICY_ERROR,)
    assert decided(bad, ALLOW_ALL).allowed, "without the one that errs it is allowed"
    assert decided(fine, ALLOW_ALL, text).allowed is (effect == "permit")


@pytest.mark.parametrize(
    "condition",
    [
        'context.intent == "x"',
        'context.destination.host == "x"',
        'context has destination || context.destination.host == "x"',
        "context.parent.left > 3",
        "context.arguments.amount > 3",
        "principal.clearance > 3",
        'context.risk == "high"',
        'context.risk.contains("x")',
    ],
)
def test_a_forbid_that_could_err_by_what_is_missing_isnt_taken(condition: str) -> None:
    text = f'@id("mine") forbid {SCOPE} when {{ {condition} }};'

    with pytest.raises(ConfigError, match=r"own\.cedar: mine: "):
        CedarPolicies([Source("own.cedar", text)], SCHEMA)


def test_what_may_be_missing_can_be_looked_at_once_it_is_there() -> None:
    text = f'@id("mine") forbid {SCOPE} when {{ context has intent && context.intent == "x" }};'

    assert decided(question_of({"intent": "x"}), ALLOW_ALL, text).policies == ("mine",)
    assert decided(QUESTION, ALLOW_ALL, text).allowed


@pytest.mark.parametrize(
    "change",
    [
        {"risk": "high"},
        {"risk": 1.5},
        {"risk": 2**63},
        {"verdict": None},
        {"chain": {}},
        {"time": {"now": "never"}},
    ],
    ids=str,
)
def test_a_question_that_doesnt_fit_the_schema_is_denied(change: dict[str, Any]) -> None:
    looks = (
        'context.risk > 100 || context.verdict == "x" || context.chain.calls < 0 || '
        'context.time.now < datetime("2000-01-01")'
    )
    forbid = f'@id("looks") forbid {SCOPE} when {{ {looks} }};'
    assert decided(QUESTION, ALLOW_ALL, forbid).allowed

    decision = decided(QUESTION.with_context(**change), ALLOW_ALL, forbid)
    assert (decision.effect, decision.reasons) == (Effect.DENY, (POLICY_ERROR,))


def test_the_questions_own_words_are_fine() -> None:
    assert decided(QUESTION, ALLOW_ALL).allowed
