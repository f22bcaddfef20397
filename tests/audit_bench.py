"""Replicas that write the signed log of one ledger, and what the files must hold then."""

from __future__ import annotations

import hashlib
import json
import re
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.audit.drain import Drain, DrainSettings
from broker.audit.guard import Guard
from broker.audit.log import LogWriter
from broker.audit.note import Signer
from broker.audit.reader import read_events
from broker.audit.record import cloud_event
from broker.clock import SystemClock
from broker.events import Event
from broker.ledger import keys
from broker.ledger.outbox import Outbox
from tests.contract.ledger_bench import SHARDS, Bench
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from broker.audit.drain import DrainStep
    from broker.clock import Clock

BEGIN_MS: Final = 1_800_000_000_000
SOURCE: Final = "https://broker.example.com"
SIGNER: Final = Signer("broker.example.com/audit", Ed25519PrivateKey.from_private_bytes(b"k" * 32))


class Replica:
    """One replica's part in the log. ``committed`` and ``set_back`` collect what it told."""

    def __init__(
        self,
        bench: Bench,
        folder: Path,
        *,
        clock: Clock | None = None,
        max_lag_ms: int = 30_000,
        before_step: Callable[[DrainStep], None] = lambda _: None,
        **settings: Any,
    ) -> None:
        self.folder = folder
        self.outbox = Outbox(bench.connection)
        clock = clock or SystemClock()
        self.guard = Guard(self.outbox, clock, max_lag_ms=max_lag_ms)
        self.committed: list[int] = []
        self.set_back: list[int] = []
        self.drain = Drain(
            self.outbox,
            SIGNER,
            clock,
            self.guard,
            DrainSettings(folder=folder, source=SOURCE, **settings),
            on_commit=self.committed.append,
            on_set_back=self._told,
            before_step=before_step,
        )

    async def _told(self, size: int, _newest_ms: int | None) -> None:
        self.set_back.append(size)


class Log:
    """A log in a folder, written by the broker's own writer."""

    def __init__(self, folder: Path, *, segment_bytes: int = 16 << 20) -> None:
        self.folder = folder
        self.writer = LogWriter.open(
            folder, signer=SIGNER, clock=SystemClock(), segment_bytes=segment_bytes
        )

    def add(self, count: int = 1, kind: str = "test") -> int:
        """Append events; return how many records there are."""
        size = self.writer.head.size
        events = [
            Event(f"{at}-03-0", at, kind, "", "", "op", {"number": at - BEGIN_MS})
            for at in range(BEGIN_MS + size, BEGIN_MS + size + count)
        ]
        self.writer.append([cloud_event(e, source=SOURCE) for e in events], {})
        return self.writer.head.size

    def ids(self) -> list[str]:
        return [event["id"] for event in read_events(self.folder)]


def segments(folder: Path) -> list[Path]:
    """The files that hold the records, in order."""
    return sorted(folder.glob("*.jsonl"))


async def emit(bench: Bench, count: int = 1, shard: int | None = None) -> None:
    """Let events happen, in all shards in turn or in one."""
    for number in range(count):
        where = number % SHARDS if shard is None else shard
        await bench.ledger.record("test", shard=where, actor="op", data={"number": number})


async def events_of(bench: Bench) -> list[str]:
    """Ids of all events in the ledger, in the order of all shards together."""
    found: list[tuple[int, int, int]] = []
    for shard in range(SHARDS):
        rows: Any = await bench.connection.client.xrange(keys.table(shard, "audit"))
        for stream_id, _ in rows:
            millis, _, sequence = stream_id.decode().partition("-")
            found.append((int(millis), shard, int(sequence)))
    return [f"{ms}-{shard:02x}-{seq}" for ms, shard, seq in sorted(found)]


async def drained(bench: Bench, replica: Replica) -> None:
    """Let a replica drain until the log has what the ledger has."""

    async def look() -> bool:
        report = await replica.drain.run_once()
        return report.holder and report.size == len(await events_of(bench))

    await wait_until(look, "everything is in the log")


async def lease_runs_out(bench: Bench) -> None:
    """Stand for the ten seconds that pass after a replica has died."""
    await bench.connection.command("DEL", keys.lease("audit"))


def records(*folders: Path) -> list[dict[str, Any]]:
    """All records of a log that is spread over folders, in order; each must follow the one before.

    Nothing of the broker is used to read them. A record may be in two folders, but only as it is.
    """
    lines: dict[int, bytes] = {}
    for folder in folders:
        for path in segments(folder):
            assert re.fullmatch(r"[0-9]{20}\.jsonl", path.name)
            for line in path.read_bytes().splitlines()[1:]:
                number = json.loads(line)["seq"]
                # What the dead wrote and never committed stays on their disk till they come back.
                assert lines.setdefault(number, line) == line, f"there are two records {number}"
    previous = "0" * 64
    found: list[dict[str, Any]] = []
    for number in range(len(lines)):
        record = json.loads(lines[number])
        assert record["prev"] == previous, f"record {number} doesn't follow the one before"
        previous = hashlib.sha256(lines[number]).hexdigest()
        found.append(record["event"])
    return found


async def assert_whole(bench: Bench, *folders: Path) -> list[dict[str, Any]]:
    """Every event of the ledger is in the log, once and in order, and nothing else is."""
    found = records(*folders)
    assert [event["id"] for event in found] == await events_of(bench)
    return found
