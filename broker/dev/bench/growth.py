"""How figures grow: with live grants, with a chain's depth, with policies, with replicas.

Each curve is fitted by a power (least squares of the logarithms): an exponent of 0 means that it
doesn't grow, 1 that twice as many cost twice as much. What is at none can't be on such a line; it
is in the file all the same.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from broker.dev.bench import cascade, load, policies
from broker.dev.bench.credential import grants
from broker.dev.bench.exchange import CONNECTIONS, exchanges
from broker.dev.bench.figures import grows, percentile
from broker.dev.bench.seeding import SHARDS, pattern, seed
from broker.dev.bench.stand import AGENT, API, READ, Stand, clock
from broker.ledger.connection import Connection
from broker.ledger.queries import Queries
from broker.ledger.redis import RedisLedger

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from broker.dev.bench.figures import Growth

LIVE: Final = (0, 1000, 10_000, 100_000)
"""Live grants; with more time, a million besides (``--most``)."""
DEPTHS: Final = (1, 2, 3, 5, 8, 10)
POLICIES: Final = (10, 30, 100, 300, 1000)
REPLICAS: Final = (1, 2)
_RATE: Final = 60.0
_PACED: Final = 600
_SWEEPS: Final = 50
_EXCHANGES: Final = 1500
_TURNS: Final = 3
_AT_A_TIME: Final = 16


@dataclass(frozen=True, slots=True)
class Curve:
    """Lines by name, each of (x, y); ``unit`` is of y."""

    title: str
    x: str
    unit: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    note: str = ""
    fits: Mapping[str, Growth] = field(init=False)

    def __post_init__(self) -> None:
        """Fit each line that has points enough."""
        fits: dict[str, Growth] = {}
        for name, line in self.lines.items():
            try:
                fits[name] = grows(line)
            except ValueError:
                continue
        object.__setattr__(self, "fits", fits)

    def row(self) -> dict[str, Any]:
        """As it is in ``docs/bench/growth.json``."""
        lines = {
            name: {
                "points": [list(point) for point in line],
                **(
                    {"exponent": fit.exponent, "factor": fit.factor, "r2": fit.r2}
                    if (fit := self.fits.get(name))
                    else {}
                ),
            }
            for name, line in self.lines.items()
        }
        note = {"note": self.note} if self.note else {}
        return {"title": self.title, "x": self.x, "unit": self.unit, "lines": lines, **note}


def measure(stand: Stand, say: Callable[[str], None], *, most: int, quick: bool) -> list[Curve]:
    """Return all curves; ``most`` bounds the live grants."""
    live = [count for count in (*LIVE, 1_000_000) if count <= most]
    part = 4 if quick else 1
    return [
        *_with_live(stand, say, live, part),
        _with_depth(stand, say, part),
        _with_policies(say),
        _with_replicas(stand, say, part),
    ]


def _with_live(
    stand: Stand, say: Callable[[str], None], counts: Sequence[int], part: int
) -> list[Curve]:
    p50: list[tuple[float, float]] = []
    p99: list[tuple[float, float]] = []
    sweep: list[tuple[float, float]] = []
    memory: list[tuple[float, float]] = []
    like = pattern(stand.orchestrator, stand.redis)
    there = 0
    with stand.ledger("growing") as redis:
        url, config = stand.another("growing", redis)
        for count in counts:
            say(f"{count:,} live grants")
            asyncio.run(seed(redis, like, count - there))
            there = count
            memory.append((count, asyncio.run(_used(redis)) / 2**20))
            sweep.append((count, asyncio.run(_sweep_ms(redis))))
            with stand.serve(config):
                warm = grants(stand, API, 50, url)
                load.run(url, warm, connections=_AT_A_TIME)
                requests = grants(stand, API, _PACED // part, url)
                done = load.run(url, requests, connections=_AT_A_TIME, rate=_RATE)
                p50.append((count, percentile(done.latencies_ms, 50)))
                p99.append((count, percentile(done.latencies_ms, 99)))
    x = "live grants"
    return [
        Curve("issuing beside live grants", x, "ms", {"p50": p50, "p99": p99}),
        Curve("a sweep that finds nothing due", x, "ms", {"p50": sweep}),
        Curve("Redis memory", x, "MiB", {"used": memory}),
    ]


async def _used(redis: str) -> int:
    connection = Connection(redis)
    try:
        return int((await connection.command("INFO", "memory"))["used_memory"])
    finally:
        await connection.close()


async def _sweep_ms(redis: str) -> float:
    """Return the median of what a sweep costs: what is due next, and a claim on every shard."""
    connection = Connection(redis)
    try:
        ledger, queries = RedisLedger(connection), Queries(connection, ())
        took: list[float] = []
        for _ in range(_SWEEPS):
            begun = clock.monotonic()
            await queries.next_due()
            await ledger.claim_due(range(SHARDS), limit=100)
            took.append((clock.monotonic() - begun) * 1000)
        return percentile(took, 50)
    finally:
        await connection.close()


def _with_depth(stand: Stand, say: Callable[[str], None], part: int) -> Curve:
    p50: list[tuple[float, float]] = []
    p99: list[tuple[float, float]] = []
    for depth in DEPTHS:
        say(f"chains of {depth}")
        count = _PACED // 2 // part
        # Of several chains: one chain's grants are written one after the other.
        leaves = [cascade.chain(stand, depth, API) for _ in range(8)]
        requests = grants(stand, API, count, tasks=[chain[-1] for chain in leaves])
        done = load.run(stand.url, requests, connections=_AT_A_TIME, rate=_RATE)
        p50.append((depth, percentile(done.latencies_ms, 50)))
        p99.append((depth, percentile(done.latencies_ms, 99)))
        for chain in leaves:
            stand.orchestrator.complete(chain[0])
    return Curve("issuing at the end of a chain", "depth", "ms", {"p50": p50, "p99": p99})


def _with_policies(say: Callable[[str], None]) -> Curve:
    p50: list[tuple[float, float]] = []
    p99: list[tuple[float, float]] = []
    for count in POLICIES:
        say(f"{count} policies")
        middle, slow = policies.alone(count)
        p50.append((count, middle))
        p99.append((count, slow))
    return Curve("one decision", "policies besides the default", "ms", {"p50": p50, "p99": p99})


def _with_replicas(stand: Stand, say: Callable[[str], None], part: int) -> Curve:
    """Exchanges a second of so many brokers of one process, each with load of its own, at once."""
    points: list[tuple[float, float]] = []
    task = stand.orchestrator.open_task(AGENT, "bench", [READ], ttl="1h").task_id
    with ExitStack() as opened:
        urls: list[str] = []
        for count in REPLICAS:
            say(f"{count} replicas")
            while len(urls) < count:
                url, config = stand.another(f"replica{len(urls)}")
                opened.enter_context(stand.serve(config, workers=1))
                urls.append(url)
            rates = [_together(stand, urls, task, _EXCHANGES // part) for _ in range(_TURNS)]
            points.append((count, percentile(rates, 50)))
    note = "replicas, engines and load share this machine's cores: what it says is what they share"
    return Curve("token exchanges", "replicas", "per s", {"throughput": points}, note)


def _together(stand: Stand, urls: Sequence[str], task: str, count: int) -> float:
    jobs = [exchanges(stand, task, count // len(urls), url) for url in urls]

    async def run() -> float:
        loads = await asyncio.gather(
            *(
                asyncio.to_thread(load.run, url, job, connections=CONNECTIONS // len(urls))
                for url, job in zip(urls, jobs, strict=True)
            )
        )
        return sum(done.per_second for done in loads)

    return asyncio.run(run())
