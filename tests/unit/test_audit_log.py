from __future__ import annotations

import json
import shutil
import stat
from typing import TYPE_CHECKING

import pytest

from broker.audit.checkpoint import CheckpointFolder, open_checkpoint
from broker.audit.errors import LedgerBehindLog, LogBusy, LogDamaged
from broker.audit.head import Head
from broker.audit.segments import Header, lines, read_forgotten, segments
from broker.audit.verify import verify
from tests.unit.audit_world import START, STEP_MS, LogWorld, event, positions, signer

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> LogWorld:
    return LogWorld(tmp_path / "audit")


def records(folder: Path) -> list[int]:
    """The numbers of all records, segment after segment."""
    found: list[int] = []
    for _, path in segments(folder):
        found += [json.loads(line)["seq"] for line in path.read_bytes().splitlines()[1:]]
    return found


def test_what_was_appended_is_on_the_disk_in_order(world: LogWorld) -> None:
    with world.open() as writer:
        head = writer.append([event(0), event(1)], positions(s0=("1-0", 2)))
        assert (head.size, head.cursor) == (2, positions(s0=("1-0", 2)))
        assert writer.head == head
        assert writer.append([], positions(s0=("9-0", 2))).cursor == positions(s0=("9-0", 2))
        assert writer.head.size == 2
    assert records(world.folder) == [0, 1]


def test_files_are_for_the_broker_alone(world: LogWorld) -> None:
    world.fill(20)
    for path in [world.folder, *world.folder.rglob("*")]:
        wanted = 0o700 if path.is_dir() else 0o600
        assert (path, stat.S_IMODE(path.stat().st_mode)) == (path, wanted)


def test_a_full_segment_is_followed_by_another_with_a_checkpoint_between(world: LogWorld) -> None:
    with world.open() as writer:
        for _ in range(10):
            world.append(writer, 3)
    found = segments(world.folder)
    assert len(found) > 2
    assert records(world.folder) == list(range(30))
    checkpoints = CheckpointFolder(world.folder)
    assert checkpoints.sizes() == [first for first, _ in found]
    for first, path in found:
        with path.open("rb") as file:
            header = Header.read(next(lines(file)), [world.signer.key])
        assert (header.first, header.follows) == (first, (first, header.head.prev))
        note = checkpoints.read(first)
        assert note is not None
        assert open_checkpoint(note, [world.signer.key]).root == header.head.root


def test_checkpoints_within_a_finished_segment_are_covered_by_the_one_at_its_end(
    world: LogWorld,
) -> None:
    world.fill(2, 1, 1, 2, 2, 2, 2)
    starts = {first for first, _ in segments(world.folder)}
    sizes = CheckpointFolder(world.folder).sizes()
    last = max(starts)
    assert {size for size in sizes if size <= last} == starts
    assert sizes[-1] == 12
    assert world.verify().ok


def test_a_writer_goes_on_where_another_stopped(world: LogWorld) -> None:
    head = world.fill(5)
    with world.open() as writer:
        assert (writer.head, writer.signed, writer.cut) == (head, 5, None)
        world.append(writer, 5)
    assert records(world.folder) == list(range(10))
    with world.open() as writer:
        world.append(writer, 5)
        writer.checkpoint()
    report = world.verify(head=world.head)
    assert (report.findings, report.records, report.unsigned) == ([], 15, 0)


def test_a_checkpoint_is_signed_once_for_a_size(world: LogWorld) -> None:
    with world.open() as writer:
        world.append(writer, 3)
        note = writer.checkpoint()
        assert writer.checkpoint() == note
        assert writer.signed == 3
    with world.open() as writer:
        assert writer.checkpoint() == note
    checkpoint = open_checkpoint(note, [world.signer.key])
    assert world.head is not None
    assert (checkpoint.size, checkpoint.root) == (3, world.head.root)
    assert CheckpointFolder(world.folder).latest() == note.encode()


def test_an_empty_log_can_be_signed(world: LogWorld) -> None:
    with world.open() as writer:
        assert open_checkpoint(writer.checkpoint(), [world.signer.key]).size == 0
    assert world.verify().ok


def test_two_writers_do_not_share_a_folder(world: LogWorld) -> None:
    with world.open(), pytest.raises(LogBusy):
        world.open()
    world.open().close()


# What a crash leaves.


def test_what_was_not_committed_is_cut_off_and_kept(world: LogWorld) -> None:
    with world.open() as writer:
        world.append(writer, 3)
        world.append(writer, 2, commit=False)
    with world.open() as writer:
        assert writer.cut is not None
        assert [json.loads(line)["seq"] for line in writer.cut.read_bytes().splitlines()] == [3, 4]
        assert writer.cut.name == "00000000000000000003.0.cut"
        world.append(writer, 1, commit=False)
    with world.open() as writer:
        assert writer.cut is not None
        assert writer.cut.name == "00000000000000000003.1.cut"
        world.append(writer, 4)
        writer.checkpoint()
    assert records(world.folder) == list(range(7))
    assert world.verify(head=world.head).findings == []


