from __future__ import annotations

import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from broker.audit.checkpoint import Checkpoint, CheckpointFolder
from broker.audit.head import GENESIS
from broker.audit.record import record_hash, record_line
from broker.audit.report import MAX_FINDINGS, Finding, Kind
from broker.audit.segments import segment_file, segments
from broker.audit.verify import verify
from tests.unit.audit_world import START, STEP_MS, LogWorld, event, signer

if TYPE_CHECKING:
    from collections.abc import Sequence
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


def read(world: LogWorld, first: int = 0) -> list[bytes]:
    return segment_file(world.folder, first).read_bytes().splitlines(keepends=True)


def write(world: LogWorld, lines: Sequence[bytes], first: int = 0) -> None:
    segment_file(world.folder, first).write_bytes(b"".join(lines))


def found(world: LogWorld, **more: Any) -> list[tuple[Kind, str | None, int | None, int | None]]:
    """Kind, file, line and record of each finding."""
    return [(f.kind, f.file, f.line, f.seq) for f in world.verify(**more).findings]


SEGMENT = "00000000000000000000.jsonl"


def test_a_good_log_is_good(world: LogWorld) -> None:
    report = world.verify(head=world.head, known=world.notes)
    assert report.ok
    assert (report.size, report.records, report.signed, report.unsigned) == (12, 12, 12, 0)
    assert (report.checkpoints, report.absent, report.incomplete) == (4, [], False)
    assert report.as_json()["ok"] is True


def test_records_after_the_newest_checkpoint_are_counted(world: LogWorld) -> None:
    with world.open() as writer:
        world.append(writer, 5)
    report = world.verify(head=world.head)
    assert (report.findings, report.size, report.signed, report.unsigned) == ([], 17, 12, 5)


def test_a_log_can_be_verified_while_it_is_written_and_forgotten(tmp_path: Path) -> None:
    world = LogWorld(tmp_path / "busy", segment_bytes=1400)
    world.fill(1)
    stop = threading.Event()

    def write_on() -> None:
        with world.open() as writer:
            while not stop.is_set():
                world.append(writer, 2)
                writer.checkpoint()
                writer.forget(START + (writer.head.size - 60) * STEP_MS)

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(write_on)
        try:
            sizes = set[int]()
            while len(sizes) < 25 and not writing.done():
                report = world.verify(head=world.head)
                assert report.findings == []
                sizes.add(report.size)
        finally:
            stop.set()
        writing.result()
    assert world.verify(head=world.head).unsigned == 0


# Records.


@pytest.mark.parametrize("number", range(12))
def test_a_changed_record_is_named(world: LogWorld, number: int) -> None:
    lines = read(world)
    lines[number + 1] = lines[number + 1].replace(b"report-writer", b"somebody-else")
    write(world, lines)
    named = [(f.kind, f.line, f.since, f.seq) for f in world.verify().findings]
    if number % 4 == 3:  # the next checkpoint doesn't know it either
        assert named.pop(0) == (Kind.ROOT, None, number - 3, number)
    if number == 10:  # the last record could also have been made to follow another
        assert named == [(Kind.CHANGED, 12, 10, 11)]
    elif number < 11:
        assert named == [(Kind.CHANGED, number + 2, None, number)]


@pytest.mark.parametrize("number", range(12))
def test_a_missing_record_is_named(world: LogWorld, number: int) -> None:
    lines = read(world)
    del lines[number + 1]
    write(world, lines)
    kind, line = (Kind.MISSING, number + 2) if number < 11 else (Kind.TRUNCATED, None)
    file = SEGMENT if number < 11 else None
    assert found(world) == [(kind, file, line, number)]


@pytest.mark.parametrize("number", range(12))
def test_a_record_that_is_there_twice_is_named(world: LogWorld, number: int) -> None:
    lines = read(world)
    lines.insert(number + 1, lines[number + 1])
    write(world, lines)
    assert found(world) == [(Kind.MISPLACED, SEGMENT, number + 3, number)]


@pytest.mark.parametrize("number", range(11))
def test_records_that_changed_places_are_named(world: LogWorld, number: int) -> None:
    lines = read(world)
    lines[number + 1], lines[number + 2] = lines[number + 2], lines[number + 1]
    write(world, lines)
    assert found(world)[:2] == [
        (Kind.MISSING, SEGMENT, number + 2, number),
        (Kind.MISPLACED, SEGMENT, number + 3, number),
    ]


