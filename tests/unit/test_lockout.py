"""Accounts that are to be shut out at the same time go together, and nobody waits for ever."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from broker import lockout
from broker.errors import BackendRefused
from broker.grants import Grant, GrantState
from broker.lockout import Lockout
from broker.metrics import Metrics
from broker.targets.protocol import Target
from tests.clocks import ManualClock

if TYPE_CHECKING:
    from collections.abc import Sequence


class Accounts:
    """A target that notes what it is asked, and answers when it may."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.may = asyncio.Event()
        self.error: Exception | None = None
        self.kept_in: list[str] = []
        self.may.set()

    async def shut(self, accounts: Sequence[str]) -> Sequence[str]:
        self.asked.append(list(accounts))
        await self.may.wait()
        if self.error:
            raise self.error
        return self.kept_in

    async def accounts(self) -> frozenset[str]:
        raise NotImplementedError

    async def end(self, account: str) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        pass


@pytest.fixture
def at() -> Accounts:
    return Accounts()


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def made(at: Accounts, clock: ManualClock) -> Lockout:
    target = Target("orders", "v-*", frozenset({"read"}), at)
    return Lockout([target], clock, Metrics(clock))


def of(account: str, capability: str = "read", revocability: str = "instant") -> Grant:
    return Grant(
        *("grt_1", GrantState.REVOKING, "tsk_1", "writer", "orchestrator", capability, "vault"),
        *("read", "database/creds/x", "handle", 0, 1),
        account=account,
        revocability=revocability,
    )


async def test_those_of_one_moment_go_in_one_call(made: Lockout, at: Accounts) -> None:
    await asyncio.gather(*(made.shut(of(f"v-{number}")) for number in range(5)))
    assert at.asked == [[f"v-{number}" for number in range(5)]]


async def test_those_that_come_meanwhile_go_together_after_it(made: Lockout, at: Accounts) -> None:
    at.may.clear()
    first = asyncio.create_task(made.shut(of("v-0")))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert at.asked == [["v-0"]]
    others = [asyncio.create_task(made.shut(of(f"v-{n}"))) for n in (1, 2, 1)]
    await asyncio.sleep(0)
    at.may.set()
    await asyncio.gather(first, *others)
    assert at.asked == [["v-0"], ["v-1", "v-2"]]


async def test_one_call_names_no_more_than_so_many(
    made: Lockout, at: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lockout, "_MOST", 2)
    await asyncio.gather(*(made.shut(of(f"v-{number}")) for number in range(5)))
    assert [len(accounts) for accounts in at.asked] == [2, 2, 1]


async def test_who_waits_goes_on_though_the_target_never_answers(
    made: Lockout, at: Accounts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lockout, "LONGEST_S", 0.01)
    at.may.clear()
    await made.shut(of("v-0"))
    assert at.asked == [["v-0"]]


@pytest.mark.parametrize("error", [BackendRefused("no"), RuntimeError("a bug")])
async def test_one_that_fails_is_let_alone_for_a_while(
    made: Lockout, at: Accounts, clock: ManualClock, error: Exception
) -> None:
    at.error = error
    await made.shut(of("v-0"))
    await made.shut(of("v-1"))
    assert at.asked == [["v-0"]]
    clock.advance(1)
    at.error = None
    await made.shut(of("v-2"))
    await made.shut(of("v-3"))
    assert at.asked == [["v-0"], ["v-2"], ["v-3"]]


async def test_one_that_the_login_may_not_change_stops_no_others(
    made: Lockout, at: Accounts
) -> None:
    at.kept_in = ["v-0"]
    await asyncio.gather(*(made.shut(of(f"v-{number}")) for number in range(3)))
    await made.shut(of("v-3"))
    assert at.asked == [["v-0", "v-1", "v-2"], ["v-3"]]


@pytest.mark.parametrize("grant", [of(""), of("v-1", "other"), of("v-1", revocability="never")])
async def test_others_are_not_its_business(made: Lockout, at: Accounts, grant: Grant) -> None:
    await made.shut(grant)
    await made.shut(of("w-1"))
    assert at.asked == []
