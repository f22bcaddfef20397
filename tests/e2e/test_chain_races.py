"""Pitfalls 1 and 14 under concurrency: a chain that ends while it grows, at two replicas."""

from __future__ import annotations

import asyncio
from datetime import datetime
from secrets import randbelow
from typing import TYPE_CHECKING, Any, Final

import pytest

from tests.chain_world import AGENTS, ChainWorld, chain_config
from tests.http.front_door import ACCESS_TOKEN
from tests.world import EXCHANGE

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Coroutine

    import httpx2

    from broker.config import Config
    from broker.dev.stack import DevStack

ROUNDS: Final = 12


@pytest.fixture
async def links(engines: tuple[DevStack, Config]) -> AsyncGenerator[ChainWorld]:
    made = ChainWorld(engines[0].issuer, chain_config(engines[0], tasks={"max_depth": 10}))
    await made.app.connection.command("FLUSHALL")
    yield made
    await made.close()


@pytest.fixture
async def beside(engines: tuple[DevStack, Config], links: ChainWorld) -> AsyncGenerator[ChainWorld]:
    """Another replica on the same ledger."""
    made = ChainWorld(engines[0].issuer, links.config)
    yield made
    await made.close()


async def scattered(work: Coroutine[Any, Any, Any]) -> Any:
    """Begin some passes of the loop later: what begins at once travels together, in order."""
    for _ in range(randbelow(60)):
        await asyncio.sleep(0)
    return await work


async def end(links: ChainWorld, task: dict[str, Any]) -> httpx2.Response:
    path = f"/v1/tasks/{task['task_id']}/complete"
    return await links.post(path, {"outcome": "completed"}, by="orchestrator")


async def warm(*worlds: ChainWorld, tasks: list[dict[str, Any]]) -> None:
    """Have every token at hand, so that what races is what is to race."""
    for links in worlds:
        await links.headers("orchestrator")
        for task in tasks:
            await links.headers(task["agent"], task["task_id"])


async def test_1_a_child_is_opened_before_its_parents_end_and_dies_with_it_or_not_at_all(
    links: ChainWorld, beside: ChainWorld
) -> None:
    outcomes: list[int] = []
    for _ in range(ROUNDS):
        tasks = await links.chain("report-writer", "order-clerk")
        root, parent = tasks
        await warm(links, beside, tasks=tasks)
        ended = root if randbelow(2) else parent

        *answers, over = await asyncio.gather(
            scattered(links.link(parent, "editor")),
            scattered(beside.link(parent, "checker")),
            scattered(beside.link(parent, "editor", by="orchestrator")),
            scattered(end(links, ended)),
        )

        assert over.status_code == 200
        outcomes += [answer.status_code for answer in answers]
        children = await links.app.pipeline.queries.children_of(parent["task_id"])
        opened = {a.json()["task_id"] for a in answers if a.status_code == 201}
        assert opened == set(children), "said to be opened, and is: exactly one outcome each"
        for child in children:
            assert (await links.show_task(child))["state"] == "cancelled"
    assert set(outcomes) <= {201, 401, 404, 409}
    assert len(set(outcomes)) > 1, "no race was run"


async def test_1_nothing_is_minted_from_a_grandchild_whose_root_has_ended(
    links: ChainWorld, beside: ChainWorld
) -> None:
    outcomes: list[int] = []
    for _ in range(ROUNDS):
        tasks = await links.chain("report-writer", "order-clerk", "editor")
        await warm(links, beside, tasks=tasks)
        path = f"/v1/tasks/{tasks[2]['task_id']}/grants"
        ask = {"capability": "orders-api"}

        mints = [scattered((links, beside)[i % 2].post(path, ask, task=tasks[2])) for i in range(6)]
        *answers, over = await asyncio.gather(*mints, scattered(end(beside, tasks[0])))

        assert over.status_code == 200
        outcomes += [answer.status_code for answer in answers]
        late = await asyncio.gather(*(w.post(path, ask, task=tasks[2]) for w in (links, beside)))
        assert {answer.status_code for answer in late} == {401}
        await links.app.pipeline.work.drain(10)
        await beside.app.pipeline.work.drain(10)
        await links.sweep()
        delivered = [a.json() for a in answers if a.status_code == 201]
        for grant in delivered:
            assert (await links.show_grant(grant["grant_id"]))["state"] == "revoked"
            token = grant["credential"]["access_token"]
            headers = await links.headers("operator")
            said = await links.http.post(
                "/oauth/introspect", data={"token": token}, headers=headers
            )
            assert said.json() == {"active": False}
        held = await links.app.pipeline.queries.grants_of(tasks[2]["task_id"], dead=True)
        assert {grant.state for grant in held} <= {"revoked", "failed"}
        assert {grant["grant_id"] for grant in delivered} <= {grant.id for grant in held}
    assert set(outcomes) <= {201, 401, 403, 409}
    assert len(set(outcomes)) > 1, "no race was run"


