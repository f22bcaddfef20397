"""A way shuts when nothing gets through, lets one probe at a time by, and opens at once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import BackendDown, BackendRefused, BackendUnavailable
from broker.lanes import Circuits, Lane, Lanes
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


def test_calls_that_fail_side_by_side_shut_it_once(lane: Lane) -> None:
    before = lane.failures
    assert [lane.failed(before) for _ in range(3)] == [True, False, False]
    assert lane.shut_for == 1


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


def test_each_capability_has_a_lane_of_its_own(clock: ManualClock) -> None:
    lanes = Lanes(clock, width=1, longest_s=LONGEST_S)
    lanes.of("vault", "orders-read").failed()
    assert lanes.of("vault", "orders-read").shut_for == 1
    assert lanes.of("vault", "orders-write").shut_for == 0
    assert lanes.of("token", "orders-read").shut_for == 0


def test_a_backend_that_is_back_has_its_shut_lanes_probed_at_once(clock: ManualClock) -> None:
    lanes = Lanes(clock, width=1, longest_s=LONGEST_S)
    shut, other = lanes.of("vault", "orders-read"), lanes.of("token", "orders-api")
    lanes.of("vault", "orders-write").answered()
    shut.failed()
    other.failed()

    assert lanes.reopen("vault") == ["orders-read"]
    assert (shut.shut_for, shut.shut_for, other.shut_for) == (0, 1, 1)


@pytest.fixture
def back() -> list[str]:
    return []


@pytest.fixture
def circuits(clock: ManualClock, back: list[str]) -> Circuits:
    return Circuits(clock, longest_s=LONGEST_S, back=back.append)


def fail(circuits: Circuits, capability: str, error: Exception) -> None:
    with pytest.raises(type(error)), circuits.watch("vault", capability):
        raise error


def test_10_a_backend_that_is_away_is_not_asked_until_a_probe_may_go(
    circuits: Circuits, clock: ManualClock
) -> None:
    fail(circuits, "orders-read", BackendDown())

    assert circuits.is_down("vault")
    assert circuits.shut_for("vault", "orders-write") == 1
    assert circuits.shut_for("token", "orders-api") == 0
    clock.advance(1)
    asked = [circuits.shut_for("vault", name) for name in ("orders-write", "orders-read")]
    assert asked == [0, 1], "the first to ask is the probe, and the only one"


def test_8_what_hangs_behind_a_backend_shuts_its_own_capability_alone(circuits: Circuits) -> None:
    fail(circuits, "orders-read", BackendUnavailable())

    assert circuits.shut_for("vault", "orders-read") == 1
    assert circuits.shut_for("vault", "orders-write") == 0
    assert not circuits.is_down("vault")


def test_a_no_is_an_answer(circuits: Circuits, back: list[str]) -> None:
    fail(circuits, "orders-read", BackendRefused())
    assert circuits.shut_for("vault", "orders-read") == 0
    fail(circuits, "orders-read", BackendDown())
    fail(circuits, "orders-write", BackendRefused())
    assert circuits.shut_for("vault", "orders-read") == 0
    assert back == ["vault"]


def test_calls_that_fail_side_by_side_shut_it_once_and_a_probe_that_fails_shuts_it_for_longer(
    circuits: Circuits, clock: ManualClock
) -> None:
    calls = [circuits.watch("vault", "orders-read") for _ in range(20)]
    for call in calls:
        call.__enter__()
    for call in calls:
        error = BackendDown()
        assert not call.__exit__(BackendDown, error, None)
    assert circuits.shut_for("vault", "orders-read") == 1
    clock.advance(1)
    assert circuits.shut_for("vault", "orders-read") == 0
    fail(circuits, "orders-read", BackendDown())
    assert circuits.shut_for("vault", "orders-read") == 2


def test_4_the_first_answer_opens_it_and_says_once_that_the_backend_is_back(
    circuits: Circuits, back: list[str]
) -> None:
    circuits.down("vault")
    circuits.down("vault")
    assert circuits.shut_for("vault", "orders-read") == 1, "however often it is told"

    with circuits.watch("vault", "orders-read", answers=False):
        pass
    assert circuits.is_down("vault"), "what was kept from before says nothing of now"
    circuits.reached("vault", "orders-read")
    circuits.reached("vault", "orders-read")

    assert circuits.shut_for("vault", "orders-read") == 0
    assert back == ["vault"]
