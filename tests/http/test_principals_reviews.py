"""Principals that nobody uses or looks at are listed, then suspended."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import Any

from broker.catalog import PrincipalState
from broker.dev.config import OWNER
from broker.ledger.registry import Change
from broker.register import Entry, OwnerEntry
from broker.reviews import ReviewRules
from broker.wire import RequestGrant
from tests.register_world import DAY_MS, WHY, RegisterWorld, revoked


async def sweep(world: RegisterWorld, days: int = 0) -> list[str]:
    """Let the job look, as it would so many days from now."""
    now = await world.app.pipeline.queries.now()
    return await world.app.principals.sweep(now_ms=now + days * DAY_MS)


async def put(world: RegisterWorld, kind: str, name: str, days_ago: int) -> None:
    """Write a time into the register as if that had been so many days ago."""
    at = await world.app.pipeline.queries.now() - days_ago * DAY_MS
    await world.app.connection.command("HSET", "broker:{s00}:principals", f"{kind}|{name}", at)


async def due(world: RegisterWorld) -> dict[str, list[str]]:
    rows = (await world.call("auditor", "GET", "/v1/principals?due=true")).json()["items"]
    return {row["name"]: row["due"] for row in rows}


async def test_the_unused_are_listed_then_suspended(here: RegisterWorld) -> None:
    assert await sweep(here) == []  # met for the first time
    await put(here, "s", "report-writer", 89)
    assert await due(here) == {}

    await put(here, "s", "report-writer", 91)
    assert await due(here) == {"report-writer": ["unused"]}
    assert await sweep(here) == []
    shown = await here.shown("report-writer")
    assert shown["overdue_at"] > shown["since"]

    task = await here.open(capabilities=["orders-api"])
    await here.app.reaper.look()  # the orchestrator was used just now
    granted = await here.app.broker.request_grant(
        await _caller(here, "orchestrator"), task["task_id"], RequestGrant(capability="orders-api")
    )
    assert await sweep(here, days=14) == ["report-writer"]

    shown = await here.shown("report-writer")
    assert (shown["state"], shown["state_changed_by"]) == ("suspended", "reviewer")
    assert "not used for 90d" in shown["state_reason"]
    await here.app.pipeline.work.drain(20)
    assert await revoked(here, granted.grant.id)
    assert [e["by"] for e in await here.logged("principal.suspended")] == ["reviewer"]
    assert await due(here) == {}


async def _caller(world: RegisterWorld, name: str) -> Any:
    access = world.app.broker.access
    return await access.holder(access._tokens.verify(await world.token(name), None))  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]


async def test_whoever_is_used_is_not_due(here: RegisterWorld) -> None:
    await sweep(here)
    for name in ("orchestrator", "report-writer"):
        await put(here, "s", name, 200)
    await put(here, "u", "report-writer", 10)
    await here.token("orchestrator")
    await here.app.reaper.look()

    assert "report-writer" not in await due(here)
    assert await sweep(here) == []
    assert (await here.shown("orchestrator"))["last_used_at"]


async def test_used_at_the_last_moment_on_another_replica(
    here: RegisterWorld, there: RegisterWorld
) -> None:
    await sweep(here)
    await put(here, "s", "orchestrator", 200)
    register = await here.app.principals.roster.registry.load()
    await there.token("orchestrator")
    await there.app.reaper.look()
    # What this replica has read is older than that; the script looks at what is there now.
    change = Change(
        entries=[Entry(name="orchestrator", state=PrincipalState.SUSPENDED)],
        unused=("orchestrator", await here.app.pipeline.queries.now() - 90 * DAY_MS),
    )

    answer = await here.app.principals.roster.registry.write(register, change, [], actor="reviewer")

    assert answer == "used"
    assert await sweep(here) == []
    assert (await there.exchange("orchestrator")).status_code == 200


async def test_operators_and_auditors_are_never_due(here: RegisterWorld) -> None:
    await sweep(here)

    suspended = await sweep(here, days=5000)

    assert set(suspended) == {"orchestrator", "report-writer", "order-clerk", "orders-service"}


async def test_past_its_review_date(here: RegisterWorld) -> None:
    await here.add("worker", review_by=await _day(here, 3))
    assert await sweep(here, days=3) == []
    assert await sweep(here, days=16) == []

    assert await sweep(here, days=19) == ["worker"]

    assert "past its review date" in (await here.shown("worker"))["state_reason"]


async def _day(world: RegisterWorld, days: int) -> str:
    now = await world.app.pipeline.queries.now()
    return f"{datetime.fromtimestamp(now / 1000 + days * 86_400, UTC):%Y-%m-%d}"


async def test_a_review_clears_it(here: RegisterWorld) -> None:
    await here.add("worker", review_by=await _day(here, 3))
    body = {"next": await _day(here, 60), "note": "still needed"}

    answer = await here.operate("principals/worker/review", body)

    assert answer.status_code == 200, answer.text
    shown = answer.json()
    assert shown["reviewed_by"] == "operator"
    assert shown["review_note"] == "still needed"
    assert shown["review_by"].startswith(body["next"])
    assert "worker" not in await sweep(here, days=59)
    assert [e["note"] for e in await here.logged("principal.reviewed")] == ["still needed"]


async def test_a_review_counts_as_a_sign_of_life(here: RegisterWorld) -> None:
    await sweep(here)
    await put(here, "s", "order-clerk", 200)
    assert await due(here) == {"order-clerk": ["unused"]}

    await here.operate("principals/order-clerk/review", {"next": await _day(here, 300)})

    assert await due(here) == {}
    assert await sweep(here) == []


async def test_whoever_was_resumed_has_the_time_of_grace(here: RegisterWorld) -> None:
    await sweep(here)
    await put(here, "s", "order-clerk", 200)
    assert await sweep(here) == ["order-clerk"]

    await here.move("order-clerk", "resume")

    assert await sweep(here) == []
    assert (await here.shown("order-clerk"))["state"] == "active"


async def test_an_owner_who_comes_back_finds_theirs_alive(here: RegisterWorld) -> None:
    await here.add("worker", owner="team@example.com")
    await here.leave("team@example.com")
    assert "worker" not in await sweep(here, days=200)  # stopped already, and not by this

    await here.operate("owners/reinstate", {"owner": "team@example.com", "reason": WHY})

    assert (await here.shown("worker"))["state"] == "active"
    assert (await here.shown("worker"))["due"] == []


async def test_an_owners_return_is_a_sign_of_life(here: RegisterWorld) -> None:
    await sweep(here)
    await here.leave(OWNER, hand_over_to="team@example.com")
    await put(here, "s", "order-clerk", 200)
    await put(here, "s", "orchestrator", 200)
    assert set(await due(here)) == {"order-clerk", "orchestrator"}
    registry = here.app.principals.roster.registry
    now = await here.app.pipeline.queries.now()
    back = OwnerEntry(owner="team@example.com", left=False, at=now)

    await registry.write(await registry.load(), Change(owners=[back]), [], actor="operator")

    assert await due(here) == {}


async def test_resumed_past_its_review_date_it_has_the_time_of_grace(here: RegisterWorld) -> None:
    await sweep(here)
    registry = here.app.principals.roster.registry
    now = await here.app.pipeline.queries.now()
    entry = Entry(name="order-clerk", review_at=now - 30 * DAY_MS)
    await registry.write(await registry.load(), Change(entries=[entry]), [], actor="operator")
    assert await sweep(here) == ["order-clerk"]

    await here.move("order-clerk", "resume")

    assert await due(here) == {"order-clerk": ["review"]}
    assert await sweep(here, days=13) == []
    assert "order-clerk" in await sweep(here, days=15)


async def test_switched_off_they_are_only_listed(here: RegisterWorld) -> None:
    here.app.principals.rules = ReviewRules(suspend=False)
    await sweep(here)
    await put(here, "s", "order-clerk", 500)

    assert await sweep(here) == []
    assert await due(here) == {"order-clerk": ["unused"]}


async def test_two_replicas_suspend_once(here: RegisterWorld, there: RegisterWorld) -> None:
    await sweep(here)
    await put(here, "s", "order-clerk", 500)

    await asyncio.gather(sweep(here), sweep(there))

    assert len(await here.logged("principal.suspended")) == 1
