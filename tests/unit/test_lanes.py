"""A lane shuts when nothing gets through, lets one probe at a time by, and opens at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.lanes import Lane, Lanes
from tests.clocks import ManualClock

LONGEST_S = 30.0


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def lane(clock: ManualClock) -> Lane:
    return Lane(clock, 2, LONGEST_S)


def test_a_new_lane_is_open(lane: Lane) -> None:
    assert lane.shut_for == 0
    assert not lane.answered()


def test_a_failure_shuts_it_and_time_passes(lane: Lane, clock: ManualClock) -> None:
    lane.failed()
    assert lane.shut_for == 1
    clock.advance(0.25)
    assert lane.shut_for == 0.75


def test_when_its_time_is_up_one_probe_goes_and_the_others_wait(
    lane: Lane, clock: ManualClock
) -> None:
    lane.failed()
    clock.advance(1)
    assert lane.shut_for == 0
    assert lane.shut_for == 1, "the second asker is no probe"
    clock.advance(1)
    assert lane.shut_for == 0, "a probe that never came back is replaced"


def test_it_is_shut_longer_each_time_up_to_the_longest(lane: Lane) -> None:
    seen: list[float] = []
    for _ in range(8):
        lane.failed()
        seen.append(lane.shut_for)
    assert seen == [1, 2, 4, 8, 16, 30, 30, 30]


def test_the_first_answer_opens_it_for_all_and_says_so_once(lane: Lane, clock: ManualClock) -> None:
    lane.failed()
    lane.failed()
    assert lane.answered()
    assert lane.shut_for == 0
    assert lane.shut_for == 0
    assert not lane.answered()
    lane.failed()
    assert lane.shut_for == 1, "it starts anew"


@given(st.lists(st.sampled_from(["failed", "answered", "wait"]), max_size=50))
def test_it_is_never_shut_longer_than_the_longest(events: list[str]) -> None:
    clock = ManualClock()
    lane = Lane(clock, 1, LONGEST_S)
    for event in events:
        if event == "wait":
            clock.advance(0.7)
        elif event == "failed":
            lane.failed()
        else:
            lane.answered()
        assert 0 <= lane.shut_for <= LONGEST_S
    clock.advance(LONGEST_S)
    assert lane.shut_for == 0


async def test_no_more_than_its_width_are_in_it_at_once(lane: Lane) -> None:
    await lane.gate.acquire()
    assert not lane.gate.locked()
    await lane.gate.acquire()
    assert lane.gate.locked()


def test_each_capability_has_a_lane_of_its_own(clock: ManualClock) -> None:
    lanes = Lanes(clock, width=1, longest_s=LONGEST_S)
    lanes.of("vault", "orders-read").failed()
    assert lanes.of("vault", "orders-read").shut_for == 1
    assert lanes.of("vault", "orders-write").shut_for == 0
    assert lanes.of("token", "orders-read").shut_for == 0
