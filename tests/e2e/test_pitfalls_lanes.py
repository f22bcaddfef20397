"""Pitfalls 8, 9 and 10: what one capability can't do holds up no other; what lives isn't dead."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

import pytest

from broker.app import build
from tests.admin import Admin, own_stack, running
from tests.clocks import Fast
from tests.e2e.test_pitfalls_mass import SETTINGS, ask
from tests.waiting import wait_until
from tests.world import World, logs_in

if TYPE_CHECKING:
    from collections.abc import Generator

    from broker.config import Config
    from broker.dev.stack import DevStack

QUICK = """
[revocation]
attempts = 2
backoff = "50ms"
max_backoff = "200ms"
claim = "2s"
stuck_limit = 20
wait = "1s"
"""
ROOMY = SETTINGS[SETTINGS.index("[[cap") :].replace("max_live = 3", "max_live = 100")
TTL_ONLY = """
[[capabilities]]
name = "orders-read"
power = "read"
backend = "vault"
path = "database/creds/orders-read"
revocability = "ttl_only"
[[capabilities]]
name = "orders-write"
power = "operate"
backend = "vault"
path = "database/creds/orders-write"
revocability = "ttl_only"
[[capabilities]]
name = "orders-api"
power = "read"
backend = "token"
resource = "https://orders.example.com"
scope = "orders.read"
"""


@pytest.fixture
def own(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Generator[tuple[DevStack, Config]]:
    with own_stack(tmp_path_factory.mktemp("lanes"), request.param) as made:
        yield made


Own = tuple["DevStack", "Config"]


@pytest.mark.parametrize("own", [QUICK], indirect=True, ids=["quick"])
async def test_10_the_backlog_does_not_shrink_while_it_is_being_retried(own: Own) -> None:
    admin = Admin(own[0])
    world = World(own[0].issuer, own[1])
    task = await world.open()
    granted = [await world.grant(task) for _ in range(5)]
    await admin.set_revocation("orders-read", "SELECT nofun()")
    async with running(world):
        await world.call("orchestrator", "POST", f"/v1/tasks/{task['task_id']}/complete", {})

        async def tries() -> int:
            rows = await world.app.pipeline.queries.grants_of(task["task_id"])
            return min(grant.attempts for grant in rows)

        async def used_up() -> bool:
            return await tries() >= 2

        await wait_until(used_up, "all have used up their budget")
        seen: set[int] = set()

        async def retried_often() -> bool:
            seen.add((await world.app.reaper.look())["orders-read"])
            return await tries() >= 6

        await wait_until(retried_often, "they go on being retried")
        assert seen == {len(granted)}


@pytest.mark.parametrize("own", [ROOMY], indirect=True, ids=["roomy"])
async def test_8_mints_that_hang_do_not_hold_up_other_capabilities(own: Own) -> None:
    admin = Admin(own[0])
    world = World(own[0].issuer, own[1])
    token = await world.token("orchestrator")
    await admin.mount_database("slow", "slow-read")
    slow, quick = await world.open(capabilities=["slow-read"]), await world.open()
    await ask(world, token, quick, "orders-read", "5m")
    with socket.create_server(("127.0.0.1", 0), backlog=200) as silent:
        await admin.point_database("slow", silent.getsockname()[1])
        hanging = [
            asyncio.create_task(ask(world, token, slow, "slow-read", "5m")) for _ in range(64)
        ]

        async def all_wait() -> bool:
            rows = await world.app.pipeline.queries.grants_of(slow["task_id"])
            return len(rows) == len(hanging)

        await wait_until(all_wait, "all mints have begun")
        answer = await ask(world, token, quick, "orders-read", "5m")
        assert answer.status_code == 201, answer.text
        assert not any(job.done() for job in hanging)
        await asyncio.gather(*hanging)
    await world.close()


@pytest.mark.parametrize("own", [QUICK + ROOMY], indirect=True, ids=["quick and roomy"])
async def test_8_a_dead_database_does_not_stop_issuing_on_another_one(own: Own) -> None:
    admin = Admin(own[0])
    world = World(own[0].issuer, own[1])
    token = await world.token("orchestrator")
    await admin.mount_database("slow", "slow-read")
    slow, quick = await world.open(capabilities=["slow-read"]), await world.open()
    for _ in range(30):
        await ask(world, token, slow, "slow-read", "5m")
    await admin.point_database("slow", 1)  # connection refused
    async with running(world):
        path = f"/v1/tasks/{slow['task_id']}/complete"
        await world.call("orchestrator", "POST", path, {})

        async def stuck() -> bool:
            return world.app.pipeline.stuck.get("slow-read", 0) >= 20

        await wait_until(stuck, "the dead database's backlog is over the limit")
        answer = await ask(world, token, quick, "orders-read", "5m")
        assert answer.status_code == 201, answer.text


@pytest.mark.parametrize("own", [TTL_ONLY], indirect=True, ids=["ttl_only"])
async def test_9_what_cannot_be_revoked_is_not_called_revoked_before_its_time(own: Own) -> None:
    """As with a cloud STS token: the lease goes, and what it stood for goes on."""
    admin = Admin(own[0])
    await admin.set_revocation("orders-read", "SELECT 1")
    world = World(own[0].issuer, own[1])
    task = await world.open()
    granted = await world.grant(task)
    answer = await world.complete(task)
    assert answer["grants"] == {"revoked": 0, "revoking": 1, "abandoned": 0}
    assert await logs_in(granted["credential"])
    shown = await world.show_grant(granted["grant_id"])
    assert shown["state"] == "revoking"
    assert shown["ends_by_itself_at"] > shown["expires_at"]
    assert "can't be revoked" in shown["error"]

    fast = build(own[1], clock=Fast())
    row = await fast.pipeline.queries.grant(granted["grant_id"])
    assert row is not None
    assert await fast.pipeline.revoke_claimed(row) == "revoking"
    await fast.close()
    await world.close()


@pytest.mark.parametrize("own", [TTL_ONLY], indirect=True, ids=["ttl_only"])
async def test_9_policy_refuses_what_cannot_be_revoked_above_read(own: Own) -> None:
    world = World(own[0].issuer, own[1])
    task = await world.open(agent="order-clerk", capabilities=["orders-write"])
    path = f"/v1/tasks/{task['task_id']}/grants"
    answer = await world.call("orchestrator", "POST", path, {"capability": "orders-write"})
    assert (answer.status_code, answer.json()["code"]) == (403, "access_denied")
    await world.close()


@pytest.mark.parametrize(
    "own",
    [TTL_ONLY.replace("database/creds/orders-read", "notes/report")],
    indirect=True,
    ids=["kv"],
)
async def test_9_what_has_no_lease_is_not_delivered(own: Own) -> None:
    """A key/value secret: nothing is made for the task, and nothing could be revoked."""
    admin = Admin(own[0])
    await admin.vault("POST", "sys/mounts/notes", {"type": "kv"})
    await admin.vault("POST", "notes/report", {"password": "static-and-shared"})
    world = World(own[0].issuer, own[1])
    task = await world.open()
    path = f"/v1/tasks/{task['task_id']}/grants"
    answer = await world.call("orchestrator", "POST", path, {"capability": "orders-read"})
    assert (answer.status_code, answer.json()["code"]) == (503, "backend_unavailable")
    assert "static-and-shared" not in answer.text
    grants = await world.app.pipeline.queries.grants_of(task["task_id"], dead=True)
    assert [str(grant.state) for grant in grants] == ["failed"]
    await world.close()
