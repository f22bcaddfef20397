"""The arithmetic: percentiles, rounds taken in turns, and how something grows."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LEAST: Final = 2
"""Points or values without which there is no line and no percentile."""


def percentile(values: Sequence[float], percent: int) -> float:
    """Return a percentile, 1 to 99, of at least two values; between two of them it is in between.

    Raises:
        ValueError: there are fewer.
    """
    if len(values) < LEAST:
        raise ValueError(f"a percentile of {len(values)} values says nothing")
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


@dataclass(frozen=True, slots=True)
class Rounds:
    """What each round gave, in the row's unit; the n-th of both were taken one after the other."""

    ours: Sequence[float]
    reference: Sequence[float]

    @property
    def medians(self) -> tuple[float, float]:
        """The medians of ours and of the reference."""
        return statistics.median(self.ours), statistics.median(self.reference)

    @property
    def ratio(self) -> float:
        """Ours to the reference, by the medians."""
        ours, reference = self.medians
        return ours / reference

    @property
    def spread(self) -> tuple[float, float]:
        """The lowest and the highest ratio of one round."""
        ratios = [a / b for a, b in zip(self.ours, self.reference, strict=True)]
        return min(ratios), max(ratios)


def brief(ratio: float) -> str:
    """Write a ratio as people read it: two digits after the point, or two that aren't zeros."""
    return f"{ratio:.2f}" if ratio >= 0.1 else f"{ratio:.2g}"  # noqa: PLR2004


def by_turns(
    count: int,
    ours: Callable[[], float],
    reference: Callable[[], float],
    on_round: Callable[[], None],
) -> Rounds:
    """Measure both so many times: reference first in one round, ours in the next, and so on."""
    mine: list[float] = []
    theirs: list[float] = []
    for number in range(count):
        on_round()
        if number % 2:
            mine.append(ours())
            theirs.append(reference())
        else:
            theirs.append(reference())
            mine.append(ours())
    return Rounds(mine, theirs)


@dataclass(frozen=True, slots=True)
class Growth:
    """``y = factor * x ** exponent``, and how much of what is seen that explains (r², 0 to 1)."""

    exponent: float
    factor: float
    r2: float


def grows(points: Sequence[tuple[float, float]]) -> Growth:
    """Fit a power by least squares of the logarithms. Points that aren't above zero have none.

    Raises:
        ValueError: fewer than two different x are left.
    """
    logs = [(math.log(x), math.log(y)) for x, y in points if x > 0 and y > 0]
    if len({x for x, _ in logs}) < LEAST:
        raise ValueError("a line needs two points")
    xs, ys = zip(*logs, strict=True)
    slope, intercept = statistics.linear_regression(xs, ys)
    flat = len(set(ys)) == 1
    r2 = 1.0 if flat else statistics.correlation(xs, ys) ** 2
    return Growth(slope, math.exp(intercept), r2)
