"""Whatever a backend of somebody else's does, the pipeline gets an answer or an error of ours."""

from __future__ import annotations

import asyncio
import gc
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.backends import Backend, Minted, Prepared
from broker.backends.guarded import GuardedBackend
from broker.catalog import Capability, Power
from broker.errors import (
    BackendRefused,
    BackendUnavailable,
    ConfigError,
    InvalidRequest,
    TaskNotActive,
)
from broker.secret import Secret
from broker.testing import MemoryLedger
from tests.clocks import ManualClock
from tests.unit.odd_backend import MINTED, PREPARED, SECRET, Hanging, OddBackend, leak

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from broker.grants import Grant
    from broker.tasks import Task

KEY: Final = Capability("odd-key", Power.READ, "odd", ttl_ms=60_000, max_ttl_ms=60_000)
TIMEOUT_S: Final = 0.05


@dataclass
class Ward:
    """A backend, its guard, and a grant that is to be minted."""

    inner: OddBackend
    guard: GuardedBackend
    clock: ManualClock
    ledger: MemoryLedger
    task: Task
    grant: Grant

    def replica(self) -> GuardedBackend:
        return GuardedBackend(self.inner, self.clock, timeout_s=TIMEOUT_S)

    def calls(self) -> dict[str, Callable[[], Awaitable[Any]]]:
        return {
            "prepare": lambda: self.guard.prepare(self.task, KEY),
            "mint": lambda: self.guard.mint(self.grant, self.task, KEY),
            "revoke": lambda: self.guard.revoke(self.grant),
            "is_live": lambda: self.guard.is_live(self.grant),
            "rotate": lambda: self.guard.rotate(KEY),
        }


CALLS: Final = ("prepare", "mint", "revoke", "is_live", "rotate")


@pytest.fixture
async def ward() -> Ward:
    clock, inner = ManualClock(), OddBackend()
    ledger = MemoryLedger(KEY, clock)
    guard = GuardedBackend(inner, clock, timeout_s=TIMEOUT_S)
    task = await ledger.task()
    return Ward(inner, guard, clock, ledger, task, await ledger.reserve(KEY, PREPARED))


def test_every_call_of_a_backend_is_guarded() -> None:
    """One that is inherited would have the answer of those that have none."""
    calls = {name for name in vars(Backend) if not name.startswith("_")}
    assert "is_live" in calls
    assert calls <= set(vars(GuardedBackend))


async def test_what_is_as_it_should_be_passes(ward: Ward) -> None:
    assert await ward.guard.prepare(ward.task, KEY) == PREPARED
    minted = await ward.guard.mint(ward.grant, ward.task, KEY)
    assert minted.lease == "odd-1"
    active = await ward.ledger.activate(ward.grant, minted)
    assert await ward.guard.is_live(active) is True
    await ward.guard.revoke(active)
    assert await ward.guard.is_live(active) is False
    assert ward.guard.evidence(ward.grant) == "odd_lookup"
    assert await ward.guard.rotate(KEY) is True
    assert await ward.guard.health() == "ok"
    with pytest.raises(InvalidRequest):
        ward.guard.check(KEY, {"size": 3})


@pytest.mark.parametrize("call", CALLS)
async def test_an_error_of_its_own_is_nobody_knows_and_only_its_type_is_told(
    ward: Ward, call: str
) -> None:
    ward.inner.odd[call] = leak
    with pytest.raises(BackendUnavailable) as caught:
        await ward.calls()[call]()
    assert caught.value.detail == f"backend 'odd', {call}: RuntimeError"


async def test_what_would_end_the_process_is_nobody_knows_too(ward: Ward) -> None:
    """As libraries do that are made of command lines."""
    for call in (*CALLS, "check", "forget", "evidence"):
        ward.inner.odd[call] = sys.exit
    for call, ask in ward.calls().items():
        with pytest.raises(BackendUnavailable, match=f"{call}: SystemExit"):
            await ask()
    with pytest.raises(BackendUnavailable, match="check: SystemExit"):
        ward.guard.check(KEY, {})
    ward.guard.forget(ward.task.id)
    assert ward.guard.evidence(ward.grant) == "lookup"


