from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from broker.audit.report import Kind
from broker.audit.segments import segment_file
from tests.unit.audit_world import (
    START,
    STEP_MS,
    LogWorld,
    found,
    read,
    rewritten,
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


JUNK = (b"\n", b"junk\n", b"{}\n", b"\xff\n")


@pytest.mark.parametrize("junk", JUNK, ids=["empty", "text", "object", "bytes"])
def test_a_line_that_is_no_record_is_named(world: LogWorld, junk: bytes) -> None:
    lines = read(world)
    for rest in (lines[6:], lines[7:]):  # between two records, or in the place of one
        write(world, [*lines[:6], junk, *rest])
        assert found(world) == [(Kind.MALFORMED, SEGMENT, 7, 5)]
    write(world, [*lines[:6], junk, *lines[8:]])
    assert found(world) == [
        (Kind.MALFORMED, SEGMENT, 7, 5),
        (Kind.MISSING, SEGMENT, 8, 6),
    ]


def test_a_line_longer_than_any_record_is_named(world: LogWorld) -> None:
    lines = read(world)
    write(world, [*lines[:6], b"x" * (17 << 20) + b"\n", *lines[6:]])
    assert {each[:2] for each in found(world)} == {(Kind.MALFORMED, SEGMENT)}


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


def test_a_ledger_that_follows_another_record_is_found(world: LogWorld) -> None:
    assert world.head is not None
    (finding,) = world.verify(head=replace(world.head, prev="0" * 64)).findings
    assert (finding.kind, finding.seq) == (Kind.ROOT, 11)
