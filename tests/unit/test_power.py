"""Effective power: one rule, for what was done and for what can be done."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.catalog import Capability, Power
from broker.power import (
    PRIVATE,
    Allowed,
    effective_power,
    exposure,
    power_of_trail,
    provision,
    tier,
)
from broker.trail import Step, Trail

DAY: Final = 86_400_000
NOW: Final = 1_800_000_000_000
EFFECTS: Final = ("ingests:web", "ingests:mail", "egress:internet", "reads:orders", "writes:x")
CLASSES: Final = ("public", "internal", "confidential", "secret")


def capability(name: str = "c", power: Power = Power.READ, **fields: Any) -> Capability:
    return Capability(name, power, "token", 1, 1, **fields)


CUSTOMERS: Final = capability("customers", data_class="confidential")
PAGES: Final = capability("pages", data_class="public", effects=frozenset({"ingests:web"}))
MAIL: Final = capability("mail", Power.OPERATE, effects=frozenset({"egress:internet"}))
POST: Final = capability("post", effects=frozenset({"egress:internet"}))

trails = st.builds(
    Trail,
    effects=st.frozensets(st.sampled_from(EFFECTS)),
    data_classes=st.frozensets(st.sampled_from(CLASSES)),
    grants=st.integers(0, 3),
    rank=st.integers(0, 2),
)
capabilities = st.builds(
    capability,
    st.sampled_from("abcdefgh"),
    st.sampled_from(Power),
    data_class=st.sampled_from(CLASSES),
    effects=st.frozensets(st.sampled_from(EFFECTS), max_size=2),
)
sets = st.lists(capabilities, max_size=4, unique_by=lambda c: c.name)


@pytest.mark.parametrize(
    ("usable", "power", "because"),
    [
        ([], Power.READ, ("nothing can be used",)),
        ([CUSTOMERS], Power.READ, ("customers is read",)),
        ([CUSTOMERS, MAIL], Power.OPERATE, ("mail is operate",)),
        ([CUSTOMERS, POST], Power.READ, ("customers is read", "post is read")),
        (
            [CUSTOMERS, PAGES],
            Power.OPERATE,
            ("private data (confidential) and untrusted input (ingests:web), together",),
        ),
        (
            [POST, PAGES],
            Power.OPERATE,
            ("untrusted input (ingests:web) and a way out (egress:internet), together",),
        ),
        (
            [CUSTOMERS, PAGES, MAIL],
            Power.PRIVILEGED,
            (
                (
                    "private data (confidential), untrusted input (ingests:web)"
                    " and a way out (egress:internet), together"
                ),
            ),
        ),
        ([capability("deploy", Power.PRIVILEGED)], Power.PRIVILEGED, ("deploy is privileged",)),
    ],
    ids=lambda value: str(value) if isinstance(value, Power) else None,
)
def test_power_rises_with_combinations_and_says_why(
    usable: list[Capability], power: Power, because: tuple[str, ...]
) -> None:
    found = effective_power(usable, Trail())

    assert found.power is power
    assert found.because == because


def test_what_was_read_before_counts_with_what_can_be_used_now() -> None:
    read = Trail(data_classes=frozenset({"confidential"}), effects=frozenset({"ingests:web"}))

    assert effective_power([], read).power is Power.OPERATE
    assert effective_power([POST], read).power is Power.PRIVILEGED
    assert effective_power([POST], read).exposure.lethal
    assert effective_power([POST], Trail()).power is Power.READ


def test_a_dead_credentials_rank_counts_for_decisions_and_not_for_what_can_be_done() -> None:
    used = Trail(grants=1, rank=Power.OPERATE.rank)

    assert effective_power([], used).power is Power.READ
    assert power_of_trail(used).power is Power.OPERATE
    assert power_of_trail(used).because == ("operate power was used",)
    assert power_of_trail(Trail()).because == ("nothing was used",)


def test_which_data_is_private_is_configurable() -> None:
    assert not effective_power([CUSTOMERS], Trail(), frozenset({"secret"})).exposure.private
    assert effective_power([PAGES], Trail(), frozenset({"public"})).exposure.private


@given(sets, trails)
def test_the_power_of_what_can_be_done_is_the_tier_of_having_done_it(
    usable: list[Capability], trail: Trail
) -> None:
    fresh = replace(trail, rank=0)
    done = fresh
    for c in usable:
        done = done.after(Step(c.effects, c.data_class, lasting=True, rank=c.power.rank))

    assert effective_power(usable, fresh).power is tier(done, PRIVATE)
    assert effective_power(usable, trail).power is tier(done, PRIVATE), "the past has no rank"


@given(trails, st.frozensets(st.sampled_from(EFFECTS)), st.frozensets(st.sampled_from(CLASSES)))
def test_more_effects_never_lower_the_tier(
    trail: Trail, effects: frozenset[str], classes: frozenset[str]
) -> None:
    more = replace(
        trail, effects=trail.effects | effects, data_classes=trail.data_classes | classes
    )

    assert tier(more).rank >= tier(trail).rank
    assert effective_power([], more).power.rank >= effective_power([], trail).power.rank


@given(sets, sets, trails)
def test_a_chain_has_at_least_the_power_of_each_of_its_tasks_in_any_order(
    some: list[Capability], others: list[Capability], trail: Trail
) -> None:
    names = {c.name for c in some}
    both = [*some, *(c for c in others if c.name not in names)]

    for part in (some, both[len(some) :]):
        whole = effective_power(both, trail).power
        assert whole.rank >= effective_power(part, trail).power.rank
    assert effective_power(both, trail) == effective_power(both[::-1], trail)


@given(sets, trails)
def test_it_always_says_why(usable: list[Capability], trail: Trail) -> None:
    for found in (effective_power(usable, trail), power_of_trail(trail)):
        assert found.because
        assert all(found.because)
    assert effective_power(usable, trail).power.rank >= max(
        (c.power.rank for c in usable), default=0
    )


@given(trails)
def test_the_lethal_combination_is_privileged_and_nothing_less_is(trail: Trail) -> None:
    found = tier(replace(trail, rank=0))

    assert (found is Power.PRIVILEGED) == exposure(trail).lethal


# Used against granted.


def allowed(name: str, power: Power = Power.READ, **times: int) -> Allowed:
    return Allowed(capability=capability(name, power), **times)


def test_what_was_used_would_have_been_enough() -> None:
    found = provision(
        [
            allowed("a", since=NOW - 90 * DAY, used_at=NOW - DAY),
            allowed("b", Power.OPERATE, since=NOW - 90 * DAY, used_at=NOW - 40 * DAY),
            allowed("c", Power.PRIVILEGED, since=NOW - 90 * DAY),
        ],
        NOW - 30 * DAY,
    )

    assert [row.capability.name for row in found.used] == ["a"]
    assert [row.capability.name for row in found.unused] == ["b", "c"]
    assert found.too_new == frozenset()
    assert (found.highest_allowed, found.highest_used) == (Power.PRIVILEGED, Power.READ)


@pytest.mark.parametrize(
    ("since", "too_new"),
    [(NOW - 31 * DAY, False), (NOW - 30 * DAY, False), (NOW - 29 * DAY, True), (0, True)],
    ids=["before", "just", "after", "unknown"],
)
def test_what_is_new_is_not_held_against_anybody(since: int, too_new: bool) -> None:
    found = provision([allowed("a", since=since)], NOW - 30 * DAY)

    assert [row.capability.name for row in found.unused] == ["a"]
    assert found.too_new == (frozenset({"a"}) if too_new else frozenset())
    assert found.highest_used is None


@given(
    st.lists(
        st.builds(
            allowed,
            st.sampled_from("abcdefgh"),
            st.sampled_from(Power),
            since=st.integers(0, NOW),
            used_at=st.integers(0, NOW),
        ),
        unique_by=lambda row: row.capability.name,
    ),
    st.integers(1, NOW),
)
def test_each_capability_is_used_or_unused(rows: list[Allowed], start: int) -> None:
    found = provision(rows, start)

    names = [row.capability.name for row in (*found.used, *found.unused)]
    assert sorted(names) == sorted(row.capability.name for row in rows)
    assert all(row.used_at >= start for row in found.used)
    assert found.too_new <= {row.capability.name for row in found.unused}
    assert (found.highest_used is None) == (not found.used)
