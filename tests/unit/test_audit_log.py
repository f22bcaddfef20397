from __future__ import annotations

import json
import stat
from typing import TYPE_CHECKING

import pytest

from broker.audit.checkpoint import CheckpointFolder, open_checkpoint
from broker.audit.errors import LogBusy
from broker.audit.segments import Header, lines, segments
from tests.unit.audit_world import (
    LogWorld,
    event,
    positions,
    records,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> LogWorld:
    return LogWorld(tmp_path / "audit")


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
