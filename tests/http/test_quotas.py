"""Quotas: exact over replicas, given back by death, and refusals that say when to come again."""

from __future__ import annotations

import asyncio
import contextlib
import tomllib
from typing import TYPE_CHECKING, Any, Final

import pytest
import tomli_w

from broker.config import parse_config
from broker.dev.config import FILE
from broker.errors import BrokerError, LedgerUnavailable, TaskNotActive
from broker.ledger import keys
from broker.ledger.places import HOLD_MS, Places
from broker.steps import Step
from tests.exposed import Exposed
from tests.http.parties import assert_problem
from tests.keys_check import assert_no_immortal_keys
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from contextlib import AbstractAsyncContextManager

    import httpx2

    from broker.config import Config
    from broker.dev.stack import DevStack

    Make = Callable[..., AbstractAsyncContextManager[World]]

API: Final[dict[str, Any]] = {"capabilities": ["orders-api"]}
MANY = 8
PLACES = 3


@pytest.fixture
def make(engines: tuple[DevStack, Config], world: World) -> Make:
    """Make a replica on the ledger of ``world``: with ``quotas``, and keys of ``orders-api``."""
    stack, _ = engines
    assert world.config.quotas.max_live_per_agent is None

    @contextlib.asynccontextmanager
    async def made(
        quotas: dict[str, Any] | None = None,
        *,
        before_step: Callable[[Step], None] = lambda _: None,
        **changes: Any,
    ) -> AsyncGenerator[World]:
        file = stack.data / FILE
        document = tomllib.loads(file.read_text("utf-8"))
        document["quotas"] = quotas or {}
        wanted = next(c for c in document["capabilities"] if c["name"] == "orders-api")
        wanted.update(changes)
        config = parse_config(tomli_w.dumps(document), file)
        replica = World(stack.issuer, config, before_step=before_step)
        yield replica
        await replica.close()

    return made


async def ask(world: World, task: dict[str, Any], **headers: str) -> httpx2.Response:
    path = f"/v1/tasks/{task['task_id']}/grants"
    body = {"capability": "orders-api"}
    return await world.call("orchestrator", "POST", path, body, headers=headers)


async def quotas(world: World) -> dict[str, int]:
    """What is used of each limit, by the limit and its name; they come in pages of two."""
    found: dict[str, int] = {}
    cursor = ""
    while True:
        path = f"/v1/quotas?limit=2&cursor={cursor}"
        page = (await world.call("auditor", "GET", path)).json()
        found |= {f"{row['limit']}:{row['name']}": row["used"] for row in page["items"]}
        if (cursor := page["next"]) is None:
            return found


async def tend(world: World, older_ms: int = 2 * HOLD_MS) -> tuple[int, int]:
    return await Places(world.app.connection).tend(older_ms=older_ms)


@pytest.mark.parametrize(
    ("limits", "changes", "limit"),
    [
        ({"max_live_per_agent": PLACES}, {}, "max_live_per_agent"),
        ({"max_live_per_orchestrator": PLACES}, {}, "max_live_per_orchestrator"),
        ({"backends": {"token": {"max_live": PLACES}}}, {}, "max_live_per_backend"),
        ({}, {"max_live_total": PLACES}, "max_live_per_capability"),
        ({"issue_rate_per_agent": f"{PLACES}/1h"}, {}, "issue_rate_per_agent"),
    ],
)
async def test_of_two_replicas_racing_for_the_last_places_none_takes_more(
    make: Make, limits: dict[str, Any], changes: dict[str, Any], limit: str
) -> None:
    async with make(limits, **changes) as one, make(limits, **changes) as two:
        tasks = [await one.open(**API) for _ in range(MANY)]  # chains of many shards

        replicas = (one, two) * MANY
        answers = await asyncio.gather(*map(ask, replicas, tasks))

        refused = [answer for answer in answers if answer.status_code != 201]
        assert len(refused) == MANY - PLACES
        code = "rate_limited" if limit.startswith("issue_rate") else "quota_exceeded"
        for answer in refused:
            problem = assert_problem(answer, 429, code)
            assert problem["limit"] == limit
            assert int(answer.headers["retry-after"]) >= 1
        used = await quotas(one)
        assert [v for k, v in used.items() if k.startswith(limit) and v] == [PLACES]
        counted = [(await w.http.get("/metrics")).text for w in (one, two)]
        refusals = [
            Exposed(text, "").value("quota_refusals_total", limit=limit) for text in counted
        ]
        assert sum(n or 0 for n in refusals) == MANY - PLACES
        await assert_no_immortal_keys(one)
        for task in tasks:
            await one.complete(task)
        if not limit.startswith("issue_rate"):
            assert not any((await quotas(one)).values())


async def test_a_refusal_names_the_limit_and_what_would_help_and_is_logged(make: Make) -> None:
    async with make({"max_live_per_agent": 1}) as world:
        task = await world.open(**API)
        held = await world.grant(task, "orders-api")

        problem = assert_problem(await ask(world, task), 429, "quota_exceeded")

        assert "agent 'report-writer'" in problem["detail"]
        assert "Use one that you hold" in problem["detail"]
        told = [e for e in await world.events(task["task_id"]) if e["type"] == "grant.refused"]
        assert [e["data"]["selector"] for e in told] == ["max_live_per_agent:report-writer"]

        # Death makes room, and not the mere wish.
        await world.call("operator", "DELETE", f"/v1/grants/{held['grant_id']}")
        assert (await ask(world, task)).status_code == 201


