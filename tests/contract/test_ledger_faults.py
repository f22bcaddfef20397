"""A Valkey that forgets its scripts, is restarted, or is full: refused, then well again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.dev.engines import Valkey
from broker.errors import LedgerUnavailable
from broker.grants import GrantState
from broker.ledger import scripts
from broker.ledger.live_tokens import LiveTokens
from broker.tasks import TaskState
from tests.contract.ledger_bench import DECISION, SHARDS, Bench

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Generator


@pytest.fixture(scope="module")
def valkey(tmp_path_factory: pytest.TempPathFactory) -> Generator[Valkey]:
    """A server of this module's own, to be mistreated."""
    with Valkey(tmp_path_factory.mktemp("v")) as server:
        yield server


@pytest.fixture
async def bench(valkey: Valkey) -> AsyncGenerator[Bench]:
    made = Bench(valkey.url)
    await made.connection.command("FLUSHALL")
    yield made
    await made.close()


@pytest.fixture
async def full(bench: Bench) -> AsyncGenerator[Callable[[], Awaitable[object]]]:
    """Call it to let the server's memory be full from then on."""
    yield lambda: bench.connection.command("CONFIG", "SET", "maxmemory", 1)
    await bench.connection.command("CONFIG", "SET", "maxmemory", 0)


async def test_forgotten_scripts_are_loaded_again(bench: Bench) -> None:
    task = await bench.open()
    await bench.connection.command("SCRIPT", "FLUSH")
    grant = await bench.activate(await bench.reserve(task))
    await bench.connection.command("SCRIPT", "FLUSH")
    claimed = await bench.ledger.claim_due(range(SHARDS), limit=10, horizon_ms=grant.expires_at)
    assert [one.id for one in claimed.grants] == [grant.id]


async def test_every_script_is_one_the_server_accepts(bench: Bench) -> None:
    assert len(scripts.NAMES) == len(set(scripts.NAMES))
    for name in scripts.NAMES:
        assert await bench.connection.command("SCRIPT", "LOAD", scripts.source(name))


async def test_a_server_that_is_away_is_reported_and_found_again(
    bench: Bench, valkey: Valkey
) -> None:
    task = await bench.task(await bench.open())
    grant = await bench.grant_in(GrantState.ACTIVE, task)
    valkey.kill()
    asks: list[Callable[[], Awaitable[object]]] = [
        lambda: bench.reserve(task),
        lambda: bench.revoke(grant),
        lambda: bench.queries.task(task.id),
        bench.queries.next_due,
        lambda: bench.ledger.claim_due(range(SHARDS), limit=1),
    ]
    for ask in asks:
        with pytest.raises(LedgerUnavailable) as refused:
            await ask()
        assert refused.value.retry_after
        assert str(valkey.home) not in refused.value.detail
    valkey.start()
    # What was acknowledged is still there, and the same connections serve again.
    assert await bench.queries.task(task.id) == task
    assert await bench.queries.grant(grant.id) == grant
    await bench.activate(await bench.reserve(task))
    await bench.check_tables()


async def test_a_full_ledger_refuses_to_issue(
    bench: Bench, full: Callable[[], Awaitable[object]]
) -> None:
    task = await bench.open()
    await full()
    asks: list[Callable[[], Awaitable[object]]] = [
        bench.open,
        lambda: bench.reserve(task),
    ]
    before = await bench.snapshot()
    for ask in asks:
        with pytest.raises(LedgerUnavailable) as refused:
            await ask()
        assert task.id not in refused.value.detail
        assert "maxmemory" not in refused.value.detail
    assert await bench.snapshot() == before


async def test_operators_can_log_in_to_revoke_though_the_ledger_is_full(
    bench: Bench, full: Callable[[], Awaitable[object]]
) -> None:
    await full()
    jti = f"jti_00{'0' * 24}"
    live = LiveTokens(bench.connection)
    await live.put(jti, {"client_id": "op"}, ttl_ms=60_000, event={}, actor="op")
    found = await live.status(jti)
    assert found is not None
    assert found[0]["client_id"] == "op"


async def test_a_full_ledger_still_records_what_was_minted_and_revokes(
    bench: Bench, full: Callable[[], Awaitable[object]]
) -> None:
    task = await bench.open()
    active = await bench.grant_in(GrantState.ACTIVE, task)
    minting, refused, stuck = [await bench.reserve(task) for _ in range(3)]
    beating = await bench.open(heartbeat_ms=60_000)
    await full()

    assert (await bench.activate(minting)).state is GrantState.ACTIVE
    assert (await bench.ledger.fail(refused, error="no", actor="x")).state is GrantState.FAILED
    await bench.revoke(active)
    assert (await bench.confirm(active)).state is GrantState.REVOKED
    await bench.revoke(stuck)
    assert (await bench.retry(stuck, 1)).state is GrantState.STUCK
    await bench.ledger.hasten("vault", "orders-read")
    await bench.ledger.heartbeat(beating.id)
    assert await bench.end(task, TaskState.REVOKED) == TaskState.REVOKED
    for grant in (minting, stuck):
        await bench.confirm(grant)
    await bench.handle(task, "retire")
    await bench.handle(task, "drop")
    assert await bench.ledger.close_task(task.id, actor="x") == "closed"
    await bench.ledger.freeze("all", record={"by": "x"}, actor="x", event_shard=0)
    assert "all" in await bench.queries.freezes()
    claimed = await bench.ledger.claim_due(range(SHARDS), limit=10, horizon_ms=beating.expires_at)
    assert [one.id for one in claimed.tasks] == [beating.id]
    await bench.ledger.prune()
    await bench.check_tables()


async def test_a_full_ledger_still_logs_that_an_operator_revokes(
    bench: Bench, full: Callable[[], Awaitable[object]]
) -> None:
    """Else ``POST /v1/revocations`` stops before it has revoked anything."""
    await full()
    await bench.ledger.record("revocation", shard=0, actor="operator", data=DECISION)
    assert (await bench.event_types())["revocation"] == 1
