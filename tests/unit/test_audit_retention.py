from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.audit.checkpoint import CheckpointFolder
from broker.audit.segments import read_forgotten, segments
from tests.unit.audit_world import (
    START,
    STEP_MS,
    LogWorld,
    event,
    records,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def world(tmp_path: Path) -> LogWorld:
    return LogWorld(tmp_path / "audit")


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


def test_what_was_forgotten_once_may_be_missing_for_good(world: LogWorld) -> None:
    world.fill(*[3] * 10)
    (first, oldest), (second, _), *_ = segments(world.folder)
    copy = oldest.read_bytes()
    with world.open() as writer:
        writer.forget(START + 12 * STEP_MS)
        mark = read_forgotten(world.folder, [world.signer.key])
        assert first < second < mark <= 12
        oldest.write_bytes(copy)  # out of a backup
        assert world.verify().findings == []
        assert writer.forget(START + second * STEP_MS) == [oldest]
    assert read_forgotten(world.folder, [world.signer.key]) == mark
    assert world.verify().findings == []


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