@pytest.mark.parametrize("answer", [None, 7, "", f"GET says {SECRET}", "x" * 65])
async def test_evidence_that_is_no_word_is_not_recorded(ward: Ward, answer: object) -> None:
    ward.inner.odd["evidence"] = lambda: answer
    assert ward.guard.evidence(ward.grant) == "lookup"


@pytest.mark.parametrize("call", CALLS)
async def test_a_call_that_does_not_even_heed_cancelling_ends_in_time(
    ward: Ward, call: str
) -> None:
    hanging = Hanging()
    ward.inner.odd[call] = hanging
    with pytest.raises(BackendUnavailable, match=r"no answer in 0\.05 s"):
        await ward.calls()[call]()
    await hanging.let_go()


async def test_what_becomes_of_a_call_that_was_given_up_is_logged_by_nobody(
    ward: Ward, caplog: pytest.LogCaptureFixture
) -> None:
    hanging = Hanging()

    async def fail_late() -> None:
        await hanging()
        leak()

    ward.inner.odd["mint"] = fail_late
    with pytest.raises(BackendUnavailable):
        await ward.guard.mint(ward.grant, ward.task, KEY)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    await hanging.let_go()
    await asyncio.wait(others)
    others.clear()
    gc.collect()

    assert caplog.text == ""


@pytest.mark.parametrize("call", CALLS)
async def test_giving_up_a_call_gives_up_what_it_does(ward: Ward, call: str) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    ward.inner.odd[call] = work
    waiting = asyncio.ensure_future(ward.calls()[call]())
    await begun.wait()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    async with asyncio.timeout(5):
        await ended.wait()


@pytest.mark.parametrize("answer", [None, 0, "no", []], ids=["none", "0", "text", "list"])
@pytest.mark.parametrize("call", ["is_live", "rotate"])
async def test_only_a_plain_no_is_one(ward: Ward, call: str, answer: object) -> None:
    ward.inner.odd[call] = lambda: answer
    with pytest.raises(BackendUnavailable, match="for a yes or no"):
        await ward.calls()[call]()


@pytest.mark.parametrize(
    "answer",
    [None, "odd-1", Prepared(handle=None), Prepared(lease=1)],  # pyright: ignore[reportArgumentType]  nobody checks theirs
    ids=["none", "text", "no-handle", "number"],
)
async def test_what_is_no_prepared_is_refused(ward: Ward, answer: object) -> None:
    ward.inner.odd["prepare"] = lambda: answer
    with pytest.raises(BackendUnavailable, match="no Prepared"):
        await ward.guard.prepare(ward.task, KEY)


@pytest.mark.parametrize(
    "odd", [leak, sys.exit, lambda: "5", lambda: True], ids=["error", "exit", "text", "yes"]
)
async def test_how_long_one_outlives_its_handle_is_a_number_or_nothing_is_known(
    ward: Ward, odd: Callable[[], Any]
) -> None:
    assert ward.guard.outlives(ward.grant) == len(ward.grant.lease)
    ward.inner.odd["outlives"] = lambda: None
    assert ward.guard.outlives(ward.grant) is None
    ward.inner.odd["outlives"] = odd
    with pytest.raises(BackendUnavailable, match="outlives"):
        ward.guard.outlives(ward.grant)


async def test_a_handle_that_it_cannot_end_is_refused(ward: Ward) -> None:
    ward.inner.odd["prepare"] = lambda: Prepared(handle="h1")
    with pytest.raises(BackendRefused, match="doesn't say how they end"):
        await ward.guard.prepare(ward.task, KEY)


BAD: Final[dict[str, Any]] = {
    "none": None,
    "no-lease": replace(MINTED, lease=""),
    "lease-a-number": replace(MINTED, lease=1),
    "lifetime-text": replace(MINTED, lifetime_ms="60s"),
    "lifetime-negative": replace(MINTED, lifetime_ms=-1),
    "no-account": replace(MINTED, account=None),
    "fields-a-list": replace(MINTED, fields=[Secret(SECRET)]),
    "field-a-number": replace(MINTED, fields={"port": 5432}),
}


@pytest.mark.parametrize("answer", BAD)
async def test_what_could_not_be_recorded_or_delivered_is_not_minted(
    ward: Ward, answer: str
) -> None:
    ward.inner.odd["mint"] = lambda: BAD[answer]
    with pytest.raises(BackendUnavailable, match="no Minted") as caught:
        await ward.guard.mint(ward.grant, ward.task, KEY)
    assert SECRET not in repr(caught.value)


