"""What is known of the log at some sizes from elsewhere than its records: signed, or committed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker.audit.checkpoint import FOLDER, LATEST, CheckpointFolder, open_checkpoint
from broker.audit.note import NoteError
from broker.audit.report import Finding, Kind, Report

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from broker.audit.chain import Chain
    from broker.audit.head import Head
    from broker.audit.note import VerifierKey

_NEVER: Final = 1 << 64


@dataclass(frozen=True, slots=True)
class _Expected:
    """What the log was at some size; ``name`` says who says so."""

    name: str
    root: bytes
    prev: str | None = None
    signed: bool = True


class Anchors:
    """Compares the log with what is known of it, in the order of its growth.

    ``next`` is the smallest size that something is known of and wasn't compared yet; ``good`` the
    size up to which the tree was last known to be right.
    """

    def __init__(self, log: Path, keys: Sequence[VerifierKey], report: Report) -> None:
        """The files are read when the log has grown to them; ``latest`` is read now."""
        self._folder = CheckpointFolder(log)
        self._keys = keys
        self._report = report
        # In this order: a writer that is at work writes `latest` before the other.
        self._sizes = self._folder.sizes()
        self._numbered = frozenset(self._sizes)
        self._more: dict[int, list[_Expected]] = {}
        self._at = 0
        self.good = 0
        self._read_latest()

    @property
    def next(self) -> int:
        """The size to stop at next."""
        return self._sizes[self._at] if self._at < len(self._sizes) else _NEVER

    def add_known(self, note: str) -> None:
        """Compare with a checkpoint that was kept elsewhere too; before anything else."""
        try:
            checkpoint = open_checkpoint(note, self._keys)
        except NoteError as error:
            self._wrong(f"A checkpoint that was kept elsewhere: {error}.")
            return
        self._expect(checkpoint.size, _Expected("a checkpoint kept elsewhere", checkpoint.root))

    def add_head(self, head: Head) -> None:
        """Compare with what the ledger says was committed; before anything else."""
        self._expect(head.size, _Expected("the ledger", head.root, head.prev, signed=False))

    def has(self, size: int) -> bool:
        """Whether there is a checkpoint of a size, good or bad."""
        signed = any(expected.signed for expected in self._more.get(size, ()))
        # It may have been written since the others were listed.
        return signed or size in self._numbered or self._folder.file(size).exists()

    def settle(self, chain: Chain) -> None:
        """Compare with everything up to where the log has come to.

        What is of a smaller size is of records that aren't here: only its signature can be checked.
        """
        while self.next <= chain.size:
            for expected in self._expected(self.next):
                if self.next == chain.size and chain.tree is not None:
                    self._compare(chain, expected)
            if chain.tree is not None:
                self.good = chain.size
            self._at += 1

    def finish(self, chain: Chain) -> None:
        """Compare with the rest, once the log has ended."""
        self.settle(chain)
        beyond: list[tuple[int, str]] = []
        while self.next != _NEVER:
            beyond += [(self.next, expected.name) for expected in self._expected(self.next)]
            self._at += 1
        if beyond:
            size, name = beyond[-1]
            detail = f"The log ends at {chain.size} records; {name} is of {size}."
            self._report.add(Finding(Kind.TRUNCATED, detail, seq=size - 1, since=chain.size))

    def _compare(self, chain: Chain, expected: _Expected) -> None:
        assert chain.tree is not None  # noqa: S101  the caller looked
        if chain.tree.root() == expected.root and expected.prev in (None, chain.prev):
            if expected.signed:
                self._report.signed = chain.size
            return
        detail = (
            f"Records {self.good} to {chain.size - 1} follow from each other, but {expected.name} "
            "is of others: the last was changed, or some were and the chain was computed again."
        )
        self._report.add(Finding(Kind.ROOT, detail, seq=chain.size - 1, since=self.good))
        chain.tree = None

    def _expected(self, size: int) -> list[_Expected]:
        """Return all that is known of a size, and read its file."""
        expected = list(self._more.get(size, ()))
        name = f"{FOLDER}/{size:020}"
        if size in self._numbered and (note := self._folder.read(size)) is not None:
            try:
                checkpoint = open_checkpoint(note, self._keys)
            except NoteError as error:
                self._wrong(f"{name}: {error}.", name)
                return expected
            if checkpoint.size != size:
                self._wrong(f"{name} is the checkpoint of {checkpoint.size} records.", name)
                return expected
            self._report.checkpoints += 1
            expected.append(_Expected(name, checkpoint.root))
        return expected

    def _read_latest(self) -> None:
        name = f"{FOLDER}/{LATEST}"
        note = self._folder.latest()
        if note is None:
            if self._sizes:
                self._wrong(f"{name} is missing.", name)
            return
        try:
            checkpoint = open_checkpoint(note, self._keys)
        except NoteError as error:
            self._wrong(f"{name}: {error}.", name)
            return
        newest = max(self._sizes, default=0)
        if checkpoint.size < newest:
            detail = f"{name} is of {checkpoint.size} records; there is one of {newest}."
            self._wrong(detail, name)
        self._expect(checkpoint.size, _Expected(name, checkpoint.root))

    def _expect(self, size: int, expected: _Expected) -> None:
        self._more.setdefault(size, []).append(expected)
        self._sizes = sorted({*self._sizes, size})

    def _wrong(self, detail: str, file: str | None = None) -> None:
        self._report.add(Finding(Kind.CHECKPOINT, detail, file=file))
