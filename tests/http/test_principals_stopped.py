"""Suspending, resuming and retiring: at once, on every replica, and nothing comes back to life."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.catalog import PrincipalState
from broker.dev.config import OWNER
from broker.errors import PrincipalSuspended
from broker.ledger.registry import Change
from broker.register import Entry, marks_of
from broker.wire_principals import Because
from tests.http.parties import assert_oauth_error, assert_problem, bearer
from tests.register_world import WHY, RegisterWorld, revoked


async def works(world: RegisterWorld, task: dict[str, Any], token: str) -> int:
    """What an agent gets when it asks for a credential with a token it has."""
    path = f"/v1/tasks/{task['task_id']}/grants"
    headers = {"Authorization": f"Bearer {token}"}
    answer = await world.http.post(path, json={"capability": "orders-api"}, headers=headers)
    return answer.status_code


async def test_all_that_an_agent_has_ends_with_it_on_every_replica(
    here: RegisterWorld, there: RegisterWorld
) -> None:
    task = await here.open(capabilities=["orders-api"])
    token = await there.token("report-writer", task["task_id"])
    granted = await there.grant(task, "orders-api")
    assert await works(there, task, token) == 201

    moved = await here.move("report-writer", "suspend")

    assert moved["state"] == "suspended"
    assert moved["state_changed_by"] == "operator"
    assert moved["grants"] == {"revoked": 2, "revoking": 0, "abandoned": 0}
    assert await revoked(here, granted["grant_id"])
    assert (await here.show_task(task["task_id"]))["state"] == "revoked"
    # The other replica has read nothing of it yet.
    assert there.app.principals.roster.register.version == 0
    assert await works(there, task, token) == 401
    assert_oauth_error(
        await there.exchange("report-writer", task["task_id"]), "invalid_authorization_details"
    )
    refused = await there.call("orchestrator", "POST", "/v1/tasks", _ask("report-writer"))
    assert_problem(refused, 403, "principal_suspended")
    assert [e["by"] for e in await here.logged("principal.suspended")] == ["operator"]


def _ask(agent: str) -> dict[str, Any]:
    return {"agent": agent, "purpose": "a test", "capabilities": ["orders-api"]}


async def test_an_orchestrators_tokens_die_at_once_everywhere(
    here: RegisterWorld, there: RegisterWorld
) -> None:
    task = await here.open(capabilities=["orders-api"])
    agent = await there.token("report-writer", task["task_id"])
    granted = await there.grant(task, "orders-api")
    headers = await bearer(there, "orchestrator")
    assert (await there.http.get("/v1/tasks", headers=headers)).status_code == 200

    moved = await here.move("orchestrator", "suspend")

    assert moved["grants"] == {"revoked": 1, "revoking": 0, "abandoned": 0}
    assert_problem(await there.http.get("/v1/tasks", headers=headers), 401, "invalid_token")
    assert await works(there, task, agent) == 401
    assert await revoked(here, granted["grant_id"])
    assert_oauth_error(await there.exchange("orchestrator"), "invalid_request")
    assert [e["mark"] for e in await here.logged("token.refused")] == ["suspended:orchestrator"]


async def test_children_end_with_the_agent_above_them(
    here: RegisterWorld, there: RegisterWorld
) -> None:
    await here.add("helper")
    await there.app.reaper.look()
    task = await here.open(capabilities=["orders-api"])
    child = await there.call(
        "report-writer",
        "POST",
        "/v1/tasks",
        {**_ask("helper"), "parent_task_id": task["task_id"]},
        task_id=task["task_id"],
    )
    assert child.status_code == 201, child.text
    below = await there.grant(child.json(), "orders-api")
    token = await there.token("helper", child.json()["task_id"])

    await here.move("report-writer", "suspend")

    assert await works(there, child.json(), token) == 401
    assert await revoked(here, below["grant_id"])


async def test_tokens_for_others_are_inactive_at_once(
    here: RegisterWorld, there: RegisterWorld
) -> None:
    task = await here.open(capabilities=["orders-api"])
    token = (await here.grant(task, "orders-api"))["credential"]["access_token"]
    headers = await bearer(there, "orders-service")

    async def active() -> bool:
        answer = await there.http.post("/oauth/introspect", data={"token": token}, headers=headers)
        return answer.json()["active"]

    assert await active()
    await here.move("report-writer", "suspend")
    assert not await active()


async def test_who_is_resumed_works_again_and_what_is_dead_stays_dead(
    here: RegisterWorld, there: RegisterWorld
) -> None:
    headers = await bearer(here, "orchestrator")
    await here.move("orchestrator", "suspend")
    await here.move("orchestrator", "resume")
    await there.app.reaper.look()

    assert_problem(await here.http.get("/v1/tasks", headers=headers), 401, "invalid_token")
    for replica_of in (here, there):
        fresh = await bearer(replica_of, "orchestrator")
        assert (await replica_of.http.get("/v1/tasks", headers=fresh)).status_code == 200
    task = await there.open(capabilities=["orders-api"])
    assert (await there.grant(task, "orders-api"))["state"] == "active"
    assert len(await here.logged("principal.resumed")) == 1


async def test_retired_is_for_good(here: RegisterWorld) -> None:
    await here.add("worker")
    task = await here.open(agent="worker", capabilities=["orders-api"])
    await here.grant(task, "orders-api")

    moved = await here.move("worker", "retire")

    assert (moved["state"], moved["identity"], moved["grants"]["revoked"]) == ("retired", None, 1)
    for how in ("resume", "suspend", "review"):
        body = {"next": "2099-01-01"} if how == "review" else {"reason": WHY}
        answer = await here.operate(f"principals/worker/{how}", body)
        assert assert_problem(answer, 409, "conflict")["state"] == "retired"
    again = {"identity": {"issuer": "dev", "subject": "agent/other"}}
    for fields in ({}, again):
        answer = await here.operate("principals", _newcomer("worker", **fields))
        assert_problem(answer, 409, "conflict")
    # Its identity is free for another name, as after a slip of the pen.
    await here.add("work-er", identity={"issuer": "dev", "subject": "agent/worker"})
    assert len(await here.logged("principal.retired")) == 1


def _newcomer(name: str, **fields: Any) -> dict[str, Any]:
    identity = {"issuer": "dev", "subject": f"agent/{name}"}
    owner = "team@example.com"
    ask = {**_ask(""), "name": name, "role": "agent", "owner": owner, "identity": identity}
    del ask["agent"]
    return {**ask, **fields}


async def test_a_name_that_a_configuration_had_is_not_for_others(here: RegisterWorld) -> None:
    registry = here.app.principals.roster.registry
    entry = Entry(name="ghost", state=PrincipalState.RETIRED, state_at=1)
    await registry.write(await registry.load(), Change(entries=[entry]), [], actor="operator")

    assert_problem(await here.operate("principals", _newcomer("ghost")), 409, "conflict")


async def test_one_of_the_configuration_can_be_retired_too(
    here: RegisterWorld, there: RegisterWorld
) -> None:
    await here.move("report-writer", "retire")

    refused = await there.call("orchestrator", "POST", "/v1/tasks", _ask("report-writer"))
    assert_problem(refused, 403, "principal_suspended")
    await there.app.reaper.look()
    refused = await there.call("orchestrator", "POST", "/v1/tasks", _ask("report-writer"))
    assert refused.status_code == 403


async def test_asking_again_changes_nothing_and_logs_nothing(here: RegisterWorld) -> None:
    for how, state in (("suspend", "suspended"), ("resume", "active"), ("retire", "retired")):
        first = await here.move("report-writer", how)
        second = await here.move("report-writer", how)
        assert first["state"] == second["state"] == state
        assert first["state_changed_at"] == second["state_changed_at"]
    for kind in ("suspended", "resumed", "retired"):
        assert len(await here.logged(f"principal.{kind}")) == 1


async def test_thawing_doesnt_resume_and_resuming_doesnt_thaw(here: RegisterWorld) -> None:
    freeze = {"selector": {"agent": "report-writer"}, "reason": WHY}
    await here.call("operator", "POST", "/v1/freezes", freeze)
    await here.move("report-writer", "suspend")
    listed = (await here.call("auditor", "GET", "/v1/freezes")).json()["items"]
    assert [row["selector"] for row in listed] == ["agent:report-writer"]

    await here.call("operator", "DELETE", "/v1/freezes", freeze)
    answer = await here.call("orchestrator", "POST", "/v1/tasks", _ask("report-writer"))
    assert_problem(answer, 403, "principal_suspended")

    await here.call("operator", "POST", "/v1/freezes", freeze)
    await here.move("report-writer", "resume")
    answer = await here.call("orchestrator", "POST", "/v1/tasks", _ask("report-writer"))
    assert_problem(answer, 403, "frozen")


# ── operators ────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("how", ["suspend", "resume", "retire"])
async def test_nobody_moves_themselves(here: RegisterWorld, how: str) -> None:
    answer = await here.operate("principals/operator/" + how, {"reason": WHY})

    assert_problem(answer, 409, "conflict")


async def test_a_suspended_auditor_reads_no_more(here: RegisterWorld, there: RegisterWorld) -> None:
    headers = await bearer(there, "auditor")
    await here.move("auditor", "suspend")

    assert_problem(await there.http.get("/v1/owners", headers=headers), 401, "invalid_token")


async def test_a_suspended_caller_whose_call_is_under_way_changes_nothing(
    here: RegisterWorld, there: RegisterWorld
) -> None:
    caller = await there.app.broker.access.holder(
        there.app.broker.access._tokens.verify(await there.token("operator"), None)  # noqa: SLF001  # pyright: ignore[reportPrivateUsage]
    )
    await _suspend_the_operator(here)

    with pytest.raises(PrincipalSuspended):
        await there.app.principals.suspend(caller, "report-writer", Because(reason=WHY))

    register = await here.app.principals.roster.registry.load()
    assert set(register.entries) == {"operator"}


async def _suspend_the_operator(world: RegisterWorld) -> None:
    """As another operator would."""
    registry = world.app.principals.roster.registry
    register = await registry.load()
    entry = Entry(name="operator", state=PrincipalState.SUSPENDED, state_at=1)
    change = Change(entries=[entry], todo=["p|operator"])
    after = register.changed([entry], [])
    marks = marks_of(after, "operator", OWNER)
    assert await registry.write(register, change, marks, actor="test") == "ok"


# ── races and crashes ────────────────────────────────────────────────────────────────────────────


async def test_whatever_was_being_issued_meanwhile_is_dead_afterwards(
    here: RegisterWorld, there: RegisterWorld
) -> None:
    tasks = [await here.open(capabilities=["orders-api"]) for _ in range(4)]
    tokens = [await there.token("report-writer", task["task_id"]) for task in tasks]

    async def ask(n: int) -> None:
        path = f"/v1/tasks/{tasks[n % 4]['task_id']}/grants"
        headers = {"Authorization": f"Bearer {tokens[n % 4]}"}
        await there.http.post(path, json={"capability": "orders-api"}, headers=headers)

    async def open_one() -> None:
        await there.call("orchestrator", "POST", "/v1/tasks", _ask("report-writer"))

    await asyncio.gather(
        *(ask(n) for n in range(16)),
        here.move("report-writer", "suspend"),
        *(open_one() for _ in range(8)),
        *(ask(n) for n in range(16)),
    )
    for world in (here, there):
        await world.app.pipeline.work.drain(20)

    grants = (await here.call("operator", "GET", "/v1/grants?limit=500")).json()["items"]
    assert {grant["state"] for grant in grants} <= {"revoked", "failed"}
    opened = (await here.call("operator", "GET", "/v1/tasks?limit=500")).json()["items"]
    assert {task["state"] for task in opened} == {"revoked"}


async def test_suspended_and_resumed_by_two_at_once_all_shards_agree(
    here: RegisterWorld, there: RegisterWorld
) -> None:
    await asyncio.gather(
        *(
            (here, there)[n % 2].move("report-writer", ("suspend", "resume")[n % 2])
            for n in range(8)
        )
    )

    state = (await here.shown("report-writer"))["state"]
    held = await marks(here, "suspended:report-writer")
    assert held in ({0}, {1})
    assert held == {int(state == "suspended")}


async def marks(world: RegisterWorld, name: str) -> set[int]:
    """Whether the shards have a mark: {0}, {1}, or {0, 1} if they disagree."""
    keys = [f"broker:{{s{shard:02x}}}:frozen" for shard in range(world.config.redis.shards)]
    return {await world.app.connection.command("HEXISTS", key, name) for key in keys}


async def test_what_a_crash_left_is_finished_by_any_replica(
    here: RegisterWorld, there: RegisterWorld
) -> None:
    task = await here.open(capabilities=["orders-api"])
    granted = await here.grant(task, "orders-api")
    registry = here.app.principals.roster.registry
    register = await registry.load()
    entry = Entry(name="report-writer", state=PrincipalState.SUSPENDED, state_at=1)
    change = Change(entries=[entry], todo=["p|report-writer"])
    # Written, and then the replica died: the other shards and the tasks know nothing.
    first = marks_of(register.changed([entry], []), "report-writer", OWNER)
    assert await registry.write(register, change, first, actor="operator") == "ok"
    assert await marks(there, "suspended:report-writer") == {0, 1}
    await there.app.reaper.look()  # too early: its maker may be at it
    assert not await revoked(there, granted["grant_id"])

    await there.app.principals.keep_up(older_than_ms=0)
    await there.app.pipeline.work.drain(20)

    assert await marks(there, "suspended:report-writer") == {1}
    assert await revoked(there, granted["grant_id"])
    assert (await registry.load()).todo == {}


async def test_a_crash_after_the_marks_is_finished_too(
    here: RegisterWorld, there: RegisterWorld
) -> None:
    task = await here.open(capabilities=["orders-api"])
    granted = await here.grant(task, "orders-api")
    registry = here.app.principals.roster.registry
    register = await registry.load()
    entry = Entry(name="report-writer", state=PrincipalState.RETIRED, state_at=1)
    after = register.changed([entry], [])
    first = marks_of(after, "report-writer", OWNER)
    change = Change(entries=[entry], todo=["p|report-writer"])
    assert await registry.write(register, change, first, actor="operator") == "ok"
    await registry.spread(first, after.version)

    moved = await there.move("report-writer", "retire")  # the operator asks again

    assert moved["grants"] == {"revoked": 1, "revoking": 0, "abandoned": 0}
    assert await revoked(there, granted["grant_id"])
    assert (await registry.load()).todo == {}


async def test_marks_that_are_wrong_are_put_right(here: RegisterWorld) -> None:
    await here.move("report-writer", "suspend")
    run = here.app.connection.command
    await run("HDEL", "broker:{s07}:frozen", "suspended:report-writer")
    await run("HSET", "broker:{s08}:frozen", "suspended:order-clerk", "1|")
    await run("HSET", "broker:{s09}:frozen", "agent:order-clerk", "{}")

    await here.app.principals.sweep()

    assert await marks(here, "suspended:report-writer") == {1}
    assert await marks(here, "suspended:order-clerk") == {0}
    assert await marks(here, "agent:order-clerk") == {0, 1}  # a freeze is none of its business
