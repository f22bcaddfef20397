"""Reading the log's files: from a bookmark on, as far as they are committed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.audit.log import LogWriter
from broker.audit.reader import Bookmark, read_chunk
from broker.audit.record import cloud_event
from broker.clock import SystemClock
from broker.events import Event
from tests.audit_bench import BEGIN_MS, SIGNER, SOURCE, Log, segments

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "log", segment_bytes=4096)


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_every_record_is_read_once_over_all_segments(log: Log, limit: int) -> None:
    for _ in range(12):
        log.add(10)
    assert len(segments(log.folder)) > 3

    seen: list[int] = []
    place = Bookmark()
    while (chunk := read_chunk(log.folder, place, until=120, limit=limit)).events:
        assert len(chunk.events) <= limit
        seen += [event["data"]["number"] for event in chunk.events]
        assert Bookmark.from_json(chunk.after.to_json()) == chunk.after
        place = chunk.after

    assert seen == list(range(120))
    assert place.seq == 120


def test_nothing_is_read_that_is_not_committed(log: Log) -> None:
    log.add(10)

    chunk = read_chunk(log.folder, Bookmark(), until=4, limit=100)

    assert len(chunk.events) == 4
    assert read_chunk(log.folder, chunk.after, until=4, limit=100).events == ()


def test_a_bookmark_without_an_offset_is_found(log: Log) -> None:
    for _ in range(12):
        log.add(10)

    chunk = read_chunk(log.folder, Bookmark(77), until=120, limit=2)

    assert [event["data"]["number"] for event in chunk.events] == [77, 78]


def test_a_stale_offset_is_not_believed(log: Log) -> None:
    log.add(10)

    chunk = read_chunk(log.folder, Bookmark(5, 0, 700), until=10, limit=1)

    assert chunk.events[0]["data"]["number"] == 5


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"seq":-1,"segment":0,"offset":0,"prev":""}'])
def test_a_position_that_cant_be_read_is_the_beginning(text: str) -> None:
    assert Bookmark.from_json(text) == Bookmark()


def test_half_a_line_is_not_read_yet(log: Log) -> None:
    log.add(3)
    with segments(log.folder)[-1].open("ab") as file:
        file.write(b'{"event":{')

    assert len(read_chunk(log.folder, Bookmark(), until=9, limit=9).events) == 3


def test_what_is_on_another_disk_is_passed_over_and_counted(tmp_path: Path, log: Log) -> None:
    head = log.writer.head
    log.add(5)
    log.writer.checkpoint()
    head = log.writer.head
    with LogWriter.open(tmp_path / "b", signer=SIGNER, clock=SystemClock(), head=head) as other:
        event = Event(f"{BEGIN_MS}-07-0", BEGIN_MS, "test", "", "", "", {})
        other.append([cloud_event(event, source=SOURCE)], {})

    chunk = read_chunk(tmp_path / "b", Bookmark(), until=6, limit=9)

    assert (len(chunk.events), chunk.absent, chunk.after.seq) == (1, 5, 6)
