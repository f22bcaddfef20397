"""Cases: those of the package hold and show every default policy; what can't be one is said."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

import pytest

from broker.catalog import Capability, Catalog, Power, Principal
from broker.errors import ConfigError
from broker.identity.models import Role
from broker.policy.case_file import read_cases
from broker.policy.cases import Result, run_cases
from broker.policy.cedar import CedarPolicies, Schema, Source
from broker.policy.decision import Effect
from broker.policy.folder import default_cases, default_sources

if TYPE_CHECKING:
    from broker.policy.annotations import PolicyFacts

SHIPPED: Final = run_cases(read_cases(default_cases()), default_sources())
RULES: Final = (
    "power-read",
    "power-operate",
    "power-privileged-approval",
    "child-at-most-parent",
    "lethal-combination",
    "lethal-combination-across-chain",
    "unrevocable-refused",
    "ledger-durable",
    "risk-refused",
    "compromised-refused",
    "elevation",
    "risk-elevation",
    "break-glass",
    "approve-not-self",
    "operate-operators-only",
    "closed-arguments",
    "tasks-by-orchestrators",
)
"""The rules that the default policies' cases show."""


def facts() -> list[PolicyFacts]:
    return list(CedarPolicies(default_sources(), Schema()).facts.values())


@pytest.mark.parametrize("result", SHIPPED.results, ids=lambda r: f"{r.case.rule}: {r.case.name}")
def test_the_default_policies_answer_each_case_as_expected(result: Result) -> None:
    assert result.problems == ()


def test_each_rule_is_shown_allowed_next_to_refused() -> None:
    shown: dict[str, set[bool]] = defaultdict(set)
    for result in SHIPPED.results:
        shown[result.case.rule].add(result.decision.effect is Effect.ALLOW)

    assert set(shown) == set(RULES)
    assert all(both == {True, False} for both in shown.values()), shown


def test_each_default_policy_decides_some_case() -> None:
    assert SHIPPED.undecided == ()
    decided = {name for result in SHIPPED.results for name in result.decision.policies}
    assert {fact.name for fact in facts()} <= decided


def test_each_forbid_of_the_package_refuses_what_would_be_allowed_without_it() -> None:
    """A forbid that only ever refuses what nothing permits would show nothing."""
    files = read_cases(default_cases())
    for fact in facts():
        if fact.permits:
            continue
        rest = [_without(source, fact.name) for source in default_sources()]
        changed = {
            result.case.name
            for result in run_cases(files, rest).failed
            if result.case.expect is Effect.DENY and result.decision.effect is not Effect.DENY
        }
        assert changed, fact.name


def _without(source: Source, name: str) -> Source:
    head, found, tail = source.text.partition(f'@id("{name}")')
    return source if not found else Source(source.name, head + tail.partition(";\n")[2])


def test_a_policy_without_a_case_is_named() -> None:
    text = '@id("mine") permit (principal, action == Action::"issue_grant", resource) when '
    own = Source("own.cedar", text + '{ resource.name == "mine" };')
    found = run_cases(read_cases(default_cases()), [*default_sources(), own])

    assert (found.failed, found.undecided) == ((), ("mine",))


# ── what a case may say ──────────────────────────────────────────────────────────────────────────

CASE: Final = '[[cases]]\nrule = "r"\nname = "n"\nexpect = "allow"\n'


def result_of(text: str, catalog: Catalog | None = None) -> Result:
    (result,) = run_cases(
        read_cases([Source("own.cases.toml", text)]), default_sources(), catalog
    ).results
    return result


def refused(text: str, catalog: Catalog | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        run_cases(read_cases([Source("own.cases.toml", text)]), default_sources(), catalog)
    return caught.value.detail


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('expect = "deny"', "effect: deny, but it is allow"),
        ('expect = "allow"\nreason = "catalogue"', "reason: catalogue, but it is policy"),
        (
            'expect = "allow"\ndecided_by = ["operate-by-allow-list"]',
            "decided by: ['operate-by-allow-list'], but it is ['read-within-the-task']",
        ),
        (
            'expect = "allow"\nobligations = { approvals = 1 }',
            "obligations: {'approvals': 1}, but it is {}",
        ),
    ],
)
def test_a_case_that_fails_says_how(text: str, problem: str) -> None:
    result = result_of(CASE.replace('expect = "allow"', text))

    assert not result.passed
    assert result.problems == (problem,)
    assert result.as_json()["problems"] == [problem]


