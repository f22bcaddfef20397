"""Finding out whether a log is what its writer wrote, and where it isn't."""

from __future__ import annotations

from itertools import zip_longest
from typing import TYPE_CHECKING

from broker.audit.anchors import Anchors
from broker.audit.chain import Chain
from broker.audit.links import UNKNOWN, Links
from broker.audit.merkle import Tree
from broker.audit.note import NoteError
from broker.audit.report import Absence, Finding, Kind, Report
from broker.audit.segments import (
    FORGOTTEN,
    Header,
    HeaderError,
    lines,
    read_forgotten,
    segments,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from broker.audit.head import Head
    from broker.audit.note import VerifierKey


def verify(
    folder: Path,
    keys: Sequence[VerifierKey],
    *,
    known: Iterable[str] = (),
    head: Head | None = None,
) -> Report:
    """Check every record, segment and checkpoint of the log in a folder.

    ``keys`` are all that have ever signed this log. ``known`` are checkpoints that were kept
    elsewhere, ``head`` is what the ledger says was committed: with them it is also found that the
    end of the log was removed together with the checkpoints that covered it. It may be done while
    the log is written to; read ``head`` before, then.

    1. Each segment has to go on where the one before it ended, or something signed says why not.
    2. Each record has to name the hash of the one before it, and the number after its.
    3. At each size that a checkpoint is of, the Merkle root has to be the one that was signed.
    4. There have to be as many records as were signed.

    Raises:
        ValueError: no keys, or of several logs.
        OSError: the files can't be read.
    """
    if len({key.name for key in keys}) != 1:
        raise ValueError("the keys must be those of one log, and at least one")
    report = Report()
    # The checkpoints are listed before the segments: a writer at work is ahead with the records.
    anchors = Anchors(folder, keys, report)
    for note in known:
        anchors.add_known(note)
    if head is not None:
        anchors.add_head(head)
    _Verifier(folder, keys, anchors, report).run()
    return report


class _Verifier:
    def __init__(
        self, folder: Path, keys: Sequence[VerifierKey], anchors: Anchors, report: Report
    ) -> None:
        self._folder = folder
        self._keys = keys
        self._anchors = anchors
        self._report = report
        self._chain = Chain(tree=Tree())
        self._before = ""  # the name of the segment before

    def run(self) -> None:
        found = segments(self._folder)
        if not found:
            self._add(Kind.MISSING, f"there is no log in {self._folder}")
        ends = [first for first, _ in found[1:]]
        for (first, path), end in zip_longest(found, ends):
            try:
                file = path.open("rb")
            except FileNotFoundError:
                continue  # removed by the retention this moment: the next segment will show it
            with file:
                source = lines(file)
                header = self._read_header(path.name, first, next(source, b""))
                if self._go_on(path.name, first, header):
                    self._records(path.name, first, source, end)
        self._anchors.finish(self._chain)  # step 4
        self._report.size = self._chain.size
        self._report.unsigned = self._chain.size - self._report.signed

    # Step 1.

    def _read_header(self, name: str, first: int, line: bytes) -> Header | None:
        try:
            header = Header.read(line, self._keys)
        except HeaderError as error:
            self._add(Kind.HEADER, f"{name} {error}", name)
            return None
        if header.first == first:
            return header
        self._add(Kind.HEADER, f"{name} is the segment of record {header.first}", name)
        return None

    def _go_on(self, name: str, first: int, header: Header | None) -> bool:
        """Go from the end of one segment to the beginning of another; False: it can't be one."""
        chain, anchors = self._chain, self._anchors
        if first < chain.size:
            detail = f"{name} begins before the records end that are there already"
            self._add(Kind.MISPLACED, detail, name, first)
            return False
        if first > chain.size:
            self._hole(name, first, header)
            chain.size, chain.prev, chain.tree = first, UNKNOWN, None
        elif header is not None and chain.tree is not None and not chain.is_at(header.head):
            detail = (
                f"{name} follows another record {first - 1}: that one was changed, or some since "
                f"record {anchors.good} were, and the chain was computed again"
            )
            self._add(Kind.ROOT, detail, self._before, first - 1, anchors.good)
        elif header is not None and chain.prev != header.head.prev:
            detail = f"{name} follows another record {first - 1}"
            self._add(Kind.CHANGED, detail, self._before, first - 1)
        if header is not None:
            # What is signed is right: from here on the records are held against it.
            chain.prev, chain.tree = header.head.prev, header.head.tree()
            anchors.settle(chain)
            anchors.good = first
        self._before = name
        return True

    def _hole(self, name: str, first: int, header: Header | None) -> None:
        """Say why there are no records from where the chain has come to up to ``first``."""
        chain, report = self._chain, self._report
        end = start = chain.size
        had, prev = header.follows if header is not None else (first, UNKNOWN)
        if start and chain.tree is not None and had <= start:
            # Nothing follows in this folder that would tell if these records were changed.
            signed = report.signed == start or (had, prev) == (start, chain.prev)
            if not signed or not (header and chain.tree.could_become(header.head.tree())):
                since = self._anchors.good
                detail = f"records {since} to {start - 1} aren't those that {name} goes on from"
                self._add(Kind.ROOT, detail, self._before, start - 1, since)
        forgotten = min(self._forgotten(), first)
        if forgotten > start:
            report.absent.append(Absence(start, forgotten - 1, FORGOTTEN))
            start = forgotten
        # The folder went up to `had` when the segment was begun; what is between is elsewhere.
        had = max(start, min(first, had))
        if start < had:
            detail = f"records {start} to {had - 1} are missing before {name}"
            self._add(Kind.MISSING, detail, self._before if end else None, had - 1, start)
        if had < first:
            report.absent.append(Absence(had, first - 1, "elsewhere"))

    def _forgotten(self) -> int:
        try:
            return read_forgotten(self._folder, self._keys)
        except NoteError as error:
            self._add(Kind.CHECKPOINT, f"{FORGOTTEN}: {error}", FORGOTTEN)
            return 0

    # Steps 2 and 3.

    def _records(self, name: str, first: int, source: Iterator[bytes], end: int | None) -> None:
        chain, anchors, report = self._chain, self._anchors, self._report
        links = Links(chain, report, name, end)
        stop = anchors.next
        for number, line in enumerate(source, start=2):
            if chain.size >= stop:
                anchors.settle(chain)
                stop = anchors.next
            if chain.take(line):
                report.records += 1
                if links.pending:
                    links.settle()
            else:
                links.odd(number, line)
        links.settle(ended=True)
        # Without records it was begun this moment, or a crash kept its checkpoint from it.
        if chain.size > first and not anchors.has(first):
            detail = f"the checkpoint at which {name} begins is missing"
            self._add(Kind.CHECKPOINT, detail, name, first)

    def _add(
        self,
        kind: Kind,
        detail: str,
        file: str | None = None,
        seq: int | None = None,
        since: int | None = None,
    ) -> None:
        line = 1 if kind is Kind.HEADER else None
        text = detail[0].upper() + detail[1:] + "." if file != FORGOTTEN else detail + "."
        self._report.add(Finding(kind, text, file or None, line, seq, since))
