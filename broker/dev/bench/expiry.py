"""Grants that all expire within one second: how long until PostgreSQL lets in none of them.

OpenBao has no lifetime to ask for with a database credential, so its role's is set anew for each
second in which leases are made. Both sides' lifetimes are whole seconds, cut off.
"""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

from broker.dev.bench.ending import MAKING, grant, make_leases, wait_for_none
from broker.dev.bench.figures import Rounds, by_turns
from broker.dev.bench.stand import AGENT, READ, can_log_in, clock, known

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.dev.bench.scale import Scale
    from broker.dev.bench.stand import Stand

ROW: Final = "1,000 PostgreSQL grants expiring at once → all dead"
PER_TASK: Final = 100
_POLL_S: Final = 0.02
_SETTLE_S: Final = 0.5
_SAMPLE: Final = 40
_SLACK: Final = 1.5
_LEAST_S: Final = 5
"""What is left of their lives when all are made, at least about."""


class TooSlow(Exception):
    """Making them took longer than they live."""


def measure(stand: Stand, scale: Scale, on_round: Callable[[], None]) -> dict[str, Rounds]:
    """Return the row's rounds, in seconds."""
    count = scale.expiring
    return {
        ROW: by_turns(
            scale.expiries,
            lambda: _time(stand, count, _Ours(stand).make),
            lambda: _time(stand, count, _Theirs(stand).make),
            on_round,
        )
    }


def _time(stand: Stand, count: int, make: Callable[[int, float], list[str]]) -> float:
    begun = clock.monotonic()
    make(_SAMPLE, begun + 600)  # for how long they take
    each_s = (clock.monotonic() - begun) / _SAMPLE
    until = clock.monotonic() + _LEAST_S + each_s * count * _SLACK
    accounts = make(count, until)
    left_s = until - clock.monotonic()
    with stand.admin() as admin:
        if left_s < 1 or can_log_in(admin, accounts) != count:
            raise TooSlow("making them took longer than they live: the figures would mean nothing")
        time.sleep(max(0.0, until - clock.monotonic()))
        took = wait_for_none(admin, accounts, until, _POLL_S)
        while known(admin, accounts):  # OpenBao is busy with them, and the other side comes next
            time.sleep(_SETTLE_S)
    return took


class _Ours:
    def __init__(self, stand: Stand) -> None:
        self._stand = stand

    def make(self, count: int, until: float) -> list[str]:
        """Return the accounts of so many grants that live until then, by the machine's clock."""
        ask = self._stand.orchestrator
        tasks = [
            ask.open_task(AGENT, "bench", [READ], ttl="1h").task_id
            for _ in range(-(-count // PER_TASK))
        ]

        def make(number: int) -> str:
            left = int(until - clock.monotonic())
            return grant(self._stand, tasks[number % len(tasks)], f"{left}s")

        with ThreadPoolExecutor(MAKING) as pool:
            return list(pool.map(make, range(count)))


class _Theirs:
    def __init__(self, stand: Stand) -> None:
        self._vault = stand.vault
        self._role = f"database/roles/{READ}"

    def make(self, count: int, until: float) -> list[str]:
        """The same, of leases."""
        role: dict[str, Any] = self._vault.get(self._role).raise_for_status().json()["data"]
        accounts: list[str] = []
        batch = MAKING * 4
        try:
            while (short := count - len(accounts)) > 0:
                left = int(until - clock.monotonic())
                if left < 1:
                    raise TooSlow("making them took longer than they live")
                changed = self._vault.post(self._role, json=role | {"default_ttl": left})
                changed.raise_for_status()
                accounts += make_leases(self._vault, min(batch, short))
        finally:
            self._vault.post(self._role, json=role).raise_for_status()
        return accounts
