"""How long an ended credential still works: one, and fifty of one task.

The other side ends the same by OpenBao directly: a lease with a sync revoke, fifty with the
accessor of the token they hang from. Refused means refused by PostgreSQL: an open session is shut
out, or an account may log in no more.
"""

from __future__ import annotations

import select
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import psycopg

from broker.dev.bench.figures import Rounds, by_turns, percentile
from broker.dev.bench.stand import AGENT, READ, can_log_in, clock

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx2

    from broker.dev.bench.scale import Scale
    from broker.dev.bench.stand import Stand

ROW: Final = "task complete → credential refused by PostgreSQL, p50"
FIFTY: Final = "a task with 50 database grants ends → all 50 refused"
MANY: Final = 50
MAKING: Final = 8
"""Credentials that are asked for at a time."""
_LONGEST_S: Final = 60
_POLL_S: Final = 0.002


class StillWorks(Exception):
    """A credential that should be dead isn't, so the figures would mean nothing."""


def measure(stand: Stand, scale: Scale, on_round: Callable[[], None]) -> dict[str, Rounds]:
    """Return the rounds of ending one: the p50 of each, the two taking turns within it."""
    mine: list[float] = []
    theirs: list[float] = []
    for _ in range(scale.rounds):
        on_round()
        pairs = by_turns(
            scale.ends,
            lambda: _until_shut_out(stand, *_our_credential(stand)),
            lambda: _until_shut_out(stand, *_their_credential(stand)),
            lambda: None,
        )
        mine.append(percentile(pairs.ours, 50))
        theirs.append(percentile(pairs.reference, 50))
    return {ROW: Rounds(mine, theirs)}


def _our_credential(stand: Stand) -> tuple[str, str, Callable[[], object]]:
    task = stand.orchestrator.open_task(AGENT, "bench", [READ]).task_id
    credential = stand.orchestrator.request_grant(task, READ).credential
    return (
        str(credential.username),
        credential.password.reveal() if credential.password else "",
        lambda: stand.orchestrator.complete(task),
    )


def _their_credential(stand: Stand) -> tuple[str, str, Callable[[], object]]:
    answer = stand.vault.get(f"database/creds/{READ}").raise_for_status().json()
    lease = {"lease_id": answer["lease_id"], "sync": True}
    return (
        answer["data"]["username"],
        answer["data"]["password"],
        lambda: stand.vault.put("sys/leases/revoke", json=lease).raise_for_status(),
    )


def _until_shut_out(stand: Stand, username: str, password: str, end: Callable[[], object]) -> float:
    """Return the milliseconds until a credential's open session is shut out."""
    dsn = f"postgresql://{username}:{password}@{stand.postgres}"
    with psycopg.connect(dsn, autocommit=True) as session, ThreadPoolExecutor(1) as pool:
        session.execute("SELECT 1")
        begun = clock.monotonic()
        ended = pool.submit(end)
        seen, _, _ = select.select([session.fileno()], [], [], _LONGEST_S)
        refused = clock.monotonic()
        ended.result()
    try:
        psycopg.connect(dsn).close()
    except psycopg.OperationalError:
        if seen:
            return (refused - begun) * 1000
    raise StillWorks("an ended credential still works")


def measure_fifty(stand: Stand, scale: Scale, on_round: Callable[[], None]) -> dict[str, Rounds]:
    """Return the rounds of ending fifty."""

    def ours() -> float:
        task = stand.orchestrator.open_task(AGENT, "bench", [READ], ttl="1h").task_id
        with ThreadPoolExecutor(MAKING) as pool:
            accounts = list(pool.map(grant, [stand] * MANY, [task] * MANY))
        return _until_none(stand, accounts, lambda: stand.orchestrator.complete(task)) * 1000

    def theirs() -> float:
        made = stand.vault.post("auth/token/create", json={"ttl": "1h"}).raise_for_status().json()
        by = {"X-Vault-Token": made["auth"]["client_token"]}
        accounts = make_leases(stand.vault, MANY, by)
        accessor = {"accessor": made["auth"]["accessor"]}

        def end() -> object:
            done = stand.vault.post("auth/token/revoke-accessor", json=accessor)
            return done.raise_for_status()

        return _until_none(stand, accounts, end) * 1000

    return {FIFTY: by_turns(scale.fifties, ours, theirs, on_round)}


def grant(stand: Stand, task_id: str, ttl: str | None = None) -> str:
    """Have the broker issue a database credential; its account."""
    issued = stand.orchestrator.request_grant(task_id, READ, ttl=ttl)
    return str(issued.credential.username)


def make_leases(vault: httpx2.Client, count: int, by: dict[str, str] | None = None) -> list[str]:
    """Ask OpenBao for so many database credentials; their accounts."""

    def make(_: int) -> str:
        answer = vault.get(f"database/creds/{READ}", headers=by).raise_for_status().json()
        return str(answer["data"]["username"])

    with ThreadPoolExecutor(MAKING) as pool:
        return list(pool.map(make, range(count)))


def _until_none(stand: Stand, accounts: list[str], end: Callable[[], object]) -> float:
    """Return the seconds from ending them until no account can log in."""
    with stand.admin() as admin, ThreadPoolExecutor(1) as pool:
        if can_log_in(admin, accounts) != len(accounts):
            raise StillWorks("some of the accounts never worked")
        begun = clock.monotonic()
        ended = pool.submit(end)
        took = wait_for_none(admin, accounts, begun, _POLL_S)
        ended.result()
    return took


def wait_for_none(
    admin: psycopg.Connection[tuple[Any, ...]], accounts: list[str], begun: float, poll_s: float
) -> float:
    """Return the seconds from ``begun`` until no account can log in.

    Raises:
        StillWorks: some can after a minute.
    """
    while left := can_log_in(admin, accounts):
        if clock.monotonic() - begun > _LONGEST_S:
            raise StillWorks(f"{left} accounts can still log in after {_LONGEST_S} seconds")
        time.sleep(poll_s)
    return clock.monotonic() - begun
