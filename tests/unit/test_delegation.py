"""Delegation only ever shrinks."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.delegation import Scope, attenuate, widens

NAMES = st.frozensets(st.sampled_from(["a", "b", "c", "d"]))
SCOPES = st.builds(Scope, NAMES, st.integers(0, 2**45))


def within(inner: Scope, outer: Scope) -> bool:
    return inner.capabilities <= outer.capabilities and inner.expires_at <= outer.expires_at


@given(SCOPES, SCOPES)
def test_a_child_is_within_its_parent_and_its_ask(parent: Scope, ask: Scope) -> None:
    child = attenuate(parent, ask)
    assert within(child, parent)
    assert within(child, ask)


@given(SCOPES, SCOPES)
def test_what_is_within_the_parent_is_given_whole(parent: Scope, ask: Scope) -> None:
    assert (attenuate(parent, ask) == ask) is within(ask, parent)


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


@given(SCOPES, NAMES)
def test_to_widen_is_to_ask_for_what_the_parent_lacks(parent: Scope, names: frozenset[str]) -> None:
    assert widens(parent, names) is bool(names - parent.capabilities)