def test_an_error_is_not_the_deny_that_was_expected() -> None:
    text = CASE.replace('"allow"', '"deny"') + "trail = { calls = 2 }\n"
    overflow = (
        "policies = '''@id(\"o\") forbid (principal, action, resource) when "
        "{ context has task && context.task.trail.calls * 9223372036854775807 > 0 };'''\n"
    )
    result = result_of(overflow + text)

    assert not result.passed
    assert "overflow" in result.problems[0]


def test_policies_of_a_file_are_for_its_own_cases_alone() -> None:
    own = "policies = '''@id(\"no\") forbid (principal, action, resource);'''\n"
    files = read_cases(
        [
            Source("a.cases.toml", own + CASE.replace('"allow"', '"deny"')),
            Source("b.cases.toml", CASE),
        ]
    )
    found = run_cases(files, default_sources())

    assert [r.decision.policies for r in found.results] == [("no",), ("read-within-the-task",)]
    assert found.failed == ()
    assert "no" not in found.undecided


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (CASE + 'capability = "orders-read"\nagent = "writer"', ""),
        (CASE + 'tool = "send"\narguments = { to = "a" }\nagent = "writer"', ""),
        (CASE + 'capability = "orders"', "there is no capability 'orders' in the configuration"),
        (CASE + 'tool = "orders-read"', "there is no tool 'orders-read' in the configuration"),
        (CASE + 'agent = "nobody"', "there is no principal 'nobody' in the configuration"),
    ],
)
def test_names_are_those_of_the_configuration_if_there_is_one(text: str, words: str) -> None:
    if words:
        assert words in refused(text, CATALOG)
    else:
        assert result_of(text, CATALOG).problems == ()
    assert result_of(CASE + 'capability = "any"\nagent = "any"').passed, "without one all are good"


CATALOG: Final = Catalog(
    [
        Principal(
            name="writer",
            role=Role.AGENT,
            owner="o",
            capabilities=frozenset(("orders-read", "send")),
        )
    ],
    [
        Capability("orders-read", Power.READ, "vault", 1, 1),
        Capability("send", Power.OPERATE, "tool", 1, 1, arguments={"to": ("string", False)}),
    ],
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[case]]", 'case: unknown key\n    did you mean "cases"?'),
        (CASE + "risc = 3", 'cases[0].risc: unknown key\n    did you mean "risk"?'),
        (CASE + "proof = { bond = true }", 'cases[0].proof.bond: unknown key\n    did you mean "b'),
        (CASE + 'agent = { nme = "x" }', 'agent.nme: unknown key\n    did you mean "name"?'),
        (CASE.replace('"allow"', '"maybe"'), "cases[0].expect: Input should be 'allow', 'deny'"),
        (CASE + 'risk = "high"', "cases[0].risk: Input should be a valid integer"),
        (CASE + 'ttl = "soon"', "cases[0].ttl: "),
        (CASE + "at = 2026-01-01T00:00:00", "cases[0].at: Input should have timezone info"),
        (CASE + 'tool = { arguments = { a = "text" } }', "String should match pattern"),
        ("[[cases]]\n", "cases[0].rule: Field required"),
        (CASE + 'destination = "http://a b/"', "n: destination: not a plain URL or host"),
        (CASE + "arguments = { a = 1 }", "n: only tools have arguments"),
        ("x = ", "not valid TOML"),
    ],
)
def test_what_no_case_can_be_is_said_with_its_place(text: str, words: str) -> None:
    said = refused(text)

    assert said.startswith("own.cases.toml: ")
    assert words in said


def test_everything_wrong_is_said_at_once() -> None:
    said = refused(CASE + "risc = 3\n" + CASE + "trial = 1\n")
    assert "cases[0].risc" in said
    assert "cases[1].trial" in said
