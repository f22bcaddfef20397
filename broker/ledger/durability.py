"""Whether Redis, as it is set up, can lose what it was told."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from broker.ledger.connection import Connection


async def durability(connection: Connection) -> list[str]:
    """Return what could make the ledger lose writes, each with what to do; empty when nothing."""
    info = _pairs(await connection.command("INFO"))
    lacks: list[str] = []
    if info.get("aof_enabled") == "0":
        lacks.append("no append-only file: set 'appendonly yes'")
    elif info.get("aof_last_write_status", "ok") != "ok":
        lacks.append("the append-only file can't be written: free its disk")
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        lacks.append(f"keys may be evicted ({policy}): set 'maxmemory-policy noeviction'")
    if info.get("role") in ("slave", "replica"):
        lacks.append("connected to a replica: use the primary's address")
    return lacks


def _pairs(info: object) -> dict[str, str]:
    """INFO as redis-py gives it: parsed already, or the server's text."""
    if isinstance(info, dict):
        parsed = cast("dict[str, object]", info)
        return {key: str(value) for key, value in parsed.items()}
    text = info.decode() if isinstance(info, bytes) else str(info)
    rows = (line.partition(":") for line in text.splitlines() if ":" in line)
    return {key: value for key, _, value in rows}
