"""The ledger that ``broker.testing`` gives to others answers as the real one does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from broker.backends import Minted, Prepared
from broker.testing import Ledger, MemoryLedger
from tests.contract.real_ledger import RealLedger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.catalog import Capability
    from tests.world import World

MINTED = Minted("lease-1", 60_000, "database", {}, account="v-one")
OPS = {
    "made-and-ended": ["expect a", "record a", "retire a", "drop a", "drop a", "record a"],
    "its-answer-was-lost": ["expect a", "drop a", "refuse a", "retire a"],
    "never-expected": ["record a", "retire a", "drop a", "refuse a"],
    "in-use": ["expect a", "record a", "grant a", "retire a", "expect b", "retire b"],
    "of-an-elevation": ["elevate", "expect a *", "record a", "expect b", "drop a"],
    "of-none": ["expect a !", "record a"],
    "its-task-ended": ["elevate", "expect a", "expect b *", "end", "expect c", "record a",
                       "record b", "drop a"],
}  # fmt: skip


async def answers(ledger: Ledger, capability: Capability, ops: list[str]) -> list[Any]:
    """Play operations on a ledger, and return all that a backend can see of it."""
    seen: list[Any] = []
    elevation = ""
    task_id = (await ledger.task()).id
    for op in ops:
        match op.split():
            case ["elevate"]:
                elevation, _ = await ledger.elevate(capability)
            case ["end"]:
                await ledger.end()
            case ["grant", handle]:
                grant = await ledger.reserve(capability, Prepared(handle=handle))
                active = await ledger.activate(grant, MINTED)
                seen.append((active.state, active.lease, active.account, active.handle))
            case [verb, handle, *under]:
                window = {"*": elevation, "!": "elv_unknown"}[under[0]] if under else ""
                about = {"value": "accessor"} if verb == "record" else {}
                about |= {"elevation": window} if window else {}
                said = await ledger.handle(
                    task_id,
                    "drop" if verb == "refuse" else verb,
                    handle,
                    backend="vault",
                    actor="test",
                    refused=verb == "refuse",
                    **about,
                )
                seen.append(said)
            case _:
                pytest.fail(op)
        task = await ledger.task()
        rows = [(handle, plain(row, elevation)) for handle, row in sorted(task.handles.items())]
        seen.append((task.state, bool(task.ended_at), rows))
    return seen


def plain(row: Mapping[str, Any], elevation: str) -> dict[str, Any]:
    """A handle's row, without what is of this ledger's own or says nothing."""
    told = {key: value for key, value in row.items() if value and key != "at"}
    return {key: "*" if value == elevation else value for key, value in told.items()}


@pytest.mark.parametrize("ops", OPS)
async def test_it_answers_as_the_real_one(world: World, ops: str) -> None:
    capability = world.app.pipeline.catalog.capabilities["orders-read"]
    task = await world.open(capabilities=[capability.name])

    real = await answers(RealLedger(world, task["task_id"]), capability, OPS[ops])

    assert await answers(MemoryLedger(capability), capability, OPS[ops]) == real


async def test_another_tasks_handle_is_unknown_to_it(world: World) -> None:
    ledger = MemoryLedger(world.app.pipeline.catalog.capabilities["orders-read"])
    assert await ledger.handle("tsk_other", "expect", "a", backend="vault", actor="t") == "unknown"
