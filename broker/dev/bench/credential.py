"""A database credential through the broker, against asking OpenBao for it directly.

How long one takes is measured at a steady rate that leaves both idle most of the time, and how many
there are a second with as many askers as keep both busy.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from broker.dev.bench import load
from broker.dev.bench.figures import Rounds, by_turns, percentile
from broker.dev.bench.stand import AGENT, READ

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from broker.dev.bench.scale import Scale
    from broker.dev.bench.stand import Stand

RATE: Final = 25.0
"""A second."""
CONNECTIONS: Final = 16
PER_TASK: Final = 20
"""Grants of one task: those of one are reserved one after the other, and it may hold a hundred."""
ROW: Final = "dynamic database credential through the broker"


def measure(stand: Stand, scale: Scale, on_round: Callable[[], None]) -> dict[str, Rounds]:
    """Return the rounds of both rows: milliseconds, and credentials a second."""
    direct = load.get(f"/v1/database/creds/{READ}", stand.root.items(), url=stand.vault_url)

    def paced(url: str, requests: list[str]) -> float:
        done = load.run(url, requests, connections=CONNECTIONS, rate=RATE)
        return percentile(done.latencies_ms, 50)

    def flood(url: str, requests: list[str]) -> float:
        return load.run(url, requests, connections=CONNECTIONS).per_second

    return {
        f"{ROW}, p50": by_turns(
            scale.rounds,
            lambda: paced(stand.url, grants(stand, READ, scale.paced)),
            lambda: paced(stand.vault_url, [direct] * scale.paced),
            on_round,
        ),
        f"{ROW}, throughput": by_turns(
            scale.rounds,
            lambda: flood(stand.url, grants(stand, READ, scale.flood)),
            lambda: flood(stand.vault_url, [direct] * scale.flood),
            on_round,
        ),
    }


def grants(
    stand: Stand, capability: str, count: int, url: str = "", tasks: Sequence[str] = ()
) -> list[str]:
    """Return so many requests for a credential, for tasks or new ones that have room for them.

    Each new task has had one already, so that what is made once for a task has been.
    """
    url = url or stand.url
    tasks = tasks or _tasks(stand, capability, count, url)
    proof = ("Authorization", f"Bearer {stand.token('orchestrator', url=url)}")
    body = json.dumps({"capability": capability, "ttl": "15m"})
    return [
        load.post(f"/v1/tasks/{tasks[i % len(tasks)]}/grants", body, url=url, headers=[proof])
        for i in range(count)
    ]


def _tasks(stand: Stand, capability: str, count: int, url: str) -> list[str]:
    tasks: list[str] = []
    with stand.client(url) as orchestrator:
        for _ in range(-(-count // PER_TASK)):
            task = orchestrator.open_task(AGENT, "bench", [capability], ttl="1h").task_id
            orchestrator.request_grant(task, capability)
            tasks.append(task)
    return tasks
