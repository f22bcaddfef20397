"""What the figures were measured on: no names of hosts, no paths."""

from __future__ import annotations

import asyncio
import os
import platform
from pathlib import Path
from typing import TYPE_CHECKING

from broker.ledger.connection import Connection

if TYPE_CHECKING:
    from broker.dev.bench.stand import Stand


def cores() -> int:
    """Return how many cores this process may use: as many workers serve."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def hardware() -> dict[str, str]:
    """Return what is known of the machine."""
    sizes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cores": str(cores()),
        "cpu": _cpu(),
        "memory": f"{sizes / 2**30:.0f} GiB",
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.machine()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.machine())


def servers(stand: Stand) -> dict[str, str]:
    """Return the versions of the servers, as they say themselves."""
    with stand.admin() as admin:
        row = admin.execute("SHOW server_version").fetchone()
    return {
        "valkey": asyncio.run(_valkey(stand.redis)),
        "openbao": str(stand.vault.get("sys/health").json()["version"]),
        "postgresql": str(row[0]).split()[0] if row else "",
    }


async def _valkey(url: str) -> str:
    connection = Connection(url)
    try:
        about = await connection.command("INFO", "server")
        return str(about.get("valkey_version", about.get("redis_version", "")))
    finally:
        await connection.close()


def sentence(machine: dict[str, str]) -> str:
    """Say it in one line."""
    engines = {
        "python": "Python",
        "valkey": "Valkey",
        "openbao": "OpenBao",
        "postgresql": "PostgreSQL",
    }
    versions = ", ".join(
        f"{name} {machine[key]}" for key, name in engines.items() if key in machine
    )
    what = ", ".join(machine[key] for key in ("cpu", "memory", "kernel"))
    return f"{machine['cores']} cores of {what}; {versions}"
