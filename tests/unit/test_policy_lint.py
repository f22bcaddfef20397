"""The lint: what it finds, and that it never says of a policy in use that it is in vain."""

from __future__ import annotations

from typing import Final

import pytest

from broker.catalog import Capability, Catalog, Power, Principal, Revocability
from broker.identity.models import Role
from broker.policy.cedar import Source
from broker.policy.folder import default_sources
from broker.policy.lint import Finding, Level, lint

CATALOG: Final = Catalog(
    [Principal(name="writer", role=Role.AGENT, owner="docs@example.com")],
    [
        Capability("orders", Power.READ, "vault", 1, 1, effects=frozenset(("reads:orders",))),
        Capability("deploy", Power.PRIVILEGED, "vault", 1, 1, data_class="secret"),
        Capability("sts", Power.READ, "vault", 1, 1, revocability=Revocability.TTL_ONLY),
        Capability("send", Power.OPERATE, "tool", 1, 1, arguments={"to": ("string", False)}),
    ],
)
HOUR: Final = "context.time.hour"
BREAK: Final = 'principal, action == Action::"break_glass", resource'
ISSUE: Final = 'principal, action == Action::"issue_grant", resource'


def found(text: str, catalog: Catalog | None = CATALOG) -> list[Finding]:
    """What is found beside the default policies, and about the given ones alone."""
    every = lint([*default_sources(), Source("own.cedar", text)], catalog)
    return [finding for finding in every if finding.file == "own.cedar"]


def codes(text: str, catalog: Catalog | None = CATALOG) -> list[str]:
    return [finding.code for finding in found(text, catalog)]


def permit(scope: str = ISSUE, when: str = "", notes: str = "", effect: str = "permit") -> str:
    condition = f" when {{ {when} }}" if when else ""
    return f'@id("own") {notes} {effect} ({scope}){condition};'


def forbid(when: str, scope: str = ISSUE) -> str:
    return permit(scope, when, effect="forbid")


@pytest.mark.parametrize("catalog", [None, CATALOG], ids=["alone", "with a catalogue"])
def test_nothing_is_doubtful_about_the_default_policies(catalog: Catalog | None) -> None:
    assert lint(default_sources(), catalog) == ()


# ── what can't be used ───────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "policy", "words"),
    [
        (permit(when="nope"), "", "invalid variable: nope"),
        (permit(when="resource.colour == 1"), "own", "attribute `colour`"),
        (permit('principal, action == Action::"issue", resource'), "own", "unrecognized action"),
        (forbid("true").replace("forbid", '@max_ttl("1m") forbid'), "own", "can't be lifted"),
        (permit(notes='@require_approval("none")'), "own", 'from "1" to "10"'),
        (permit(notes='@owner("me")'), "own", "@owner is not known"),
        ("permit (principal == ?principal, action, resource);", "", "templates"),
    ],
    ids=lambda value: value[:40],
)
def test_what_cant_be_used_is_an_error_and_is_said_alone(
    text: str, policy: str, words: str
) -> None:
    every = lint([Source("own.cedar", text), *default_sources()], CATALOG)

    assert {finding.level for finding in every} == {Level.ERROR}
    assert {finding.code for finding in every} == {"invalid"}
    assert (every[0].file, every[0].policy) == ("own.cedar", policy)
    assert words in every[0].text


def test_a_name_given_twice_is_an_error() -> None:
    (finding,) = found(forbid("false") + forbid("context.risk > 1"))

    assert (finding.level, finding.code, finding.policy) == ("error", "duplicate-id", "own")


def test_a_policy_without_a_name_is_told_to_have_one() -> None:
    (finding,) = found(permit(when="context.risk < 3", notes="").replace('@id("own")', ""))[:1]

    assert (finding.code, finding.policy) == ("unnamed", "own.cedar#1")
    assert "@id" in finding.remedy
    assert finding.as_json()["level"] == "warning"


# ── what can never apply ─────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("when", "why"),
    [
        ("false", "false can't be"),
        ("context.risk > 100", "context.risk > 100 can't be"),
        ("context.risk > 4 && context.risk < 5", "context.risk > 4 and context.risk < 5 can't"),
        ("context.risk == 3 && context.risk != 3", "can't both be"),
        ("context.time.weekday == 8", "context.time.weekday == 8 can't be"),
        ('resource.power == "admin"', 'resource.power == "admin" can\'t be'),
        ('principal.role == "agnet"', "can't be"),
        ('context.verdict == "bad"', "can't be"),
        ('context.environment == "a" && context.environment == "b"', "can't both be"),
        ('["a", "b"].contains(context.environment) && context.environment == "c"', "both"),
        ("context.after.private && !context.after.private", "can't both be"),
        ('principal == Principal::"writer" && principal.name == "other"', "can't both be"),
        ("context.task.trail.calls < 0", "can't be"),
        (
            "(context.risk < 3 || context.risk > 7) && context.risk == 5",
            "context.risk == 5 can't both be",
        ),
        ("if context.after.private then false else context.risk < 0", "can't be"),
        (f"{HOUR} > 3 && {HOUR} < 6 && {HOUR} != 4 && {HOUR} != 5", "contradict each other"),
        ('resource == Capability::"deploy" && resource.power == "read"', "can't both be"),
        ('resource.name == "sts" && resource.instant', "can't both be"),
        ('resource == Capability::"orders" && resource.data_class == "secret"', "can't both"),
        ('principal in Principal::"writer" && principal.name == "other"', "can't both be"),
    ],
)
def test_what_can_never_apply_is_unreachable(when: str, why: str) -> None:
    (finding,) = [f for f in found(forbid(when)) if f.code == "unreachable"]

    assert why in finding.text
    assert finding.text.startswith("never applies: ")


