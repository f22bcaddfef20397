"""Runs the parts one after the other; what fails is said, and the others go on."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from broker.clock import SystemClock
from broker.dev.bench import (
    credential,
    crowd,
    decisions,
    ending,
    exchange,
    expiry,
    machine,
    memory,
)
from broker.dev.bench.stand import Stand
from broker.dev.bench.table import TABLE, results

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from broker.dev.bench.figures import Rounds
    from broker.dev.bench.scale import Scale
    from broker.dev.bench.table import Result

    Measure = Callable[[Stand, Scale, Callable[[], None]], dict[str, Rounds]]

MEASURES: Final[dict[str, Measure]] = {
    "exchange": exchange.measure,
    "decision": decisions.measure,
    "credential": credential.measure,
    "complete": ending.measure,
    "fifty": ending.measure_fifty,
    "expiry": expiry.measure,
    "memory": memory.measure,
    "start": crowd.measure_start,
    "crowd": crowd.measure_issue,
}
"""The parts, in the order of the table."""
_FRESH: Final = frozenset({"memory"})
"""Parts that need engines that nobody has used."""


class Run:
    """One run of some parts, on a stand that is replaced when something on it went wrong."""

    def __init__(self, scale: Scale, say: Callable[[str], None]) -> None:
        """``say`` is told how far it is."""
        self._scale = scale
        self._say = say
        self._clock = SystemClock()
        self._open = ExitStack()
        self._stand: Stand | None = None
        self.machine = machine.hardware()

    def parts(self, names: Sequence[str]) -> list[Result]:
        """Measure parts by name; in the table's order, whatever comes of them."""
        found: list[Result] = []
        with self._open:
            for number, name in enumerate(names, 1):
                found += self._part(name, f"[{number}/{len(names)}] {name}")
        order = [goal.row for goal in TABLE]
        return sorted(found, key=lambda result: order.index(result.goal.row))

    def _part(self, name: str, where: str) -> list[Result]:
        begun = self._clock.monotonic()
        rounds = 0

        def on_round() -> None:
            nonlocal rounds
            rounds += 1
            self._say(f"{where}: round {rounds}")

        try:
            self._say(where)
            if name in _FRESH:
                self._leave()
            out = results(
                name, MEASURES[name](self._here(), self._scale, on_round), self._note(name)
            )
        except Exception as error:  # noqa: BLE001  whatever it is, the other rows are still measured
            cause = f" ({error.__cause__})" if error.__cause__ else ""
            out = results(name, f"{type(error).__name__}: {error}{cause}")
            self._say(f"{where} failed: {out[0].error}")
            self._leave()
        self._say(f"{where}: {self._clock.monotonic() - begun:.0f} s")
        return out

    def _note(self, name: str) -> str:
        if name == "expiry" and self._scale.expiring != _EXPIRING:
            return f"of {self._scale.expiring} grants, since it is quick"
        if name in {"start", "crowd"} and self._scale.crowd != _CROWD:
            return f"with {self._scale.crowd:,} live grants, since it is quick"
        return ""

    def _here(self) -> Stand:
        if self._stand is None:
            self._stand = self._open.enter_context(Stand())
            self.machine |= machine.servers(self._stand)
        return self._stand

    def _leave(self) -> None:
        """Stop what there is; the next part starts anew."""
        self._stand = None
        try:
            self._open.close()
        except Exception as error:  # noqa: BLE001  what can't be stopped was broken before
            self._say(f"stopping: {type(error).__name__}: {error}")


_EXPIRING: Final = 1000
_CROWD: Final = 100_000
"""What the names of their rows say."""
