"""Lists in pages: everything once, in order, whatever the page size and the filter."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from tests.http.parties import PartyWorld, bearer

if TYPE_CHECKING:
    import httpx2

    from tests.world import World

ASK: dict[str, Any] = {
    "agent": "report-writer",
    "purpose": "one of many",
    "capabilities": ["orders-api"],
}
TASKS = 120


async def open_many(world: World, name: str, agents: list[str], count: int) -> list[dict[str, Any]]:
    headers, turn = await bearer(world, name), asyncio.Semaphore(20)

    async def one(agent: str) -> httpx2.Response:
        async with turn:  # so that the last has not to wait for all before it
            return await world.http.post("/v1/tasks", json={**ASK, "agent": agent}, headers=headers)

    answers = await asyncio.gather(*(one(agents[i % len(agents)]) for i in range(count)))
    assert {answer.status_code for answer in answers} == {201}
    return [answer.json() for answer in answers]


async def pages(
    world: World, name: str, path: str, page_by: str = "cursor", **query: Any
) -> list[list[dict[str, Any]]]:
    """Every page of a list, walked by its cursor."""
    headers = await bearer(world, name)
    found: list[list[dict[str, Any]]] = []
    cursor = ""
    while True:
        answer = await world.http.get(
            path, params={**query, **({page_by: cursor} if cursor else {})}, headers=headers
        )
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert len(page["items"]) <= query["limit"]
        found.append(page["items"])
        assert len(found) < 1000, "the list never ends"
        if page["next"] is None:
            return found
        assert page["next"] != cursor, "the list doesn't move"
        cursor = page["next"]


def flat(found: list[list[dict[str, Any]]], key: str) -> list[str]:
    return [item[key] for page in found for item in page]


async def test_tasks_come_once_each_newest_first(wide: PartyWorld) -> None:
    opened = await open_many(wide, "orchestrator", ["report-writer", "order-clerk"], TASKS)

    found = await pages(wide, "orchestrator", "/v1/tasks", limit=7)

    ids, times = flat(found, "task_id"), flat(found, "created_at")
    assert len(ids) == TASKS
    assert set(ids) == {task["task_id"] for task in opened}
    assert times == sorted(times, reverse=True)
    assert [len(page) for page in found[:-1]] == [7] * (TASKS // 7)


@pytest.mark.parametrize("limit", [1, 7, 60, 500])
async def test_filtered_tasks_come_once_each(wide: PartyWorld, limit: int) -> None:
    opened = await open_many(wide, "orchestrator", ["report-writer", "order-clerk"], 60)
    others = await open_many(wide, "rival", ["report-writer"], 10)
    ended = [task for task in opened if task["agent"] == "report-writer"][:5]
    for task in ended:
        await wide.complete(task)

    def ids(tasks: list[dict[str, Any]]) -> list[str]:
        return sorted(task["task_id"] for task in tasks)

    mine = [t for t in opened if t["agent"] == "report-writer"]
    for name, query, expected in (
        ("orchestrator", {}, opened),
        ("rival", {}, others),
        ("operator", {"agent": "report-writer"}, mine + others),
        ("orchestrator", {"agent": "report-writer"}, mine),
        ("orchestrator", {"state": "completed"}, ended),
        ("orchestrator", {"state": "failed"}, []),
        ("rival", {"agent": "order-clerk"}, []),
        ("orders-service", {}, []),
    ):
        found = await pages(wide, name, "/v1/tasks", limit=limit, **query)
        assert sorted(flat(found, "task_id")) == ids(expected), (name, query)


async def grants_of(world: World, tasks: list[dict[str, Any]], each: int) -> list[str]:
    headers = await bearer(world, "orchestrator")
    answers = await asyncio.gather(
        *(
            world.http.post(
                f"/v1/tasks/{task['task_id']}/grants",
                json={"capability": "orders-api"},
                headers=headers,
            )
            for task in tasks
            for _ in range(each)
        )
    )
    assert {answer.status_code for answer in answers} == {201}
    return [answer.json()["grant_id"] for answer in answers]


async def test_grants_come_once_each_newest_first(wide: PartyWorld) -> None:
    tasks = await open_many(wide, "orchestrator", ["report-writer", "order-clerk"], 6)
    granted = await grants_of(wide, tasks, 20)

    found = await pages(wide, "orchestrator", "/v1/grants", limit=7)

    times = flat(found, "created_at")
    assert len(granted) == 120
    assert sorted(flat(found, "grant_id")) == sorted(granted)
    assert times == sorted(times, reverse=True)
    assert not any("credential" in item for page in found for item in page)


@pytest.mark.parametrize("limit", [1, 7, 500])
async def test_filtered_grants_come_once_each(wide: PartyWorld, limit: int) -> None:
    tasks = await open_many(wide, "orchestrator", ["report-writer", "order-clerk"], 4)
    granted = await grants_of(wide, tasks, 8)
    by_task = [granted[i : i + 8] for i in range(0, 32, 8)]
    await wide.complete(tasks[0])
    writers = by_task[0] + by_task[2]

    for name, query, expected in (
        ("operator", {}, granted),
        ("orchestrator", {"state": "revoked"}, by_task[0]),
        ("orchestrator", {"state": "active"}, by_task[1] + by_task[2] + by_task[3]),
        ("orchestrator", {"state": "pending"}, []),
        ("orchestrator", {"agent": "report-writer"}, writers),
        ("operator", {"agent": "report-writer", "state": "active"}, by_task[2]),
        ("orchestrator", {"task_id": tasks[0]["task_id"]}, by_task[0]),
        ("orchestrator", {"task_id": tasks[1]["task_id"], "state": "revoked"}, []),
        ("rival", {}, []),
    ):
        found = await pages(wide, name, "/v1/grants", limit=limit, **query)
        assert sorted(flat(found, "grant_id")) == sorted(expected), (name, query)


async def test_an_agent_pages_through_its_own_grants(wide: PartyWorld) -> None:
    one, two = await open_many(wide, "orchestrator", ["report-writer"], 2)
    granted = await grants_of(wide, [one, two], 10)
    headers = await bearer(wide, "report-writer", one["task_id"])
    ids: list[str] = []
    cursor = ""
    for _ in range(4):
        answer = await wide.http.get(
            "/v1/grants", params={"limit": 3, "cursor": cursor}, headers=headers
        )
        ids += [item["grant_id"] for item in answer.json()["items"]]
        cursor = answer.json()["next"] or ""

    assert cursor == ""
    assert sorted(ids) == sorted(granted[:10])


async def test_a_task_opened_while_paging_disturbs_nothing(world: World) -> None:
    opened = [await world.open() for _ in range(5)]
    headers = await bearer(world, "operator")
    first = (await world.http.get("/v1/tasks?limit=3", headers=headers)).json()
    await world.open()

    rest = (
        await world.http.get("/v1/tasks", params={"cursor": first["next"]}, headers=headers)
    ).json()

    seen = [item["task_id"] for item in (*first["items"], *rest["items"])]
    assert sorted(seen) == sorted(task["task_id"] for task in opened)


@pytest.mark.parametrize("limit", [1, 7, 500])
async def test_events_of_all_shards_come_once_each_in_order(world: World, limit: int) -> None:
    opened = await open_many(world, "orchestrator", ["report-writer"], 20)
    await world.complete(opened[0])
    headers = await bearer(world, "operator")
    total = 0
    for shard in range(world.config.redis.shards):
        total += await world.app.connection.command("XLEN", f"broker:{{s{shard:02x}}}:audit")
    # What is younger than a few milliseconds isn't shown yet: ask until all of it is.
    ids: list[str] = []
    opens: list[str] = []
    after = ""
    while len(ids) < total:
        answer = await world.http.get(
            "/v1/audit/events", params={"limit": limit, "after": after}, headers=headers
        )
        assert answer.status_code == 200
        items = answer.json()["items"]
        assert len(items) <= limit
        ids += [item["id"] for item in items]
        opens += [item["task_id"] for item in items if item["type"] == "task.opened"]
        after = ids[-1] if ids else ""

    assert len(ids) == len(set(ids)) == total
    assert [order(i) for i in ids] == sorted(order(i) for i in ids)
    assert len({i.split("-")[1] for i in ids}) > 5, "many shards"
    assert sorted(opens) == sorted(task["task_id"] for task in opened)


def order(event_id: str) -> tuple[int, int, int]:
    millis, shard, sequence = event_id.split("-")
    return int(millis), int(shard, 16), int(sequence)


async def test_events_of_one_task_page_too(world: World) -> None:
    task = await world.open(capabilities=["orders-api"])
    for _ in range(10):
        await world.grant(task, "orders-api")
    everything = [event["id"] for event in await world.events(task["task_id"])]

    found = await pages(
        world, "auditor", "/v1/audit/events", "after", limit=4, task_id=task["task_id"]
    )

    assert flat(found, "id") == everything
    assert {event["task_id"] for page in found for event in page} == {task["task_id"]}
    kinds = [event["type"] for page in found for event in page]
    assert kinds.count("grant.activated") == 10
    assert kinds.index("task.opened") < kinds.index("grant.reserved")
