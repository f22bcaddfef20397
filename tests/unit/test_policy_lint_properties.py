"""What the lint is certain of is so: it is held against the engine, on requests of all kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import cedarpy
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.policy.case_file import Case
from broker.policy.case_request import CaseRequest
from broker.policy.cedar import CedarPolicies, Schema, Source
from broker.policy.expressions import written
from broker.policy.lint import lint
from broker.policy.schema import schema
from broker.power import PRIVATE

if TYPE_CHECKING:
    from broker.policy.question import Question

SCHEMA: Final = Schema(schema())

ATOMS = st.one_of(
    st.builds(
        "context.risk {} {}".format,
        st.sampled_from(["<", "<=", ">", ">=", "==", "!="]),
        st.sampled_from([-1, 0, 1, 50, 99, 100]),
    ),
    st.builds("50 {} context.risk".format, st.sampled_from(["<", "<=", ">", ">=", "=="])),
    st.builds('context.verdict {} "{}"'.format, st.sampled_from(["==", "!="]),
              st.sampled_from(["clean", "suspicious", "bad"])),
    st.builds('resource.power == "{}"'.format, st.sampled_from(["read", "privileged", "x"])),
    st.sampled_from(
        [
            '["read", "operate"].contains(resource.power)',
            '"read" == resource.power',
            "context.proof.bound",
            "context.proof.bound == false",
            'principal.name == "a"',
            'principal == Principal::"a"',
            'principal in [Principal::"a", Principal::"b"]',
            '["a", "b"].contains(principal.name)',
            'principal in Team::"t"',
            'resource == Capability::"c"',
            'resource.name == "d"',
            'context.chain.effects.contains("x:y")',
            'context.chain.effects.containsAll(["x:y", "u:v"])',
            'context.chain.effects.containsAny(["x:y", "u:v"])',
            'action == Action::"issue_grant"',
            "resource is Capability",
            'context has intent && context.intent like "a*"',
            "true",
            "false",
        ]
    ),
)  # fmt: skip
EXPRESSIONS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.builds("({}) && ({})".format, inner, inner),
        st.builds("({}) || ({})".format, inner, inner),
        st.builds("!({})".format, inner),
        st.builds("if ({}) then ({}) else ({})".format, inner, inner, inner),
        st.builds("({}) == ({})".format, inner, inner),
    ),
    max_leaves=5,
)
SCOPES = st.sampled_from(
    [
        'principal, action == Action::"issue_grant", resource',
        'principal == Principal::"a", action in [Action::"issue_grant"], resource',
        "principal, action, resource is Capability",
        'principal in Team::"t", action, resource == Capability::"c"',
    ]
)


@st.composite
def policies(draw: st.DrawFn, *, effects: tuple[str, ...] = ("permit", "forbid")) -> str:
    word = draw(st.sampled_from(["when", "unless"]))
    clause = draw(st.one_of(st.just(""), EXPRESSIONS.map(lambda e: f" {word} {{ {e} }}")))
    return f"{draw(st.sampled_from(effects))} ({draw(SCOPES)}){clause};"


def question_of(said: dict[str, Any]) -> Question:
    told = {"rule": "r", "name": "n", "expect": "allow"}
    return CaseRequest(Case.model_validate({**told, **said}), None, PRIVATE).question()


SAID: st.SearchStrategy[Any] = st.fixed_dictionaries(
    {
        "agent": st.fixed_dictionaries(
            {"name": st.sampled_from("abz"), "owner": st.sampled_from("tu")}
        ),
        "capability": st.fixed_dictionaries(
            {
                "name": st.sampled_from("cde"),
                "power": st.sampled_from(["read", "operate", "privileged"]),
            }
        ),
        "chain": st.fixed_dictionaries({"effects": st.lists(st.sampled_from(["x:y", "u:v"]))}),
        "risk": st.sampled_from([0, 1, 49, 50, 51, 99, 100]),
        "verdict": st.sampled_from(["clean", "suspicious", "compromised"]),
        "proof": st.fixed_dictionaries({"bound": st.booleans()}),
        "intent": st.sampled_from(["", "abc", "b"]),
    }
)
QUESTIONS = SAID.map(question_of)


def engine(*texts: str) -> CedarPolicies:
    return CedarPolicies([Source("x", "\n".join(texts))], SCHEMA)


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
