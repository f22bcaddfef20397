"""The ledger on a cluster of three masters with a replica each: its life, and its failovers."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import re
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.errors import LedgerUnavailable
from broker.ids import shard_of
from broker.ledger import keys
from broker.ledger.cluster import Cluster
from broker.ledger.topology import Command, Login, TooFewReplicas, target
from broker.secret import Secret
from tests.admin import Admin
from tests.deploy.alerting import DEPLOY
from tests.servers.valkeys import ValkeyCluster
from tests.waiting import wait_until
from tests.world import World, logs_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

PASSWORD: Final = "password-of-the-broker"
RECONCILE: Final = "/v1/reconciliations"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Generator[ValkeyCluster]:
    """The broker gets in as the user of deploy/ and no other."""
    rules = (DEPLOY / "redis/users.acl").read_text("utf-8")
    [rule] = re.findall(r"(?m)^user broker .*$", rules)
    digest = hashlib.sha256(PASSWORD.encode()).hexdigest()
    user = rule.replace("PASSWORD_SHA256", digest)
    made = ValkeyCluster(tmp_path_factory.mktemp("cluster"), user=user)
    with made:
        yield made


@pytest.fixture
def section(cluster: ValkeyCluster, tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "redis-password"
    file.write_text(PASSWORD)
    file.chmod(0o600)
    return {"url": cluster.url, "username": "broker", "password_file": file, "timeout": 1000}


@pytest.fixture
async def world(
    engines: tuple[DevStack, Config],
    cluster: ValkeyCluster,
    section: dict[str, Any],
    tmp_path: Path,
    pristine: None,
) -> AsyncGenerator[World]:
    made = on_cluster(engines, section, tmp_path, replicas=1)
    empty(cluster)
    yield made
    await made.close()
    refusals = [line for node in cluster.nodes for line in node.ask("ACL", "LOG")]
    assert refusals == []


def on_cluster(
    engines: tuple[DevStack, Config], section: dict[str, Any], state: Path, **redis: Any
) -> World:
    stack, config = engines
    return World(
        stack.issuer,
        config.model_copy(
            update={
                "redis": config.redis.model_copy(update={**section, **redis}),
                "broker": config.broker.model_copy(update={"state_dir": state / "state"}),
            }
        ),
    )


def empty(cluster: ValkeyCluster) -> None:
    for master in cluster.masters():
        master.ask("FLUSHALL")


def shard(task: dict[str, Any]) -> int:
    found = shard_of(task["task_id"], "tsk")
    assert found is not None
    return found


async def open_at(world: World, cluster: ValkeyCluster, master: int) -> dict[str, Any]:
    """A task whose chain lies on the master of one port."""
    for _ in range(60):
        task = await world.open(ttl="10m")
        if cluster.master_of(keys.table(shard(task), "tasks")).port == master:
            return task
    raise AssertionError("no task came to lie there")


async def test_a_whole_life_on_all_masters(world: World, cluster: ValkeyCluster) -> None:
    masters = [master.port for master in cluster.masters()]
    tasks = [await open_at(world, cluster, master) for master in masters * 4]
    grants = [await world.grant(task) for task in tasks]
    assert all([await logs_in(grant["credential"]) for grant in grants])
    child = await world.open(parent_task_id=tasks[0]["task_id"], agent="order-clerk", ttl="5m")
    below = await world.grant(child)

    assert (await world.complete(tasks[0]))["state"] == "completed"  # and the cascade
    assert not await logs_in(below["credential"])
    assert (await world.show_grant(below["grant_id"]))["state"] == "revoked"

    one = {"selector": {"grant_id": grants[1]["grant_id"]}, "reason": "test"}
    assert (await world.call("operator", "POST", "/v1/revocations", one)).json()["revoked"] == 1
    listed = await world.call("operator", "GET", "/v1/grants?state=active")
    assert len(listed.json()["items"]) == 10

    await world.sweep(ahead_ms=6 * 60_000)  # past what the grants live for
    assert not any([await logs_in(grant["credential"]) for grant in grants])
    every = {"selector": {"all": True}, "reason": "test", "freeze": True}
    answer = (await world.call("operator", "POST", "/v1/revocations", every)).json()
    assert answer["revoking"] == 0
    refused = await world.call(
        "orchestrator", "POST", f"/v1/tasks/{tasks[2]['task_id']}/grants", {"capability": "x"}
    )
    assert refused.is_error

    app = world.app
    await app.reaper.look()
    await app.reaper.tend()
    await app.reaper.prune()
    await app.reaper.review()
    await app.gauges.read()
    assert app.audit is not None
    assert (await app.audit.drain()).drained > 50
    await app.audit.look()
    assert app.audit.state() == "ok"
    assert (await app.ready())["ledger"] == "ok"


async def test_a_master_dies_while_credentials_are_issued(
    world: World, cluster: ValkeyCluster, engines: tuple[DevStack, Config]
) -> None:
    """Who got one finds it in the ledger; the other masters' shards go on; all of them end."""
    given: list[dict[str, Any]] = []
    over = asyncio.Event()

    async def issue() -> None:
        while not over.is_set():
            ask = {"agent": "report-writer", "purpose": "load", "capabilities": ["orders-read"]}
            answer = await world.call("orchestrator", "POST", "/v1/tasks", ask)
            if answer.status_code == 201:
                path = f"/v1/tasks/{answer.json()['task_id']}/grants"
                asked = {"capability": "orders-read"}
                answer = await world.call("orchestrator", "POST", path, asked)
            assert answer.status_code in (201, 503), answer.text
            if answer.status_code == 201:
                given.append(answer.json())
            await asyncio.sleep(0.02)

    issuing = [asyncio.create_task(issue()) for _ in range(2)]
    await wait_until(lambda: reached(given, 10), "some were issued")
    dead = cluster.master_of(keys.table(0, "tasks"))
    dead.kill()
    during = len(given)
    await asyncio.to_thread(cluster.taken_over, keys.table(0, "tasks"), dead)
    after = len(given)
    dead.start()
    await wait_until(lambda: reached(given, after + 10), "issuing goes on")
    over.set()
    await asyncio.gather(*issuing)
    await asyncio.to_thread(cluster.settled)
    assert after > during  # shards of other masters

    for grant in given:
        assert (await world.show_grant(grant["grant_id"]))["state"] == "active"
    every = {"selector": {"all": True}, "reason": "test"}
    await world.call("operator", "POST", "/v1/revocations", every)
    await world.app.pipeline.work.drain(20)
    await world.sweep(ahead_ms=3_600_000)
    assert not any([await logs_in(grant["credential"]) for grant in given])
    await settle(world)
    assert await Admin(engines[0]).leases() == set()


