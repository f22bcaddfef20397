"""From record to record within a segment: what is wrong where the next one doesn't follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.audit.record import MAX_LINE, read_record
from broker.audit.report import Finding, Kind

if TYPE_CHECKING:
    from broker.audit.chain import Chain
    from broker.audit.report import Report

UNKNOWN: Final = ""
"""In the place of a record's hash: it isn't known which one the next record follows."""


class Links:
    """Takes the lines that ``Chain.take`` refuses, and says what they are.

    ``pending`` tells that something waits for the next line that is taken, or for the end: call
    ``settle`` then. Once a record was changed, lost or moved, the tree isn't known any more.
    """

    def __init__(self, chain: Chain, report: Report, file: str, end: int | None) -> None:
        """For one segment, whose first record is about to come; ``end`` is the next one's first."""
        self.pending = False
        self._end = end
        self._chain = chain
        self._report = report
        self._file = file
        self._strange = 0  # lines just now that were no records
        self._broken: tuple[int, int, int] | None = None  # first and last link, line of the first

    def odd(self, number: int, line: bytes) -> None:
        """Go over a line that isn't the record that should be there."""
        if not line.endswith(b"\n") and len(line) <= MAX_LINE:
            if self._end is None:
                self._report.incomplete = True
            else:
                self._add(Kind.TRUNCATED, number, "ends in the middle of it", self._chain.size)
            return
        try:
            record = read_record(line)
        except ValueError as error:
            self.settle()
            self._add(Kind.MALFORMED, number, f"it {error}", self._chain.size + self._strange)
            self._strange += 1
            self.pending = True
            return
        if self._is_misplaced(number, record["seq"], record["prev"]):
            return
        self._strange = 0
        self._report.records += 1
        self._take(line, record["prev"])

    def settle(self, *, ended: bool = False) -> None:
        """Report which records don't follow from each other, now that it shows where that ends."""
        self.pending, self._strange = False, 0
        if self._broken is None:
            return
        first, last, number = self._broken
        self._broken = None
        # If a record's own link was changed, then the next one doesn't follow from it either. After
        # the last one there is none to tell.
        since, seq = first - 1, last if ended else last - 1
        which = f"record {seq} was" if seq == since else f"some of records {since} to {seq} were"
        detail = f"{which} changed, for record {first} follows another"
        self._add(Kind.CHANGED, max(number - 1, 2), detail, seq, None if seq == since else since)

    def _is_misplaced(self, number: int, seq: int, prev: str) -> bool:
        """Say what is wrong with a record; True if it isn't the next one at all."""
        chain = self._chain
        follows = prev == chain.prev
        if follows and seq == chain.size:
            self.settle()
            self._add(Kind.MALFORMED, number, "it isn't written as a record is", seq)
        elif follows:
            self.settle()
            self._add(
                Kind.CHANGED, number, f"record {chain.size} says that it is {seq}", chain.size
            )
        elif seq < chain.size or (self._end is not None and seq >= self._end):
            self.settle()
            detail = f"record {seq} is where record {chain.size} belongs"
            self._add(Kind.MISPLACED, number, detail, seq)
            return True
        elif seq > chain.size:
            strange = self._strange
            self.settle()
            if strange != seq - chain.size:  # else those were they
                detail = f"before it records {chain.size} to {seq - 1} are missing"
                self._add(Kind.MISSING, number, detail, seq - 1, chain.size)
            chain.size = seq
        elif chain.prev != UNKNOWN:
            self._link_broken(number, seq)
        return False

    def _link_broken(self, number: int, seq: int) -> None:
        """Note that a record doesn't follow from the one before it."""
        if self._broken is not None and self._broken[1] == seq - 1:
            first, _, number = self._broken
        else:
            self.settle()
            first = seq
        self._broken = (first, seq, number)
        self.pending = True

    def _take(self, line: bytes, prev: str) -> None:
        """Go on from a record as it is."""
        chain = self._chain
        chain.tree = None
        if prev != chain.prev:
            chain.prev = prev
            if chain.take(line):
                return
        chain.add(line[:-1])

    def _add(
        self, kind: Kind, number: int, detail: str, seq: int, since: int | None = None
    ) -> None:
        text = f"{self._file}, line {number}: {detail}."
        self._report.add(Finding(kind, text, self._file, number, seq, since))
