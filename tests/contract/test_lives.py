"""Renewing, replacing, opening: nothing that ends comes back, nothing forks, all bounds hold."""

from __future__ import annotations

import asyncio
from secrets import randbelow
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.errors import (
    AlreadyDelivered,
    BrokerError,
    Conflict,
    NotRenewable,
    QuotaExceeded,
    TaskNotActive,
)
from broker.grants import Grant, GrantState
from broker.ledger.actions import Actions
from broker.ledger.lives import Lives
from broker.ledger.models import Changed, LedgerTimes
from broker.trail import Step
from tests.contract.ledger_bench import HOUR, SHARDS, Bench

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine

    from broker.tasks import Task

MINUTE: Final = 60_000
RACES: Final = 40
STEP: Final = Step(frozenset(), data_class="internal", lasting=True)


async def renew(
    bench: Bench,
    grant: Grant,
    *,
    ttl_ms: int = HOUR,
    longest_ms: int = 10 * HOUR,
    lives_ms: int = 0,
) -> Grant:
    """Renew a grant, decided on the state of now as often as it takes."""
    lives = Lives(bench.connection, LedgerTimes())
    while True:
        _, survey = await Actions(bench.connection).survey(grant.task_id)
        try:
            return await lives.renew(
                grant,
                ttl_ms=ttl_ms,
                longest_ms=longest_ms,
                lives_ms=lives_ms,
                decision={"id": "dec_1"},
                seen=survey.version,
                step=STEP,
                tokens=(),
                actor="report-writer",
            )
        except Changed:
            continue


async def supersede(bench: Bench, grant: Grant, by: Grant, overlap_ms: int = MINUTE) -> None:
    lives = Lives(bench.connection, LedgerTimes())
    await lives.supersede(grant.id, by=by.id, overlap_ms=overlap_ms, actor="report-writer")


async def active(bench: Bench, task: Task | None = None, ttl_ms: int = HOUR // 2) -> Grant:
    task = task or await bench.open(shard=randbelow(SHARDS), ttl_ms=2 * HOUR)
    return await bench.activate(await bench.reserve(task, ttl_ms=ttl_ms))


async def scattered(work: Coroutine[Any, Any, Any]) -> Any:
    for _ in range(randbelow(30)):
        await asyncio.sleep(0)
    return await work


async def revoke(bench: Bench, grant: Grant) -> None:
    await bench.revoke(grant)


async def end_its_task(bench: Bench, grant: Grant) -> None:
    task = await bench.queries.task(grant.task_id)
    assert task is not None
    await bench.end(task)


async def sweep_at_its_end(bench: Bench, grant: Grant) -> None:
    await bench.ledger.claim_due(range(SHARDS), limit=1000, horizon_ms=grant.expires_at)


@pytest.mark.parametrize("ending", [revoke, end_its_task], ids=["revoked", "task"])
async def test_what_is_ending_is_never_brought_back(
    bench: Bench, other: Bench, ending: Callable[[Bench, Grant], Coroutine[Any, Any, object]]
) -> None:
    grants = [await active(bench) for _ in range(RACES)]

    work = [w for grant in grants for w in (renew(bench, grant), ending(other, grant))]
    outcomes = await asyncio.gather(*map(scattered, work), return_exceptions=True)

    renewed = [isinstance(outcome, Grant) for outcome in outcomes[::2]]
    assert len(set(renewed)) == 2, "no race was run"
    for refused in (o for o in outcomes if isinstance(o, BaseException)):
        assert isinstance(refused, Conflict | TaskNotActive)
    for grant in grants:
        assert (await bench.grant(grant)).state is GrantState.REVOKING
        with pytest.raises(BrokerError):
            await renew(bench, grant)
        assert (await bench.grant(grant)).state is GrantState.REVOKING
    await bench.check_tables()


async def test_a_sweep_at_its_old_end_takes_it_or_it_was_renewed_and_never_both(
    bench: Bench, other: Bench
) -> None:
    outcomes: list[bool] = []
    for _ in range(RACES):
        grant = await active(bench)
        work = renew(bench, grant), sweep_at_its_end(other, grant)
        answer, _ = await asyncio.gather(*map(scattered, work), return_exceptions=True)
        held = await bench.grant(grant)
        outcomes.append(isinstance(answer, Grant))
        assert held.state is (GrantState.ACTIVE if outcomes[-1] else GrantState.REVOKING)
        assert (held.expires_at > grant.expires_at) is outcomes[-1]
    assert len(set(outcomes)) == 2, "no race was run"
    await bench.check_tables()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    asks=st.lists(
        st.tuples(
            st.integers(1, 5 * HOUR), st.integers(1, 5 * HOUR), st.sampled_from([0, MINUTE, HOUR])
        ),
        min_size=1,
        max_size=5,
    )
)
async def test_however_it_is_renewed_it_stays_within_every_bound_and_never_gets_shorter(
    bench: Bench, asks: list[tuple[int, int, int]]
) -> None:
    task = await bench.open(ttl_ms=2 * HOUR)
    grant = await active(bench, task)
    for ttl_ms, longest_ms, lives_ms in asks:
        before = await bench.queries.now()
        try:
            after = await renew(
                bench, grant, ttl_ms=ttl_ms, longest_ms=longest_ms, lives_ms=lives_ms
            )
        except NotRenewable:
            assert (await bench.grant(grant)).expires_at == grant.expires_at
            continue
        now = await bench.queries.now()
        assert grant.expires_at < after.expires_at <= min(task.expires_at, now + ttl_ms)
        assert after.expires_at <= grant.created_at + longest_ms
        if lives_ms:
            assert after.expires_at <= after.lives_until <= now + lives_ms
            assert after.lives_until >= before + lives_ms
        grant = after