@pytest.mark.parametrize(
    "when",
    [
        "context.risk > 99",
        "context.risk + 1 > 101",
        "context.risk < 5 && context.chain.grants > 7",
        'resource.power == "privileged" && context.risk == 1',
        'resource.data_class == "a" || resource.data_class == "b"',
        'context.intent like "a*" && context.intent == "b"',
        'context.environment == "a" || context.risk > 100',
        'resource == Capability::"deploy" && resource.data_class == "secret"',
        'principal in Team::"a" && principal in Team::"b"',
        'context.power == "privileged" && resource.power == "read"',
    ],
)
def test_what_may_apply_is_not(when: str) -> None:
    text = forbid(f"context has intent && {when}")

    assert "unreachable" not in codes(text, None)
    assert "unreachable" not in codes(text)


def test_of_the_only_capability_it_is_known_what_it_is_as_well() -> None:
    only = Catalog([], [CATALOG.capabilities["orders"]])
    same = forbid('resource == Capability::"orders" && resource.power == "privileged"')
    assert codes(same, only) == ["unreachable"]
    assert "too-wide" not in codes(permit(ISSUE + ' == Capability::"orders"'), only)


def test_unless_is_understood_as_well() -> None:
    text = f'@id("own") forbid ({ISSUE}) unless {{ context.risk >= 0 || context.after.private }};'
    assert codes(text) == ["unreachable"]


def test_a_tools_calls_are_no_plain_call_tool() -> None:
    exact = found(permit('principal, action == Action::"call_tool", resource'))
    assert [f.code for f in exact] == ["unreachable"]
    assert exact[0].remedy == 'write action in Action::"call_tool"'
    group = forbid("context.risk == 7", 'principal, action in Action::"call_tool", resource')
    assert codes(group) == codes(group, None) == []


# ── names that aren't there ──────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (forbid("context.risk == 7", ISSUE + ' == Capability::"order"'), 'capability "order"'),
        (forbid('resource.name == "order"'), 'capability or tool "order"'),
        (forbid('context.chain.effects.contains("reads:order")'), 'effect "reads:order"'),
        (forbid('context.adds.effects.containsAny(["x:y", "reads:orders"])'), 'effect "x:y"'),
        (forbid('context.after.data_classes.contains("secrets")'), 'data class "secrets"'),
        (forbid('resource.data_class == "secrets"'), 'data class "secrets"'),
        (forbid('["secret", "secrets"].contains(resource.data_class)'), 'data class "secrets"'),
        (forbid('principal.name == "wrter"'), 'principal "wrter"'),
        (forbid('principal in Team::"sales@example.com"'), 'owner "sales@example.com"'),
        (forbid('context.task.capabilities.contains("order")'), 'capability or tool "order"'),
        (
            forbid("true", 'principal, action in Action::"call_tool", resource == Tool::"sned"'),
            "send",
        ),
    ],
    ids=lambda value: value[-60:],
)
def test_a_name_that_isnt_in_the_configuration_is_pointed_out(text: str, what: str) -> None:
    names = [f for f in found(text) if f.code == "unknown-name"]

    assert len(names) == 1
    assert what in names[0].text + names[0].remedy
    assert "unknown-name" not in codes(text, None), "without a configuration nothing is known"


def test_names_that_are_there_are_not() -> None:
    text = forbid(
        'resource.name == "orders" && principal in Team::"docs@example.com" && '
        'context.chain.effects.contains("reads:orders") && resource.data_class == "internal"'
    )
    assert codes(text) == []


# ── what is said in vain ─────────────────────────────────────────────────────────────────────────


def test_a_permit_all_of_which_is_forbidden_is_shadowed() -> None:
    (finding,) = found(
        permit(
            when='resource.power == "privileged" && !context.ledger_durable '
            "&& context.after.private",
            notes='@require_approval("2")',
        )
    )

    assert finding.code == "shadowed"
    assert "privileged-needs-a-durable-ledger" in finding.text


