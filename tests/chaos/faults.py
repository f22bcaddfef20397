"""How each fault is done, and undone; and when it was in force."""

from __future__ import annotations

import asyncio
import resource
import signal
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from tests.chaos.plan import Kind, Part
from tests.chaos.servers import family, limit_files, signal_all
from tests.waiting import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.dev.engines.process import Engine
    from tests.chaos.link import Link
    from tests.chaos.plan import Fault
    from tests.chaos.servers import Arena, Broker

Span = tuple[float, float]
"""From when to when, in seconds of the machine's clock."""


class Breaking:
    """Does a round's faults at their moments. Each is in force until what it broke serves again."""

    def __init__(self, arena: Arena) -> None:
        self.spans: list[Span] = []
        self.problems: list[str] = []
        self._arena = arena
        # A server may take longer to come back than the plan thought: one fault after the other.
        self._targets: defaultdict[tuple[Part, int], asyncio.Lock] = defaultdict(asyncio.Lock)

    async def play(self, faults: Sequence[Fault]) -> None:
        await asyncio.gather(*(self._one(fault) for fault in faults))

    async def _one(self, fault: Fault) -> None:
        await asyncio.sleep(fault.at)
        async with self._targets[fault.part, fault.number]:
            await self._break(fault)

    async def _break(self, fault: Fault) -> None:
        began = time.time()
        try:
            if fault.part is Part.BROKER:
                await self._broker(self._arena.brokers[fault.number], fault)
            elif link := self._link(fault):
                await _link(link, fault)
            else:
                await self._engine(self._engine_of(fault), fault)
        except Exception as error:  # noqa: BLE001  a server that doesn't come back is a finding
            self.problems.append(f"{fault.name}: {type(error).__name__}: {error}")
        self.spans.append((began, time.time()))

    async def _broker(self, broker: Broker, fault: Fault) -> None:
        match fault.kind:
            case Kind.KILL | Kind.RESTART:
                by = signal.SIGKILL if fault.kind is Kind.KILL else signal.SIGTERM
                await asyncio.gather(broker.end(by), asyncio.sleep(fault.lasts))
                await broker.start()
            case Kind.STOP:
                broker.signal(signal.SIGSTOP)
                await asyncio.sleep(fault.lasts)
                broker.signal(signal.SIGCONT)
            case Kind.CLOCK:
                broker.step_clock(fault.amount)
                await asyncio.sleep(fault.lasts)
                broker.step_clock(0)
            case Kind.DISK:
                limit_files(broker.pid, 1)
                await asyncio.sleep(fault.lasts)
                limit_files(broker.pid, resource.RLIM_INFINITY)
            case _:
                raise AssertionError(fault)

    async def _engine(self, engine: Engine, fault: Fault) -> None:
        match fault.kind:
            case Kind.KILL:
                await asyncio.to_thread(engine.kill)
                await asyncio.sleep(fault.lasts)
                await asyncio.to_thread(engine.start)
            case Kind.RESTART:
                await asyncio.to_thread(engine.stop)
                await asyncio.sleep(fault.lasts)
                await asyncio.to_thread(engine.start)
            case Kind.STOP:
                pids = family(engine.pid)
                signal_all(pids, signal.SIGSTOP)
                await asyncio.sleep(fault.lasts)
                signal_all(pids, signal.SIGCONT)
            case Kind.DISK:
                limit_files(engine.pid, 1)
                await asyncio.sleep(fault.lasts)
                # Valkey ends itself rather than say yes to what isn't on the disk.
                await asyncio.to_thread(engine.kill)
                await asyncio.to_thread(engine.start)
            case _:
                raise AssertionError(fault)
        if fault.part is Part.NODE:
            await wait_until(self._arena.leads, "OpenBao has a leader again", within_s=30)

    def _engine_of(self, fault: Fault) -> Engine:
        arena = self._arena
        engines: dict[Part, Any] = {Part.VALKEY: arena.valkey, Part.POSTGRES: arena.postgres}
        return engines.get(fault.part) or arena.nodes[fault.number]

    def _link(self, fault: Fault) -> Link | None:
        arena = self._arena
        links = {
            Part.TO_VALKEY: arena.to_valkey,
            Part.TO_NODE: arena.to_node,
            Part.TO_POSTGRES: [arena.to_postgres],
        }
        return links[fault.part][fault.number] if fault.part in links else None


async def _link(link: Link, fault: Fault) -> None:
    match fault.kind:
        case Kind.SLOW:
            link.slow(fault.amount)
        case Kind.HANG:
            link.hang()
        case Kind.CUT:
            link.cut()
        case _:
            raise AssertionError(fault)
    await asyncio.sleep(fault.lasts)
    link.heal()
