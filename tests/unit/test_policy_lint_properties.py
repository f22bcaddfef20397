"""What the lint is certain of is so: it is held against the engine, on requests of all kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cedarpy
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.policy.cedar import Source
from broker.policy.expressions import written
from broker.policy.lint import lint
from tests.unit.policy_world import EXPRESSIONS, QUESTIONS, engine, policies

if TYPE_CHECKING:
    from broker.policy.question import Question


def applies(policy: str, question: Question) -> bool:
    """Whether a policy applies, of whichever effect it is."""
    text = policy.replace("forbid", "permit", 1)
    answer = engine(text).ask(question)
    assert not answer.errors
    return answer.allowed


@settings(max_examples=150, deadline=None)
@given(
    texts=st.lists(policies(), min_size=1, max_size=4),
    questions=st.lists(QUESTIONS, min_size=6, max_size=6),
)
def test_what_is_called_in_vain_is(texts: list[str], questions: list[Any]) -> None:
    named = [f'@id("p{i}") {text}' for i, text in enumerate(texts)]
    by_name = {f"p{i}": text for i, text in enumerate(named)}
    for finding in lint([Source("x", "\n".join(named))]):
        about = by_name[finding.policy]
        rest = [text for text in named if text is not about]
        for question in questions:
            if finding.code == "unreachable":
                assert not applies(about, question)
            elif finding.code == "shadowed" and applies(about, question):
                assert not engine(about, *rest).ask(question).allowed
            elif finding.code == "redundant" and applies(about, question):
                other = by_name[finding.text.split(" that ")[1].split(" ")[0]]
                assert applies(other, question)


@settings(max_examples=150, deadline=None)
@given(text=EXPRESSIONS)
def test_a_condition_is_written_so_that_it_reads_the_same(text: str) -> None:
    def read(condition: str) -> Any:
        policy = f"permit (principal, action, resource) when {{ {condition} }};"
        (parsed,) = cedarpy.policies_to_pst(policy).static_policies.values()
        return parsed.clauses[0].expr

    assert read(written(read(text))) == read(text)
