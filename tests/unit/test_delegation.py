"""Delegation only ever shrinks: scopes are a meet-semilattice."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.catalog import Capability, Power
from broker.delegation import OUTSIDE, Scope, attenuate, outside, scalar, widens

WORDS = st.frozensets(st.sampled_from("abcd"))
BOUND = st.none() | WORDS
SCALARS = st.one_of(
    st.booleans(),
    st.integers(-(2**63), 2**63),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=("Cs",)), max_size=4),
)
VALUES = st.frozensets(st.sampled_from(["1", "true", '"x"', '"y"']))
PARAMETERS = st.dictionaries(
    st.sampled_from("ab"), st.dictionaries(st.sampled_from("pq"), VALUES, min_size=1, max_size=2)
)
SCOPES = st.builds(Scope, WORDS, st.integers(0, 2**45), BOUND, BOUND, PARAMETERS, BOUND)
MOST = Scope(frozenset("abcd"), 2**46)
CAPABILITIES = st.builds(
    Capability,
    name=st.sampled_from("ab"),
    power=st.just(Power.READ),
    backend=st.just("tool"),
    ttl_ms=st.just(1),
    max_ttl_ms=st.just(1),
    data_class=st.sampled_from("abcd"),
    effects=WORDS,
)
ODD: list[Any] = [1, 1.0, True, "x", "y", "z", None, [], ["x"], ["x", "z"], {}]
GIVEN = st.dictionaries(st.sampled_from("pq"), st.sampled_from(ODD))


def holds(inner: frozenset[str] | None, outer: frozenset[str] | None) -> bool:
    return outer is None or (inner is not None and inner <= outer)


def within(inner: Scope, outer: Scope) -> bool:
    """The order that the meet belongs to."""
    return (
        inner.capabilities <= outer.capabilities
        and inner.expires_at <= outer.expires_at
        and holds(inner.data_classes, outer.data_classes)
        and holds(inner.effects, outer.effects)
        and holds(inner.may_act, outer.may_act)
        and all(
            holds(inner.parameters.get(capability, {}).get(name), values)
            for capability, named in outer.parameters.items()
            for name, values in named.items()
        )
    )


@given(SCOPES, SCOPES)
def test_a_child_is_within_its_parent_and_its_ask(parent: Scope, ask: Scope) -> None:
    child = attenuate(parent, ask)
    assert within(child, parent)
    assert within(child, ask)


@given(SCOPES, SCOPES)
def test_what_is_within_the_parent_is_given_whole(parent: Scope, ask: Scope) -> None:
    assert (attenuate(parent, ask) == ask) is within(ask, parent)


@given(SCOPES, SCOPES, SCOPES)
def test_nothing_more_is_taken_than_has_to_be(a: Scope, b: Scope, less: Scope) -> None:
    if within(less, a) and within(less, b):
        assert within(less, attenuate(a, b))


@given(SCOPES, SCOPES, SCOPES)
def test_a_chain_may_be_shrunk_in_any_grouping(a: Scope, b: Scope, c: Scope) -> None:
    assert attenuate(attenuate(a, b), c) == attenuate(a, attenuate(b, c))


@given(SCOPES, SCOPES)
def test_it_does_not_matter_who_asks_whom(a: Scope, b: Scope) -> None:
    assert attenuate(a, b) == attenuate(b, a)


@given(SCOPES, SCOPES)
def test_shrinking_twice_is_shrinking_once(parent: Scope, ask: Scope) -> None:
    once = attenuate(parent, ask)
    assert attenuate(parent, once) == once
    assert attenuate(parent, parent) == parent
    assert attenuate(MOST, parent) == parent


@given(SCOPES, SCOPES)
def test_to_widen_is_to_ask_for_what_the_parent_lacks(parent: Scope, ask: Scope) -> None:
    # What is left open isn't asked for, and a lifetime is clamped.
    inherited = attenuate(parent, replace(ask, capabilities=MOST.capabilities))
    filled = replace(
        ask,
        expires_at=0,
        data_classes=inherited.data_classes if ask.data_classes is None else ask.data_classes,
        effects=inherited.effects if ask.effects is None else ask.effects,
        may_act=inherited.may_act if ask.may_act is None else ask.may_act,
        parameters={
            capability: {**inherited.parameters[capability], **ask.parameters.get(capability, {})}
            for capability in inherited.parameters
        },
    )
    assert (widens(parent, ask) == "") is within(filled, parent)


@pytest.mark.parametrize(
    ("part", "ask"),
    [
        ("capabilities", Scope(frozenset("ab"), 1)),
        ("data_classes", Scope(frozenset("a"), 1, data_classes=frozenset(["b"]))),
        ("effects", Scope(frozenset("a"), 1, effects=frozenset(["b"]))),
        ("parameters.a.p", Scope(frozenset("a"), 1, parameters={"a": {"p": frozenset("3")}})),
        ("delegate_to", Scope(frozenset("a"), 1, may_act=frozenset(["b"]))),
        ("", Scope(frozenset("a"), 2**40)),
    ],
)
def test_the_part_that_asks_for_more_is_named(part: str, ask: Scope) -> None:
    one = frozenset(["a"])
    parent = Scope(one, 1, one, one, {"a": {"p": frozenset("12")}}, one)
    assert widens(parent, ask) == part


@given(SCOPES, SCOPES, CAPABILITIES, WORDS, GIVEN)
def test_what_a_child_may_use_each_of_those_above_may(
    parent: Scope, ask: Scope, capability: Capability, effects: frozenset[str], given_: Any
) -> None:
    child = attenuate(parent, ask)
    if not outside(child, capability, effects, given_):
        assert outside(parent, capability, effects, given_) == ""
        assert outside(ask, capability, effects, given_) == ""
    assert outside(child, capability, effects, given_) in ("", *OUTSIDE)


PAY = Capability("pay", Power.OPERATE, "tool", 1, 1, data_class="internal")


@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        ("acme", True),
        ("Acme", False),
        ("acme ", False),
        (7, True),
        (7.0, True),
        ("7", False),
        (7.5, False),
        (True, False),
        (1, False),
        (None, False),
        ([], False),
        (["acme", 7], True),
        (["acme", "other"], False),
        ([["acme"]], False),
        ({"acme": 7}, False),
        (float("nan"), False),
        (float("inf"), False),
    ],
)
def test_a_parameter_is_one_of_its_values_and_unknown_is_no(value: Any, *, allowed: bool) -> None:
    scope = Scope.read(frozenset(["pay"]), 1, {"parameters": {"pay": {"to": ["acme", 7]}}})
    why = outside(scope, PAY, frozenset(), {"to": value})
    assert (why == "") is allowed


def test_a_bounded_parameter_that_is_missing_is_refused_and_others_are_free() -> None:
    scope = Scope.read(frozenset(["pay"]), 1, {"parameters": {"pay": {"to": ["acme"]}}})
    assert outside(scope, PAY, frozenset(), {}) == "parameter_outside_limits"
    assert outside(scope, PAY, frozenset(), {"to": "acme", "note": {"any": "thing"}}) == ""
    assert outside(scope, replace(PAY, name="other"), frozenset(), {}) == ""


def test_true_is_no_one() -> None:
    scope = Scope.read(frozenset(["pay"]), 1, {"parameters": {"pay": {"n": [1], "b": [True]}}})
    assert outside(scope, PAY, frozenset(), {"n": 1, "b": True}) == ""
    assert outside(scope, PAY, frozenset(), {"n": True, "b": 1}) == "parameter_outside_limits"


@given(SCALARS, SCALARS)
def test_two_scalars_are_written_alike_if_json_says_the_same_by_them(one: Any, other: Any) -> None:
    same_kind = isinstance(one, bool) == isinstance(other, bool)
    assert (scalar(one) == scalar(other)) is (same_kind and one == other)


@given(SCOPES)
def test_limits_are_read_back_as_they_were_written(scope: Scope) -> None:
    text = scope.limits()
    found = Scope.read(scope.capabilities, scope.expires_at, json.loads(text) if text else {})
    assert found == scope