def test_several_forbids_may_shadow_one_permit_together() -> None:
    text = permit(when='context.risk >= 90 || context.verdict == "compromised"')
    (finding,) = [f for f in found(text) if f.code == "shadowed"]

    assert "compromised-gets-nothing and high-risk-gets-nothing" in finding.text or (
        "high-risk-gets-nothing and compromised-gets-nothing" in finding.text
    )


def test_a_permit_some_of_which_is_left_is_not_shadowed() -> None:
    assert "shadowed" not in codes(permit(when="context.risk >= 79", notes='@max_ttl("1m")'))


@pytest.mark.parametrize(
    "text",
    [
        forbid("context.risk >= 90"),
        forbid('context.risk > 80 && resource.power == "read"'),
        forbid('"compromised" == context.verdict'),
        forbid('!(context.verdict != "compromised")'),
        permit(when='resource.power == "read"'),
        permit(when='["read"].contains(resource.power)'),
        permit(
            'principal in Team::"docs@example.com", action == Action::"issue_grant", resource '
            '== Capability::"orders"'
        ),
        permit(when='resource.power == "operate"', notes='@notify("watch")'),
    ],
)
def test_what_another_policy_says_already_is_redundant(text: str) -> None:
    assert codes(text) == ["redundant"]


@pytest.mark.parametrize(
    "text",
    [
        forbid("context.risk >= 79"),
        forbid("context.risk >= 90").replace("forbid", '@advice("Wait.") forbid'),
        permit(when='resource.power == "read"', notes='@max_ttl("1m")'),
        permit(when='resource.power == "operate"', notes='@notify("others")'),
        permit(BREAK + ' == Capability::"orders"', 'resource.power == "read"'),
    ],
)  # fmt: skip
def test_what_says_or_asks_for_more_is_not(text: str) -> None:
    assert "redundant" not in codes(text)


def test_of_two_that_say_the_same_the_later_is_named() -> None:
    one = forbid("context.chain.calls > 9 && context.after.private")
    two = forbid("context.after.private && !(context.chain.calls <= 9)").replace('"own"', '"two"')
    (finding,) = found(one + "\n" + two)

    assert (finding.policy, finding.code) == ("two", "redundant")
    assert finding.text == "says nothing that own (own.cedar) doesn't say"


# ── what is wide ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (permit("principal, action, resource"), "permits everything to everybody"),
        (permit("principal, action, resource", "context.risk < 3"), "permits all actions"),
        (permit('principal, action == Action::"break_glass", resource'), "break the glass"),
        (
            permit(
                'principal, action == Action::"break_glass", resource', 'principal.role == "agent"'
            ),
            "break the glass",
        ),
        (permit('principal, action == Action::"approve", resource'), "lets anybody approve"),
        (permit(when='resource.power != "read"'), "what is privileged to every agent"),
        (permit(ISSUE + ' == Capability::"deploy"'), "what is privileged to every agent"),
    ],
)
def test_what_is_too_wide_is_said(text: str, words: str) -> None:
    wide = [finding for finding in found(text) if finding.code == "too-wide"]

    assert words in " ".join(finding.text for finding in wide)
    assert all(finding.remedy for finding in wide)


@pytest.mark.parametrize(
    "text",
    [
        permit('principal == Principal::"writer", action == Action::"break_glass", resource'),
        permit(BREAK, 'principal.name == "writer"'),
        permit('principal, action == Action::"approve", resource', 'principal.role == "operator"'),
        permit(when='resource.power != "read"', notes='@require_approval("1")'),
        permit(when='resource.power == "operate"', notes='@max_ttl("1m")'),
        permit(ISSUE + ' == Capability::"sts"', notes='@max_ttl("1m")'),
        permit('principal in Team::"docs@example.com", action == Action::"issue_grant", resource',
               'resource.power == "privileged"'),
        forbid("context.risk == 3", "principal, action, resource"),
    ],
)  # fmt: skip
def test_what_is_not_is_not(text: str) -> None:
    assert "too-wide" not in codes(text)


# ── whom they tell ───────────────────────────────────────────────────────────────────────────────


def test_a_channel_that_isnt_there_is_named() -> None:
    text = permit(notes='@notify("security, pager")')
    sources = [*default_sources(), Source("own.cedar", text)]

    every = lint(sources, CATALOG, ["security", "ops"])
    (finding,) = [one for one in every if one.code == "unknown-channel"]

    assert (finding.policy, finding.level) == ("own", Level.WARNING)
    assert finding.text == 'tells the channel "pager", which the configuration doesn\'t have'
    assert "there are: security, ops" in finding.remedy


def test_without_a_configuration_any_channel_may_be_there() -> None:
    assert "unknown-channel" not in codes(permit(notes='@notify("pager")'))


def test_the_default_policies_tell_whoever_there_may_be() -> None:
    assert lint(default_sources(), CATALOG, []) == ()
