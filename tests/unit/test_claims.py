"""Rules on claims: what is written, what holds, and that nothing else does."""

from __future__ import annotations

import asyncio
import re
import string
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.identity.models import Identity
from broker.identity.rules import MAX_CHARS, MAX_VALUES, IdentityRule, Rule, look_up, unmet

SCALARS = st.text(min_size=1) | st.integers() | st.booleans()
JSON = st.recursive(
    st.none() | SCALARS | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=6,
)
NAMES = st.text(alphabet="ab/~.01", max_size=4)


def identical(left: object, right: object) -> bool:
    return type(left) is type(right) and left == right


def elements_of(value: object) -> list[object]:
    return cast("list[object]", value) if isinstance(value, list) else [value]


def pointer(way: list[str]) -> str:
    """Write a way into objects as RFC 6901 says, without its first slash."""
    return "/".join(name.replace("~", "~0").replace("/", "~1") for name in way)


# ── values ───────────────────────────────────────────────────────────────────────────────────────


@given(wanted=st.lists(SCALARS, min_size=1, max_size=4), value=JSON)
def test_a_value_holds_if_it_is_identical_to_one_of_those_written(
    wanted: list[Any], value: Any
) -> None:
    rule = Rule.parse(wanted)
    elements = elements_of(value)
    expected = any(identical(element, one) for element in elements for one in wanted)
    assert rule.holds(value) is expected
    if len(wanted) == 1:
        assert Rule.parse(wanted[0]).holds(value) is expected


@given(wanted=st.lists(SCALARS, min_size=1, max_size=4), data=st.data())
def test_what_is_written_holds_alone_and_in_a_list(wanted: list[Any], data: st.DataObject) -> None:
    rule = Rule.parse(wanted)
    one = data.draw(st.sampled_from(wanted))
    assert rule.holds(one)
    assert rule.holds([None, 1.5, one])


@pytest.mark.parametrize(
    ("written", "value"),
    [
        (1, True),
        (True, 1),
        (1, 1.0),
        (0, False),
        ("1", 1),
        ("true", True),
        ("a", "A"),
        ("a", " a"),
        ("a", None),
        ("a", []),
        ("a", {}),
        ("a", ["b"]),
        ("a", [["a"]]),
        ("a", {"a": "a"}),
        ("None", None),
    ],
)
def test_another_type_or_spelling_is_a_no(written: object, value: object) -> None:
    assert not Rule.parse(written).holds(value)


# ── patterns ─────────────────────────────────────────────────────────────────────────────────────


@given(
    parts=st.lists(st.text(alphabet=string.ascii_lowercase, min_size=1), min_size=1),
    value=st.text(),
)
def test_a_pattern_matches_whole_texts_only(parts: list[str], value: str) -> None:
    rule = Rule.parse({"match": "|".join(parts)})
    for part in parts:
        assert rule.holds(part)
    assert rule.holds(value) is (value in parts)


@given(text=st.text(max_size=50))
def test_an_escaped_text_matches_itself_as_with_the_standard_library(text: str) -> None:
    pattern = re.escape(text)
    if not 0 < len(pattern) <= MAX_CHARS:
        return
    try:
        rule = Rule.parse({"match": pattern})
    except ValueError:
        return  # an escape that only the standard library knows: refused, not misread
    assert rule.holds(text)
    assert not rule.holds(text + "x")
    assert not rule.holds("x" + text)


@pytest.mark.parametrize(
    ("pattern", "value"),
    [
        ("^a|b$", "ab"),
        ("^a|b$", "xb"),
        ("^a|b$", "ax"),
        ("a", "a\n"),
        ("a$", "a\n"),
        ("(?m)^a$", "a\nb"),
        ("(?m)a$", "a\n"),
        ("refs/heads/.*", "refs/heads/a\nb"),
        ("", "a"),
        ("a*", 1),
        (".*", None),
        (".*", True),
        (".*", ["a\n"]),
        (".+", ""),
        (".*", "a" * (MAX_CHARS + 1)),
        (".*", "\ud800"),
    ],
)
def test_what_a_pattern_does_not_match_as_a_whole_is_a_no(pattern: str, value: object) -> None:
    if pattern:
        assert not Rule.parse({"match": pattern}).holds(value)
    else:
        with pytest.raises(ValueError, match="pattern"):
            Rule.parse({"match": pattern})


@pytest.mark.parametrize("value", ["main", "release/12", ["x", "release/1"]])
def test_a_pattern_of_alternatives(value: object) -> None:
    assert Rule.parse({"match": "main|release/[0-9]+"}).holds(value)


