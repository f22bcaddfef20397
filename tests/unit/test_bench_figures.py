"""The arithmetic of the benchmark."""

from __future__ import annotations

import math
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.dev.bench.figures import Rounds, brief, by_turns, grows, percentile


def test_percentiles_lie_between_what_was_seen() -> None:
    values = [float(n) for n in range(101)]
    assert percentile(values, 50) == pytest.approx(50)
    assert percentile(values, 99) == pytest.approx(99)
    assert percentile([1.0, 2.0], 50) == pytest.approx(1.5)


def test_one_value_has_no_percentile() -> None:
    with pytest.raises(ValueError, match="says nothing"):
        percentile([1.0], 99)


@pytest.mark.parametrize(
    ("ratio", "said"),
    [
        (0, "0"),
        (0.00207, "0.0021"),
        (0.0116, "0.012"),
        (0.1, "0.10"),
        (1.006, "1.01"),
        (12, "12.00"),
    ],
)
def test_a_small_ratio_says_something_too(ratio: float, said: str) -> None:
    assert brief(ratio) == said


def test_the_ratio_is_that_of_the_medians_and_the_spread_that_of_the_rounds() -> None:
    rounds = Rounds([10, 30, 20], [10, 10, 40])
    assert rounds.medians == (20, 10)
    assert rounds.ratio == 2
    assert rounds.spread == (0.5, 3)


def test_both_sides_take_turns_and_each_begins_as_often() -> None:
    told: list[str] = []
    times = count()

    def side(name: str) -> float:
        told.append(name)
        return float(next(times))

    rounds = by_turns(4, lambda: side("A"), lambda: side("B"), lambda: told.append("|"))
    assert "".join(told) == "|BA|AB|BA|AB"
    assert rounds == Rounds([1, 2, 5, 6], [0, 3, 4, 7])


@given(st.floats(-2, 3), st.floats(0.01, 100))
def test_the_fit_finds_the_power_that_made_the_points(exponent: float, factor: float) -> None:
    fit = grows([(x, factor * x**exponent) for x in (1, 10, 100, 1000)])
    assert fit.exponent == pytest.approx(exponent, abs=1e-9)
    assert fit.factor == pytest.approx(factor, rel=1e-6)
    assert fit.r2 == pytest.approx(1, abs=1e-6) or abs(exponent) < 1e-6


def test_the_fit_is_the_least_squares_of_the_logarithms() -> None:
    # By hand: the logarithms to base 2 are (0, 0), (1, 0), (2, 3), whose slope is 3/2.
    fit = grows([(1, 1), (2, 1), (4, 8)])
    assert fit.exponent == pytest.approx(1.5)
    assert fit.factor == pytest.approx(2**-0.5)
    assert fit.r2 == pytest.approx(0.75)


def test_what_is_flat_has_exponent_0() -> None:
    fit = grows([(1, 5), (10, 5), (100, 5)])
    assert (fit.exponent, fit.r2) == (0, 1)
    assert fit.factor == pytest.approx(5)


def test_none_is_no_point_of_the_fit() -> None:
    assert grows([(0, 7), (1, 2), (10, 20)]).exponent == pytest.approx(1)


@pytest.mark.parametrize("points", [[], [(0, 1), (10, 1)], [(5, 1), (5, 2)]], ids=str)
def test_one_point_has_no_line(points: list[tuple[float, float]]) -> None:
    with pytest.raises(ValueError, match="two points"):
        grows(points)


def test_the_curve_is_fitted_where_it_can_be() -> None:
    from broker.dev.bench.growth import Curve  # noqa: PLC0415

    curve = Curve("t", "x", "ms", {"many": [(1, 1), (10, 100)], "one": [(1, 3)]})
    row = curve.row()["lines"]
    assert row["many"]["exponent"] == pytest.approx(2)
    assert "exponent" not in row["one"]
    assert math.isclose(row["one"]["points"][0][1], 3)