@pytest.mark.parametrize("kept", range(12))
def test_a_log_that_ends_too_early_is_found(world: LogWorld, kept: int) -> None:
    write(world, read(world)[: kept + 1])
    (finding,) = world.verify().findings
    assert (finding.kind, finding.since, finding.seq) == (Kind.TRUNCATED, kept, 11)
    assert finding.detail == (
        f"The log ends at {kept} records; checkpoints/00000000000000000012 is of 12."
    )


def test_a_log_that_ends_within_a_line_is_found(world: LogWorld) -> None:
    whole = segment_file(world.folder, 0).read_bytes()
    write(world, [whole[:-1]])
    report = world.verify()
    assert report.incomplete
    assert [f.kind for f in report.findings] == [Kind.TRUNCATED]
    write(world, [whole, b'{"event":{'])
    report = world.verify()
    assert (report.incomplete, report.findings) == (True, [])


@pytest.mark.parametrize("junk", [b"\n", b"junk\n", b"{}\n", b"\xff\n", b"x" * (17 << 20) + b"\n"])
def test_a_line_that_is_no_record_is_named(world: LogWorld, junk: bytes) -> None:
    lines = read(world)
    write(world, [*lines[:6], junk, *lines[6:]])
    named = found(world)
    assert {each[:2] for each in named} == {(Kind.MALFORMED, SEGMENT)}
    assert named[0][2:] == (7, 5)
    write(world, [*lines[:6], junk, *lines[7:]])
    assert found(world)[0] == (Kind.MALFORMED, SEGMENT, 7, 5)


def test_a_record_that_says_another_number_is_named(world: LogWorld) -> None:
    lines = read(world)
    for number in (3, 77):
        write(world, [*lines[:6], lines[6].replace(b'"seq":5', b'"seq":%d' % number), *lines[7:]])
        assert found(world)[0] == (Kind.CHANGED, SEGMENT, 7, 5)


def test_a_record_that_follows_another_is_named(world: LogWorld) -> None:
    lines = read(world)
    prev = lines[6].split(b'"prev":"')[1][:64]
    lines[6] = lines[6].replace(prev, b"0" * 64)
    write(world, lines)
    (finding,) = world.verify().findings
    assert (finding.kind, finding.since, finding.seq, finding.line) == (Kind.CHANGED, 4, 5, 6)
    lines[12] = lines[12].replace(lines[12].split(b'"prev":"')[1][:64], b"0" * 64)
    write(world, lines)
    assert [(f.kind, f.since, f.seq) for f in world.verify().findings] == [
        (Kind.CHANGED, 4, 5),
        (Kind.CHANGED, 10, 11),
    ]


def test_a_record_written_in_another_way_is_named(world: LogWorld) -> None:
    lines = read(world)
    lines[6] = lines[6].replace(b'{"event":', b'{ "event":', 1)
    write(world, lines)
    assert found(world)[0] == (Kind.MALFORMED, SEGMENT, 7, 5)


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


@pytest.mark.parametrize("number", range(12))
def test_a_chain_that_was_computed_again_is_not_what_was_signed(
    world: LogWorld, number: int
) -> None:
    assert rewritten(world, -1) == read(world)
    write(world, rewritten(world, number))
    (finding,) = world.verify().findings
    since = number // 4 * 4
    assert (finding.kind, finding.since, finding.seq) == (Kind.ROOT, since, since + 3)


def test_without_a_checkpoint_a_chain_that_was_computed_again_is_only_found_by_the_ledger(
    world: LogWorld,
) -> None:
    with world.open() as writer:
        world.append(writer, 3)
    write(world, rewritten(world, 13))
    assert world.verify().findings == []
    assert world.verify().unsigned == 3
    (finding,) = world.verify(head=world.head).findings
    assert (finding.kind, finding.since, finding.seq) == (Kind.ROOT, 12, 14)
    assert "the ledger is of others" in finding.detail


# Checkpoints.


def checkpoint(world: LogWorld, size: int) -> Path:
    return CheckpointFolder(world.folder).file(size)


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
