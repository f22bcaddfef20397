"""A replica dies between any two steps of draining: nothing is lost, nothing is there twice."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from typing import TYPE_CHECKING

import pytest

from broker.audit.drain import DrainStep
from broker.dev.engines import Valkey
from tests.audit_bench import Replica, assert_whole, drained, emit, lease_runs_out
from tests.contract.ledger_bench import Bench

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path


class Died(BaseException):
    """The replica is dead from here on."""


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


@pytest.mark.parametrize("same_folder", [True, False], ids=["same folder", "another folder"])
@pytest.mark.parametrize("earlier", [0, 5], ids=["at first", "later"])
@pytest.mark.parametrize("step", list(DrainStep))
async def test_a_second_replica_goes_on_where_the_first_died(
    bench: Bench, tmp_path: Path, step: DrainStep, earlier: int, same_folder: bool
) -> None:
    mortal = True

    def die(reached: DrainStep) -> None:
        if mortal and reached is step:
            raise Died

    folders = [tmp_path / "a", tmp_path / "a" if same_folder else tmp_path / "b"]
    if earlier:
        await emit(bench, earlier)
        healthy = Replica(bench, folders[0])
        await drained(bench, healthy)
        await healthy.drain.stop()
    first = Replica(bench, folders[0], before_step=die, checkpoint_ms=0)
    await emit(bench, 20)
    await asyncio.sleep(0.01)  # the events are old enough: the step is reached in one run
    with pytest.raises(Died):
        await first.drain.run_once()
    await lease_runs_out(bench)
    await emit(bench, 3)

    second = Replica(bench, folders[1])
    await drained(bench, second)
    await second.drain.stop()

    await assert_whole(bench, *set(folders))
    assert (folders[1] / "checkpoints" / "latest").exists()
    # The dead one comes back, on its own folder, which may hold what was never committed.
    mortal = False
    await emit(bench, 2)
    await drained(bench, first)
    await first.drain.stop()
    await assert_whole(bench, *set(folders))


@pytest.mark.parametrize("same_folder", [True, False], ids=["same folder", "another folder"])
async def test_replicas_are_killed_again_and_again(
    bench: Bench, valkey: Valkey, tmp_path: Path, same_folder: bool
) -> None:
    folders = [tmp_path / "a", tmp_path / "a" if same_folder else tmp_path / "b"]
    for turn in range(6):
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "tests.crash.drainer", valkey.url, str(folders[turn % 2])),
            stdout=asyncio.subprocess.PIPE,
        )
        assert child.stdout is not None
        await emit(bench, 30)
        await child.stdout.readline()
        # It is at work on these when it is killed, further on each time.
        await emit(bench, 20 * turn)
        os.kill(child.pid, signal.SIGKILL)
        await child.wait()
        await lease_runs_out(bench)

    last = Replica(bench, folders[0])
    await drained(bench, last)
    await last.drain.stop()

    assert len(await assert_whole(bench, *set(folders))) == 6 * 30 + 15 * 20
