"""Places: each live grant has one, whatever becomes of it, and no more are given than there are."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from broker.grants import DEAD, Grant, GrantState
from broker.ledger import keys
from broker.ledger.models import Changed
from broker.ledger.places import Limit, Place, Places
from broker.ledger.redis import RedisLedger
from tests.contract.ledger_bench import DECISION, HOUR, SHARDS, Bench

if TYPE_CHECKING:
    from broker.errors import QuotaExceeded

AGENT = Limit("agent", "report-writer", 2)
EACH = (
    *(AGENT, Limit("orchestrator", "orchestrator", 2)),
    *(Limit("capability", "orders-read", 2), Limit("backend", "vault", 2)),
)


@pytest.fixture
def places(bench: Bench) -> Places:
    made = Places(bench.connection)
    bench.ledger = RedisLedger(bench.connection, bench.ledger.times, made)
    return made


async def reserve(bench: Bench, grant: Grant, place: Place) -> Grant:
    return await bench.ledger.reserve(
        grant, ttl_ms=HOUR, max_live=10, decision=DECISION, actor="x", place=place
    )


async def taken(places: Places, *grants: Grant) -> None:
    for grant in grants:
        assert (await places.take(grant, EACH, place=True)).over is None


@pytest.mark.parametrize("state", list(GrantState))
async def test_a_grant_has_its_place_until_it_is_dead(
    bench: Bench, places: Places, state: GrantState
) -> None:
    """The place is there by then, whoever put it there."""
    grant = await bench.grant_in(GrantState.PENDING)
    await taken(places, grant)
    if state is GrantState.FAILED:
        await bench.ledger.fail(grant, error="no", actor="x")
    elif state is not GrantState.PENDING:
        await bench.activate(grant)
    if state not in (GrantState.PENDING, GrantState.ACTIVE, GrantState.FAILED):
        await bench.revoke(grant)
    ends = {
        GrantState.STUCK: lambda: bench.retry(grant, 1),
        GrantState.ABANDONED: lambda: bench.abandon(grant),
        GrantState.REVOKED: lambda: bench.confirm(grant),
    }
    if state in ends:
        await ends[state]()

    assert (await bench.grant(grant)).state is state
    assert await places.used(EACH) == [0 if state in DEAD else 1] * 4
    # It agrees with what is live, so there is nothing to put right.
    assert await places.tend(older_ms=-1) == (0, 0)


async def test_a_place_is_taken_under_all_names_or_none(bench: Bench, places: Places) -> None:
    task = await bench.open()
    first, second, third = (bench.new_grant(task) for _ in range(3))
    rate = Limit("agent", "report-writer", 3, HOUR)
    for grant in (first, second):
        assert (await places.take(grant, (*EACH, rate), place=True)).over is None

    refused = await places.take(third, (*reversed(EACH), rate), place=True)

    assert (refused.over, refused.used) == (EACH[-1], 2)
    assert await places.used((*EACH, rate)) == [2, 2, 2, 2, 2]


async def test_what_comes_to_nothing_leaves_no_trace(bench: Bench, places: Places) -> None:
    before = await bench.snapshot()
    rates = (Limit("agent", "report-writer", 3, HOUR), Limit("backend", "vault", 7, 1000))
    grant = bench.new_grant(await bench.open())
    before = await bench.snapshot()

    await places.leave(await places.take(grant, (*EACH, *rates), place=True))

    assert await bench.snapshot() == before


async def test_rates_let_through_exactly_as_many_and_say_when_to_come_again(
    bench: Bench, places: Places
) -> None:
    task = await bench.open()
    fast, slow = Limit("agent", "report-writer", 700, 7000), Limit("backend", "vault", 3, HOUR)
    for _ in range(3):
        assert (await places.take(bench.new_grant(task), (fast, slow), place=False)).over is None

    refused = await places.take(bench.new_grant(task), (fast, slow), place=False)

    assert refused.over == slow
    assert HOUR / 3 - 10_000 < refused.wait_ms <= HOUR / 3
    error: QuotaExceeded = refused.refusal()
    assert error.code == "rate_limited"
    assert error.retry_after == -(-refused.wait_ms // 1000)
    ttl = await bench.connection.command("PTTL", keys.rate("backend", "vault"))
    assert HOUR - 10_000 < ttl <= HOUR


@pytest.mark.parametrize("turn", [1, -1])
async def test_of_two_rates_the_longer_wait_is_told(
    bench: Bench, places: Places, turn: int
) -> None:
    task = await bench.open()
    rates = (Limit("agent", "report-writer", 1, HOUR), Limit("backend", "vault", 1, HOUR // 2))
    assert (await places.take(bench.new_grant(task), rates, place=False)).over is None

    refused = await places.take(bench.new_grant(task), rates[::turn], place=False)

    assert refused.over == rates[0]


async def test_a_rate_is_exact_over_replicas(bench: Bench, other: Bench, places: Places) -> None:
    task = await bench.open()
    rate = Limit("capability", "orders-read", 77, HOUR)
    each = (places, Places(other.connection))

    answers = await asyncio.gather(
        *(p.take(bench.new_grant(task), (rate,), place=False) for p in each for _ in range(60))
    )

    assert sum(answer.over is None for answer in answers) == 77


async def test_nothing_is_reserved_on_a_place_that_may_have_been_dropped(
    bench: Bench, places: Places
) -> None:
    grant = bench.new_grant(await bench.open())
    place = await places.take(grant, EACH, place=True)
    late = replace(place, until=await bench.queries.now() - 1)

    with pytest.raises(Changed):
        await reserve(bench, grant, late)

    assert (await reserve(bench, grant, place)).id == grant.id


async def test_places_are_made_those_of_the_live_grants(bench: Bench, places: Places) -> None:
    lost = [await bench.grant_in(s) for s in (GrantState.ACTIVE, GrantState.STUCK)]
    held = await bench.grant_in(GrantState.ACTIVE, await bench.open(shard=SHARDS - 1))
    dead = await bench.grant_in(GrantState.REVOKED)
    never = bench.new_grant(await bench.open())
    wide = tuple(replace(limit, most=100) for limit in EACH)
    for grant in (held, dead, never):
        await places.take(grant, wide, place=True)

    assert await places.tend() == (2, 0)  # what is young may be about to be reserved
    assert await places.tend(older_ms=-1) == (0, 2)

    assert await places.used(EACH) == [len(lost) + 1] * 4
    assert await places.tend(older_ms=-1) == (0, 0)
