"""Counting human yeses, asking the next group, naming a request: nothing here knows a server."""

from __future__ import annotations

import json
from typing import Any, Final, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.approvals import (
    ANYBODY,
    APPROVAL_MOVES,
    ApprovalState,
    Group,
    Groups,
    Vote,
    Yeses,
    digest_of,
    needed,
)

NAMES: Final = ("ann", "ben", "cem", "dora", "eve")
GROUPS: Final = ("security", "platform", "leads")
votes_of = st.lists(
    st.builds(Vote, st.sampled_from(NAMES), st.just(1), st.just("ok"), st.booleans()), max_size=8
)
needs_of = st.dictionaries(st.sampled_from((ANYBODY, *GROUPS)), st.integers(0, 3), max_size=4)
escalated_of = st.frozensets(st.sampled_from(GROUPS))


@st.composite
def groups_of(draw: st.DrawFn) -> list[Group]:
    """Groups that escalate in any way, in circles and to themselves too."""
    members = st.frozensets(st.sampled_from(NAMES[:4]))
    to = st.sampled_from(("", *GROUPS))
    return [Group(n, draw(members), draw(to), draw(st.integers(1, 60_000))) for n in GROUPS]


def at_least(more: Yeses, less: Yeses) -> bool:
    groups = less.groups or {}
    return more.total >= less.total and all((more.groups or {})[g] >= n for g, n in groups.items())


@given(groups_of(), votes_of, needs_of, escalated_of, st.randoms())
def test_the_order_of_votes_and_repeats_change_nothing(
    groups: list[Group], votes: list[Vote], needs: dict[str, int], asked: frozenset[str], rnd: Any
) -> None:
    counted = Groups(groups).count(votes, needs, asked)
    shuffled = [*votes, *votes]
    rnd.shuffle(shuffled)
    assert Groups(groups).count(shuffled, needs, asked) == counted


@given(groups_of(), votes_of, needs_of, escalated_of, st.sampled_from(NAMES))
def test_one_yes_more_never_lowers_and_adds_one_at_most(
    groups: list[Group], votes: list[Vote], needs: dict[str, int], asked: frozenset[str], name: str
) -> None:
    before = Groups(groups).count(votes, needs, asked)
    after = Groups(groups).count([*votes, Vote(name, 2, "")], needs, asked)
    assert at_least(after, before)
    assert after.total <= before.total + 1
    assert Groups(groups).count([*votes, Vote(name, 2, "", yes=False)], needs, asked) == before
    assert after.meet(needs) or not before.meet(needs)


@given(groups_of(), needs_of, escalated_of, votes_of)
def test_who_is_in_no_group_counts_for_none(
    groups: list[Group], needs: dict[str, int], asked: frozenset[str], votes: list[Vote]
) -> None:
    known = Groups(groups)
    strangers = [Vote("eve", vote.at, vote.reason) for vote in votes]
    counted = known.count(strangers, needs, asked)
    assert not any((counted.groups or {}).values())
    assert known.may_vote("eve", needs, asked) == (ANYBODY in needs)


@given(groups_of(), needs_of, escalated_of, escalated_of, votes_of)
def test_asking_another_group_only_widens(
    groups: list[Group],
    needs: dict[str, int],
    asked: frozenset[str],
    more: frozenset[str],
    votes: list[Vote],
) -> None:
    known = Groups(groups)
    assert at_least(known.count(votes, needs, asked | more), known.count(votes, needs, asked))
    for name in NAMES:
        assert known.may_vote(name, needs, asked | more) or not known.may_vote(name, needs, asked)


@given(groups_of(), needs_of)
def test_a_ladder_ends_and_asks_each_group_once_in_order(
    groups: list[Group], needs: dict[str, int]
) -> None:
    ladder = Groups(groups).ladder(needs)
    assert len({name for _, name in ladder}) == len(ladder)
    assert [after for after, _ in ladder] == sorted(after for after, _ in ladder)
    for name in needs:
        group = next((g for g in groups if g.name == name), None)
        if group is not None and group.escalate_to not in ("", name):
            # A group that two lead to is asked when the first of them says so.
            assert {n: a for a, n in ladder}[group.escalate_to] <= group.escalate_ms


