"""Replicas on one folder of signing keys: one rotates, all agree."""

from __future__ import annotations

import asyncio
import multiprocessing
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from broker.errors import Unavailable
from broker.identity.jws import parse
from broker.tokens import Tokens
from tests.clocks import ManualClock
from tests.unit.key_world import (
    DAY,
    EVERY,
    KEEP,
    PUBLISH,
    Events,
    Replica,
    claims,
    files_in,
    signer_of,
)

if TYPE_CHECKING:
    import threading
    from multiprocessing.queues import Queue


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def events() -> Events:
    return Events()


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "keys"


@pytest.fixture
def replica(directory: Path, clock: ManualClock, events: Events) -> Replica:
    return Replica(directory, clock, events)


async def test_of_two_replicas_one_rotates(
    replica: Replica, directory: Path, clock: ManualClock, events: Events
) -> None:
    other = Replica(directory, clock, events)
    clock.advance(EVERY)
    await asyncio.gather(replica.rotation.tend(), other.rotation.tend())
    assert len(events.of("key.rotated")) == 1
    await asyncio.gather(replica.rotation.tend(), other.rotation.tend())
    assert replica.kids == other.kids
    assert replica.states == other.states == ["next", "signing"]


async def test_operators_at_two_replicas_make_one_key(
    replica: Replica, directory: Path, clock: ManualClock, events: Events
) -> None:
    other = Replica(directory, clock, events)
    results = await asyncio.gather(
        replica.rotation.rotate(actor="a", reason=""),
        other.rotation.rotate(actor="b", reason=""),
        return_exceptions=True,
    )
    assert sorted(type(result).__name__ for result in results) == ["Conflict", "Rotated"]
    assert len(files_in(directory)) == 3


async def test_a_replica_that_hangs_holds_an_operator_up_for_a_bounded_time(
    replica: Replica, clock: ManualClock
) -> None:
    with replica.ring.folder.locked(wait=False) as mine:
        assert mine
        await replica.rotation.tend()  # doesn't wait
        waiting = asyncio.create_task(replica.rotation.rotate(actor="a", reason=""))
        await asyncio.sleep(0)
        clock.advance(6)
        with pytest.raises(Unavailable, match="Another replica"):
            await waiting


def tend_at_once(
    directory: str, now: float, barrier: threading.Barrier, found: Queue[list[str]]
) -> None:
    events = Events()
    replica = Replica(Path(directory), ManualClock(now), events)
    barrier.wait(60)
    asyncio.run(replica.rotation.tend())
    found.put([data["kid"] for data in events.of("key.rotated")])


def test_of_many_processes_one_rotates(directory: Path, clock: ManualClock) -> None:
    Replica(directory, clock, Events())
    context = multiprocessing.get_context("spawn")
    barrier = context.Barrier(4)
    found: Queue[list[str]] = context.Queue()
    arguments = (str(directory), clock.now() + EVERY, barrier, found)
    processes = [context.Process(target=tend_at_once, args=arguments) for _ in range(4)]
    for process in processes:
        process.start()
    made = [kid for _ in processes for kid in found.get(timeout=60)]
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert len(made) == 1
    assert Replica(directory, clock, Events()).kids[1:] == made


async def test_replicas_whose_clocks_differ_agree(
    replica: Replica, directory: Path, clock: ManualClock, events: Events
) -> None:
    ahead = ManualClock(clock.now() + 30)
    other = Replica(directory, ahead, events)
    clock.advance(EVERY)
    ahead.advance(EVERY)
    await other.rotation.tend()
    assert len(replica.kids) == 1
    ahead.advance(PUBLISH)
    clock.advance(PUBLISH)
    # The one ahead signs with the next key; the other has published it, and verifies it.
    token = other.ring.sign({}, {})
    clock.advance(1)
    key = replica.ring.find(parse(token).kid or "")
    assert key is not None
    assert key.verifies(parse(token))
    # A token that the other signs last of all with the old key lives to its end everywhere.
    clock.advance(28)
    last = Tokens("http://b", replica.ring, clock).mint(claims(clock)).reveal()
    assert parse(last).kid == replica.kids[0]
    ahead.advance(KEEP + 29 + 30)
    await other.rotation.tend()
    assert other.ring.find(parse(last).kid or "") is not None


async def test_a_clock_far_ahead_stops_no_one_else(
    replica: Replica, directory: Path, clock: ManualClock, events: Events
) -> None:
    mad = Replica(directory, ManualClock(clock.now() + 3650 * DAY), events)
    await mad.rotation.tend()
    clock.advance(EVERY)
    await replica.rotation.tend()
    assert replica.states == ["next", "next", "signing"]
    clock.advance(PUBLISH)
    assert signer_of(replica) == replica.kids[2]
    await replica.rotation.rotate(actor="operator", reason="")
