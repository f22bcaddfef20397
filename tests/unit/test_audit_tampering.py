"""Whatever is done to a log without its key is found, and where it was done is named."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.audit.chain import Chain
from broker.audit.checkpoint import Checkpoint
from broker.audit.merkle import Tree
from broker.audit.record import record_line
from broker.audit.report import Kind
from broker.audit.segments import Header
from broker.audit.verify import verify
from tests.unit.audit_world import LogWorld, event, signer

if TYPE_CHECKING:
    from broker.audit.report import Report

Files = dict[str, bytes]

COUNT: Final = 23
FEW: Final = settings(max_examples=30)
KEY: Final = signer()
THIEF: Final = signer(2)


def _made() -> tuple[Files, str]:
    """A log of five segments, all of it signed; and its newest checkpoint."""
    with TemporaryDirectory() as temporary:
        world = LogWorld(Path(temporary) / "audit", key=KEY, segment_bytes=2200)
        world.fill(*[1] * COUNT)
        paths = (path for path in world.folder.rglob("*") if path.is_file())
        files = {str(p.relative_to(world.folder)): p.read_bytes() for p in paths}
        files.pop(".lock")
        return files, world.notes[-1]


GOOD, NEWEST = _made()
SEGMENTS: Final = sorted(name for name in GOOD if name.endswith(".jsonl"))
CHECKPOINTS: Final = sorted(name for name in GOOD if name.startswith("checkpoints/"))
RECORDS: Final = [
    (name, number, line)
    for name in SEGMENTS
    for number, line in enumerate(GOOD[name].splitlines(keepends=True))
    if number
]
"""Segment, line and text of each record, in order."""


def checked(files: Files, **more: str) -> Report:
    with TemporaryDirectory() as temporary:
        for name, content in files.items():
            path = Path(temporary, name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        return verify(Path(temporary), [KEY.key], known=more.values())


def with_records(lines: dict[int, list[bytes]]) -> Files:
    """The log with some records replaced by any number of lines."""
    files = dict(GOOD)
    for name in SEGMENTS:
        files[name] = GOOD[name].splitlines(keepends=True)[0]
    for seq, (name, _, line) in enumerate(RECORDS):
        files[name] += b"".join(lines.get(seq, [line]))
    return files


def named(report: Report, seq: int) -> bool:
    return any(
        f.seq is not None and (f.seq if f.since is None else f.since) <= seq <= f.seq
        for f in report.findings
    )


def test_the_log_that_is_tampered_with_is_good() -> None:
    assert (len(SEGMENTS), len(RECORDS)) == (5, COUNT)
    report = checked(GOOD)
    assert (report.findings, report.signed, report.unsigned) == ([], COUNT, 0)
    assert with_records({}) == GOOD


@settings(max_examples=200)
@given(st.data())
def test_any_flipped_bit_is_found(draw: st.DataObject) -> None:
    name = draw.draw(st.sampled_from([*SEGMENTS, *CHECKPOINTS]))
    content = bytearray(GOOD[name])
    at = draw.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << draw.draw(st.integers(0, 7))
    report = checked(GOOD | {name: bytes(content)})
    line = GOOD[name].count(b"\n", 0, at)
    if name in CHECKPOINTS:
        assert (Kind.CHECKPOINT, name) in {(f.kind, f.file) for f in report.findings}
    elif line == 0:
        assert (Kind.HEADER, name) in {(f.kind, f.file) for f in report.findings}
    else:
        assert named(report, RECORDS.index((name, line, GOOD[name].splitlines(True)[line])))


@FEW
@given(st.sets(st.integers(0, COUNT - 1), min_size=1, max_size=6))
def test_any_dropped_records_are_found(gone: set[int]) -> None:
    report = checked(with_records({seq: [] for seq in gone}))
    for seq in gone:
        assert named(report, seq), (seq, report.findings)


@FEW
@given(st.integers(0, COUNT - 1), st.integers(0, COUNT - 1))
def test_any_record_that_is_there_twice_is_found(seq: int, where: int) -> None:
    lines = {where: [RECORDS[where][2], RECORDS[seq][2]]}
    report = checked(with_records(lines))
    assert named(report, seq)
    assert report.findings


@FEW
@given(st.lists(st.integers(0, COUNT - 1), min_size=2, max_size=2, unique=True))
def test_any_two_records_that_changed_places_are_found(pair: list[int]) -> None:
    one, other = pair
    report = checked(with_records({one: [RECORDS[other][2]], other: [RECORDS[one][2]]}))
    assert named(report, min(pair))
    assert report.findings


@FEW
@given(st.permutations(range(COUNT)))
def test_records_in_any_other_order_are_found(order: list[int]) -> None:
    lines = {seq: [RECORDS[other][2]] for seq, other in enumerate(order)}
    assert checked(with_records(lines)).ok is (order == sorted(order))


@FEW
@given(st.data())
def test_any_log_that_is_cut_short_is_found(draw: st.DataObject) -> None:
    number = draw.draw(st.integers(0, len(SEGMENTS) - 1))
    name = SEGMENTS[number]
    length = draw.draw(st.integers(0, len(GOOD[name]) - 1))
    later = draw.draw(st.booleans())
    files = {n: c for n, c in GOOD.items() if n not in SEGMENTS[number + 1 :]} if later else GOOD
    report = checked({**files, name: GOOD[name][:length]})
    whole = GOOD[name][:length].count(b"\n")
    first = next(seq for seq, record in enumerate(RECORDS) if record[0] == name)
    if whole:
        assert named(report, first + whole - 1), report.findings
    else:
        assert (Kind.HEADER, name) in {(f.kind, f.file) for f in report.findings}


@pytest.mark.parametrize("name", [*SEGMENTS, "checkpoints/latest"])
def test_a_file_that_is_gone_is_found(name: str) -> None:
    assert checked({n: c for n, c in GOOD.items() if n != name}).findings


@FEW
@given(st.sampled_from([*SEGMENTS, *CHECKPOINTS]), st.sampled_from(list(GOOD)))
def test_a_file_in_the_place_of_another_is_found(name: str, other: str) -> None:
    report = checked(GOOD | {name: GOOD[other]})
    assert report.ok is (GOOD[name] == GOOD[other])
    assert report.ok or name in {f.file for f in report.findings}


@FEW
@given(st.sampled_from(CHECKPOINTS), st.integers(0, COUNT), st.booleans())
def test_a_checkpoint_signed_by_another_key_is_found(name: str, size: int, true: bool) -> None:
    text = GOOD[name].decode().partition("\n\n")[0] + "\n"
    if not true:
        text = Checkpoint(KEY.name, size, bytes(32)).text()
    (finding,) = checked(GOOD | {name: THIEF.sign(text).encode()}).findings
    assert (finding.kind, finding.file) == (Kind.CHECKPOINT, name)


@FEW
@given(st.integers(0, COUNT - 1))
def test_a_forged_record_with_the_whole_chain_computed_again_is_found(forged: int) -> None:
    chain, lines = Chain(tree=Tree()), dict[int, list[bytes]]()
    for seq in range(COUNT):
        row = event(seq, kind="forged") if seq == forged else event(seq)
        line = record_line(row, seq=seq, prev=chain.prev)
        chain.add(line)
        lines[seq] = [line + b"\n"]
    assert named(checked(with_records(lines)), forged)


@FEW
@given(st.integers(0, COUNT - 1))
def test_a_log_forged_and_signed_again_with_another_key_is_found(forged: int) -> None:
    chain, files = Chain(tree=Tree()), dict[str, bytes]()
    for seq, (name, number, _) in enumerate(RECORDS):
        if number == 1:
            head = chain.head({})
            header = Header(KEY.name, head, (head.size, head.prev), "2027-01-15T08:00:00.000Z")
            files[name] = header.line(THIEF)
            text = Checkpoint(KEY.name, head.size, head.root).text()
            files[f"checkpoints/{seq:020}"] = THIEF.sign(text).encode()
        row = event(seq, kind="forged") if seq == forged else event(seq)
        line = record_line(row, seq=seq, prev=chain.prev)
        chain.add(line)
        files[name] += line + b"\n"
    head = chain.head({})
    files["checkpoints/latest"] = THIEF.sign(
        Checkpoint(KEY.name, head.size, head.root).text()
    ).encode()
    report = checked(files, kept=NEWEST)
    headers = {f.file for f in report.findings if f.kind is Kind.HEADER}
    assert headers == set(SEGMENTS)
    # Even the records are missed by who kept one good checkpoint.
    assert (Kind.ROOT, COUNT - 1) in {(f.kind, f.seq) for f in report.findings}
    assert report.signed == 0


@FEW
@given(st.integers(0, COUNT - 1))
def test_an_old_state_of_the_log_is_found_by_who_kept_the_newest_checkpoint(size: int) -> None:
    kept = {0: GOOD["checkpoints/00000000000000000000"]}
    files = with_records({seq: [] for seq in range(size, COUNT)})
    empty = [name for name in SEGMENTS if int(name[:20]) > size]
    for name in [*empty, *CHECKPOINTS]:
        files.pop(name)
    for name in CHECKPOINTS[:-1]:
        if int(name[-20:]) <= size:
            files[name] = GOOD[name]
            kept[int(name[-20:])] = GOOD[name]
    files["checkpoints/latest"] = kept[max(kept)]
    assert checked(files).ok
    (finding,) = checked(files, kept=NEWEST).findings
    assert (finding.kind, finding.since, finding.seq) == (Kind.TRUNCATED, size, COUNT - 1)
