"""Rotation: published before it signs, kept until nothing it signed lives."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from broker.errors import Conflict, InvalidToken, LedgerUnavailable, Unavailable
from broker.identity.jws import parse
from broker.keys import Algorithm, RotationTimes
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
    ec_key,
    files_in,
    folder_of,
    put_key,
    rsa_key,
    signer_of,
)

if TYPE_CHECKING:
    from pathlib import Path

SKEW = 60


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


# ── the life of a key ────────────────────────────────────────────────────────────────────────────


async def test_a_key_is_published_then_signs_then_retires(
    replica: Replica, clock: ManualClock, events: Events, directory: Path
) -> None:
    (first,) = replica.kids
    tokens = Tokens("http://b", replica.ring, clock)
    clock.advance(EVERY - 1)
    await replica.rotation.tend()
    assert replica.kids == [first]

    clock.advance(1)
    await replica.rotation.tend()
    _, second = replica.kids  # published before anything is signed by it
    assert replica.states == ["next", "signing"]
    assert signer_of(replica) == first

    clock.advance(PUBLISH - 1)
    last = tokens.mint(claims(clock)).reveal()
    assert parse(last).kid == first
    clock.advance(1)
    assert signer_of(replica) == second
    assert replica.states == ["signing", "retiring"]

    clock.advance(KEEP - 2)
    await replica.rotation.tend()
    assert tokens.verify(last, "x").jti == "j"  # to its very end
    clock.advance(1 + SKEW)
    await replica.rotation.tend()
    assert replica.kids == [first, second]
    clock.advance(1)
    await replica.rotation.tend()
    assert replica.kids == [second]
    assert files_in(directory) == {".lock", "signing-0002.pem"}
    assert [(kind, actor) for kind, actor, _ in events.seen] == [
        ("key.rotated", "broker"),
        ("key.retired", "broker"),
    ]
    (rotated,) = events.of("key.rotated")
    assert (rotated["kid"], rotated["reason"]) == (second, "scheduled")
    assert events.of("key.retired") == [{"kid": first, "algorithm": "ES256"}]


async def test_rotation_goes_on_and_on(replica: Replica, clock: ManualClock) -> None:
    seen: set[str] = set()
    for _ in range(24 * 100):
        clock.advance(3600)
        await replica.rotation.tend()
        assert signer_of(replica) in replica.kids
        assert len(replica.kids) <= 2
        seen.update(replica.kids)
    assert len(seen) == 4


async def test_what_operators_are_told(replica: Replica, clock: ManualClock) -> None:
    start = int(clock.now())
    (only,) = replica.rotation.status()
    assert (only.created_at, only.signs_from, only.retires_at) == (start, start, None)
    clock.advance(10)
    made = await replica.rotation.rotate(actor="operator", reason="the yearly drill")
    new, old = replica.rotation.status()
    assert made.key == new
    assert made.removed == ()
    assert (new.state, new.created_at, new.signs_from) == ("next", start + 10, start + 10 + PUBLISH)
    assert (old.state, old.retires_at) == ("signing", start + 10 + PUBLISH + KEEP + SKEW)


async def test_a_second_next_key_is_refused(replica: Replica, clock: ManualClock) -> None:
    await replica.rotation.rotate(actor="operator", reason="")
    with pytest.raises(Conflict, match="hasn't begun to sign"):
        await replica.rotation.rotate(actor="operator", reason="")
    clock.advance(PUBLISH)
    await replica.rotation.rotate(actor="operator", reason="")
    assert replica.states == ["next", "signing", "retiring"]


async def test_without_a_period_only_operators_rotate(
    directory: Path, clock: ManualClock, events: Events
) -> None:
    times = RotationTimes(every_s=None, publish_s=PUBLISH, keep_s=KEEP)
    replica = Replica(directory, clock, events, times=times)
    clock.advance(3000 * DAY)
    await replica.rotation.tend()
    assert replica.states == ["signing"]
    await replica.rotation.rotate(actor="operator", reason="")
    assert replica.states == ["next", "signing"]


async def test_another_algorithm_comes_in_the_same_way(
    replica: Replica, directory: Path, clock: ManualClock, events: Events
) -> None:
    (first,) = replica.kids
    changed = Replica(directory, clock, events, algorithm=Algorithm.RS256)
    assert changed.kids == [first]
    await changed.rotation.tend()
    await changed.rotation.tend()
    assert changed.states == ["next", "signing"]
    assert parse(changed.ring.sign({}, {})).algorithm == "ES256"
    clock.advance(PUBLISH)
    assert parse(changed.ring.sign({}, {})).algorithm == "RS256"
    assert events.of("key.rotated")[0]["reason"] == "algorithm"


async def test_replicas_of_different_algorithms_make_no_heap_of_keys(
    directory: Path, clock: ManualClock, events: Events
) -> None:
    # As in a rolling change of the configuration.
    replicas = [
        Replica(directory, clock, events),
        Replica(directory, clock, events, algorithm=Algorithm.RS256),
    ]
    put_key(directory / "signing-0002.pem", rsa_key(), says=f"Created: {int(clock.now())}\n")
    for _ in range(10):
        clock.advance(2)
        await replicas[0].rotation.tend()
        await replicas[1].rotation.tend()
    assert len(replicas[0].kids) == 3


# ── compromise ───────────────────────────────────────────────────────────────────────────────────


async def test_at_once_means_that_all_else_is_dead(
    replica: Replica, directory: Path, clock: ManualClock, events: Events
) -> None:
    other = Replica(directory, clock, events)
    await replica.rotation.rotate(actor="operator", reason="")
    old = replica.kids
    tokens = Tokens("http://b", other.ring, clock)
    token = tokens.mint(claims(clock)).reveal()
    tokens.verify(token, "x")  # remembered as verified

    made = await replica.rotation.rotate(actor="eve", reason="key leaked", at_once=True)
    assert replica.kids == [made.key.kid]
    assert set(made.removed) == set(old)
    assert made.key.state == "signing"
    assert signer_of(replica) == made.key.kid
    await other.rotation.tend()
    with pytest.raises(InvalidToken):
        tokens.verify(token, "x")
    assert files_in(directory) == {".lock", "signing-0003.pem"}
    kind, actor, data = events.seen[-1]
    assert (kind, actor, data["reason"]) == ("key.rotated", "eve", "key leaked")
    assert data["removed"] == old


async def test_a_crash_after_the_new_key_kills_the_old_ones_all_the_same(
    replica: Replica, directory: Path, clock: ManualClock, events: Events
) -> None:
    old = directory / "signing-0001.pem"
    content = old.read_bytes()
    made = await replica.rotation.rotate(actor="operator", reason="leak", at_once=True)
    old.touch(mode=0o600)
    old.write_bytes(content)  # as if we had died before we deleted it
    for each in (replica, Replica(directory, clock, events)):
        assert each.kids == [made.key.kid]
        await each.rotation.tend()
        assert each.kids == [made.key.kid]
    assert not old.exists()


async def test_at_once_works_though_the_log_is_down_and_a_key_is_broken(
    replica: Replica, directory: Path, events: Events
) -> None:
    (directory / "signing-0001.pem").write_bytes(b"garbage")
    events.down = True
    made = await replica.rotation.rotate(actor="operator", reason="leak", at_once=True)
    assert replica.kids == [made.key.kid]


# ── what goes wrong ──────────────────────────────────────────────────────────────────────────────


async def test_what_cannot_be_logged_is_not_done(
    replica: Replica, clock: ManualClock, events: Events
) -> None:
    events.down = True
    clock.advance(EVERY)
    with pytest.raises(LedgerUnavailable):
        await replica.rotation.tend()
    with pytest.raises(LedgerUnavailable):
        await replica.rotation.rotate(actor="operator", reason="")
    assert replica.states == ["signing"]
    events.down = False
    await replica.rotation.tend()
    clock.advance(PUBLISH + KEEP + SKEW)
    events.down = True
    with pytest.raises(LedgerUnavailable):
        await replica.rotation.tend()
    assert replica.states == ["signing", "retiring"]


async def test_a_call_cut_short_lets_go_of_the_lock(
    replica: Replica, directory: Path, events: Events
) -> None:
    events.before_answer = asyncio.Event()
    task = asyncio.create_task(replica.rotation.rotate(actor="operator", reason=""))
    for _ in range(200):
        with replica.ring.folder.locked(wait=False) as mine:
            if not mine:
                break
        await asyncio.sleep(0.001)
    else:
        pytest.fail("never locked")
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    events.before_answer = None
    await replica.rotation.rotate(actor="operator", reason="")
    assert len(files_in(directory)) == 3


async def test_what_a_crash_left_of_a_next_key_goes_with_the_next(
    replica: Replica, directory: Path
) -> None:
    left = directory / ".signing-0002.pem.tmp"
    left.write_bytes(b"half a k")
    other = directory / ".signing-0007.pem.tmp"
    other.write_bytes(b"half a k")
    await replica.rotation.rotate(actor="operator", reason="")
    assert not left.exists()
    assert not other.exists()
    assert replica.states == ["next", "signing"]


async def test_a_broken_folder_is_not_rotated(
    directory: Path, replica: Replica, clock: ManualClock
) -> None:
    (directory / "signing-0002.pem").touch(mode=0o600)
    clock.advance(EVERY)
    await replica.rotation.tend()
    with pytest.raises(Unavailable, match="not in order"):
        await replica.rotation.rotate(actor="operator", reason="")
    assert len(files_in(directory)) == 3
    assert replica.states == ["signing"]


async def test_a_folder_that_cannot_be_locked_is_complained_about_once(
    directory: Path, replica: Replica, clock: ManualClock, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = directory / ".lock"
    lock.unlink()
    lock.symlink_to("elsewhere")  # stands for a folder that is read-only: also root is refused
    clock.advance(EVERY)
    await replica.rotation.tend()
    await replica.rotation.tend()
    assert capsys.readouterr().err.count("can't be rotated") == 1
    with pytest.raises(Unavailable, match="can't be written"):
        await replica.rotation.rotate(actor="operator", reason="")
    lock.unlink()
    await replica.rotation.tend()
    assert replica.states == ["next", "signing"]


async def test_a_key_put_there_by_hand_counts_from_when_it_was_put_there(
    tmp_path: Path, clock: ManualClock, events: Events
) -> None:
    directory = folder_of(tmp_path)
    replica = Replica(directory, clock, events)
    path = directory / "signing-0002.pem"
    put_key(path, ec_key(), says=f"Created: {int(clock.now())}\n")
    clock.advance(1)
    await replica.rotation.tend()
    assert replica.states == ["signing", "retiring"]
