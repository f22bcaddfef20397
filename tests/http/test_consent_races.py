"""Approvals and elevations with two replicas at once: whatever races, one outcome, told once."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

from tests.world import logs_in

if TYPE_CHECKING:
    import httpx2

    from tests.http.consenting import ConsentWorld

ROUNDS: Final = 5
HOUR: Final = 3_600_000
ENDS: Final = frozenset({"approved", "denied", "expired", "cancelled", "used"})


async def told(world: ConsentWorld, approval_id: str, task_id: str) -> Counter[str]:
    """How often each end of an approval is in the log."""
    events = [e for e in await world.events(task_id) if e["data"].get("approval") == approval_id]
    kinds = [e["type"].removeprefix("approval.") for e in events]
    return Counter(kind for kind in kinds if kind in ENDS)


async def assert_one_outcome(
    world: ConsentWorld, approval_id: str, task_id: str, *allowed: tuple[str, ...]
) -> tuple[str, ...]:
    """The log has one of these histories, each step once, and the ledger its last state."""
    seen = await told(world, approval_id, task_id)
    state = (await world.approval(approval_id))["state"]
    history = next((h for h in allowed if Counter(h) == seen), None)
    assert history is not None, f"{seen}, now {state}"
    assert state == history[-1]
    return history


def codes(*answers: httpx2.Response) -> list[int]:
    return sorted(answer.status_code for answer in answers)


async def warm(world: ConsentWorld, task: dict[str, Any]) -> None:
    """Have the tokens, so that what follows really is at once."""
    for name in ("alice", "bob"):
        await world.api(name, "GET", "/v1/approvals?limit=1")
    await world.api(task["agent"], "GET", f"/v1/tasks/{task['task_id']}", task=task)


async def sweep_at(world: ConsentWorld, horizon_ms: int) -> None:
    await world.app.reaper.sweep(horizon_ms=horizon_ms)


async def test_the_last_of_two_yeses_decides_once(
    consent: ConsentWorld, consent_twin: ConsentWorld
) -> None:
    for _ in range(ROUNDS):
        task = await consent.open(capabilities=["deploy-twice"])
        approval = await consent.asked(task, "deploy-twice")
        await warm(consent, task)
        await warm(consent_twin, task)
        both = await asyncio.gather(
            consent.say(approval, "alice"), consent_twin.say(approval, "bob")
        )
        assert codes(*both) == [200, 200]
        await assert_one_outcome(consent, approval, task["task_id"], ("approved",))
        assert [v["by"] for v in (await consent.approval(approval))["votes"]] in (
            ["alice", "bob"],
            ["bob", "alice"],
        )


async def test_one_operator_at_two_replicas_has_one_yes(
    consent: ConsentWorld, consent_twin: ConsentWorld
) -> None:
    for _ in range(ROUNDS):
        task = await consent.open(capabilities=["deploy-twice"])
        approval = await consent.asked(task, "deploy-twice")
        await warm(consent, task)
        await warm(consent_twin, task)
        both = await asyncio.gather(consent.say(approval), consent_twin.say(approval))
        assert codes(*both) == [200, 409]
        shown = await consent.approval(approval)
        assert (shown["state"], shown["needs"][0]["have"]) == ("pending", 1)


async def test_a_yes_and_a_no_at_once_are_one_of_them(
    consent: ConsentWorld, consent_twin: ConsentWorld
) -> None:
    for _ in range(ROUNDS):
        task = await consent.open(capabilities=["orders-admin"])
        approval = await consent.asked(task)
        await warm(consent, task)
        await warm(consent_twin, task)
        both = await asyncio.gather(
            consent.say(approval, "alice"), consent_twin.say(approval, "bob", yes=False)
        )
        assert codes(*both) == [200, 409]
        outcome = await assert_one_outcome(
            consent, approval, task["task_id"], ("approved",), ("denied",)
        )
        wanted = 201 if outcome == ("approved",) else 403
        assert (await consent.ask(task)).status_code == wanted


async def test_a_yes_as_its_time_runs_out(
    consent: ConsentWorld, consent_twin: ConsentWorld
) -> None:
    for _ in range(ROUNDS):
        task = await consent.open(capabilities=["orders-admin"], ttl="3h")
        approval = await consent.asked(task)
        row = await consent.app.pipeline.judge.consents.table.get(approval)
        assert row is not None
        await warm(consent, task)
        said, _ = await asyncio.gather(
            consent.say(approval), sweep_at(consent_twin, row.expires_at)
        )
        # A yes is good for less than a request waits: it may be swept right after it was said.
        outcome = await assert_one_outcome(
            consent, approval, task["task_id"], ("approved",), ("expired",), ("approved", "expired")
        )
        assert said.status_code == (409 if outcome == ("expired",) else 200)
        again = (await consent.ask(task)).status_code
        assert again == (201 if outcome == ("approved",) else 202)


async def test_a_yes_as_its_task_ends(consent: ConsentWorld, consent_twin: ConsentWorld) -> None:
    for _ in range(ROUNDS):
        task = await consent.open(capabilities=["orders-admin"])
        approval = await consent.asked(task)
        await warm(consent, task)
        said, _ = await asyncio.gather(consent.say(approval), consent_twin.complete(task))
        outcome = await assert_one_outcome(
            consent, approval, task["task_id"], ("cancelled",), ("approved", "cancelled")
        )
        assert said.status_code == (409 if outcome == ("cancelled",) else 200)


async def test_one_yes_is_one_grant_whoever_asks_again_at_once(
    consent: ConsentWorld, consent_twin: ConsentWorld
) -> None:
    for _ in range(ROUNDS):
        task = await consent.open(capabilities=["orders-admin"])
        approval = await consent.asked(task)
        await consent.say(approval)
        await warm(consent, task)
        await warm(consent_twin, task)
        answers = await asyncio.gather(*(w.ask(task) for w in (consent, consent_twin) * 3))
        assert codes(*answers) == [201, *[202] * 5]
        await assert_one_outcome(consent, approval, task["task_id"], ("approved", "used"))
        assert (await consent.kinds(task)).count("grant.reserved") == 1
        # Those who came late ask for one more, together.
        asked = {a.json()["approval_id"] for a in answers if a.status_code == 202}
        assert len(asked) == 1
        assert asked != {approval}


async def test_one_yes_is_one_call_of_a_tool(
    consent: ConsentWorld, consent_twin: ConsentWorld
) -> None:
    for _ in range(ROUNDS):
        task = await consent.open(capabilities=["deploy-tool"])
        question = {
            "subject": {"type": "task", "id": task["task_id"]},
            "action": {"name": "call_tool"},
            "resource": {"type": "tool", "id": "deploy"},
            "context": {"arguments": {"service": "shop", "version": "1"}},
        }

        async def decide(world: ConsentWorld, body: Any, of: dict[str, Any]) -> dict[str, Any]:
            path = "/access/v1/evaluation"
            answer = await world.api(of["agent"], "POST", path, body, task=of)
            assert answer.status_code == 200, answer.text
            return answer.json()

        first = await decide(consent, question, task)
        approval = first["context"]["access_request"]["id"]
        await consent.say(approval)
        await warm(consent_twin, task)
        worlds = (consent, consent_twin) * 3
        said = await asyncio.gather(*(decide(world, question, task) for world in worlds))
        assert [answer["decision"] for answer in said].count(True) == 1
        await assert_one_outcome(consent, approval, task["task_id"], ("approved", "used"))


async def test_one_yes_is_one_elevation(consent: ConsentWorld, consent_twin: ConsentWorld) -> None:
    for _ in range(ROUNDS):
        task = await consent.open()
        approval = (await consent.elevation(task)).json()["approval_id"]
        await consent.say(approval)
        await warm(consent_twin, task)
        answers = await asyncio.gather(*(w.elevation(task) for w in (consent, consent_twin) * 3))
        assert codes(*answers).count(201) == 1
        assert {a.status_code for a in answers} <= {201, 202, 409}
        await assert_one_outcome(consent, approval, task["task_id"], ("approved", "used"))
        assert (await consent.kinds(task)).count("elevation.started") == 1


async def test_using_a_yes_as_its_task_ends(
    consent: ConsentWorld, consent_twin: ConsentWorld
) -> None:
    for _ in range(ROUNDS):
        task = await consent.open(capabilities=["orders-admin"])
        approval = await consent.asked(task)
        await consent.say(approval)
        await warm(consent, task)
        issued, _ = await asyncio.gather(consent.ask(task), consent_twin.complete(task))
        await consent.sweep()
        await assert_one_outcome(
            consent, approval, task["task_id"], ("approved", "used"), ("approved", "cancelled")
        )
        if issued.status_code == 201:
            assert not await logs_in(issued.json()["credential"])


async def test_nothing_issued_as_its_elevation_ends_stays_alive(
    consent: ConsentWorld, consent_twin: ConsentWorld
) -> None:
    for turn in range(ROUNDS):
        task = await consent.open()
        elevation = await consent.elevated(task)
        await warm(consent_twin, task)
        path = f"/v1/tasks/{task['task_id']}/elevations/{elevation['elevation_id']}"
        asked = [w.ask(task) for w in (consent, consent_twin)]
        if turn % 2:
            end: Any = consent_twin.api("alice", "DELETE", path)
        else:
            end = consent_twin.sweep(ahead_ms=11 * 60_000)
        *issued, _ = await asyncio.gather(*asked, end)
        await consent.sweep()
        for answer in issued:
            if answer.status_code == 201:
                assert not await logs_in(answer.json()["credential"])
        rows = await consent.app.pipeline.queries.grants_of(task["task_id"])
        assert not [g for g in rows if g.elevation_id and g.state not in ("revoked", "failed")]
        assert (await consent.kinds(task)).count("elevation.ended") == 1


async def test_two_glasses_of_an_agent_at_once_are_one(
    consent: ConsentWorld, consent_twin: ConsentWorld
) -> None:
    for _ in range(ROUNDS):
        tasks = [await consent.open() for _ in range(2)]
        for world, task in zip((consent, consent_twin), tasks, strict=True):
            # A wrong request, for the token.
            assert (await world.break_glass(task, capability="deploy")).status_code == 403
        answers = await asyncio.gather(
            consent.break_glass(tasks[0]), consent_twin.break_glass(tasks[1])
        )
        assert codes(*answers) == [201, 409]
        kinds = [kind for task in tasks for kind in await consent.kinds(task)]
        assert kinds.count("glass.broken") == 1
        for task in tasks:
            await consent.complete(task)
        await consent.sweep()


async def test_what_two_have_to_rotate_is_rotated_one_after_the_other(
    consent: ConsentWorld, consent_twin: ConsentWorld
) -> None:
    """Told twice at once, OpenBao loses its connection to PostgreSQL for good."""
    for _ in range(ROUNDS):
        first, second = await consent.open(), await consent.open(agent="order-clerk")
        path = f"/v1/tasks/{second['task_id']}/break-glass"
        ask = {"capability": "orders-admin", "intent": "it is down"}
        broken = [
            await consent.break_glass(first),
            await consent.bound(second, "POST", path, ask, name="alice"),
        ]
        assert [answer.status_code for answer in broken] == [201, 201]
        ends = [
            world.app.broker.elevations.finish(task["task_id"], answer.json()["elevation_id"])
            for world in (consent, consent_twin)
            for task, answer in zip((first, second), broken, strict=True)
        ]
        for task in (first, second):
            await consent.app.broker.elevations.table.end(
                task["task_id"],
                broken[task is second].json()["elevation_id"],
                reason="ended",
                actor="alice",
            )
        await asyncio.gather(*ends)
        for task in (first, second):
            over = await consent.settled(task)
            assert over["rotation"] == {"database/rotate-root/orders": "done"}
    assert await logs_in((await consent.grant(await consent.open()))["credential"])