def test_a_group_that_two_lead_to_is_asked_after_the_shorter_time() -> None:
    groups = Groups(
        [
            Group("slow", frozenset(), "leads", 900),
            Group("swift", frozenset(), "leads", 100),
            Group("leads", frozenset(), "board", 50),
            Group("board", frozenset()),
        ]
    )
    assert groups.ladder({"slow": 1, "swift": 1}) == ((100, "leads"), (150, "board"))


@pytest.mark.parametrize(
    ("approvals", "approvers", "expected"),
    [
        (1, [], {ANYBODY: 1}),
        (2, [("security", 2)], {"security": 2}),
        (1, [("security", 2)], {"security": 2}),
        (3, [("security", 2)], {"security": 2, ANYBODY: 3}),
        (1, [("security", 0)], {ANYBODY: 1}),
        (2, [("security", 1), ("platform", 2)], {"security": 1, "platform": 2}),
    ],
)
def test_how_many_are_needed(
    approvals: int, approvers: list[tuple[str, int]], expected: dict[str, int]
) -> None:
    assert needed(approvals, approvers) == expected
    assert needed(approvals, approvers[::-1]) == expected


@given(st.integers(0, 5), st.lists(st.tuples(st.sampled_from(GROUPS), st.integers(0, 4))))
def test_what_meets_the_needs_are_as_many_as_were_asked_for(
    approvals: int, approvers: list[tuple[str, int]]
) -> None:
    needs = needed(approvals, approvers)
    assert max(needs.values()) >= approvals
    enough = Yeses(needs.get(ANYBODY, 0), {g: n for g, n in needs.items() if g != ANYBODY})
    assert enough.meet(needs)
    for group, count in needs.items():
        if count:
            less = {g: n - (g == group) for g, n in needs.items()}
            short = Yeses(less.get(ANYBODY, 0), {g: n for g, n in less.items() if g != ANYBODY})
            assert not short.meet(needs)


json_of = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
request_of = st.dictionaries(st.text(), json_of, max_size=4)


@given(request_of, request_of)
def test_a_digest_is_the_same_for_the_same_request_only(
    one: dict[str, Any], other: dict[str, Any]
) -> None:
    written = [json.dumps(request, sort_keys=True) for request in (one, other)]
    assert (digest_of(one) == digest_of(other)) == (written[0] == written[1])


@given(request_of)
def test_a_digest_does_not_know_the_order_of_members(request: dict[str, Any]) -> None:
    def turned(value: Any) -> Any:
        if isinstance(value, dict):
            members = cast("dict[str, Any]", value).items()
            return {name: turned(inner) for name, inner in reversed(list(members))}
        return [turned(v) for v in cast("list[Any]", value)] if isinstance(value, list) else value

    assert digest_of(turned(request)) == digest_of(request)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"a": 1}, {"a": 1.0}),
        ({"a": 1}, {"a": "1"}),
        ({"a": True}, {"a": 1}),
        ({"a": []}, {"a": {}}),
        ({"a": None}, {}),
        ({"a": [1, 2]}, {"a": [2, 1]}),
        ({"a": 10**18}, {"a": 10**18 + 1}),
        ({"a": "\u00e9"}, {"a": "e\u0301"}),
        ({"a": {"b": 1}}, {"a.b": 1}),
    ],
)
def test_what_looks_alike_is_another_request(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert digest_of(one) != digest_of(other)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_json_has_no_digest(bad: float) -> None:
    with pytest.raises(ValueError, match="JSON"):
        digest_of({"a": bad})


def test_every_state_has_its_moves_and_none_leads_back() -> None:
    assert set(APPROVAL_MOVES) == set(ApprovalState)
    for state, moves in APPROVAL_MOVES.items():
        assert ApprovalState.PENDING not in moves
        assert state not in moves
    over = {state for state, moves in APPROVAL_MOVES.items() if not moves}
    assert over == {"denied", "expired", "cancelled", "used"}
