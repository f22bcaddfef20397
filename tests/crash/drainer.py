"""A replica that drains until it is killed.

    python -m tests.crash.drainer REDIS_URL FOLDER

Prints one JSON line after each run that drained something.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

from tests.audit_bench import Replica
from tests.contract.ledger_bench import Bench


async def main(url: str, folder: str) -> None:
    replica = Replica(Bench(url), Path(folder), checkpoint_ms=20, segment_bytes=20_000)
    while True:
        report = await replica.drain.run_once()
        if report.drained:
            sys.stdout.write(json.dumps({"size": report.size}) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
