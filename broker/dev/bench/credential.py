"""A database credential through the broker, against asking OpenBao for it directly.

How long one takes is measured at a steady rate that leaves both idle most of the time, and how many
there are a second with as many askers as keep both busy. Each turn's credentials are ended before
the next one begins: PostgreSQL takes longer to make an account the more others have rights on the
same table.
"""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Final

from broker.dev.bench import load
from broker.dev.bench.figures import Rounds, by_turns, percentile
from broker.dev.bench.stand import AGENT, READ, clock

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
_POLL_S: Final = 0.2
_LONGEST_S: Final = 60.0


class StillThere(Exception):
    """Accounts of a turn weren't gone in time for the next one."""


def measure(stand: Stand, scale: Scale, on_round: Callable[[], None]) -> dict[str, Rounds]:
    """Return the rounds of both rows: milliseconds, and credentials a second."""
    direct = load.get(f"/v1/database/creds/{READ}", stand.root.items(), url=stand.vault_url)
    leases = f"sys/leases/revoke-prefix/database/creds/{READ}"

    def paced(url: str, requests: list[str]) -> float:
        done = load.run(url, requests, connections=CONNECTIONS, rate=RATE)
        return percentile(done.latencies_ms, 50)

    def flood(url: str, requests: list[str]) -> float:
        return load.run(url, requests, connections=CONNECTIONS).per_second

    def ours(take: Callable[[str, list[str]], float], count: int) -> float:
        tasks = _tasks(stand, READ, count, stand.url)
        took = take(stand.url, grants(stand, READ, count, tasks=tasks))
        for task in tasks:
            stand.orchestrator.complete(task)
        _wait_until_gone(stand)
        return took

    def reference(take: Callable[[str, list[str]], float], count: int) -> float:
        took = take(stand.vault_url, [direct] * count)
        stand.vault.post(leases, json={"sync": True}).raise_for_status()
        _wait_until_gone(stand)
        return took

    return {
        f"{ROW}, {name}": by_turns(
            scale.rounds,
            lambda take=take, count=count: ours(take, count),
            lambda take=take, count=count: reference(take, count),
            on_round,
        )
        for name, take, count in (
            ("p50", paced, scale.paced),
            ("throughput", flood, scale.flood),
        )
    }


def _wait_until_gone(stand: Stand) -> None:
    """Wait until PostgreSQL has none of the accounts that OpenBao makes."""
    begun = clock.monotonic()
    with stand.admin() as admin:
        while left := admin.execute("SELECT FROM pg_roles WHERE rolname LIKE 'v-%'").rowcount:
            if clock.monotonic() - begun > _LONGEST_S:
                raise StillThere(f"{left} accounts are there after {_LONGEST_S} seconds")
            time.sleep(_POLL_S)


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
