"""How long a chain of tasks takes to die: from its root's end to the last credential's.

The reference revokes as many leases directly, as many at a time as the broker does, and looks each
of them up.
"""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final

from broker.dev.bench.stand import AGENT, DEPTH, READ, clock
from broker.ledger.connection import Connection
from broker.ledger.queries import Queries

if TYPE_CHECKING:
    import httpx2

    from broker.dev.bench.stand import Stand

GRANTS: Final = 1000
_AT_A_TIME: Final = 16
"""As `[vault] revoke_concurrency` has it."""
_MAKING: Final = 8
_POLL_S: Final = 0.005


def ours(stand: Stand, grants: int = GRANTS) -> float:
    """Return the seconds from a root's end until all its chain's grants are confirmed dead."""
    orchestrator = stand.orchestrator
    before = asyncio.run(_live(stand.redis))
    tasks = chain(stand, DEPTH)

    def grant(number: int) -> None:
        orchestrator.request_grant(tasks[number % DEPTH], READ, ttl="15m")

    with ThreadPoolExecutor(_MAKING) as pool:
        list(pool.map(grant, range(grants)))
    begun = clock.monotonic()
    orchestrator.complete(tasks[0])
    while asyncio.run(_live(stand.redis)) > before:
        time.sleep(_POLL_S)
    return clock.monotonic() - begun


def chain(stand: Stand, depth: int, capability: str = READ) -> list[str]:
    """Open a chain of tasks, each below the one before."""
    tasks: list[str] = []
    for _ in range(depth):
        parent = tasks[-1] if tasks else None
        task = stand.orchestrator.open_task(
            AGENT, "bench", [capability], ttl="1h", parent_task_id=parent
        )
        tasks.append(task.task_id)
    return tasks


def theirs(
    vault: httpx2.Client, grants: int = GRANTS, path: str = f"database/creds/{READ}"
) -> float:
    """Return the seconds in which as many leases are revoked directly, and looked up."""

    def make(_: int) -> str:
        answer = vault.get(path)
        return str(answer.raise_for_status().json()["lease_id"])

    def end(lease: str) -> None:
        body = {"lease_id": lease, "sync": True}
        vault.put("sys/leases/revoke", json=body).raise_for_status()
        found = vault.put("sys/leases/lookup", json={"lease_id": lease})
        assert found.is_error, "a revoked lease is still there"  # noqa: S101  no figure otherwise

    with ThreadPoolExecutor(_MAKING) as pool:
        leases = list(pool.map(make, range(grants)))
    begun = clock.monotonic()
    with ThreadPoolExecutor(_AT_A_TIME) as pool:
        list(pool.map(end, leases))
    return clock.monotonic() - begun


async def _live(redis_url: str) -> int:
    connection = Connection(redis_url)
    try:
        return await Queries(connection, ()).count("gt|")
    finally:
        await connection.close()
