"""``GET /metrics`` of a broker at work: what it shows, to whom, and what nobody can do to it."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any, Final

import pytest

from broker.http.metrics import NOWHERE
from tests.exposed import OPENMETRICS, Exposed
from tests.http.parties import UNKNOWN_TASK, assert_problem, party_world
from tests.waiting import wait_until
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager
    from pathlib import Path

    import httpx2

    from broker.config import Config
    from broker.dev.stack import DevStack

TOKEN: Final = "the-token-of-the-scraper"
READ: Final = {"backend": "vault", "power": "read"}


async def scrape(world: World, accept: str = "", **headers: str) -> Exposed:
    answer = await world.http.get("/metrics", headers={"accept": accept, **headers})
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return Exposed(answer.text, answer.headers["content-type"])


# ── a broker at work ─────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
async def test_a_scrape_can_be_read_and_explains_itself(world: World, accept: str) -> None:
    await world.grant(await world.open())

    found = await scrape(world, accept)

    assert found.families
    for family in found.families:
        assert family.name.startswith("broker_")
        assert family.documentation, family.name
    assert found.value("live_grants", **READ) == 1
    assert found.value("live_grants", backend="vault", power="operate") == 0
    assert found.value("unknown_grants") == 0
    assert found.value("ledger_up") == 1
    assert found.value("work_in_flight") is not None
    assert found.values("ledger_duration_seconds_count")["reserve",] >= 1


async def test_live_grants_go_when_they_are_dead(world: World) -> None:
    task = await world.open()
    await world.grant(task)
    await world.grant(task)
    assert (await scrape(world)).value("live_grants", **READ) == 2
    scheduled = (await scrape(world)).value("scheduled_items")
    assert scheduled is not None
    assert scheduled >= 3  # both grants, and the task

    await world.complete(task)

    async def gone() -> bool:
        return (await scrape(world)).value("live_grants", **READ) == 0

    await wait_until(gone, "the figures are read anew")


async def test_requests_are_counted_by_their_route(world: World) -> None:
    task = await world.open()
    for _ in range(3):
        await world.show_task(task["task_id"])
    await world.call("operator", "GET", f"/v1/tasks/{UNKNOWN_TASK}")
    await world.http.put(f"/v1/tasks/{task['task_id']}")

    found = await scrape(world)

    route = {"route": "/v1/tasks/{task_id}"}
    assert found.value("http_requests_total", **route, method="GET", status="200") == 3
    assert found.value("http_requests_total", **route, method="GET", status="404") == 1
    assert found.value("http_requests_total", **route, method="PUT", status="405") == 1
    assert found.value("http_request_duration_seconds_count", **route, method="GET") == 4
    token = found.value("http_requests_total", route="/oauth/token", method="POST", status="200")
    assert token == 2


async def test_what_was_due_is_due_until_a_sweep_takes_it(world: World) -> None:
    task = await world.open(ttl="1s")

    async def due() -> Exposed | None:
        found = await scrape(world)
        return found if found.value("due_items") else None

    found = await wait_until(due, "the task's time is up")
    assert found is not None
    assert found.value("overdue_items") == 0

    async def late() -> float | None:
        return (await scrape(world)).value("sweep_lag_seconds")

    assert await wait_until(late, "it has waited for a moment")
    assert found.values("claims_total") == {("task",): 0, ("grant",): 0}

    await world.sweep()

    assert (await scrape(world)).values("claims_total")["task",] >= 1
    assert (await world.show_task(task["task_id"]))["state"] == "expired"


async def test_it_says_how_much_and_never_whose(world: World) -> None:
    task = await world.open()
    grant = await world.grant(task)
    body = (await scrape(world)).body

    credential: dict[str, Any] = grant["credential"]
    for word in (
        *(task["task_id"], grant["grant_id"], task["agent"], "orchestrator", "operator/"),
        *(str(value) for name, value in credential.items() if name != "type"),
    ):
        assert word not in body


async def test_two_brokers_of_a_process_share_nothing(
    world: World, engines: tuple[DevStack, Config]
) -> None:
    other = World(engines[0].issuer, engines[1])
    try:
        await world.open()
        theirs = await scrape(other)
        assert theirs.values("http_requests_total") == {}
        assert (await scrape(world)).values("http_requests_total") != {}
        # What is in the ledger they both see.
        assert theirs.value("scheduled_items") == 1
    finally:
        await other.close()


async def test_whoever_looks_at_the_same_time_shares_one_reading(world: World) -> None:
    await asyncio.gather(*(scrape(world) for _ in range(10)))
    found = await scrape(world)
    assert found.value("ledger_duration_seconds_count", call="inventory") == 1


# ── what nobody can do to it ─────────────────────────────────────────────────────────────────────


async def test_hostile_paths_and_methods_make_nothing_grow(world: World) -> None:
    async def attack(n: int) -> None:
        for path in (f"/{n}", f"/v1/tasks/{n}", f"/v1/{n}/tasks", f"/metrics/{n}", f"/oauth/{n}"):
            await world.http.request("GET", path)
        await world.http.request(f"BREW{n}", "/v1/tasks")
        await world.http.request(f"BREW{n}", f"/{n}")
        await world.http.get("/healthz", headers={"host": f"host{n}", "x-forwarded-for": f"{n}"})

    await attack(0)
    await scrape(world)
    before = await scrape(world)
    for n in range(1, 60):
        await attack(n)
    after = await scrape(world)

    assert set(after.samples) == set(before.samples)
    assert after.value("http_requests_total", route=NOWHERE, method="GET", status="404") == 240
    assert after.value("http_requests_total", route=NOWHERE, method="other", status="404") == 60


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text;version=x", "text/plain;version=1.x", "\xff;=,"]
)
async def test_a_hostile_accept_is_answered(world: World, accept: str) -> None:
    answer = await world.http.get("/metrics", headers=[(b"accept", accept.encode("latin-1"))])
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"


# ── a ledger that doesn't answer ─────────────────────────────────────────────────────────────────


@contextlib.asynccontextmanager
async def refusing() -> AsyncGenerator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: whoever connects is refused
        yield taken.getsockname()[1]


@contextlib.asynccontextmanager
async def silent() -> AsyncGenerator[int]:
    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


@pytest.mark.parametrize("ledger", [refusing, silent])
async def test_a_dead_ledger_is_shown_and_the_counters_with_it(
    engines: tuple[DevStack, Config], ledger: Callable[[], AbstractAsyncContextManager[int]]
) -> None:
    async with ledger() as port:
        redis = {"url": f"redis://127.0.0.1:{port}/0", "timeout": "200ms"}
        world = party_world(engines[0], redis=redis)
        assert (await world.exchange("orchestrator")).status_code == 503

        found = await scrape(world)
        await world.close()

    assert found.value("ledger_up") == 0
    assert found.values("live_grants") == {}
    assert found.values("due_items") == {}
    status = {"route": "/oauth/token", "method": "POST", "status": "503"}
    assert found.value("http_requests_total", **status) == 1
    assert sum(found.values("ledger_errors_total").values()) >= 1


# ── who may see it ───────────────────────────────────────────────────────────────────────────────


@pytest.fixture
async def closed(engines: tuple[DevStack, Config], tmp_path: Path) -> AsyncGenerator[World]:
    file = tmp_path / "metrics-token"
    file.write_text(f"{TOKEN}\n")
    made = party_world(engines[0], metrics={"token_file": str(file)})
    yield made
    await made.close()


async def test_the_token_opens_it(closed: World) -> None:
    for scheme in ("Bearer", "bearer"):
        assert (await scrape(closed, authorization=f"{scheme} {TOKEN}")).families


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("authorization", "")],
        [("authorization", "Bearer")],
        [("authorization", "Bearer ")],
        [("authorization", TOKEN)],
        [("authorization", f"Basic {TOKEN}")],
        [("authorization", f"Bearer {TOKEN[:-1]}")],
        [("authorization", f"Bearer {TOKEN}x")],
        [("authorization", "Bearer \xff")],
        [("authorization", f"Bearer {TOKEN}"), ("authorization", f"Bearer {TOKEN}")],
    ],
)
async def test_without_the_token_it_is_refused(
    closed: World, headers: list[tuple[str, str]]
) -> None:
    sent = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    answer = await closed.http.get("/metrics", headers=sent)
    body = assert_problem(answer, 401, "unauthenticated")
    assert answer.headers["www-authenticate"] == 'Bearer realm="broker metrics"'
    assert TOKEN not in str(body)


async def test_a_workloads_token_is_not_that_token(closed: World) -> None:
    answer = await closed.call("operator", "GET", "/metrics")
    assert_problem(answer, 401, "unauthenticated")


async def test_it_can_be_left_out(engines: tuple[DevStack, Config]) -> None:
    made = party_world(engines[0], metrics={"enabled": False})
    try:
        answer: httpx2.Response = await made.http.get("/metrics")
        assert_problem(answer, 404, "not_found")
    finally:
        await made.close()


async def test_it_is_no_part_of_the_api(world: World) -> None:
    paths = (await world.http.get("/openapi.json")).json()["paths"]
    assert "/v1/tasks" in paths
    assert "/metrics" not in paths
