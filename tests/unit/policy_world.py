"""Policies and questions of all kinds, for tests of what holds of any of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from hypothesis import strategies as st

from broker.policy.case_file import Case
from broker.policy.case_request import CaseRequest
from broker.policy.cedar import CedarPolicies, Schema, Source
from broker.policy.decision import Decision, Effect
from broker.policy.policies import conclude
from broker.power import PRIVATE

if TYPE_CHECKING:
    from broker.policy.question import Question

SCHEMA: Final = Schema()

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


DUTIES = st.sampled_from(
    [
        "",
        '@require_approval("1")',
        '@require_approval("2")',
        '@max_ttl("10m")',
        '@max_ttl("1h")',
        '@notify("a")',
        '@notify("b, c")',
        "@require_binding",
        "@require_instant",
        "@log_arguments",
    ]
)


@st.composite
def policies(
    draw: st.DrawFn, *, effects: tuple[str, ...] = ("permit", "forbid"), duties: bool = False
) -> str:
    """A policy without a name; with ``duties`` a permit may ask for something."""
    word = draw(st.sampled_from(["when", "unless"]))
    clause = draw(st.one_of(st.just(""), EXPRESSIONS.map(lambda e: f" {word} {{ {e} }}")))
    effect = draw(st.sampled_from(effects))
    duty = draw(DUTIES) if duties and effect == "permit" else ""
    return f"{duty} {effect} ({draw(SCOPES)}){clause};"


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
        "approvals": st.integers(0, 3),
    }
)
QUESTIONS = SAID.map(question_of)


def engine(*texts: str) -> CedarPolicies:
    return CedarPolicies([Source("x", "\n".join(texts))], SCHEMA)


def decided(question: Question, *texts: str, ttl_ms: int = 3_600_000) -> Decision:
    """Return what follows from some policies, where the catalogue allows."""
    return conclude(
        question, Decision(Effect.ALLOW, ("catalogue",), ttl_ms), engine(*texts).ask(question)
    )
