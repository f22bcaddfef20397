"""What verifying a log found."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import Any, Final

MAX_FINDINGS: Final = 200
"""So many findings are kept; further ones are counted."""


class Kind(StrEnum):
    """What is wrong with a place."""

    CHANGED = "changed"
    """A record isn't the one that the next one follows."""
    MISSING = "missing"
    """Records aren't there."""
    MISPLACED = "misplaced"
    """A record or a segment stands where another belongs: moved, or there twice."""
    MALFORMED = "malformed"
    """A line is no record."""
    HEADER = "header"
    """The first line of a segment isn't what was signed, or isn't of this log."""
    CHECKPOINT = "checkpoint"
    """A checkpoint isn't what was signed, is of another log, or is missing."""
    ROOT = "root"
    """Records follow from each other, but they aren't those that were signed."""
    TRUNCATED = "truncated"
    """The log ends before what was signed, or committed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong, and where: as much of the place as is known.

    ``seq`` is the number of a record; if it isn't known which of several it is, ``since`` is the
    first of them and ``seq`` the last. ``file`` is a name within the log's folder, ``line`` counts
    from 1.
    """

    kind: Kind
    detail: str
    file: str | None = None
    line: int | None = None
    seq: int | None = None
    since: int | None = None


@dataclass(frozen=True, slots=True)
class Absence:
    """Records from ``first`` to ``last`` aren't in the folder, and that is signed.

    ``reason`` is ``forgotten`` (removed after the retention) or ``elsewhere``: they weren't here
    when a writer went on in this folder. Another replica wrote them to its own disk, or this one
    lost them.
    """

    first: int
    last: int
    reason: str


@dataclass(slots=True)
class Report:
    """What was checked, and all that is wrong.

    ``size`` is how many records the log has ever had, ``records`` how many of them are here.
    ``signed`` is the size of the newest good checkpoint, and ``unsigned`` how many records come
    after it: these are protected by their chain alone, which anybody can compute. ``incomplete``
    says that the log ends in the middle of a line: something is being written right now, or a crash
    cut it short before it was committed.
    """

    size: int = 0
    records: int = 0
    signed: int = 0
    unsigned: int = 0
    checkpoints: int = 0
    absent: list[Absence] = field(default_factory=list[Absence])
    incomplete: bool = False
    findings: list[Finding] = field(default_factory=list[Finding])
    more: int = 0

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    def add(self, finding: Finding) -> None:
        """Keep a finding, or count it."""
        if len(self.findings) < MAX_FINDINGS:
            self.findings.append(finding)
        else:
            self.more += 1

    def as_json(self) -> dict[str, Any]:
        """Return all of it for JSON."""
        return {"ok": self.ok, **asdict(self)}
