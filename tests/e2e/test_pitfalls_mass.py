"""Pitfalls 8, 28 and 29: many revocations, many requests, many live grants."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.grants import Grant, GrantState
from broker.ids import new_id
from broker.tasks import Task, TaskState
from tests.admin import Admin, own_stack, running
from tests.waiting import wait_until
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator

    from broker.config import Config
    from broker.dev.stack import DevStack

MANY: Final = 200
LIVE: Final = 2000
SETTINGS = """
[revocation]
backoff = "100ms"
max_backoff = "1s"
wait = "2s"

[tasks]
max_live_per_agent = 40

[[capabilities]]
name = "orders-read"
power = "read"
backend = "vault"
path = "database/creds/orders-read"
max_live = 3

[[capabilities]]
name = "slow-read"
power = "read"
backend = "vault"
path = "slow/creds/slow-read"
max_live = 200

[[capabilities]]
name = "orders-api"
power = "read"
backend = "token"
resource = "https://orders.example.com"
scope = "orders.read"
max_live = 200

[[principals]]
name = "orchestrator"
role = "orchestrator"
owner = "you@example.com"
identity = { issuer = "dev", subject = "orchestrator/orchestrator" }

[[principals]]
name = "report-writer"
role = "agent"
owner = "you@example.com"
identity = { issuer = "dev", subject = "agent/report-writer" }
capabilities = ["orders-read", "slow-read", "orders-api"]

