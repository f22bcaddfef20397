"""Redis memory per live grant, against OpenBao's memory per live token lease.

Ours is what Redis itself says of every key of the ledger's tables, events left out: they grow by
what has happened, not by what is alive. OpenBao's is how much its resident memory grows.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Final

from broker.dev.bench.figures import Rounds
from broker.dev.bench.stand import AGENT, READ
from broker.ledger.connection import Connection

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.dev.bench.scale import Scale
    from broker.dev.bench.stand import Stand

ROW: Final = "memory per live grant in Redis"
PER_TASK: Final = 50
_MAKING: Final = 8


def measure(stand: Stand, scale: Scale, on_round: Callable[[], None]) -> dict[str, Rounds]:
    """Return the row's one round, in bytes. The stand is fresh: what was freed is used again."""
    on_round()
    _make_tokens(stand, scale.remembered)  # what a server takes once, whatever it holds, is taken
    server = Resident(stand.data / "openbao" / "pid")
    _make_tokens(stand, scale.remembered)
    theirs = server.grown() / scale.remembered
    tasks = scale.remembered // PER_TASK
    before = asyncio.run(ledger_bytes(stand.redis))

    def fill(_: int) -> None:
        task = stand.orchestrator.open_task(AGENT, "bench", [READ], ttl="1h").task_id
        for _ in range(PER_TASK):
            stand.orchestrator.request_grant(task, READ, ttl="15m")

    with ThreadPoolExecutor(_MAKING) as pool:
        list(pool.map(fill, range(tasks)))
    grown = asyncio.run(ledger_bytes(stand.redis)) - before
    return {ROW: Rounds([grown / (tasks * PER_TASK)], [theirs])}


def _make_tokens(stand: Stand, count: int) -> None:
    for _ in range(count):
        stand.vault.post("auth/token/create", json={"ttl": "1h"}).raise_for_status()


class Resident:
    """How much a server's resident memory has grown since this was made."""

    def __init__(self, pid_file: Path) -> None:
        """The server's number is the first word of the file."""
        self._status = Path(f"/proc/{pid_file.read_text('utf-8').split()[0]}/status")
        self._before = self._bytes()

    def grown(self) -> int:
        """Bytes."""
        return self._bytes() - self._before

    def _bytes(self) -> int:
        line = next(
            row for row in self._status.read_text("utf-8").splitlines() if row.startswith("VmRSS:")
        )
        return int(line.split()[1]) * 1024


async def ledger_bytes(url: str) -> int:
    """Return the bytes of the ledger's tables, by MEMORY USAGE of every key but the events."""
    connection = Connection(url)
    total = 0
    try:
        for key in await connection.command("KEYS", "*"):
            if not key.endswith(b":audit"):
                total += int(await connection.command("MEMORY", "USAGE", key, "SAMPLES", 0) or 0)
    finally:
        await connection.close()
    return total
