"""Checkpoints and segments: what verifying finds of them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from broker.audit.anchors import Anchors
from broker.audit.checkpoint import Checkpoint, CheckpointFolder
from broker.audit.record import record_hash, record_line
from broker.audit.report import MAX_FINDINGS, Finding, Kind, Report
from broker.audit.segments import Header, segment_file, segments
from broker.audit.verify import verify
from tests.unit.audit_world import (
    START,
    STEP_MS,
    LogWorld,
    event,
    found,
    read,
    rewritten,
    signer,
    write,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> LogWorld:
    """Twelve records in one segment, all signed, with checkpoints of 4, 8 and 12."""
    world = LogWorld(tmp_path / "audit", segment_bytes=1 << 20)
    world.fill(4, 4, 4)
    return world


@pytest.fixture
def long(tmp_path: Path) -> LogWorld:
    """Thirty records in segments of three, all signed."""
    world = LogWorld(tmp_path / "long", segment_bytes=1400)
    world.fill(*[3] * 10)
    assert [first for first, _ in segments(world.folder)] == list(range(0, 30, 3))
    return world


# Checkpoints.


def checkpoint(world: LogWorld, size: int) -> Path:
    return CheckpointFolder(world.folder).file(size)


def test_a_checkpoint_that_is_written_meanwhile_counts(world: LogWorld) -> None:
    anchors = Anchors(world.folder, [world.signer.key], Report())
    assert (anchors.has(12), anchors.has(15)) == (True, False)
    world.fill(3)
    assert anchors.has(15)


def test_a_changed_checkpoint_is_named(world: LogWorld) -> None:
    path = checkpoint(world, 8)
    good = path.read_text()
    name = "checkpoints/00000000000000000008"
    for bad in (
        good.replace("\n8\n", "\n9\n"),
        good.replace("broker.example", "brokex.example"),
        good[:-3] + "\n",
        "",
        checkpoint(world, 4).read_text(),
        signer(2).sign(good.partition("\n\n")[0] + "\n"),
        signer(1, "another.example").sign(Checkpoint("another.example", 8, bytes(32)).text()),
        world.signer.sign("broker-audit-forgotten\nbroker.example/audit\n8\n"),
    ):
        path.write_text(bad)
        assert found(world) == [(Kind.CHECKPOINT, name, None, None)]


def test_a_root_that_was_signed_for_other_records_is_found(world: LogWorld) -> None:
    forged = world.signer.sign(Checkpoint(world.signer.name, 8, bytes(32)).text())
    checkpoint(world, 8).write_text(forged)
    (finding,) = world.verify().findings
    assert (finding.kind, finding.since, finding.seq) == (Kind.ROOT, 4, 7)


def test_an_old_checkpoint_in_the_place_of_the_newest_is_found(world: LogWorld) -> None:
    latest = CheckpointFolder(world.folder).path / "latest"
    latest.write_bytes(checkpoint(world, 4).read_bytes())
    (finding,) = world.verify().findings
    assert (finding.kind, finding.file) == (Kind.CHECKPOINT, "checkpoints/latest")
    assert finding.detail == "checkpoints/latest is of 4 records; there is one of 12."
    latest.unlink()
    assert found(world) == [(Kind.CHECKPOINT, "checkpoints/latest", None, None)]


def test_a_log_set_back_to_an_old_checkpoint_is_found_by_what_was_kept_elsewhere(
    world: LogWorld,
) -> None:
    write(world, read(world)[:9])
    checkpoint(world, 12).unlink()
    shutil.copy(checkpoint(world, 8), CheckpointFolder(world.folder).path / "latest")
    assert world.verify().findings == []
    for more in ({"known": world.notes[-1:]}, {"head": world.head}):
        (finding,) = world.verify(**more).findings
        assert (finding.kind, finding.since, finding.seq) == (Kind.TRUNCATED, 8, 11)


def test_a_log_rewritten_and_signed_with_another_key_is_found(world: LogWorld) -> None:
    forged = LogWorld(world.folder.parent / "forged", key=signer(2), segment_bytes=1 << 20)
    forged.fill(4, 4, 4)
    kinds = {f.kind for f in verify(forged.folder, [world.signer.key]).findings}
    assert kinds == {Kind.CHECKPOINT, Kind.HEADER}
    # Signed with both keys it is still not what the first one signed.
    both = [world.signer.key, forged.signer.key]
    write(forged, [read(forged)[0], *rewritten(world, 5)[1:]])
    assert {f.kind for f in verify(forged.folder, both, known=world.notes).findings} == {Kind.ROOT}


def test_checkpoints_kept_elsewhere_must_be_of_this_log(world: LogWorld) -> None:
    for note in ("", signer(2).sign(Checkpoint(world.signer.name, 8, bytes(32)).text())):
        assert found(world, known=[note]) == [(Kind.CHECKPOINT, None, None, None)]
    wrong = world.signer.sign(Checkpoint(world.signer.name, 5, bytes(32)).text())
    (finding,) = world.verify(known=[wrong]).findings
    assert (finding.kind, finding.since, finding.seq) == (Kind.ROOT, 4, 4)
    assert "a checkpoint kept elsewhere" in finding.detail


def test_the_keys_are_those_of_one_log(world: LogWorld) -> None:
    for keys in ([], [world.signer.key, signer(1, "another.example").key]):
        with pytest.raises(ValueError, match="one log"):
            verify(world.folder, keys)


# Segments.


def name(first: int) -> str:
    return f"{first:020}.jsonl"


def test_a_good_log_of_many_segments_is_good(long: LogWorld) -> None:
    report = long.verify(head=long.head, known=long.notes)
    assert (report.findings, report.records, report.unsigned) == ([], 30, 0)


def test_a_changed_record_of_one_segment_spoils_no_other(long: LogWorld) -> None:
    for first, line in ((3, 2), (3, 3), (12, 1), (27, 1)):
        lines = read(long, first)
        lines[line] = lines[line].replace(b"report-writer", b"somebody-else")
        write(long, lines, first)
    assert [(f.kind, f.file, f.since, f.seq) for f in long.verify().findings] == [
        (Kind.CHANGED, name(3), 4, 5),
        (Kind.CHANGED, name(3), None, 5),
        (Kind.CHANGED, name(12), None, 12),
        (Kind.CHANGED, name(27), None, 27),
    ]


def test_the_last_record_of_a_segment_is_held_by_the_next_one(long: LogWorld) -> None:
    lines = read(long, 3)
    lines[3] = lines[3].replace(b"report-writer", b"somebody-else")
    write(long, lines, 3)
    assert found(long) == [(Kind.ROOT, name(3), None, 5)]


@pytest.mark.parametrize("first", [0, 3, 15, 27])
def test_a_missing_segment_is_named(long: LogWorld, first: int) -> None:
    segment_file(long.folder, first).unlink()
    (finding,) = long.verify().findings
    kind = Kind.TRUNCATED if first == 27 else Kind.MISSING
    assert (finding.kind, finding.since, finding.seq) == (kind, first, first + 2)


def test_segments_that_changed_places_are_named(long: LogWorld) -> None:
    one, other = read(long, 3), read(long, 6)
    write(long, other, 3)
    write(long, one, 6)
    named = found(long)
    assert (Kind.HEADER, name(3), 1, None) in named
    assert (Kind.HEADER, name(6), 1, None) in named


def test_a_copy_of_a_segment_is_named(long: LogWorld) -> None:
    write(long, read(long, 3), 4)
    assert found(long) == [
        (Kind.HEADER, name(4), 1, None),
        (Kind.MISPLACED, name(4), None, 4),
    ]


@pytest.mark.parametrize("member", [b"segment", b"origin", b"prev", b"ranges", b"cursor", b"time"])
def test_a_changed_header_is_named(long: LogWorld, member: bytes) -> None:
    header, *lines = read(long, 12)
    write(long, [header.replace(b'"%s"' % member, b'"%s2"' % member), *lines], 12)
    assert found(long) == [(Kind.HEADER, name(12), 1, None)]
    write(long, [header.replace(b",", b", ", 1), *lines], 12)
    assert found(long) == [(Kind.HEADER, name(12), 1, None)]
    write(long, lines, 12)
    assert found(long)[0] == (Kind.HEADER, name(12), 1, None)


def test_a_header_of_another_log_is_named(long: LogWorld) -> None:
    header, *lines = read(long, 12)
    ours = Header.read(header, [long.signer.key])
    other = replace(ours, origin="another.example/audit").line(long.signer)
    write(long, [other, *lines], 12)
    (finding,) = long.verify().findings
    assert (finding.kind, finding.file) == (Kind.HEADER, name(12))
    assert "is of another log" in finding.detail


def test_the_checkpoint_at_which_a_segment_begins_has_to_be_there(long: LogWorld) -> None:
    checkpoint(long, 12).unlink()
    assert found(long) == [(Kind.CHECKPOINT, name(12), None, 12)]


def test_segments_that_were_not_forgotten_on_purpose_are_missed(long: LogWorld) -> None:
    with long.open() as writer:
        writer.forget(START + 9 * STEP_MS)
    assert found(long) == []
    segment_file(long.folder, 9).unlink()
    (finding,) = long.verify().findings
    assert (finding.kind, finding.since, finding.seq) == (Kind.MISSING, 9, 11)
    (long.folder / "forgotten").unlink()
    (finding,) = long.verify().findings
    assert (finding.kind, finding.since, finding.seq) == (Kind.MISSING, 0, 11)
    # A checkpoint is a signed note too, but not one that says this.
    (long.folder / "forgotten").write_bytes(checkpoint(long, 12).read_bytes())
    assert found(long)[0] == (Kind.CHECKPOINT, "forgotten", None, None)
    (long.folder / "forgotten").write_text(long.signer.sign(f"another\n{long.signer.name}\n12\n"))
    assert found(long)[0] == (Kind.CHECKPOINT, "forgotten", None, None)


def test_nothing_is_hidden_in_front_of_a_hole(tmp_path: Path) -> None:
    here, there = LogWorld(tmp_path / "here"), LogWorld(tmp_path / "there", key=signer(2))
    with here.open() as writer:
        here.append(writer, 4)
    there.head = here.head
    there.fill(6)
    here.head = there.head
    here.fill(3)
    assert here.verify().findings == []
    good = read(here)
    changed = good[4].replace(b"report-writer", b"somebody-else")
    for lines, kind in (
        ([*good[:4], changed], Kind.ROOT),
        (good[:4], Kind.MISSING),
        ([*good, rewritten_after(good)], Kind.ROOT),
    ):
        write(here, lines)
        assert [f.kind for f in here.verify().findings] == [kind]


def rewritten_after(lines: list[bytes]) -> bytes:
    """One more record, which nobody ever wrote."""
    prev = record_hash(lines[-1][:-1])
    return record_line(event(4, kind="forged"), seq=4, prev=prev) + b"\n"


def test_there_has_to_be_a_log(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        (finding,) = verify(folder, [signer().key]).findings
        assert finding.kind is Kind.MISSING


def test_checkpoints_without_records_are_found(long: LogWorld) -> None:
    for _, path in segments(long.folder):
        path.unlink()
    assert [f.kind for f in long.verify().findings] == [Kind.MISSING, Kind.TRUNCATED]


def test_no_more_findings_are_kept_than_anybody_reads(world: LogWorld) -> None:
    write(world, [*read(world), *[b"junk\n"] * 500])
    report = world.verify()
    assert (len(report.findings), report.more) == (MAX_FINDINGS, 300)
    assert isinstance(report.findings[0], Finding)
