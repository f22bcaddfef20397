"""What is left of the log when the disk refuses."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import pytest

from broker.audit.segments import segments
from tests.unit.audit_world import LogWorld, event

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from pathlib import Path

    from broker.audit.log import LogWriter

FULL = (errno.ENOSPC, errno.EFBIG)


@contextmanager
def no_file_longer_than(size: int) -> Generator[None]:
    """The kernel's own limit: a write takes what fits, and the next one fails."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 64 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=700", "tmpfs", str(disk)]
    if os.geteuid() != 0 or subprocess.run(mounting, check=False, capture_output=True).returncode:
        pytest.skip("only root, outside of most containers, can mount a file system")
    try:
        yield disk
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def fill_up(disk: Path) -> Path:
    """Leave no room for another byte."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 512):
            pass
    assert shutil.disk_usage(disk).free == 0
    return ballast


def refused(writer: LogWriter, padding: int = 0) -> None:
    before = writer.head
    with pytest.raises(OSError, match=r".") as raised:
        writer.append([event(9, padding="x" * padding)], {})
    assert raised.value.errno in FULL
    assert writer.head == before


def test_a_write_that_stops_half_way_leaves_nothing(tmp_path: Path) -> None:
    world = LogWorld(tmp_path / "audit", segment_bytes=1 << 20)
    with world.open() as writer:
        world.append(writer, 3)
        path = segments(world.folder)[-1][1]
        before = path.read_bytes()
        for room in (0, 1, 700):
            with no_file_longer_than(len(before) + room):
                refused(writer, padding=5000)
            assert path.read_bytes() == before
        world.append(writer, 3)
        writer.checkpoint()
    assert world.verify(head=world.head).findings == []
    with world.open() as writer:
        assert writer.cut is None


def test_a_segment_that_cannot_be_begun_is_begun_later(tmp_path: Path) -> None:
    world = LogWorld(tmp_path / "audit")
    with world.open() as writer:
        with no_file_longer_than(100):
            refused(writer)
            with pytest.raises(OSError, match=r"."):
                writer.checkpoint()
        assert segments(world.folder) == []
        for _ in range(5):
            world.append(writer, 3)
            with no_file_longer_than(100):
                refused(writer)
        writer.checkpoint()
    assert world.verify(head=world.head).findings == []
    assert len(segments(world.folder)) > 2


def test_a_checkpoint_that_cannot_be_written_is_signed_later(tmp_path: Path) -> None:
    world = LogWorld(tmp_path / "audit", segment_bytes=1 << 20)
    with world.open() as writer:
        world.append(writer, 3)
        with no_file_longer_than(10), pytest.raises(OSError, match=r"."):
            writer.checkpoint()
        assert writer.signed == 0
        assert writer.checkpoint().splitlines()[1] == "3"
    assert world.verify(head=world.head).findings == []


def test_a_full_disk_leaves_nothing_of_what_did_not_fit(small_disk: Path) -> None:
    world = LogWorld(small_disk / "audit", segment_bytes=8000)
    with world.open() as writer:
        world.append(writer, 3)
        ballast = fill_up(small_disk)
        refused(writer, padding=20_000)
        with pytest.raises(OSError, match="No space left"):
            writer.checkpoint()
        ballast.unlink()
        world.append(writer, 3)
        refused(writer, padding=100_000)
        world.append(writer, 3)
        writer.checkpoint()
    assert world.verify(head=world.head).findings == []
    with world.open() as writer:
        assert writer.cut is None


def test_a_log_can_be_opened_and_verified_on_a_full_disk(small_disk: Path) -> None:
    world = LogWorld(small_disk / "audit")
    head = world.fill(3)
    ballast = fill_up(small_disk)
    with world.open() as writer:
        assert writer.head == head
        refused(writer, padding=20_000)
    assert world.verify(head=head).findings == []
    ballast.unlink()
    with world.open() as writer:
        world.append(writer, 1)


def test_a_disk_that_takes_nothing_at_all(tmp_path: Path) -> None:
    world = LogWorld(tmp_path / "audit")
    with world.open() as writer:
        world.append(writer, 1)
        head = world.head
    path = segments(world.folder)[-1][1]
    kept = path.read_bytes()
    with world.open() as writer, no_file_longer_than(0):
        refused(writer)
    assert (world.head, path.read_bytes()) == (head, kept)
