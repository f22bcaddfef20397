"""Whether Redis, as it is set up, can lose what it was told."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.ledger.connection import Connection


async def durability(connection: Connection) -> list[str]:
    """Return what could make the ledger lose writes, each with what to do; empty when nothing.

    In a cluster all masters are asked; what several lack is said once.
    """
    found = [_pairs(info) for info in await connection.on_every_server("INFO")]
    lacks = [lack for info in found for lack in _lacks(info)]
    if connection.failing_over and not connection.replicas:
        lacks.append("a failover loses what no replica has yet: set 'replicas = 1' in [redis]")
    return list(dict.fromkeys(lacks))


def _lacks(info: dict[str, str]) -> Iterator[str]:
    if info.get("aof_enabled") == "0":
        yield "no append-only file: set 'appendonly yes'"
    elif info.get("aof_last_write_status", "ok") != "ok":
        yield "the append-only file can't be written: free its disk"
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield f"keys may be evicted ({policy}): set 'maxmemory-policy noeviction'"
    if info.get("role") in ("slave", "replica"):
        yield "connected to a replica: use the primary's address"


def _pairs(info: object) -> dict[str, str]:
    """INFO as redis-py gives it: parsed already, or the server's text."""
    if isinstance(info, dict):
        parsed = cast("dict[str, object]", info)
        return {key: str(value) for key, value in parsed.items()}
    text = info.decode() if isinstance(info, bytes) else str(info)
    rows = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {key: value for key, _, value in rows}
