"""``make bench``: starts both sides, measures, prints, and writes ``docs/bench``."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final, NoReturn

from cyclopts import App, Parameter

from broker.dev.bench import extra, growth, machine, report
from broker.dev.bench.running import MEASURES, Run
from broker.dev.bench.scale import FULL, QUICK
from broker.dev.bench.stand import Stand

if TYPE_CHECKING:
    from types import FrameType

_EXTRAS: Final = {
    "cascade": extra.chains,
    "policies": extra.many_policies,
    "outage": extra.backend_away,
}
_GROWTH: Final = "growth"
NAMES: Final = (*MEASURES, *_EXTRAS, _GROWTH)
_HERE: Final = Path("docs/bench")

app = App(
    name="make bench ARGS=",
    help="Measure the broker beside what it stands on.",
    help_epilogue=f"Parts: {', '.join(NAMES)}.",
    version_flags=[],
)


@app.default
def run(
    *parts: Annotated[
        str, Parameter(help="What to measure; by default all that has a target.", metavar="PART")
    ],
    quick: Annotated[bool, Parameter(help="In under three minutes.", negative="")] = False,
    json: Annotated[bool, Parameter(help="Print one JSON document.", negative="")] = False,
    most: Annotated[
        int, Parameter(help="Of `growth`: up to so many live grants.", metavar="COUNT")
    ] = 100_000,
    into: Annotated[
        Path, Parameter(help="Where the files go that a whole run leaves.", metavar="DIR")
    ] = _HERE,
) -> int:
    """Measure some parts, or all that has a target; 1 if anything failed."""
    if unknown := [name for name in parts if name not in NAMES]:
        report.say(f"there is no part {unknown[0]!r}: there are {', '.join(NAMES)}")
        return 2
    signal.signal(signal.SIGTERM, _end)  # through what stops the servers
    scale = QUICK if quick else FULL
    told: dict[str, Any] = {}
    goals = [name for name in MEASURES if not parts or name in parts]
    failed = 0
    if goals:
        bench = Run(scale, report.say)
        results = bench.parts(goals)
        failed += sum(result.rounds is None for result in results)
        told |= {"machine": bench.machine, "scale": scale.word}
        told["rows"] = [result.told() for result in results]
        if not parts:
            report.keep_results(into, results, scale.word, bench.machine)
        if not json:
            report.table(results, scale.word, bench.machine)
    for name in (name for name in _EXTRAS if name in parts):
        failed += _extra(name, told, json=json)
    if _GROWTH in parts:
        failed += _grow(told, into, most, quick=quick, json=json)
    if json:
        report.document(told)
    return 1 if failed else 0


def _end(_: int, __: FrameType | None) -> NoReturn:
    sys.exit(128 + signal.SIGTERM)


def _extra(name: str, told: dict[str, Any], *, json: bool) -> int:
    try:
        found = _EXTRAS[name](lambda text: report.say(f"{name}: {text}"))
    except Exception as error:  # noqa: BLE001  the others go on
        report.say(f"{name} failed: {type(error).__name__}: {error}")
        return 1
    told[name] = [
        {"row": line.row, "ours": line.ours, "reference": line.reference, "unit": line.unit}
        | {"ratio": line.ratio}
        for line in found
    ]
    if not json:
        report.lines(found)
    return 0


def _grow(told: dict[str, Any], into: Path, most: int, *, quick: bool, json: bool) -> int:
    try:
        with Stand() as stand:
            about = machine.hardware() | machine.servers(stand)
            found = growth.measure(
                stand, lambda text: report.say(f"{_GROWTH}: {text}"), most=most, quick=quick
            )
    except Exception as error:  # noqa: BLE001  said, and not a traceback
        report.say(f"{_GROWTH} failed: {type(error).__name__}: {error}")
        return 1
    told[_GROWTH] = [curve.row() for curve in found]
    report.keep_curves(into, found, about)
    if not json:
        report.curves(found, about)
    return 0


if __name__ == "__main__":
    sys.exit(app())