async def test_1_tokens_of_a_grandchild_are_issued_before_the_end_or_refused(
    links: ChainWorld, beside: ChainWorld
) -> None:
    for _ in range(ROUNDS):
        tasks = await links.chain("report-writer", "order-clerk", "editor")
        await warm(links, tasks=[])
        *answers, _ = await asyncio.gather(
            scattered(links.exchange("editor", tasks[2]["task_id"])),
            scattered(beside.exchange("editor", tasks[2]["task_id"])),
            scattered(end(links, tasks[0])),
        )
        for answer in answers:
            assert answer.status_code in (200, 400)
            if answer.status_code == 200:
                bearer = {"Authorization": f"Bearer {answer.json()['access_token']}"}
                path = f"/v1/tasks/{tasks[2]['task_id']}"
                assert (await beside.http.get(path, headers=bearer)).status_code == 401


async def test_1_calls_of_a_chain_are_allowed_before_its_end_and_never_after(
    links: ChainWorld, beside: ChainWorld
) -> None:
    for _ in range(ROUNDS):
        tasks = await links.chain("report-writer", "order-clerk", "editor")
        await warm(links, beside, tasks=tasks)
        asks = [
            scattered((links, beside)[i % 2].decide(tasks[2], "note", by="orchestrator"))
            for i in range(4)
        ]
        *answers, _ = await asyncio.gather(*asks, scattered(end(links, tasks[0])))

        late = await beside.decide(tasks[2], "note", by="orchestrator")
        assert not late["decision"]
        trail = await links.events(tasks[2]["task_id"])
        names = [e["data"].get("effect", e["type"]) for e in trail if e["type"] != "call.refused"]
        calls = [
            i
            for i, e in enumerate(trail)
            if e["type"] == "decision"
            and e["data"]["action"] == "call_tool"
            and e["data"]["effect"] == "allow"
        ]
        over = next(i for i, e in enumerate(trail) if e["type"] == "task.ended")
        assert all(at < over for at in calls), names
        assert len(calls) == sum(answer["decision"] for answer in answers)


async def test_14_nobody_in_a_chain_outlives_whom_it_is_of(links: ChainWorld) -> None:
    """Not a task, not a token, not a credential, whatever each asks for, however deep."""
    tasks = [await links.root(ttl="90s")]
    for agent in AGENTS[1:]:
        tasks.append(await links.linked(tasks[-1], agent, ttl="1h"))
    ends = [datetime.fromisoformat(task["expires_at"]) for task in tasks]
    assert ends == [ends[0]] * len(AGENTS)

    last = tasks[-1]
    granted = await links.grant(last, "orders-api", ttl="5m")
    assert datetime.fromisoformat(granted["expires_at"]) <= ends[0]
    token = await links.token(last["agent"], last["task_id"])
    for _ in range(2):  # renewing gains nothing
        headers = await links.headers("operator")
        said = await links.http.post("/oauth/introspect", data={"token": token}, headers=headers)
        assert said.json()["exp"] <= ends[0].timestamp()
        form = {"grant_type": EXCHANGE, "subject_token": token, "subject_token_type": ACCESS_TOKEN}
        token = (await links.http.post("/oauth/token", data=form)).json()["access_token"]

    await links.sweep(ahead_ms=91_000)

    for task in tasks:
        assert (await links.show_task(task["task_id"]))["state"] == "expired"
    assert (await links.show_grant(granted["grant_id"]))["state"] == "revoked"