[[principals]]
name = "operator"
role = "operator"
owner = "you@example.com"
identity = { issuer = "dev", subject = "operator/operator" }
"""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[DevStack, Config]]:
    with own_stack(tmp_path_factory.mktemp("mass"), SETTINGS) as made:
        yield made


@pytest.fixture
async def world(own: tuple[DevStack, Config]) -> AsyncGenerator[World]:
    stack, config = own
    made = World(stack.issuer, config)
    await made.empty()
    yield made
    await made.close()


async def ask(world: World, token: str, task: dict[str, Any], capability: str, ttl: str) -> Any:
    return await world.http.post(
        f"/v1/tasks/{task['task_id']}/grants",
        json={"capability": capability, "ttl": ttl},
        headers={"Authorization": f"Bearer {token}"},
    )


async def test_8_a_backend_that_hangs_holds_up_neither_other_revocations_nor_issuing(
    world: World, own: tuple[DevStack, Config]
) -> None:
    """200 grants end at once, half of them behind a database that accepts and never answers."""
    admin = Admin(own[0])
    token = await world.token("orchestrator")
    await admin.mount_database("slow", "slow-read")
    hung = await world.open(capabilities=["slow-read"])
    quick = [await world.open() for _ in range(MANY // 2 // 3 + 1)]
    live = await world.open()
    asks = [ask(world, token, hung, "slow-read", "5m") for _ in range(MANY // 2)]
    asks += [ask(world, token, task, "orders-read", "5m") for task in quick for _ in range(3)]
    answers = await asyncio.gather(*asks)
    assert {a.status_code for a in answers} == {201}
    waiting = {a.json()["grant_id"] for a in answers[: MANY // 2]}
    dying = {a.json()["grant_id"] for a in answers[MANY // 2 :]}

    with socket.create_server(("127.0.0.1", 0), backlog=200) as silent:
        await admin.point_database("slow", silent.getsockname()[1])
        ends = [asyncio.create_task(world.complete(task)) for task in (hung, *quick)]
        issued = [await ask(world, token, live, "orders-read", "5m") for _ in range(3)]
        assert [a.status_code for a in issued] == [201] * 3

        async def states(ids: set[str]) -> set[str]:
            found = [await world.app.pipeline.queries.grant(i) for i in ids]
            return {g.state for g in found if g is not None}

        async def all_dead() -> bool:
            return await states(dying) == {"revoked"}

        await wait_until(all_dead, "what doesn't hang is revoked", within_s=60)
        assert await states(waiting) <= {"revoking", "stuck"}
    await admin.point_database("slow", None)
    async with running(world):

        async def none_left() -> bool:
            return await states(waiting) == {"revoked"}

        await wait_until(none_left, "what hung is revoked once it answers", within_s=90)
    await asyncio.gather(*ends)


async def test_28_a_task_holds_so_many_live_credentials_and_no_more(world: World) -> None:
    token = await world.token("orchestrator")
    task, other = await world.open(), await world.open()

    answers = await asyncio.gather(
        *(ask(world, token, task, "orders-read", "5m") for _ in range(10))
    )

    assert sorted(a.status_code for a in answers) == [201] * 3 + [429] * 7
    refused = next(a for a in answers if a.status_code == 429)
    assert refused.json()["code"] == "quota_exceeded"
    assert int(refused.headers["Retry-After"]) > 0
    assert (await ask(world, token, other, "orders-read", "5m")).status_code == 201
    granted = next(a.json() for a in answers if a.status_code == 201)
    await world.call("orchestrator", "DELETE", f"/v1/grants/{granted['grant_id']}")
    assert (await ask(world, token, task, "orders-read", "5m")).status_code == 201
    for each in (task, other):
        await world.complete(each)


async def test_28_an_agent_has_so_many_tasks_and_no_more(world: World) -> None:
    body = {"agent": "report-writer", "purpose": "many", "capabilities": ["orders-api"]}
    tasks = [await world.open(**body) for _ in range(40)]

    answer = await world.call("orchestrator", "POST", "/v1/tasks", body)

    assert (answer.status_code, answer.json()["code"]) == (429, "quota_exceeded")
    assert int(answer.headers["Retry-After"]) > 0
    await world.complete(tasks[0])
    assert (await world.call("orchestrator", "POST", "/v1/tasks", body)).status_code == 201


def ready_task(shard: int) -> Task:
    task_id = new_id("tsk", shard)
    return Task(
        id=task_id,
        state=TaskState.ACTIVE,
        agent="somebody-else",
        owner="you@example.com",
        created_by="orchestrator",
        orchestrator="orchestrator",
        subject="orchestrator",
        purpose="one of many",
        capabilities=("orders-read",),
        parent_id="",
        root_id=task_id,
        actors=("somebody-else",),
        depth=0,
        created_at=0,
        expires_at=0,
    )


async def fill(world: World, count: int) -> None:
    """Write live grants into the ledger as the pipeline does, without making their credentials."""
    ledger = world.app.pipeline.ledger

    async def one(i: int) -> None:
        shard = i % world.config.redis.shards
        task, _ = await ledger.open_task(
            ready_task(shard), ttl_ms=900_000, max_children=1, decision={}, actor="test"
        )
        grant = Grant(
            id=new_id("grt", shard),
            state=GrantState.PENDING,
            task_id=task.id,
            agent=task.agent,
            orchestrator=task.orchestrator,
            capability="orders-read",
            backend="vault",
            power="read",
            path="database/creds/orders-read",
            handle="",
            created_at=0,
            expires_at=0,
        )
        held = await ledger.reserve(grant, ttl_ms=900_000, max_live=1, decision={}, actor="test")
        lease = f"database/creds/orders-read/{i}"
        await ledger.activate(held, lease=lease, lifetime_ms=900_000, actor="test")

    for start in range(0, count, 40):
        await asyncio.gather(*(one(i) for i in range(start, start + 40)))


async def calls(world: World) -> dict[str, int]:
    """How often the ledger ran each command, those inside scripts included."""
    info = await world.app.connection.command("INFO", "commandstats")
    return {k.removeprefix("cmdstat_"): v["calls"] for k, v in info.items()}


async def first_grant(own: tuple[DevStack, Config]) -> dict[str, int]:
    """Start a replica, have it issue, stop it; how many commands that took."""
    stack, config = own
    fresh = World(stack.issuer, config)
    before = await calls(fresh)
    async with running(fresh):
        task = await fresh.open(capabilities=["orders-api"])
        await fresh.grant(task, "orders-api")
        after = await calls(fresh)
    await fresh.http.aclose()
    return {name: after[name] - before.get(name, 0) for name in after}


async def test_29_the_first_grant_after_a_start_reads_nothing_of_the_live_ones(
    world: World, own: tuple[DevStack, Config]
) -> None:
    await fill(world, LIVE)
    assert await world.app.pipeline.queries.count("gc|vault|orders-read|") == LIVE

    spent = await first_grant(own)

    rows = {"hget", "hmget", "hgetall", "hvals", "hscan", "scan", "keys"}
    assert sum(spent.get(name, 0) for name in rows) < 100
    # Jobs ask each shard a few things at a start; one command for each grant would be more.
    assert sum(spent.values()) < LIVE
