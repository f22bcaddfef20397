"""Pitfall 8: of what hangs from a backend that hangs, only a few wait for it at once."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import pytest

from broker.steps import Step
from tests.admin import own_stack
from tests.waiting import wait_until
from tests.world import World

if TYPE_CHECKING:
    from collections.abc import Generator

    from broker.config import Config
    from broker.dev.stack import DevStack

WIDTH: Final = 4
TASKS: Final = 24
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
