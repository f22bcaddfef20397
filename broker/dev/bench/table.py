"""What has to be reached: a line for each figure that ``make bench`` is judged by."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.dev.bench.figures import Rounds

Better = Literal["higher", "lower"]


@dataclass(frozen=True, slots=True)
class Goal:
    """A figure, the part of the benchmark that measures it, and what its ratio has to be."""

    part: str
    row: str
    unit: str
    target: float
    better: Better
    reference: str


TABLE: Final = (
    Goal(
        "exchange",
        "tracked token exchange, throughput",
        "per s",
        2.0,
        "higher",
        "OpenBao auth/jwt/login",
    ),
    Goal(
        "decision",
        "per-tool-call decision over HTTP, throughput",
        "per s",
        0.4,
        "higher",
        "bare FastAPI echo",
    ),
    Goal(
        "credential",
        "dynamic database credential through the broker, p50",
        "ms",
        1.25,
        "lower",
        "OpenBao database/creds",
    ),
    Goal(
        "credential",
        "dynamic database credential through the broker, throughput",
        "per s",
        0.9,
        "higher",
        "OpenBao database/creds",
    ),
    Goal(
        "complete",
        "task complete → credential refused by PostgreSQL, p50",
        "ms",
        1.3,
        "lower",
        "OpenBao sync revoke",
    ),
    Goal(
        "fifty",
        "a task with 50 database grants ends → all 50 refused",
        "ms",
        0.5,
        "lower",
        "OpenBao accessor revoke of 50 leases",
    ),
    Goal(
        "expiry",
        "1,000 PostgreSQL grants expiring at once → all dead",
        "s",
        0.33,
        "lower",
        "OpenBao's own expiry",
    ),
    Goal(
        "memory",
        "memory per live grant in Redis",
        "bytes",
        0.12,
        "lower",
        "OpenBao per live token lease",
    ),
    Goal(
        "start",
        "start with 100,000 live grants until first grant",
        "s",
        1.2,
        "lower",
        "start with none",
    ),
    Goal(
        "crowd",
        "issue p99 with 100,000 live grants",
        "ms",
        1.2,
        "lower",
        "with none",
    ),
)
"""In the order in which they are measured: what leaves most behind comes last."""


@dataclass(frozen=True, slots=True)
class Result:
    """What became of a goal: what its rounds gave, or why there is nothing; maybe a ``note``."""

    goal: Goal
    rounds: Rounds | None = None
    error: str = ""
    note: str = ""

    @property
    def reached(self) -> bool:
        """Whether the target is; what failed hasn't reached it."""
        if self.rounds is None:
            return False
        if self.goal.better == "higher":
            return self.rounds.ratio >= self.goal.target
        return self.rounds.ratio <= self.goal.target

    def row(self) -> dict[str, Any]:
        """As it is in ``docs/bench/latest.json``; what failed has no figures."""
        ours, reference = self.rounds.medians if self.rounds else (None, None)
        return {
            "row": self.goal.row,
            "ours": ours,
            "reference": reference,
            "unit": self.goal.unit,
            "ratio": self.rounds.ratio if self.rounds else None,
            "target": self.goal.target,
            "better": self.goal.better,
        }

    def told(self) -> dict[str, Any]:
        """The same with all that there is to say, for ``--json``."""
        spread = self.rounds.spread if self.rounds else None
        return {
            **self.row(),
            "reached": self.reached,
            "against": self.goal.reference,
            **(
                {"spread": list(spread), "rounds": len(self.rounds.ours)}
                if spread and self.rounds
                else {}
            ),
            **({"error": self.error} if self.error else {}),
            **({"note": self.note} if self.note else {}),
        }


def results(part: str, found: Mapping[str, Rounds] | str, note: str = "") -> list[Result]:
    """Return what became of a part's goals: their rounds by row, or why there are none."""
    goals = [goal for goal in TABLE if goal.part == part]
    if isinstance(found, str):
        return [Result(goal, error=found, note=note) for goal in goals]
    return [
        Result(goal, found.get(goal.row), "" if goal.row in found else "it was not measured", note)
        for goal in goals
    ]
