"""What ``make bench`` prints, and the files it leaves in ``docs/bench``."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from broker.dev.bench import chart
from broker.dev.bench.figures import brief
from broker.dev.bench.machine import sentence

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from broker.dev.bench.extra import Line
    from broker.dev.bench.growth import Curve
    from broker.dev.bench.table import Result

_WIDE = 118


def say(text: str) -> None:
    """Tell how far it is: to standard error, so that ``--json`` stays one document."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def table(results: Sequence[Result], word: str, machine: dict[str, str]) -> None:
    """Print the rows with their targets, what failed and why, and what machine it was."""
    made = Table(title=f"ours beside the reference, {word}", title_justify="left")
    made.add_column("row", overflow="fold")
    made.add_column("reference", overflow="fold")
    for name in ("ours", "reference", "ratio", "rounds", "to reach", "reached"):
        made.add_column(name, justify="right", no_wrap=True)
    for result in results:
        goal = result.goal
        wanted = f"{'≥' if goal.better == 'higher' else '≤'} {goal.target:g}"
        if result.rounds is None:
            made.add_row(goal.row, goal.reference, "-", "-", "-", "-", wanted, _verdict("failed"))
            continue
        ours, reference = result.rounds.medians
        low, high = result.rounds.spread
        made.add_row(
            goal.row,
            goal.reference,
            f"{_short(ours)} {goal.unit}",
            f"{_short(reference)} {goal.unit}",
            brief(result.rounds.ratio),
            f"{brief(low)}–{brief(high)}",
            wanted,
            _verdict("yes" if result.reached else "no"),
        )
    console = _console()
    console.print(made)
    for result in results:
        if result.error:
            console.print(Text(f"failed: {result.goal.row}: {result.error}", style="red"))
        if result.note:
            console.print(f"{result.goal.row}: {result.note}")
    console.print("Figures are medians of the rounds; in the column of rounds, their lowest and")
    console.print("highest ratio.", sentence(machine))


def lines(found: Sequence[Line]) -> None:
    """Print figures that have no target."""
    made = Table(box=None)
    made.add_column("row", overflow="fold")
    for name in ("ours", "reference", "ratio"):
        made.add_column(name, justify="right", no_wrap=True)
    for line in found:
        pair = (f"{_short(value)} {line.unit}" for value in (line.ours, line.reference))
        made.add_row(line.row, *pair, brief(line.ratio))
    _console().print(made)


def curves(found: Sequence[Curve], machine: dict[str, str]) -> None:
    """Print points and exponents."""
    console = _console()
    for curve in found:
        console.print(Text(f"{curve.title}, {curve.unit}", style="bold"))
        for name, points in curve.lines.items():
            row = "  ".join(f"{x:g}: {_short(y)}" for x, y in points)
            fit = curve.fits.get(name)
            said = f"  grows with x^{fit.exponent:.2f} (r² {fit.r2:.2f})" if fit else ""
            console.print(f"  {name}, by {curve.x}: {row}{said}")
        if curve.note:
            console.print(f"  {curve.note}")
    console.print(sentence(machine))


def document(about: dict[str, Any]) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(about, indent=2, ensure_ascii=False) + "\n")


def keep_results(
    folder: Path, results: Sequence[Result], word: str, machine: dict[str, str]
) -> None:
    """Write ``latest.json`` and ``latest.svg``."""
    _write(folder / "latest.json", _json([result.row() for result in results]))
    title = f"{word}; {sentence(machine)}"
    _write(folder / "latest.svg", chart.of_results(results, title))


def keep_curves(folder: Path, found: Sequence[Curve], machine: dict[str, str]) -> None:
    """Write ``growth.json`` and ``growth.svg``."""
    about = {"machine": machine, "curves": [curve.row() for curve in found]}
    _write(folder / "growth.json", _json(about))
    _write(folder / "growth.svg", chart.of_curves(found, sentence(machine)))


def _json(value: object) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def _write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.new")
    draft.write_text(text, "utf-8")
    draft.replace(file)


def _console() -> Console:
    console = Console(highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        console.width = max(console.width, _WIDE)
    return console


def _verdict(word: str) -> Text:
    return Text(word, style="green" if word == "yes" else "bold red")


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"  # noqa: PLR2004  four digits
