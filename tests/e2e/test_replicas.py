"""Three replicas, real processes, on one Valkey and one OpenBao: no one of them is needed."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any, Final

import httpx2
import pytest

from broker.audit.drain import LEASE_S
from broker.cli.failures import UNREACHABLE
from broker.grants import DEAD, Grant
from broker.ledger import keys
from broker.ledger.outbox import Outbox
from tests.admin import Admin, own_stack
from tests.dev.broker_process import broker
from tests.servers.replicas import Party, Replica, Replicas
from tests.waiting import wait_until
from tests.world import World, logs_in

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator
    from pathlib import Path

    from broker.config import Config
    from broker.dev.stack import DevStack

COUNT: Final = 3
QUICK: Final = """
[revocation]
backoff = "100ms"
max_backoff = "500ms"
claim = "2s"
"""
PACE_S: Final = 0.25
"""How often a task asks: so no task has the most that it may before another writes the log."""
SLOW: Final = "SELECT pg_sleep(1)"
"""What makes a credential take a second to be made."""


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[DevStack, Config]]:
    with own_stack(tmp_path_factory.mktemp("replicas"), QUICK) as made:
        yield made


@pytest.fixture
async def world(own: tuple[DevStack, Config]) -> AsyncGenerator[World]:
    """A look at the ledger from beside; it serves nobody."""
    made = World(own[0].issuer, own[1])
    await made.empty()
    yield made
    await made.close()


@pytest.fixture
async def replicas(
    own: tuple[DevStack, Config], world: World, tmp_path: Path
) -> AsyncGenerator[Replicas]:
    made = Replicas(own[0], tmp_path, COUNT)
    await asyncio.to_thread(made.start)
    yield made
    await asyncio.to_thread(made.stop)


@pytest.fixture
async def orchestrator(own: tuple[DevStack, Config], replicas: Replicas) -> AsyncGenerator[Party]:
    made = Party(replicas, own[0], "orchestrator")
    yield made
    await made.http.aclose()


@pytest.fixture
async def operator(own: tuple[DevStack, Config], replicas: Replicas) -> AsyncGenerator[Party]:
    made = Party(replicas, own[0], "operator")
    yield made
    await made.http.aclose()


class Load:
    """Asks for credentials of some tasks until told to stop, and keeps what it was given."""

    def __init__(self, party: Party, tasks: list[dict[str, Any]]) -> None:
        self.given: list[dict[str, Any]] = []
        self._over = asyncio.Event()
        self._asking = [asyncio.create_task(self._ask(party, task)) for task in tasks]

    async def _ask(self, party: Party, task: dict[str, Any]) -> None:
        while not self._over.is_set():
            answer = await party.grant(task)
            assert answer.status_code in (201, 503), answer.text
            if answer.status_code == 201:
                self.given.append(answer.json())
            await asyncio.sleep(PACE_S)

    async def more(self, count: int) -> None:
        """Wait until so many more were given."""
        wanted = len(self.given) + count

        async def enough() -> bool:
            return len(self.given) >= wanted or any(task.done() for task in self._asking)

        await wait_until(enough, "credentials are being delivered")

    async def stop(self) -> None:
        self._over.set()
        await asyncio.gather(*self._asking)


async def grants_of(world: World, tasks: list[dict[str, Any]]) -> dict[str, Grant]:
    queries = world.app.pipeline.queries
    rows = [await queries.grants_of(task["task_id"], dead=True) for task in tasks]
    return {grant.id: grant for row in rows for grant in row}


async def writer(replicas: Replicas) -> Replica:
    """The one that writes the log, of those that run."""

    async def found() -> Replica | None:
        return next((r for r in replicas.running if r.writes), None)

    found_one = await wait_until(found, "one writes the log", within_s=2 * LEASE_S)
    assert found_one is not None
    return found_one


async def drained(world: World) -> bool:
    """Whether every event is in the signed log."""
    return await Outbox(world.app.connection).waiting() == 0


async def test_whoever_is_killed_the_others_serve_revoke_and_write_the_log(
    own: tuple[DevStack, Config],
    world: World,
    replicas: Replicas,
    orchestrator: Party,
    operator: Party,
) -> None:
    stack, _ = own
    tasks = [await orchestrator.open() for _ in range(4)]
    load = Load(orchestrator, tasks)
    await load.more(12)

    # Whoever writes the log dies while all are serving.
    first = await writer(replicas)
    began = asyncio.get_running_loop().time()
    await asyncio.to_thread(first.kill)
    await load.more(12)
    second = await writer(replicas)
    assert asyncio.get_running_loop().time() - began < LEASE_S + 5
    assert second is not first
    await load.stop()
    known = await grants_of(world, tasks)
    assert {given["grant_id"] for given in load.given} <= set(known)

    # The next one dies while it revokes: what it had begun comes back, and the last one ends it.
    every = {"selector": {"all": True}, "reason": "test"}
    revoking = asyncio.create_task(operator.ask(second, "POST", "/v1/revocations", every))

    async def begun() -> bool:
        return any(g.state != "active" for g in (await grants_of(world, tasks)).values())

    await wait_until(begun, "it has begun to revoke")
    await asyncio.to_thread(second.kill)
    with contextlib.suppress(httpx2.TransportError):
        await revoking
    [last] = replicas.running
    again = await operator.ask(last, "POST", "/v1/revocations", every)  # what wasn't begun yet
    assert again.status_code == 200

    async def all_dead() -> bool:
        return all(g.state in DEAD for g in (await grants_of(world, tasks)).values())

    await wait_until(all_dead, "everything is confirmed dead", within_s=60)
    assert not any([await logs_in(given["credential"]) for given in load.given])
    assert await Admin(stack).roles() == set()

    assert await writer(replicas) is last
    await wait_until(lambda: drained(world), "every event is in the log", within_s=2 * LEASE_S)
    last.terminate()
    assert await asyncio.to_thread(last.server.ended) == 0
    verified = await asyncio.to_thread(
        broker, "audit", "verify", "--config", str(stack.data / "config.toml"), "--json"
    )
    assert verified.code == 0, verified.out


async def test_a_replica_that_is_stopped_finishes_what_it_has_begun_and_takes_nothing_new(
    own: tuple[DevStack, Config],
    world: World,
    replicas: Replicas,
    orchestrator: Party,
) -> None:
    admin = Admin(own[0])
    tasks = [await orchestrator.open() for _ in range(4)]
    first = await writer(replicas)
    await admin.set_creation("orders-read", SLOW)
    try:
        asked = {"capability": "orders-read"}
        paths = [f"/v1/tasks/{task['task_id']}/grants" for task in tasks]
        under_way = [asyncio.create_task(orchestrator.ask(first, "POST", p, asked)) for p in paths]

        async def busy() -> bool:
            return any("pg_sleep" in text for text in await admin.statements())

        await wait_until(busy, "they are being made")
        first.terminate()
        answers = await asyncio.gather(*under_way)
    finally:
        await admin.set_creation("orders-read")
    assert [answer.status_code for answer in answers] == [201] * len(tasks)
    assert await asyncio.to_thread(first.server.ended) == 0
    with pytest.raises(httpx2.ConnectError):
        await orchestrator.ask(first, "GET", "/healthz")
    # The lease of the log was let go: another writes it, without waiting for it to run out.
    held = await world.app.connection.command("PTTL", keys.lease("audit"))
    assert await writer(replicas) is not first
    assert held <= LEASE_S * 1000

    for answer in answers:
        given = answer.json()
        assert (await world.show_grant(given["grant_id"]))["state"] == "active"
        assert await logs_in(given["credential"])
    for task in tasks:
        await orchestrator.call("POST", f"/v1/tasks/{task['task_id']}/complete", {})

    async def gone() -> bool:
        return await admin.roles() == set()

    await wait_until(gone, "the others have ended them")


async def test_a_newer_ledger_is_refused_and_what_lives_can_be_ended(
    own: tuple[DevStack, Config],
    world: World,
    replicas: Replicas,
    orchestrator: Party,
    tmp_path: Path,
) -> None:
    """As in a rolling upgrade whose first replica has changed the layout."""
    task = await orchestrator.open()
    given = (await orchestrator.grant(task)).json()
    await set_version(world, 99)

    async def noticed() -> bool:
        ready = [await orchestrator.ask(r, "GET", "/readyz") for r in replicas.running]
        return all(answer.status_code == 503 for answer in ready)

    await wait_until(noticed, "all have noticed")
    refused = await orchestrator.grant(task)
    assert (refused.status_code, refused.json()["code"]) == (503, "ledger_newer")
    opened = await orchestrator.call(
        "POST",
        "/v1/tasks",
        {"agent": "report-writer", "purpose": "x", "capabilities": ["orders-read"]},
    )
    assert opened.status_code == 503

    late = Replica(own[0], tmp_path, "late")
    started = await asyncio.to_thread(broker, "serve", "--config", str(late.file))
    assert started.code == UNREACHABLE
    assert "The ledger has layout 99, and this release knows 1 at most" in started.err
    assert "Run the newer release everywhere" in started.err
    assert "hint: install that release here" in started.err

    done = await orchestrator.call("POST", f"/v1/tasks/{task['task_id']}/complete", {})
    assert done.status_code == 200, done.text

    async def dead() -> bool:
        return not await logs_in(given["credential"])

    await wait_until(dead, "what lived was ended")
    await set_version(world, 1)

    async def issuing() -> bool:
        answer = await orchestrator.call(
            "POST",
            "/v1/tasks",
            {"agent": "report-writer", "purpose": "x", "capabilities": ["orders-read"]},
        )
        return answer.status_code == 201

    await wait_until(issuing, "it is theirs again")


async def set_version(world: World, version: int) -> None:
    for shard in range(world.app.connection.shards):
        key = keys.table(shard, keys.SCHEMA)
        await world.app.connection.command("HSET", key, "version", version)