@pytest.fixture
async def forgetful(
    engines: tuple[DevStack, Config],
    cluster: ValkeyCluster,
    section: dict[str, Any],
    tmp_path: Path,
    pristine: None,
) -> AsyncGenerator[World]:
    """A broker that waits for no replica, and whose path in Vault is its own."""
    stack, config = engines
    alone = [
        c.model_copy(update={"exclusive": True}) if c.name == "orders-read" else c
        for c in config.capabilities
    ]
    own = (stack, config.model_copy(update={"capabilities": alone}))
    made = on_cluster(own, section, tmp_path)
    empty(cluster)
    yield made
    await made.close()


@pytest.mark.parametrize("logged", [True, False], ids=["the log knows", "only Vault knows"])
async def test_writes_that_a_failover_loses_leave_nothing_alive_and_unknown(
    engines: tuple[DevStack, Config],
    cluster: ValkeyCluster,
    forgetful: World,
    logged: bool,
) -> None:
    admin, world = Admin(engines[0]), forgetful
    assert world.app.audit is not None
    key = keys.table(0, "tasks")
    dead = cluster.master_of(key)
    replica = cluster.replica_of(dead)
    known = await open_at(world, cluster, dead.port)
    kept = await world.grant(known)
    await asyncio.to_thread(cluster.settled)
    replica.pause()
    dead.ask("CLIENT", "KILL", "TYPE", "replica")
    young = await open_at(world, cluster, dead.port)
    lost = [await world.grant(young), await world.grant(young), await world.grant(known)]
    if logged:
        await world.app.audit.drain()
    dead.kill()
    replica.resume()
    await asyncio.to_thread(cluster.taken_over, key, dead)
    dead.start()
    await asyncio.to_thread(cluster.settled)

    async def forgotten() -> bool:
        with contextlib.suppress(LedgerUnavailable):  # of the first to meet the dead master
            return await world.app.pipeline.queries.task(young["task_id"]) is None
        return False

    assert await wait_until(forgotten, "the task was lost")
    assert all([await logs_in(grant["credential"]) for grant in (kept, *lost)])
    await world.app.audit.look()
    ready = await world.app.ready()  # which says so if the ledger is known to be set back
    assert ready["reconcile"].startswith("warning: in quarantine") is logged
    await world.app.audit.drain()
    await settle(world)
    assert not any([await logs_in(grant["credential"]) for grant in lost])
    assert await logs_in(kept["credential"])
    assert len(await admin.leases()) == 1
    await world.complete(known)
    assert not await logs_in(kept["credential"])
    assert await admin.leases() == set()