@pytest.mark.parametrize(
    "pattern",
    [
        "(",
        "a)|(?:b",
        "(?x)a #",
        "[",
        "a{1000000000}",
        r"\w{1000}{100}",
        "(?=a)",
        r"(a)\1",
        "a\\",
        "\ud800",
        "a" * (MAX_CHARS + 1),
    ],
)
def test_what_is_no_pattern_is_refused_when_written(pattern: str) -> None:
    with pytest.raises(ValueError, match="is not a pattern of 1 to"):
        Rule.parse({"match": pattern})


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|a)*b", "(a*)*(a*)*b", ".*.*.*.*.*x"])
async def test_no_text_keeps_a_pattern_busy(pattern: str) -> None:
    # With a matcher that backtracks this takes longer than anyone waits.
    rule = Rule.parse({"match": pattern})
    async with asyncio.timeout(5):
        assert not await asyncio.to_thread(rule.holds, "a" * MAX_CHARS)


# ── what is written ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "written",
    [
        None,
        "",
        1.5,
        [],
        [""],
        ["a", None],
        [["a"]],
        ["a"] * (MAX_VALUES + 1),
        {},
        {"match": 1},
        {"match": ["a"]},
        {"match": "a", "not": "b"},
        {"matches": "a"},
        [{"match": "a"}],
    ],
    ids=lambda value: str(value)[:30],
)
def test_what_is_no_rule_is_refused(written: object) -> None:
    with pytest.raises(ValueError, match=r"match = |is not a pattern"):
        Rule.parse(written)


@given(written=JSON | st.fixed_dictionaries({"match": st.text()}))
def test_a_rule_that_is_read_can_be_written_and_read_again(written: object) -> None:
    try:
        rule = Rule.parse(written)
    except ValueError:
        return
    assert Rule.parse(rule.written) == rule
    assert hash(Rule.parse(rule.written)) == hash(rule)


# ── names ────────────────────────────────────────────────────────────────────────────────────────


@given(way=st.lists(NAMES, min_size=1, max_size=4), value=JSON)
def test_a_pointer_leads_where_it_was_written_for(way: list[str], value: object) -> None:
    claims: Any = value
    for name in reversed(way):
        claims = {name: claims}
    assert look_up(claims, pointer(way)) is value


@given(claims=st.dictionaries(NAMES, JSON, max_size=4), name=NAMES)
def test_a_pointer_leads_nowhere_else(claims: dict[str, object], name: str) -> None:
    value: object = claims
    for part in name.split("/"):
        unescaped = part.replace("~1", "/").replace("~0", "~")
        value = cast("Any", value).get(unescaped) if isinstance(value, dict) else None
    assert look_up(claims, name) is value


@pytest.mark.parametrize("claims", [{}, {"a": None}, {"a": "b"}, {"a": ["b"]}, {"a/b": "x"}])
def test_a_claim_that_is_not_there_meets_no_rule(claims: dict[str, object]) -> None:
    rules = {"a/b": Rule.parse({"match": ".*"})}
    assert unmet(rules, claims) == "a/b"


@given(names=st.lists(NAMES, unique=True, max_size=4), data=st.data())
def test_the_first_rule_that_is_not_met_is_named(names: list[str], data: st.DataObject) -> None:
    met = {name: data.draw(st.booleans()) for name in names}
    claims: Any = {}
    rules: dict[str, Rule] = {}
    for index, name in enumerate(names):
        key = f"{index}{name}"
        claims[key] = "yes" if met[name] else "no"
        rules[pointer([key])] = Rule.parse("yes")
    failing = [pointer([f"{index}{name}"]) for index, name in enumerate(names) if not met[name]]
    assert unmet(rules, claims) == (failing[0] if failing else None)


# ── identities ───────────────────────────────────────────────────────────────────────────────────


def identity(**claims: object) -> Identity:
    return Identity("ci", "https://ci.example", "agent/a", "jwt", 0, claims)


def test_an_identity_rule_asks_for_issuer_subject_and_claims() -> None:
    subject, claims = Rule.parse("agent/a"), {"ref": Rule.parse("main")}
    assert IdentityRule("ci", subject).matches(identity())
    assert IdentityRule("ci", None, claims).matches(identity(ref="main"))
    assert IdentityRule("ci", subject, claims).matches(identity(ref="main"))
    assert not IdentityRule("ci", subject, claims).matches(identity(ref="other"))
    assert not IdentityRule("ci", subject, claims).matches(identity())
    assert not IdentityRule("ci", Rule.parse("agent/b"), claims).matches(identity(ref="main"))
    assert not IdentityRule("other", subject, claims).matches(identity(ref="main"))


def test_a_rule_that_asks_for_nothing_matches_nobody() -> None:
    assert not IdentityRule("ci").matches(identity())