async def test_a_credential_under_another_lease_than_was_prepared_is_revoked(ward: Ward) -> None:
    ward.inner.odd["mint"] = lambda: (
        ward.inner.accounts.add("odd-2") or replace(MINTED, lease="odd-2")
    )
    with pytest.raises(BackendUnavailable, match="another lease"):
        await ward.guard.mint(ward.grant, ward.task, KEY)
    assert "odd-2" not in ward.inner.accounts


async def test_what_turns_up_after_its_mint_was_given_up_is_seen_and_revoked(ward: Ward) -> None:
    """By any replica: which of them began the mint isn't known to the one that revokes."""
    late, landed = Hanging(), asyncio.Event()

    async def mint() -> Minted:
        ward.inner.accounts.discard(ward.grant.lease)
        await late()
        ward.inner.accounts.add(ward.grant.lease)
        landed.set()
        return MINTED

    replicas = ward.guard, ward.replica()
    ward.inner.odd["mint"] = mint
    with pytest.raises(BackendUnavailable):
        await ward.guard.mint(ward.grant, ward.task, KEY)
    ward.clock.advance(2 * TIMEOUT_S)
    for guard in replicas:
        await guard.revoke(ward.grant)
        with pytest.raises(BackendRefused, match="may turn up yet"):
            await guard.is_live(ward.grant)
        assert await guard.handle_is_live(ward.task, "", [ward.grant])

    await late.let_go()
    await landed.wait()
    assert await ward.guard.is_live(ward.grant) is True
    ward.clock.advance(TIMEOUT_S + 0.001)
    await ward.guard.revoke(ward.grant)

    for guard in replicas:
        assert await guard.is_live(ward.grant) is False
        assert not await guard.handle_is_live(ward.task, "", [ward.grant])


async def test_what_is_revoked_while_it_is_being_minted_may_turn_up(ward: Ward) -> None:
    """Its task has ended, say, and then the mint's answer is lost."""
    ward.inner.odd["mint"] = late = Hanging()
    minting = asyncio.ensure_future(ward.guard.mint(ward.grant, ward.task, KEY))
    await ward.guard.revoke(ward.grant)
    ward.inner.accounts.clear()
    seen = await asyncio.gather(ward.guard.is_live(ward.grant), return_exceptions=True)
    with pytest.raises(BackendUnavailable):
        await minting
    await late.let_go()
    assert [type(answer) for answer in seen] == [BackendRefused]


async def test_what_is_wrong_with_its_configuration_is_no_matter_of_the_callers(
    ward: Ward,
) -> None:
    def unreadable() -> Any:
        raise ConfigError(f"secret file /etc/{SECRET}: is empty")

    for call in (*CALLS, "check"):
        ward.inner.odd[call] = unreadable
    for call, ask in ward.calls().items():
        with pytest.raises(BackendUnavailable) as caught:
            await ask()
        assert caught.value.detail == f"backend 'odd', {call}: ConfigError"
    with pytest.raises(BackendUnavailable):
        ward.guard.check(KEY, {})


async def test_an_error_of_ours_that_says_no_means_nothing_when_revoking(ward: Ward) -> None:
    def over() -> Any:
        raise TaskNotActive

    for call in ("prepare", "revoke", "is_live"):
        ward.inner.odd[call] = over
    with pytest.raises(TaskNotActive):
        await ward.guard.prepare(ward.task, KEY)
    for call in ("revoke", "is_live"):
        with pytest.raises(BackendUnavailable, match="TaskNotActive"):
            await ward.calls()[call]()


async def test_what_is_only_told_or_asked_beside_fails_for_nobody(ward: Ward) -> None:
    for call in ("forget", "evidence", "health", "close", "check"):
        ward.inner.odd[call] = leak
    ward.guard.forget(ward.task.id)
    await ward.guard.close()
    assert ward.guard.evidence(ward.grant) == "lookup"
    assert await ward.guard.health() == "backend 'odd', health: RuntimeError"
    with pytest.raises(BackendUnavailable, match="check: RuntimeError"):
        ward.guard.check(KEY, {})
