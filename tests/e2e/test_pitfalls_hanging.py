"""Pitfall 8: of what hangs from a backend that hangs, only a few wait for it at once."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final
from urllib.parse import urlsplit

import pytest

from broker.steps import Step
from tests.admin import Admin, own_stack
from tests.chaos.link import Link, to_port
from tests.waiting import wait_until
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Generator

    from broker.config import Config
    from broker.dev.stack import DevStack

WIDTH: Final = 4
TASKS: Final = 24
SLOW_S: Final = 1.5
SETTINGS: Final = f"""
[revocation]
backoff = "50ms"
max_backoff = "500ms"

[vault]
timeout = "500ms"
revoke_concurrency = {WIDTH}
"""


@pytest.fixture
def own(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[DevStack, Config]]:
    with own_stack(tmp_path_factory.mktemp("hanging"), SETTINGS) as made:
        yield made


@contextmanager
def hanging(stack: DevStack) -> Generator[None]:
    """OpenBao takes calls and answers none."""
    assert stack.openbao is not None
    os.kill(stack.openbao.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(stack.openbao.pid, signal.SIGCONT)


async def test_8_ended_tasks_do_not_all_wait_for_a_backend_that_hangs(
    own: tuple[DevStack, Config],
) -> None:
    """They would fill this process with work, and the sweep would take on nothing else."""
    stack, config = own
    asked: list[Step] = []
    world = World(stack.issuer, config, before_step=asked.append)
    tasks = [await world.open() for _ in range(TASKS)]
    for task in tasks:
        granted = await world.grant(task)
        await world.call("operator", "DELETE", f"/v1/grants/{granted['grant_id']}")
    await world.app.pipeline.work.drain(20)
    token = await world.token("orchestrator")

    with hanging(stack):
        asked.clear()
        for task in tasks:
            path = f"/v1/tasks/{task['task_id']}/complete"
            headers = {"Authorization": f"Bearer {token}"}
            await world.http.post(path, json={"outcome": "completed"}, headers=headers)
        await world.app.pipeline.work.drain(20)
        assert 0 < asked.count(Step.REVOKE) <= WIDTH + 1

    async def closed() -> bool:
        await world.sweep(ahead_ms=60_000)
        return all([(await world.show_task(task["task_id"]))["closed_at"] for task in tasks])

    await wait_until(closed, "all tasks are closed once it answers")
    await world.close()


async def test_4_what_openbao_finishes_after_its_mint_was_given_up_hangs_from_a_token_that_lives(
    own: tuple[DevStack, Config],
) -> None:
    """Ended at once, the token takes nothing along: OpenBao makes a lease below it that stays."""
    stack, config = own
    assert stack.openbao is not None
    assert config.vault is not None
    port = urlsplit(stack.openbao.address).port
    assert port is not None
    admin, way = Admin(stack), Link(to_port(port))
    await way.start()
    vault = config.vault.model_copy(update={"address": f"http://{way.place}"})
    asks = World(stack.issuer, config.model_copy(update={"vault": vault}))
    ends = World(stack.issuer, config)
    task = await asks.open()
    await asks.app.pipeline.work.drain(20)  # its token is ready
    path = f"/v1/tasks/{task['task_id']}/grants"
    await admin.set_creation("orders-read", f"SELECT pg_sleep({SLOW_S})")

    async def at_work() -> bool:
        return f"SELECT pg_sleep({SLOW_S})" in await admin.statements()

    try:
        ask = asyncio.create_task(
            asks.call("orchestrator", "POST", path, {"capability": "orders-read"})
        )
        await wait_until(at_work, "OpenBao makes the account")
        way.hang()  # OpenBao doesn't hear that it was given up
        assert (await ask).json()["code"] == "backend_unavailable"
        assert (await ends.complete(task))["grants"]["revoking"] == 1
        await ends.app.pipeline.work.drain(20)
        assert await at_work()
        await wait_until(admin.leases, "OpenBao has finished what nobody waits for")

        async def closed() -> bool:
            await ends.sweep()
            return (await ends.show_task(task["task_id"]))["closed_at"] is not None

        await wait_until(closed, "the task is closed", within_s=20)
        [lost] = await ends.app.pipeline.queries.grants_of(task["task_id"], dead=True)
        assert (lost.state, lost.lease, lost.evidence) == ("revoked", "", "handle_lookup")
        assert await admin.leases() == set()
        assert await admin.roles() == set()
    finally:
        await admin.set_creation("orders-read")
        await way.close()
        await asks.close()
        await ends.close()