class Died(BaseException):
    """A replica that dies on the spot: nothing of it cleans up."""


async def test_a_replica_that_dies_between_its_place_and_the_grant_loses_nobody_the_place(
    make: Make,
) -> None:
    def die(step: Step) -> None:
        if step is Step.RESERVE:
            raise Died

    limits = {"max_live_per_agent": 1}
    async with make(limits, before_step=die) as mortal, make(limits) as world:
        task = await world.open(**API)
        with pytest.raises(Died):
            await ask(mortal, task)
        assert (await quotas(world))["max_live_per_agent:report-writer"] == 1

        # What was taken a moment ago may be about to be reserved.
        assert await tend(world) == (0, 0)
        assert (await ask(world, task)).status_code == 429
        assert await tend(world, older_ms=-1) == (0, 1)

        assert (await ask(world, task)).status_code == 201


@pytest.mark.parametrize(
    ("error", "kept"), [(LedgerUnavailable, 1), (TaskNotActive, 0)], ids=["unknown", "refused"]
)
async def test_a_place_is_kept_where_nobody_knows_what_became_of_the_grant(
    make: Make, error: type[BrokerError], kept: int
) -> None:
    async with make({"max_live_per_agent": 1}) as world:
        granted = await world.grant(await world.open(**API), "orders-api")
        grant = await world.app.pipeline.queries.grant(granted["grant_id"])
        assert grant is not None
        await world.call("operator", "DELETE", f"/v1/grants/{grant.id}")

        with pytest.raises(error):
            async with world.app.pipeline.quotas.place(grant):
                raise error

        assert (await quotas(world))["max_live_per_agent:report-writer"] == kept


async def test_a_limit_that_is_new_counts_what_was_issued_before_it(
    make: Make, world: World
) -> None:
    task = await world.open(**API)
    held = await world.grant(task, "orders-api")
    limits = {"max_live_per_agent": 1}
    async with make(limits) as limited:
        assert await tend(limited) == (1, 0)
        assert (await ask(limited, task)).status_code == 429

        # A replica that doesn't know the limit ends it; the place is found to be left over.
        await world.call("operator", "DELETE", f"/v1/grants/{held['grant_id']}")
        assert await tend(limited, older_ms=-1) == (0, 1)
        assert (await ask(limited, task)).status_code == 201


async def go_on(world: World, rate: str, seconds: int) -> None:
    """Let time go on for a rate: its bucket is full again so much sooner."""
    redis: Any = world.app.connection.client
    full_at = float(await redis.get(rate))
    await redis.set(rate, full_at - seconds * 1000, keepttl=True)


async def test_a_rates_retry_after_is_true_and_what_is_refused_costs_nothing(make: Make) -> None:
    async with make(issue_rate="2/1h") as world:
        task = await world.open(**API)
        assert [(await ask(world, task)).status_code for _ in range(2)] == [201, 201]

        refused = [await ask(world, task) for _ in range(3)]

        problems = [assert_problem(answer, 429, "rate_limited") for answer in refused]
        assert "2 credentials in 1h" in problems[0]["detail"]
        waits = [int(answer.headers["retry-after"]) for answer in refused]
        assert max(waits) <= 1800
        rate = keys.rate("capability", "orders-api")
        await go_on(world, rate, waits[-1] - 300)
        assert (await ask(world, task)).status_code == 429
        await go_on(world, rate, 300)
        assert (await ask(world, task)).status_code == 201
        assert (await ask(world, task)).status_code == 429


async def test_what_the_ledger_refuses_after_all_is_not_counted(make: Make) -> None:
    limits = {"issue_rate_per_agent": "3/1h", "max_live_per_agent": 3}
    async with make(limits) as world:
        task = await world.open(**API)
        frozen = {"selector": {"capability": "orders-api"}, "reason": "drill"}
        await world.call("operator", "POST", "/v1/freezes", frozen)
        for _ in range(5):
            assert_problem(await ask(world, task), 403, "frozen")
        await world.call("operator", "DELETE", "/v1/freezes", frozen)
        first = await ask(world, task, **{"Idempotency-Key": "k"})
        assert first.status_code == 201
        for _ in range(5):
            again = await ask(world, task, **{"Idempotency-Key": "k"})
            assert_problem(again, 409, "credential_already_delivered")

        used = await quotas(world)
        assert used["issue_rate_per_agent:report-writer"] == 1
        assert used["max_live_per_agent:report-writer"] == 1

        # Also with no place left it is the first answer that is repeated.
        for _ in range(2):
            assert (await ask(world, task)).status_code == 201
        assert (await ask(world, task)).status_code == 429
        again = await ask(world, task, **{"Idempotency-Key": "k"})
        assert_problem(again, 409, "credential_already_delivered")


@pytest.mark.parametrize("name", ["orchestrator", "orders-service", None])
async def test_quotas_are_for_operators_and_auditors(world: World, name: str | None) -> None:
    answer = await world.call(name, "GET", "/v1/quotas")

    assert answer.status_code == (403 if name else 401)


async def test_without_quotas_nothing_is_counted_and_the_list_is_empty(world: World) -> None:
    await world.grant(await world.open(**API), "orders-api")

    page = await world.call("operator", "GET", "/v1/quotas")

    assert page.json() == {"items": [], "next": None}
    assert world.app.pipeline.quotas.places is None
    index = await world.app.connection.command("ZLEXCOUNT", "broker:{s00}:index", "[q", "(r")
    assert index == 0
