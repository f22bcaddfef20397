"""The two charts: how far each row is from its target, and how figures grow."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from broker.dev.bench.figures import brief
from broker.dev.bench.svg import BAD, FAINT, GOOD, INK, SERIES, Drawing

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.dev.bench.growth import Curve
    from broker.dev.bench.table import Result

_WIDTH: Final = 960
_LEFT: Final = 420
_RIGHT: Final = 190
_ROW: Final = 28
_TOP: Final = 64
_MOST: Final = 2.0
"""Twice what is allowed: longer bars are cut off there."""


def of_results(results: Sequence[Result], machine: str) -> str:
    """Draw a bar for each row: how much of what is allowed it takes. At the line all of it."""
    height = _TOP + _ROW * len(results) + 40
    drawing = Drawing(_WIDTH, height, "The broker's benchmark: each row's ratio beside its target")
    scale = (_WIDTH - _LEFT - _RIGHT) / _MOST
    drawing.text(16, 24, "How much of what is allowed each row takes", size=15)
    drawing.text(16, 42, machine, FAINT, size=10)
    for number, result in enumerate(results):
        y = _TOP + _ROW * number
        drawing.text(_LEFT - 10, y + 15, result.goal.row, anchor="end", size=11)
        if result.rounds is None:
            drawing.text(_LEFT + 4, y + 15, "failed", BAD)
            continue
        taken = share(result.rounds.ratio, result.goal.target, result.goal.better)
        width = min(taken, _MOST) * scale
        drawing.box(_LEFT, y + 4, width, _ROW - 12, GOOD if result.reached else BAD)
        sign = "≥" if result.goal.better == "higher" else "≤"
        said = f"{brief(result.rounds.ratio)} × (to reach: {sign} {result.goal.target:g})"
        drawing.text(_WIDTH - 16, y + 15, said, INK, "end", 11)
    x = _LEFT + scale
    drawing.line(x, _TOP - 4, x, _TOP + _ROW * len(results), INK, "4 3")
    drawing.text(x, height - 22, "target", INK, "middle", 11)
    drawing.text(_LEFT, height - 22, "shorter is better", FAINT, size=11)
    return str(drawing)


def share(ratio: float, target: float, better: str) -> float:
    """Return how much of what is allowed a ratio takes: at most 1 where the target is reached."""
    if better == "higher":
        return target / ratio if ratio else math.inf
    return ratio / target


_PANEL: Final = 300
_TALL: Final = 210
_ACROSS: Final = 3
_LABEL: Final = 10
"""Pixels that the label of a value takes."""
_DECADE: Final = math.log(10)


def of_curves(curves: Sequence[Curve], machine: str) -> str:
    """Draw a panel for each curve, both axes logarithmic."""
    rows = math.ceil(len(curves) / _ACROSS)
    width = _PANEL * _ACROSS + 40
    drawing = Drawing(width, 60 + rows * (_TALL + 50), "How the broker's figures grow")
    drawing.text(16, 24, "How figures grow (both axes logarithmic)", size=15)
    drawing.text(16, 42, machine, FAINT, size=10)
    for number, curve in enumerate(curves):
        left = 60 + (number % _ACROSS) * _PANEL
        _panel(drawing, curve, left, 80 + number // _ACROSS * (_TALL + 50))
    return str(drawing)


def _panel(drawing: Drawing, curve: Curve, left: float, top: float) -> None:
    wide, tall = _PANEL - 80, _TALL - 50
    drawing.text(left, top - 6, curve.title, size=11)
    drawing.line(left, top, left, top + tall)
    drawing.line(left, top + tall, left + wide, top + tall)
    points = [p for line in curve.lines.values() for p in line if p[0] > 0 and p[1] > 0]
    if not points:
        return
    xs = _Axis([x for x, _ in points], left, left + wide)
    ys = _Axis([y for _, y in points], top + tall, top, _DECADE)
    for x in sorted({x for x, _ in points}):
        drawing.text(xs.at(x), top + tall + 14, _short(x), FAINT, "middle", 9)
    apart = abs(ys.at(ys.most) - ys.at(ys.least)) > _LABEL
    for y in (ys.least, ys.most) if apart else (ys.most,):
        drawing.text(left - 5, ys.at(y) + 3, _short(y), FAINT, "end", 9)
    drawing.text(left + wide, top + tall + 27, curve.x, FAINT, "end", 9)
    for at, (name, line) in enumerate(curve.lines.items()):
        colour = SERIES[at % len(SERIES)]
        drawing.path([(xs.at(x), ys.at(y)) for x, y in line if x > 0 and y > 0], colour)
        fit = curve.fits.get(name)
        said = f"{name}, {curve.unit}" + (f": x^{fit.exponent:.2f}" if fit else "")
        drawing.text(left, top + tall + 27 + 12 * at, said, colour, size=9)


class _Axis:
    """A logarithmic one, from ``begin`` to ``end``, with its values in the middle.

    It spans ``span`` at least, the logarithm of a factor: what hardly changes has to look like it.
    """

    def __init__(
        self, values: Sequence[float], begin: float, end: float, span: float = 0.0
    ) -> None:
        self.least, self.most = min(values), max(values)
        own = math.log(self.most / self.least)
        self._span = max(own, span) or 1.0
        self._first = math.log(self.least) - (self._span - own) / 2
        self._begin, self._end = begin, end

    def at(self, value: float) -> float:
        """Where a value is."""
        part = (math.log(value) - self._first) / self._span
        return self._begin + (self._end - self._begin) * part


def _short(value: float) -> str:
    for least, unit in ((1e6, "M"), (1e3, "k")):
        if value >= least:
            return f"{value / least:.3g}{unit}"
    return f"{value:.3g}"