async def test_nothing_is_issued_that_no_replica_knows_of(
    world: World, cluster: ValkeyCluster
) -> None:
    """And what is alive can be ended all the same."""
    dead = cluster.master_of(keys.table(0, "tasks"))
    task = await open_at(world, cluster, dead.port)
    grant = await world.grant(task)
    replica = cluster.replica_of(dead)
    replica.pause()
    try:
        path = f"/v1/tasks/{task['task_id']}/grants"
        asked = {"capability": "orders-read"}
        answer = await world.call(task["agent"], "POST", path, asked, task_id=task["task_id"])
        assert answer.status_code == 503
        assert answer.json()["code"] == "ledger_unavailable"
        assert (await world.complete(task))["state"] == "completed"
        assert not await logs_in(grant["credential"])
    finally:
        replica.resume()
    await asyncio.to_thread(cluster.settled)


async def test_slots_that_move_are_followed(world: World, cluster: ValkeyCluster) -> None:
    """While a shard's tables are in two places it waits; where they are then, the old one says."""
    task = await world.open(ttl="10m")
    first = await world.grant(task)
    table = keys.table(shard(task), "tasks")
    source = cluster.master_of(table)
    target = next(m for m in cluster.masters() if m is not source)
    path = f"/v1/tasks/{task['task_id']}/grants"
    asked = {"capability": "orders-read"}
    statuses = [
        (await world.call(task["agent"], "POST", path, asked, task_id=task["task_id"])).status_code
        for _ in cluster.move(table, source, target)
    ]
    assert statuses == [503, 201]
    assert (await world.show_grant(first["grant_id"]))["state"] == "active"
    await world.complete(task)
    assert not await logs_in(first["credential"])


async def test_a_write_that_is_sent_on_to_where_its_key_has_gone_waits_for_the_replicas_there(
    section: dict[str, Any], cluster: ValkeyCluster
) -> None:
    login = Login(username="broker", password=Secret(PASSWORD))
    servers = Cluster(target(cluster.url, login, 1.0), replicas=1)
    name = keys.table(1, "tasks")
    source = cluster.master_of(name)
    other = next(m for m in cluster.masters() if m is not source)
    replica = cluster.replica_of(other)
    write = Command(("HSET", name, "tsk_1", "{}"), {}, lasting=True)
    try:
        assert await servers.ask([write]) == [1]
        for state in cluster.move(name, source, other):
            if not state.startswith("all keys"):
                continue
            assert await servers.ask([write]) == [0]
            replica.pause()
            try:
                [answer] = await servers.ask([write])
            finally:
                replica.resume()
            assert isinstance(answer, TooFewReplicas)
    finally:
        await servers.close()
        empty(cluster)


async def reached(given: list[dict[str, Any]], count: int) -> bool:
    return len(given) >= count


async def settle(world: World) -> None:
    """Reconcile as an operator does: see, apply what was seen, until all sides agree."""

    async def agrees() -> bool:
        await world.call("operator", "POST", RECONCILE, {})
        answer = await world.call("operator", "POST", RECONCILE, {"apply": True})
        assert answer.status_code == 200, answer.text
        await world.app.pipeline.work.drain(20)
        found = answer.json()
        return found["agreement"] and found["quarantine"] is None

    assert await wait_until(agrees, "all sides agree")
