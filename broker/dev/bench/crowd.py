"""What very many live grants cost those who come: a broker's start, and issuing beside them."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker.dev.bench import load
from broker.dev.bench.credential import grants
from broker.dev.bench.figures import Rounds, by_turns, percentile
from broker.dev.bench.seeding import pattern, seed
from broker.dev.bench.stand import AGENT, API, READ, clock

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack
    from pathlib import Path

    from broker.dev.bench.scale import Scale
    from broker.dev.bench.stand import Stand

START: Final = "start with 100,000 live grants until first grant"
ISSUE: Final = "issue p99 with 100,000 live grants"
RATE: Final = 60.0
"""Credentials a second: a rate that one broker has time for."""
_CONNECTIONS: Final = 16


@dataclass(frozen=True, slots=True)
class Place:
    """Where a broker will be, and its configuration."""

    url: str
    config: Path


def measure_start(stand: Stand, scale: Scale, on_round: Callable[[], None]) -> dict[str, Rounds]:
    """Return the rounds of starting, in seconds: from the command to the first credential."""
    crowded, alone = _places(stand, scale)
    _start(stand, alone)  # the first of all reads everything from disk
    rounds = by_turns(
        scale.starts, lambda: _start(stand, crowded), lambda: _start(stand, alone), on_round
    )
    return {START: rounds}


def measure_issue(stand: Stand, scale: Scale, on_round: Callable[[], None]) -> dict[str, Rounds]:
    """Return the rounds of issuing, in milliseconds.

    What is issued are tokens, which nothing stands behind but the ledger: with a database's what
    the crowd costs would be a smaller part.
    """
    crowded, alone = _places(stand, scale)

    def turn(place: Place) -> float:
        requests = grants(stand, API, scale.crowded, place.url)
        done = load.run(place.url, requests, connections=_CONNECTIONS, rate=RATE)
        return percentile(done.latencies_ms, 99)

    with stand.serve(crowded.config), stand.serve(alone.config):
        for place in (alone, crowded):
            turn(place)  # until both are warm
        rounds = by_turns(scale.starts, lambda: turn(crowded), lambda: turn(alone), on_round)
    return {ISSUE: rounds}


def _places(stand: Stand, scale: Scale) -> tuple[Place, Place]:
    return stand.once("crowd", lambda opened: _make(stand, scale.crowd, opened))


def _make(stand: Stand, count: int, opened: ExitStack) -> tuple[Place, Place]:
    places = [opened.enter_context(stand.ledger(name)) for name in ("crowd", "alone")]
    asyncio.run(seed(places[0], pattern(stand.orchestrator, stand.redis), count))
    crowded, alone = (
        Place(*stand.another(name, redis))
        for name, redis in zip(("crowd", "alone"), places, strict=True)
    )
    return crowded, alone


def _start(stand: Stand, place: Place) -> float:
    begun = clock.monotonic()
    with stand.serve(place.config), stand.client(place.url) as orchestrator:
        task = orchestrator.open_task(AGENT, "bench", [READ]).task_id
        orchestrator.request_grant(task, READ)
        took = clock.monotonic() - begun
        orchestrator.complete(task)
    return took
