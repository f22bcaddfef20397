"""Draining when disks are full, hang or can't be used, and whether issuing goes on then."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from broker.audit.drain import REST_S
from broker.audit.guard import Guard
from broker.dev.engines import Valkey
from broker.errors import AuditUnavailable, LedgerUnavailable
from broker.ledger import keys
from tests.audit_bench import (
    Replica,
    assert_whole,
    drained,
    emit,
    lease_runs_out,
    segments,
)
from tests.clocks import ManualClock
from tests.contract.ledger_bench import Bench
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Generator[Valkey]:
    with Valkey(tmp_path_factory.mktemp("v")) as server:
        yield server


@pytest.fixture
async def bench(valkey: Valkey) -> AsyncGenerator[Bench]:
    made = Bench(valkey.url)
    await made.connection.command("FLUSHALL")
    yield made
    await made.close()


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A disk of 256 KiB."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(place)],
        capture_output=True,
        check=False,
    )
    if made.returncode:
        pytest.skip("may not mount a small disk here")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def filled(place: Path) -> Path:
    """Fill a disk to its last byte; return the file to remove."""
    ballast = place / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1024))
    with contextlib.suppress(OSError), ballast.open("ab", buffering=0) as file:
        while True:
            file.write(b"x")
    return ballast


async def _size(replica: Replica, size: int) -> bool:
    return (await replica.drain.run_once()).size == size


# ── disks and servers ────────────────────────────────────────────────────────────────────────────


async def test_a_full_disk_gives_the_lease_up_and_nothing_is_lost(
    bench: Bench, small_disk: Path
) -> None:
    clock = ManualClock()
    replica = Replica(bench, small_disk / "log", clock=clock, max_lag_ms=50)
    await emit(bench, 20)
    await drained(bench, replica)
    ballast = filled(small_disk)
    await emit(bench, 100)

    with pytest.raises(AuditUnavailable, match="No space left"):
        await wait_until(lambda: _size(replica, 120), "the disk is full")
    assert await bench.connection.command("EXISTS", keys.lease("audit")) == 0
    assert "No space left" in replica.guard.state()
    assert not (await replica.drain.run_once()).holder  # it leaves it to others for a while

    async def closed() -> bool:
        await replica.guard.refresh()
        return replica.guard.closed

    await wait_until(closed, "issuing stops once events have waited too long")
    with pytest.raises(AuditUnavailable) as refusal:
        replica.guard.check()
    assert refusal.value.retry_after

    ballast.unlink()
    clock.advance(REST_S + 1)
    await drained(bench, replica)
    await replica.guard.refresh()
    replica.guard.check()
    assert replica.guard.state() == "ok"
    assert len(await assert_whole(bench, small_disk / "log")) == 120
    await replica.drain.stop()


async def test_another_replica_drains_while_ones_disk_is_full(
    bench: Bench, small_disk: Path, tmp_path: Path
) -> None:
    full = Replica(bench, small_disk / "log")
    await emit(bench, 20)
    await drained(bench, full)
    filled(small_disk)
    await emit(bench, 100)
    with pytest.raises(AuditUnavailable):
        await wait_until(lambda: _size(full, 120), "the disk is full")

    healthy = Replica(bench, tmp_path / "b")
    await drained(bench, healthy)
    await healthy.drain.stop()
    await full.guard.refresh()

    assert not full.guard.closed
    assert full.guard.state().startswith("warning")
    assert len(await assert_whole(bench, small_disk / "log", tmp_path / "b")) == 120
    await full.drain.stop()


async def test_a_folder_that_cant_be_made_is_said(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    replica = Replica(bench, tmp_path / "file" / "log")
    await emit(bench, 1)

    with pytest.raises(AuditUnavailable, match="Not a directory"):
        await replica.drain.run_once()

    assert await bench.connection.command("EXISTS", keys.lease("audit")) == 0
    await replica.drain.stop()


async def test_a_disk_that_hangs_holds_up_nothing_but_the_log(bench: Bench, tmp_path: Path) -> None:
    before = Replica(bench, tmp_path / "log")
    await emit(bench, 8)
    await drained(bench, before)
    await before.drain.stop()
    [segment] = segments(tmp_path / "log")
    aside = segment.rename(tmp_path / "aside")
    os.mkfifo(segment)  # whoever opens it waits for one who writes to it
    replica = Replica(bench, tmp_path / "log", max_lag_ms=100)
    await replica.guard.refresh()
    run = asyncio.ensure_future(replica.drain.run_once())

    async def closed() -> bool:
        await emit(bench, 1)  # the event loop, and the ledger, go on
        await replica.guard.refresh()
        return replica.guard.closed

    await wait_until(closed, "issuing stops once events have waited too long")
    assert not run.done()
    await lease_runs_out(bench)
    heir = Replica(bench, tmp_path / "b")
    await drained(bench, heir)
    await replica.guard.refresh()
    assert not replica.guard.closed
    await heir.drain.stop()

    aside.replace(tmp_path / "whole")
    descriptor = os.open(segment, os.O_WRONLY)  # the disk answers again: nothing is there
    os.close(descriptor)
    with contextlib.suppress(AuditUnavailable):
        await run
    await replica.drain.stop()
    (tmp_path / "whole").replace(segment)
    await assert_whole(bench, tmp_path / "log", tmp_path / "b")


async def test_a_ledger_that_doesnt_answer_is_asked_again(tmp_path: Path) -> None:
    data = tmp_path / "valkey"
    data.mkdir()
    with Valkey(data) as server:
        bench = Bench(server.url)
        replica = Replica(bench, tmp_path / "log")
        await emit(bench, 8)
        await drained(bench, replica)
        await emit(bench, 8)
    with pytest.raises(LedgerUnavailable):
        await replica.drain.run_once()
    await replica.drain.stop()
    await bench.close()
    with Valkey(data) as server:
        bench = Bench(server.url)
        await lease_runs_out(bench)
        again = Replica(bench, tmp_path / "log")
        await drained(bench, again)
        assert len(await assert_whole(bench, tmp_path / "log")) == 16
        await again.drain.stop()
        await bench.close()


# ── the guard alone ──────────────────────────────────────────────────────────────────────────────


async def test_without_a_log_nothing_is_refused() -> None:
    clock = ManualClock()
    guard = Guard(None, clock, max_lag_ms=1)
    await guard.refresh()
    clock.advance(3600)

    guard.check()

    assert guard.state() == "ok"
    assert guard.lag_ms == 0


async def test_a_guard_that_nobody_refreshes_closes(bench: Bench, tmp_path: Path) -> None:
    clock = ManualClock()
    replica = Replica(bench, tmp_path, clock=clock, max_lag_ms=30_000)
    replica.guard.check()  # nothing is known yet
    await replica.guard.refresh()
    clock.advance(30)
    replica.guard.check()
    clock.advance(1)

    with pytest.raises(AuditUnavailable, match="30s") as refusal:
        replica.guard.check()

    assert refusal.value.code == "audit_unavailable"
    await replica.guard.refresh()
    replica.guard.check()


async def test_a_guard_that_never_got_an_answer_closes_too(tmp_path: Path) -> None:
    bench = Bench("redis://127.0.0.1:1")
    clock = ManualClock()
    replica = Replica(bench, tmp_path, clock=clock)
    with pytest.raises(LedgerUnavailable):
        await replica.guard.refresh()
    clock.advance(31)
    with pytest.raises(LedgerUnavailable):
        await replica.guard.refresh()

    assert replica.guard.closed
    await bench.close()