def test_half_a_line_is_cut_off_and_kept(world: LogWorld) -> None:
    head = world.fill(3)
    path = segments(world.folder)[-1][1]
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"event":{"id":"18000')
    with world.open() as writer:
        assert writer.head == head
        assert writer.cut is not None
        assert writer.cut.read_bytes() == b'{"event":{"id":"18000'
    assert path.read_bytes() == whole


def test_nothing_committed_at_all_is_cut_off_too(world: LogWorld) -> None:
    with world.open() as writer:
        world.append(writer, 3, commit=False)
    with world.open() as writer:
        assert (writer.head.size, writer.cut is not None) == (0, True)
        world.append(writer, 2)
    assert records(world.folder) == [0, 1]


def test_a_segment_without_its_first_checkpoint_gets_it(world: LogWorld) -> None:
    world.fill(3)
    world.segment_bytes = 1
    with world.open() as writer:
        world.append(writer, 1, commit=False)
    # As if the crash had come right after the first segment of a log was made.
    folder = CheckpointFolder(world.folder)
    last = segments(world.folder)[-1][1]
    last.write_bytes(last.read_bytes().split(b"\n")[0] + b"\n")
    folder.file(3).unlink()
    (folder.path / "latest").write_bytes(folder.read(0) or b"")
    with world.open() as writer:
        world.append(writer, 1)
    assert folder.read(3) is not None
    assert world.verify().findings == []


def test_a_checkpoint_of_which_only_latest_was_written_is_written_again(world: LogWorld) -> None:
    world.fill(3)
    folder = CheckpointFolder(world.folder)
    note = folder.read(3)
    folder.file(3).unlink()
    assert world.verify().findings == []
    world.open().close()
    assert folder.read(3) == note


def test_a_segment_that_never_got_its_checkpoint_is_left_behind(tmp_path: Path) -> None:
    here, there = LogWorld(tmp_path / "here"), LogWorld(tmp_path / "there")
    here.fill(3)
    there.head = here.head
    here.head = there.fill(2)
    with here.open() as writer:
        writer.checkpoint()
    # As if the crash had come before the checkpoint of the new segment was written.
    folder = CheckpointFolder(here.folder)
    folder.file(5).unlink()
    (folder.path / "latest").write_bytes(folder.read(3) or b"")
    there.head = here.head
    here.head = there.fill(2)
    with here.open() as writer:
        here.append(writer, 3)
        writer.checkpoint()
    assert [first for first, _ in segments(here.folder)] == [0, 5, 7]
    report = here.verify(head=here.head, known=there.notes)
    assert (report.findings, report.unsigned) == ([], 0)
    assert [(a.first, a.last) for a in report.absent] == [(3, 4), (5, 6)]


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


# Forgetting.


def test_old_segments_are_forgotten_and_the_rest_still_proves_itself(world: LogWorld) -> None:
    world.fill(*[3] * 10)
    found = segments(world.folder)
    keep = found[3][0]
    with world.open() as writer:
        assert writer.forget(START) == []
        gone = writer.forget(START + keep * STEP_MS)
        assert gone == [path for _, path in found[:3]]
        assert writer.forget(START + keep * STEP_MS) == []
        world.append(writer, 3)
        writer.checkpoint()
    assert read_forgotten(world.folder, [world.signer.key]) == keep
    assert records(world.folder)[0] == keep
    report = world.verify(head=world.head, known=world.notes)
    assert report.findings == []
    assert [(a.first, a.last, a.reason) for a in report.absent] == [(0, keep - 1, "forgotten")]
    assert {first for first, _ in found} <= set(CheckpointFolder(world.folder).sizes())


def test_the_segment_that_is_written_is_never_forgotten(world: LogWorld) -> None:
    world.fill(*[3] * 10)
    last = segments(world.folder)[-1][1]
    with world.open() as writer:
        writer.forget(1 << 60)
        assert [path for _, path in segments(world.folder)] == [last]
        world.append(writer, 3)
        writer.checkpoint()
    assert world.verify(head=world.head).findings == []


def test_a_segment_without_records_is_as_old_as_its_header(tmp_path: Path) -> None:
    here, there = LogWorld(tmp_path / "here"), LogWorld(tmp_path / "there")
    here.fill(2)
    there.head = here.head
    with there.open() as writer:
        writer.checkpoint()
    there.head = here.fill(2)
    with there.open() as writer:
        there.append(writer, 2)
        assert [path.stem for path in writer.forget(START)] == []
        assert [int(path.stem) for path in writer.forget(START + 1)] == [2]
    assert there.verify().findings == []


def test_an_event_as_long_as_many_others_is_found_at_the_end_of_its_segment(
    world: LogWorld,
) -> None:
    with world.open() as writer:
        for number in range(3):
            world.head = writer.append([event(number, padding="x" * 200_000)], {})
        assert [int(path.stem) for path in writer.forget(START + STEP_MS)] == [0]
