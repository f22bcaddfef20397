"""Risk reported while credentials are in use and on their way: what PostgreSQL says afterwards."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import psycopg
import pytest

from broker.again import still_allowed
from broker.dev.config import OWNER
from broker.errors import NotFound
from tests.http.parties import bearer
from tests.risk_world import WHY, RiskWorld, risk_config
from tests.world import logs_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import httpx2

    from broker.config import Config
    from broker.dev.stack import DevStack

BAD: Final[dict[str, Any]] = {"verdict": "compromised"}


@pytest.fixture
async def here(engines: tuple[DevStack, Config]) -> AsyncGenerator[RiskWorld]:
    made = RiskWorld(engines[0].issuer, risk_config(engines[0]))
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


@pytest.fixture
async def there(engines: tuple[DevStack, Config], here: RiskWorld) -> AsyncGenerator[RiskWorld]:
    """Another replica on the same ledger."""
    made = RiskWorld(engines[0].issuer, here.config)
    yield made
    await made.close()


async def test_a_signal_kills_live_passwords_and_open_sessions(
    here: RiskWorld, there: RiskWorld
) -> None:
    task = await there.open(capabilities=["orders-read"])
    child = await there.below(task, "courier", "orders-read")
    bystander = await there.open(agent="order-clerk", capabilities=["orders-read"])
    held, below, other = [await there.grant(each) for each in (task, child, bystander)]
    session = await psycopg.AsyncConnection.connect(held["credential"]["dsn"])
    try:
        await session.execute("SELECT count(*) FROM orders")

        done = await here.reported({"agent": "report-writer"}, **BAD)

        assert done["reviewed"] == {"revoked": 2, "revoking": 0, "abandoned": 0}
        with pytest.raises(psycopg.OperationalError):
            await session.execute("SELECT 1")
    finally:
        await session.close()
    assert not await logs_in(held["credential"])
    assert not await logs_in(below["credential"]), "its child's too"
    assert await logs_in(other["credential"])


@pytest.mark.parametrize("kind", ["task", "agent", "owner"])
async def test_nothing_that_was_being_issued_meanwhile_works_afterwards(
    here: RiskWorld, there: RiskWorld, kind: str
) -> None:
    roots = [await here.open(capabilities=["orders-read", "orders-api"]) for _ in range(3)]
    tasks = [*roots, await here.below(roots[0], "courier", "orders-read", "orders-api")]
    if kind == "task":
        tasks = [roots[0], tasks[-1]]
    about = {
        "task": {"task_id": roots[0]["task_id"]},
        "agent": {"agent": "report-writer"},
        "owner": {"owner": OWNER},
    }[kind]
    worlds = (here, there)
    headers = [await bearer(world, "orchestrator") for world in worlds]
    delivered: list[dict[str, Any]] = []
    statuses: list[int] = []
    begun = asyncio.Event()

    async def ask(n: int) -> None:
        """Half of them on each replica; every third for a token of the broker's own."""
        path = f"/v1/tasks/{tasks[n % len(tasks)]['task_id']}/grants"
        ask = {"capability": "orders-api" if n % 3 == 0 else "orders-read"}
        answer: httpx2.Response = await worlds[n % 2].http.post(
            path, json=ask, headers=headers[n % 2]
        )
        statuses.append(answer.status_code)
        if answer.status_code == 201:
            delivered.append(answer.json())
            begun.set()

    async def report() -> None:
        await begun.wait()
        await here.reported(about, **BAD)

    await asyncio.gather(report(), *(ask(n) for n in range(40)))
    late = [ask(n) for n in range(8)]
    before = len(delivered)
    await asyncio.gather(*late)
    for world in worlds:
        await world.app.pipeline.work.drain(20)

    assert delivered, "some were delivered before"
    assert set(statuses) <= {201, 403, 503}
    assert len(delivered) == before, "none after"
    assert await still_refused(here) == []
    for issued in delivered:
        if issued["credential"]["type"] == "database":
            assert not await logs_in(issued["credential"])
        else:
            assert not await is_active(there, issued["credential"]["access_token"])


async def still_refused(world: RiskWorld) -> list[str]:
    """Grants not dead that policy doesn't allow."""
    found: list[str] = []
    rows = (await world.call("operator", "GET", "/v1/grants?limit=500")).json()["items"]
    for row in rows:
        if row["state"] in ("revoked", "failed"):
            continue
        grant = await world.app.pipeline.queries.grant(row["grant_id"])
        if grant is None:
            raise NotFound(row["grant_id"])
        if not await still_allowed(world.app.pipeline.judge, grant, durable=True):
            found.append(grant.id)
    return found


async def is_active(world: RiskWorld, token: str) -> bool:
    headers = await bearer(world, "orders-service")
    answer = await world.http.post("/oauth/introspect", data={"token": token}, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["active"]


async def test_raised_and_lowered_by_many_at_once_the_last_word_is_the_same_everywhere(
    here: RiskWorld, there: RiskWorld
) -> None:
    tasks = [await here.open(capabilities=["orders-api"]) for _ in range(12)]
    worlds = (here, there)

    async def say(n: int) -> None:
        if n % 5 == 4:
            await worlds[n % 2].clear({"agent": "report-writer"})
        else:
            await worlds[n % 2].reported({"agent": "report-writer"}, risk=(0, 95)[n % 2])

    await asyncio.gather(*(say(n) for n in range(20)))

    stands = (await here.signals())["items"]
    risk = stands[0]["risk"] if stands else 0
    answers = [await worlds[n % 2].ask(task, "orders-api") for n, task in enumerate(tasks)]
    expected = 403 if risk == 95 else 201
    assert {answer.status_code for answer in answers} == {expected}


async def test_a_suspect_only_reads(here: RiskWorld, there: RiskWorld) -> None:
    task = await here.open(agent="order-clerk", capabilities=["orders-read", "orders-post"])
    reads, writes = await there.grant(task), await there.grant(task, "orders-post")

    await here.reported({"task_id": task["task_id"]}, risk=60, reason=WHY)

    assert await logs_in(reads["credential"])
    assert not await is_active(there, writes["credential"]["access_token"])
