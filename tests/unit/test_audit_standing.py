"""Going on with a log when the ledger, another disk or somebody else had other ideas."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.audit.checkpoint import CheckpointFolder
from broker.audit.errors import LedgerBehindLog, LogDamaged
from broker.audit.head import Head
from broker.audit.segments import segments
from broker.audit.verify import verify
from tests.unit.audit_world import (
    LogWorld,
    event,
    records,
    signer,
)


@pytest.fixture
def world(tmp_path: Path) -> LogWorld:
    return LogWorld(tmp_path / "audit")


# The ledger was set back.


def test_a_ledger_that_was_set_back_takes_the_logs_word(world: LogWorld) -> None:
    early = world.fill(4)
    late = world.fill(3, 5)
    with pytest.raises(LedgerBehindLog, match="12 signed records, the ledger knows of 4") as raised:
        world.open(early)
    assert raised.value.head == late
    with world.open(raised.value.head) as writer:
        world.head = raised.value.head
        world.append(writer, 2)
        writer.checkpoint()
    assert world.verify(head=world.head).findings == []
    assert records(world.folder) == list(range(14))


def test_a_ledger_that_lost_everything_takes_the_logs_word(world: LogWorld) -> None:
    late = world.fill(9)
    world.head = None
    with pytest.raises(LedgerBehindLog) as raised:
        world.open()
    assert raised.value.head == late
    world.open(raised.value.head).close()


def test_what_comes_after_the_checkpoint_counts_as_well_then(world: LogWorld) -> None:
    world.fill(4)
    with world.open() as writer:
        late = world.append(writer, 2)
    path = segments(world.folder)[-1][1]
    path.write_bytes(path.read_bytes() + b'{"half a line')
    with pytest.raises(LedgerBehindLog) as raised:
        world.open(Head())
    assert raised.value.head == late


# Records on other disks.


def test_what_is_on_another_disk_leaves_a_signed_hole(tmp_path: Path) -> None:
    here, there = LogWorld(tmp_path / "here"), LogWorld(tmp_path / "there", key=signer(2))
    here.fill(4)
    there.head = here.head
    there.fill(6)
    here.head = there.head
    with here.open() as writer:
        here.append(writer, 3)
        writer.checkpoint()
    assert records(here.folder) == [0, 1, 2, 3, 10, 11, 12]
    mine, theirs = here.verify(head=here.head), there.verify()
    assert mine.findings == theirs.findings == []
    assert [(a.first, a.last, a.reason) for a in mine.absent] == [(4, 9, "elsewhere")]
    assert [(a.first, a.last, a.reason) for a in theirs.absent] == [(0, 3, "elsewhere")]
    # Each replica's checkpoints vouch for the other's records.
    keys = [here.signer.key, there.signer.key]
    assert verify(here.folder, keys, known=there.notes).findings == []
    assert verify(there.folder, keys, known=here.notes).more == 0


def test_segments_of_several_disks_make_one_log(tmp_path: Path) -> None:
    here, there = LogWorld(tmp_path / "here"), LogWorld(tmp_path / "there", key=signer(2))
    here.fill(4)
    there.head = here.head
    there.fill(6)
    here.head = there.head
    here.fill(3)
    for _, path in segments(there.folder):
        shutil.copy(path, here.folder)
    for size in CheckpointFolder(there.folder).sizes():
        if not CheckpointFolder(here.folder).file(size).exists():
            shutil.copy(CheckpointFolder(there.folder).file(size), here.folder / "checkpoints")
    report = verify(here.folder, [here.signer.key, there.signer.key], head=here.head)
    assert (report.findings, report.absent, report.records) == ([], [], 13)


def test_a_folder_of_a_log_that_forked_is_not_written_to(tmp_path: Path) -> None:
    here, there = LogWorld(tmp_path / "here"), LogWorld(tmp_path / "there")
    here.fill(8)
    there.fill(4)
    with there.open() as writer:
        forked = writer.append([event(number, kind="x") for number in range(4, 12)], {})
    with pytest.raises(LogDamaged, match="doesn't go on from these records"):
        here.open(forked)


def test_a_new_disk_begins_where_the_ledger_is(tmp_path: Path) -> None:
    old, new = LogWorld(tmp_path / "old"), LogWorld(tmp_path / "new")
    new.head = old.fill(7)
    with new.open() as writer:
        assert writer.head == old.head
        new.append(writer, 1)
        assert writer.signed == 7
    assert records(new.folder) == [7]
    assert new.verify(known=old.notes).findings == []


# Somebody was there.


def test_a_folder_that_is_not_what_the_ledger_says_is_not_written_to(world: LogWorld) -> None:
    world.segment_bytes = 100_000
    with world.open() as writer:
        world.append(writer, 3)
        world.append(writer, 3)
    path = segments(world.folder)[-1][1]
    good = path.read_bytes()
    path.write_bytes(good.replace(b"report-writer", b"somebody-else", 1))
    with pytest.raises(LogDamaged, match="record 1 isn't as it was written"):
        world.open()
    other = LogWorld(world.folder.parent / "other", segment_bytes=100_000)
    with other.open() as writer:
        other.append(writer, 5)
        writer.append([event(5, kind="another")], {})
    path.write_bytes(segments(other.folder)[-1][1].read_bytes())
    with pytest.raises(LogDamaged, match="the ledger says something else of the first 6"):
        world.open()
    path.write_bytes(good)
    world.open().close()


def test_signed_records_that_are_gone_are_missed(world: LogWorld) -> None:
    world.fill(3)
    path = segments(world.folder)[-1][1]
    good = path.read_bytes()
    path.write_bytes(b"".join(good.splitlines(keepends=True)[:-1]))
    with pytest.raises(LogDamaged, match="ends at 2, and 3 records were signed"):
        world.open()
    path.unlink()
    with pytest.raises(LogDamaged, match="checkpoints but no records"):
        world.open()
    path.write_bytes(good.replace(b'"signature"', b'"sygnature"'))
    with pytest.raises(LogDamaged, match="does not begin with a header"):
        world.open()
    path.write_bytes(good)
    path.rename(path.with_name(f"{1:020}.jsonl"))
    with pytest.raises(LogDamaged, match="is the segment of record 0"):
        world.open()


def test_records_that_were_rewritten_with_their_chain_are_not_those_that_were_signed(
    world: LogWorld,
) -> None:
    world.fill(3)
    forged = LogWorld(world.folder.parent / "forged")
    with forged.open() as writer:
        forged.head = writer.append([event(n, kind="forged") for n in range(3)], {})
    path = segments(world.folder)[-1][1]
    path.write_bytes(segments(forged.folder)[-1][1].read_bytes())
    with pytest.raises(LogDamaged, match="not what the checkpoint of 3 records was made of"):
        world.open(forged.head)


def test_an_old_checkpoint_does_not_stand_for_the_newest(world: LogWorld) -> None:
    world.fill(3, 2)
    folder = CheckpointFolder(world.folder)
    old = folder.read(3)
    assert old is not None
    (folder.path / "latest").write_bytes(old)
    with pytest.raises(LogDamaged, match="an old checkpoint stands for the newest"):
        world.open()
    folder.file(5).write_bytes(old)
    with pytest.raises(LogDamaged, match="an old checkpoint stands for the newest"):
        world.open()


def test_another_key_does_not_go_on_with_a_log_unless_it_knows_the_old_one(
    world: LogWorld,
) -> None:
    world.fill(3)
    old, world.signer = world.signer, signer(7)
    with pytest.raises(LogDamaged, match="not signed by a key that is known"):
        world.open()
    with world.open(trusted=[old.key]) as writer:
        world.append(writer, 20)
        writer.checkpoint()
    report = verify(world.folder, [old.key, world.signer.key], head=world.head)
    assert report.findings == []
    assert verify(world.folder, [old.key]).findings


def test_records_that_changed_before_they_were_signed_are_not_signed(world: LogWorld) -> None:
    with world.open() as writer:
        world.append(writer, 2)
        writer.checkpoint()
        world.append(writer, 2)
        path = segments(world.folder)[-1][1]
        good = path.read_bytes()
        head, _, tail = good.rpartition(b"report-writer")
        for bad in (head + b"somebody-else" + tail, good + b"x", good[:-1]):
            path.write_bytes(bad)
            with pytest.raises(LogDamaged, match="was written"):
                writer.checkpoint()
        path.write_bytes(good + b"x")
        with pytest.raises(LogDamaged, match="isn't as long as it was written"):
            world.append(writer, 1)
        path.write_bytes(good)
        assert writer.checkpoint().splitlines()[1] == "4"


# Whatever happened.


@settings(max_examples=60)
@given(st.integers(0, 3000), st.binary(max_size=40), st.booleans())
def test_whatever_a_crash_left_after_the_head_a_writer_goes_on(
    kept: int, junk: bytes, signed: bool
) -> None:
    with TemporaryDirectory() as temporary:
        world = LogWorld(Path(temporary) / "audit", segment_bytes=1 << 20)
        with world.open() as writer:
            world.append(writer, 3)
            if signed:
                writer.checkpoint()
            path = segments(world.folder)[-1][1]
            committed = path.read_bytes()
            world.append(writer, 4, commit=False)
        written = path.read_bytes()[len(committed) :][:kept] + junk
        path.write_bytes(committed + written)
        with world.open() as writer:
            assert path.read_bytes() == committed
            assert (writer.cut.read_bytes() if writer.cut else b"") == written
            world.append(writer, 2)
            writer.checkpoint()
        report = world.verify(head=world.head)
        assert (report.findings, report.records, report.unsigned) == ([], 5, 0)


@pytest.mark.parametrize("lost", [1, 50, 1000])
def test_what_a_disk_lost_of_committed_records_is_a_hole_for_good(
    world: LogWorld, lost: int
) -> None:
    world.segment_bytes = 1 << 20
    world.fill(2)
    with world.open() as writer:
        world.append(writer, 4)  # committed, and not signed
    path = segments(world.folder)[-1][1]
    content = path.read_bytes()
    path.write_bytes(content[:-lost])
    left = content[:-lost].count(b"\n") - 1
    with world.open() as writer:
        assert (writer.cut is not None) is not content[:-lost].endswith(b"\n")
        assert writer.lacks == 6 - left
        world.append(writer, 1)
        writer.checkpoint()
    report = world.verify(head=world.head)
    assert [(a.first, a.last, a.reason) for a in report.absent] == [(left, 5, "elsewhere")]


@settings(max_examples=100)
@given(st.data())
def test_no_changed_byte_before_the_head_is_gone_on_from(draw: st.DataObject) -> None:
    with TemporaryDirectory() as temporary:
        world = LogWorld(Path(temporary) / "audit", segment_bytes=1 << 20)
        world.fill(2)
        with world.open() as writer:
            world.append(writer, 2)  # committed, and not signed
        path = segments(world.folder)[-1][1]
        content = bytearray(path.read_bytes())
        content[draw.draw(st.integers(0, len(content) - 2))] ^= draw.draw(st.integers(1, 255))
        path.write_bytes(content)
        with pytest.raises(LogDamaged):
            world.open()
