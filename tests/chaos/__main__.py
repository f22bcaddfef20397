"""Many rounds: ``python -m tests.chaos --rounds 20 --seed 7``; ``make chaos`` is that.

A round of seed S is the same whatever run it is part of: round n of a run with seed S has the seed
S + n. A world is used for some rounds, and given up after one that failed, whose logs are kept.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tests.chaos.check import BOUND_S, Verdict
from tests.chaos.plan import Plan, plan
from tests.chaos.round import Outcome, play, verified_by_command
from tests.chaos.servers import Arena

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

ROUNDS_A_WORLD: Final = 25
"""Its ledger and log grow with each."""


@contextlib.asynccontextmanager
async def arena_in(data: Path) -> AsyncGenerator[Arena]:
    """Servers that run, below a folder."""
    arena = Arena(data)
    try:
        await arena.start()
        yield arena
    finally:
        await arena.stop()


class Printer:
    """One line a round, for people or as JSON."""

    def __init__(self, *, json: bool) -> None:
        self._json = json

    def round(self, outcome: Outcome, kept: Path | None) -> None:
        if self._json:
            sys.stdout.write(json.dumps(row(outcome, kept)) + "\n")
        else:
            verdict = outcome.verdict
            faults = ", ".join(fault.name for fault in outcome.plan.faults)
            word = "ok" if outcome.passed else "FAILED"
            sys.stdout.write(
                f"{outcome.plan.seed:>8}  {word:<6}  {outcome.seconds:4.1f} s  "
                f"{verdict.credentials:>3} had, {outcome.alive:>2} alive, worst "
                f"{verdict.worst:4.1f} s ({verdict.worst_healthy:.1f} without faults)  {faults}"
                f"{f'  ({outcome.strays} strays reconciled)' if outcome.strays else ''}\n"
            )
            for problem in verdict.problems:
                sys.stdout.write(f"          {problem}\n")
            if not outcome.passed:
                sys.stdout.write(
                    f"          again: make chaos ROUNDS=1 SEED={outcome.plan.seed}"
                    f"   logs: {kept}\n"
                )
        sys.stdout.flush()

    def total(self, outcomes: list[Outcome], seconds: float) -> None:
        failed = [outcome.plan.seed for outcome in outcomes if not outcome.passed]
        worst = max((o.verdict.worst_healthy for o in outcomes), default=0.0)
        total: dict[str, Any] = {
            "rounds": len(outcomes),
            "failed": failed,
            "credentials": sum(outcome.verdict.credentials for outcome in outcomes),
            "strays": sum(outcome.strays for outcome in outcomes),
            "worst_without_faults_s": round(worst, 2),
            "bound_s": BOUND_S,
            "seconds": round(seconds),
        }
        if self._json:
            sys.stdout.write(json.dumps({"total": total}) + "\n")
            return
        sys.stdout.write(
            f"{total['rounds']} rounds in {total['seconds']} s, {len(failed)} failed; "
            f"{total['credentials']} credentials, none alive longer than {worst:.1f} s past its "
            f"time while nothing was broken (bound {BOUND_S:.0f} s)\n"
            if not failed
            else f"{total['rounds']} rounds in {total['seconds']} s, failed: {failed}\n"
        )


def row(outcome: Outcome, kept: Path | None) -> dict[str, Any]:
    """A round as one JSON object."""
    verdict = outcome.verdict
    return {
        "seed": outcome.plan.seed,
        "ok": outcome.passed,
        "faults": [
            {"what": fault.name, "at": fault.at, "lasts": fault.lasts}
            for fault in outcome.plan.faults
        ],
        "seconds": round(outcome.seconds, 1),
        "credentials": verdict.credentials,
        "alive": outcome.alive,
        "reconciled": outcome.found,
        "strays": outcome.strays,
        "calls": outcome.calls,
        "worst_s": round(verdict.worst, 2),
        "worst_without_faults_s": round(verdict.worst_healthy, 2),
        "problems": list(verdict.problems),
        "logs": str(kept) if kept else None,
    }


async def _played(arena: Arena, of: Plan) -> Outcome:
    """Play a round. One that can't be played to its end has failed."""
    began = time.time()
    try:
        return await play(arena, of)
    except Exception as error:  # noqa: BLE001  whatever it is, it is this round's
        verdict = Verdict((f"not played to its end: {error!r}",), 0, 0.0, 0.0)
        return Outcome(of, verdict, time.time() - began, 0, 0, 0, {})


async def run(seeds: list[int], folder: Path, printer: Printer) -> list[Outcome]:
    """Play the rounds, some to a world."""
    outcomes: list[Outcome] = []
    left = list(seeds)
    world = 0
    while left:
        data = folder / f"world-{world}"
        world += 1
        async with arena_in(data) as arena:
            passed = True
            for _ in range(min(ROUNDS_A_WORLD, len(left))):
                outcome = await _played(arena, plan(left.pop(0)))
                outcomes.append(outcome)
                passed = outcome.passed
                printer.round(outcome, None if passed else data)
                if not passed:
                    break
            if passed and not await verified_by_command(arena):
                raise AssertionError(f"broker audit verify finds what no round found: {data}")
        if passed:
            shutil.rmtree(data)
    return outcomes


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="how many (20)")
    parser.add_argument("--seed", type=int, help="of the first round; else drawn by the time")
    parser.add_argument("--json", action="store_true", help="one JSON object a round")
    parser.add_argument(
        "--data", type=Path, help="where worlds are made, and logs of failures kept"
    )
    asked = parser.parse_args()
    seed = int(time.time()) % 1_000_000 if asked.seed is None else asked.seed
    folder = asked.data or Path(tempfile.mkdtemp(prefix="broker-chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    printer = Printer(json=asked.json)
    began = time.monotonic()
    outcomes = asyncio.run(run(list(range(seed, seed + asked.rounds)), folder, printer))
    printer.total(outcomes, time.monotonic() - began)
    with contextlib.suppress(OSError):
        folder.rmdir()  # unless a failure is kept there
    return 0 if all(outcome.passed for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
