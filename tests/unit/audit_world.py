"""A log in a folder, with a ledger that remembers its head, and keys that never change."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from broker.audit.head import GENESIS, Head, Position
from broker.audit.log import LogWriter
from broker.audit.note import Signer
from broker.audit.record import advance, cloud_event, record_hash, record_line
from broker.audit.segments import segment_file, segments
from broker.audit.verify import verify
from broker.events import Event
from tests.clocks import ManualClock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from broker.audit.report import Kind, Report

ORIGIN: Final = "broker.example/audit"
ISSUER: Final = "https://broker.example"
START: Final = 1_800_000_000_000
STEP_MS: Final = 1000


def signer(seed: int = 1, name: str = ORIGIN) -> Signer:
    """The same key for the same seed."""
    return Signer(name, Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32))


def event(number: int, kind: str = "grant.activated", **data: Any) -> dict[str, Any]:
    """One second after the one before it; the shards take turns."""
    at = START + number * STEP_MS
    return cloud_event(
        Event(
            id=f"{at}-{number % 3:02x}-0",
            at=at,
            type=kind,
            task_id=f"tsk_{number}",
            grant_id=f"grt_{number}",
            principal="report-writer",
            data={"number": number, **data},
        ),
        source=ISSUER,
    )


class LogWorld:
    """``head`` is what the ledger has committed."""

    def __init__(
        self, folder: Path, *, key: Signer | None = None, segment_bytes: int = 2000
    ) -> None:
        self.folder = folder
        self.signer = key or signer()
        self.segment_bytes = segment_bytes
        self.clock = ManualClock(START / 1000)
        self.head: Head | None = None
        self.notes: list[str] = []

    def open(self, head: Head | None = None, **more: Any) -> LogWriter:
        return LogWriter.open(
            self.folder,
            signer=self.signer,
            clock=self.clock,
            head=head or self.head,
            segment_bytes=self.segment_bytes,
            **more,
        )

    def append(self, writer: LogWriter, count: int, *, commit: bool = True) -> Head:
        cursor = dict(writer.head.cursor)
        events = [event(number) for number in range(writer.head.size, writer.head.size + count)]
        for each in events:
            advance(cursor, each)
        head = writer.append(events, cursor)
        if commit:
            self.head = head
        return head

    def fill(self, *batches: int) -> Head:
        """Append batches, with a checkpoint after each."""
        with self.open() as writer:
            for count in batches:
                self.append(writer, count)
                self.notes.append(writer.checkpoint())
            return writer.head

    def verify(self, **more: Any) -> Report:
        return verify(self.folder, [self.signer.key], **more)


def positions(**shards: tuple[str, int]) -> Mapping[int, Position]:
    """A cursor, with the shards' numbers after a letter: ``s3=("1-0", 1)``."""
    return {int(name[1:]): Position(*place) for name, place in shards.items()}


def records(folder: Path) -> list[int]:
    """The numbers of all records, segment after segment."""
    found: list[int] = []
    for _, path in segments(folder):
        found += [json.loads(line)["seq"] for line in path.read_bytes().splitlines()[1:]]
    return found


def read(world: LogWorld, first: int = 0) -> list[bytes]:
    """The lines of a segment, its header first."""
    return segment_file(world.folder, first).read_bytes().splitlines(keepends=True)


def write(world: LogWorld, lines: Sequence[bytes], first: int = 0) -> None:
    """Put other lines into a segment."""
    segment_file(world.folder, first).write_bytes(b"".join(lines))


def found(world: LogWorld, **more: Any) -> list[tuple[Kind, str | None, int | None, int | None]]:
    """Kind, file, line and record of each finding."""
    return [(f.kind, f.file, f.line, f.seq) for f in world.verify(**more).findings]


def rewritten(world: LogWorld, number: int) -> list[bytes]:
    """The segment with one record forged, and the chain computed again from there on."""
    header, *lines = read(world)
    prev, made = GENESIS, [header]
    for seq in range(len(lines)):
        row = event(seq, kind="forged") if seq == number else event(seq)
        line = record_line(row, seq=seq, prev=prev)
        prev = record_hash(line)
        made.append(line + b"\n")
    return made
