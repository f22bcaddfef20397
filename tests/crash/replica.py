"""A replica that kills itself, with SIGKILL, at one point of one scenario.

Each is a process of its own, forked from one that has read the modules and done nothing else.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
from typing import TYPE_CHECKING, Any, Final

from broker.backends.vault import VaultBackend
from broker.clock import SystemClock
from broker.config import load_config
from broker.dev.issuer import DevIssuer
from tests.world import World

if TYPE_CHECKING:
    from multiprocessing.connection import Connection
    from pathlib import Path

    from broker.ledger.redis import RedisLedger
    from broker.steps import Step

_FORKS: Final = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload([__name__])


class Killer:
    """Kills this process the nth time a point is reached, once armed."""

    def __init__(self, point: str, nth: int) -> None:
        self.armed = False
        self._point = point
        self._left = nth

    def reach(self, point: str) -> None:
        if self.armed and point == self._point:
            self._left -= 1
            if self._left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    def before_step(self, step: Step) -> None:
        self.reach(step.name)


class KillingHandles:
    """The ledger's handles, with points before and after each write."""

    def __init__(self, ledger: RedisLedger, killer: Killer) -> None:
        self._ledger = ledger
        self._killer = killer

    async def handle(
        self,
        task_id: str,
        op: str,
        handle: str,
        *,
        backend: str,
        actor: str,
        value: str = "",
        refused: bool = False,
        elevation: str = "",
    ) -> str:
        self._killer.reach(f"BEFORE_{op.upper()}")
        answer = await self._ledger.handle(
            task_id,
            op,
            handle,
            backend=backend,
            actor=actor,
            value=value,
            refused=refused,
            elevation=elevation,
        )
        self._killer.reach(f"AFTER_{op.upper()}")
        return answer


def crashed(data: Path, scenario: str, point: str, nth: int) -> dict[str, Any]:
    """Let a replica play a scenario until it dies; return what it had done before that point."""
    heard, says = _FORKS.Pipe(duplex=False)
    process = _FORKS.Process(target=_live, args=(says, data, scenario, Killer(point, nth)))
    process.start()
    says.close()
    process.join()
    assert process.exitcode == -signal.SIGKILL, "the point was never reached"
    process.close()
    with heard:
        return heard.recv()


def _live(says: Connection, data: Path, scenario: str, killer: Killer) -> None:
    asyncio.run(_play(says, data, scenario, killer))


async def _play(says: Connection, data: Path, scenario: str, killer: Killer) -> None:
    config = load_config(data / "config.toml")
    world = World(DevIssuer(data, SystemClock()), config, before_step=killer.before_step)
    pipeline = world.app.pipeline
    assert world.app.vault is not None
    assert isinstance(pipeline.backends, dict)
    pipeline.backends["vault"] = VaultBackend(
        world.app.vault,
        KillingHandles(pipeline.ledger, killer),
        pipeline.catalog.capabilities.values(),
        SystemClock(),
        broker_id=config.broker.issuer,
    )
    capability = "orders-api" if scenario == "issue-token" else "orders-read"
    task = await world.open(capabilities=[capability])
    if scenario.startswith("issue"):
        says.send({"task_id": task["task_id"], "credentials": []})
        killer.armed = True
        await world.grant(task, capability)
        return
    granted = [await world.grant(task) for _ in range(3)]
    says.send({"task_id": task["task_id"], "credentials": [g["credential"] for g in granted]})
    killer.armed = True
    if scenario == "complete":
        await world.complete(task)
    elif scenario == "expire":
        await world.sweep(ahead_ms=6 * 60_000)
    else:
        selector = {"selector": {"all": True}, "reason": "crash test"}
        await world.call("operator", "POST", "/v1/revocations", selector)
    await pipeline.work.drain(20)
