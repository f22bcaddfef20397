"""Quotas by principal: exact in the long run, generous at first, and told in headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.errors import RateLimited
from broker.rates import MAX_NAMES, Rates
from tests.clocks import ManualClock


def taken(rates: Rates, name: str) -> bool:
    try:
        rates.take(name)
    except RateLimited:
        return False
    return True


def test_as_many_as_the_quota_may_come_at_once() -> None:
    rates = Rates(ManualClock(), quota=5, window_s=10)

    assert [rates.take("a").left for _ in range(5)] == [4, 3, 2, 1, 0]
    with pytest.raises(RateLimited) as caught:
        rates.take("a")

    assert caught.value.retry_after == 2
    assert caught.value.headers["RateLimit-Policy"] == '"principal";q=5;w=10'
    assert caught.value.headers["RateLimit"] == '"principal";r=0;t=10'
    assert rates.take("b").left == 4


def test_refused_requests_do_not_count() -> None:
    clock = ManualClock()
    rates = Rates(clock, quota=5, window_s=10)
    for _ in range(50):
        taken(rates, "a")

    clock.advance(2)

    assert taken(rates, "a")
    assert not taken(rates, "a")


def test_after_a_window_all_of_it_is_there_again() -> None:
    clock = ManualClock()
    rates = Rates(clock, quota=3, window_s=60)
    assert [taken(rates, "a") for _ in range(4)] == [True, True, True, False]

    clock.advance(60)

    assert [taken(rates, "a") for _ in range(4)] == [True, True, True, False]


@given(st.integers(1, 50), st.integers(1, 60), st.lists(st.floats(0, 5, width=32), max_size=100))
def test_never_more_than_twice_the_quota_in_a_window(
    quota: int, window_s: int, gaps: list[float]
) -> None:
    clock = ManualClock()
    rates = Rates(clock, quota=quota, window_s=window_s)
    times: list[float] = []
    for gap in gaps:
        clock.advance(gap)
        if taken(rates, "a"):
            times.append(clock.monotonic())

    for start in times:
        assert sum(start <= t < start + window_s for t in times) <= 2 * quota


def test_names_do_not_pile_up() -> None:
    rates = Rates(ManualClock(), quota=1, window_s=60)
    for number in range(MAX_NAMES + 10):
        rates.take(str(number))

    assert taken(rates, "0")  # forgotten
    assert not taken(rates, str(MAX_NAMES + 9))