async def test_where_the_backend_was_not_asked_it_lives_no_longer_than_that_lets_it(
    bench: Bench,
) -> None:
    grant = await bench.reserve(await bench.open(ttl_ms=2 * HOUR), ttl_ms=10 * MINUTE)
    grant = await bench.ledger.activate(
        grant, lease="l", lifetime_ms=10 * MINUTE, lives_ms=HOUR, actor="broker"
    )

    renewed = await renew(bench, grant, ttl_ms=2 * HOUR)

    assert renewed.expires_at == renewed.lives_until == grant.lives_until


async def test_a_renewal_draws_on_the_budget_as_another_credential_would(bench: Bench) -> None:
    task = await bench.open(ttl_ms=2 * HOUR, budget={"grants": {"given": "1"}}, shard=1)
    grant = await active(bench, task)
    assert (await renew(bench, grant)).state is GrantState.ACTIVE
    with pytest.raises(QuotaExceeded):
        await renew(bench, grant, ttl_ms=90 * MINUTE)


async def test_what_the_broker_has_opened_itself_is_not_taken_for_intercepted(
    bench: Bench,
) -> None:
    """Another call of the agent's finds the token spent a moment later."""
    lives = Lives(bench.connection, LedgerTimes())
    grant = await lives.wrapped(await active(bench), digest="d", ends_at=HOUR)
    await lives.opened(grant, actor="report-writer")

    for how in ("spent", ""):
        with pytest.raises(AlreadyDelivered):
            await lives.lost(grant, how=how, ours=False, actor="report-writer")
    with pytest.raises(AlreadyDelivered):
        await lives.opened(grant, actor="report-writer")
    assert (await bench.grant(grant)).state is GrantState.ACTIVE
    assert (await bench.event_types())["grant.intercepted"] == 0

    await lives.lost(grant, how="spent", ours=True, actor="report-writer")
    assert (await bench.grant(grant)).state is GrantState.REVOKING
    assert (await bench.event_types())["grant.intercepted"] == 1
    await bench.check_tables()


async def test_of_rotations_at_once_one_has_the_successor(bench: Bench, other: Bench) -> None:
    task = await bench.open()
    grant = await active(bench, task)

    tries: list[Awaitable[Grant]] = [
        b.reserve(task, max_live=1, replaces=grant.id) for b in (bench, other) for _ in range(5)
    ]
    outcomes = await asyncio.gather(*tries, return_exceptions=True)

    made = [outcome for outcome in outcomes if isinstance(outcome, Grant)]
    assert len(made) == 1
    assert all(isinstance(o, Conflict) for o in outcomes if not isinstance(o, Grant))
    assert (await bench.grant(grant)).replaced_by == made[0].id
    await bench.check_tables()


async def test_what_is_being_replaced_is_not_renewed(bench: Bench) -> None:
    task = await bench.open(ttl_ms=2 * HOUR)
    grant = await active(bench, task)
    await bench.reserve(task, replaces=grant.id)

    with pytest.raises(NotRenewable, match="rotated"):
        await renew(bench, grant)


async def test_a_successor_that_came_to_nothing_leaves_the_old_one_as_it_was(bench: Bench) -> None:
    task = await bench.open(ttl_ms=2 * HOUR)
    grant = await active(bench, task)
    failed = await bench.reserve(task, replaces=grant.id)
    await bench.ledger.fail(failed, error="no", actor="broker")

    assert (await bench.grant(grant)).expires_at == grant.expires_at
    assert (await bench.reserve(task, replaces=grant.id)).replaces == grant.id


async def test_a_replaced_one_ends_after_the_overlap_and_never_later_than_it_would_have(
    bench: Bench,
) -> None:
    task = await bench.open(ttl_ms=2 * HOUR)
    grants = [await active(bench, task), await active(bench, task)]
    for grant, overlap_ms in zip(grants, (MINUTE, 5 * HOUR), strict=True):
        after = await bench.activate(await bench.reserve(task, replaces=grant.id))
        await supersede(bench, grant, after, overlap_ms)

    soon, later = [await bench.grant(grant) for grant in grants]
    assert soon.expires_at <= await bench.queries.now() + MINUTE
    assert later.expires_at == grants[1].expires_at
    assert (await bench.event_types())["grant.rotated"] == 2
    await bench.check_tables()


async def test_only_what_has_that_successor_is_shortened(bench: Bench) -> None:
    task = await bench.open(ttl_ms=2 * HOUR)
    grant, stranger = await active(bench, task), await active(bench, task)

    await supersede(bench, grant, stranger)

    assert await bench.grant(grant) == grant
