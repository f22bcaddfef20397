"""Over stdio, for the one agent whose host has started this process.

1. Serve until the client goes away: its end of standard input is closed, or we are told to stop
2. Meanwhile say of each task that it is alive
3. Then end the tasks that were opened here

If this process is killed instead, their heartbeats stop, and the broker ends them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, Final, Literal

from mcp.server.stdio import stdio_server

from broker.client import BrokerClientError, Conflict, Denied, NotFound
from broker.mcp.calls import silence_of
from broker.mcp.server import Desk

if TYPE_CHECKING:
    from broker.mcp.party import Party

log = logging.getLogger(__name__)
OnExit = Literal["completed", "failed", "cancelled", "leave"]
_STOP: Final = (signal.SIGTERM, signal.SIGINT)
_BEATS: Final = 3
"""Heartbeats in the time after which silence ends a task."""
_LOOK_S: Final = 30.0
"""From one look to the next for the task that we were started for, while nobody finds it."""
_END_S: Final = 10.0
"""How long ending may take: hosts kill what doesn't go."""


def serve(party: Party, on_exit: OnExit) -> None:
    """Serve until the client goes away. Nothing but the protocol is written to standard output."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s: %(message)s")
    asyncio.run(_serve(party, on_exit))


async def _serve(party: Party, on_exit: OnExit) -> None:
    desk = Desk(lambda _: party)
    server = desk.server()
    loop = asyncio.get_running_loop()
    stopping: list[asyncio.Task[None]] = []

    def stop(number: int) -> None:
        if not stopping:
            stopping.append(loop.create_task(_stop(party, on_exit, number)))

    for number in _STOP:
        loop.add_signal_handler(number, stop, number)
    alive = loop.create_task(_keep_alive(party, desk))
    try:
        async with stdio_server() as (incoming, outgoing):
            await server.run(incoming, outgoing, server.create_initialization_options())
    finally:
        alive.cancel()
        await end(party, on_exit)
        await party.client.aclose()


async def _stop(party: Party, on_exit: OnExit, number: int) -> None:
    """End the tasks, then the process: a thread of the SDK's waits for a line of input for ever."""
    await end(party, on_exit)
    os._exit(128 + number)


async def end(party: Party, on_exit: OnExit) -> None:
    """End the tasks that were opened here and haven't ended."""
    if on_exit == "leave":
        return
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_END_S):
            # The newest first: parts before what they are parts of.
            for task_id in reversed(tuple(party.opened)):
                party.opened.pop(task_id, None)
                try:
                    await party.client.complete(task_id, on_exit, summary="its client went away")
                except BrokerClientError as error:
                    log.warning("%s is not ended: %s", task_id, error.code)


async def _keep_alive(party: Party, desk: Desk) -> None:
    """Send heartbeats for as long as this runs; what has ended gets none any more."""
    own: dict[str, float | None] = {}
    while True:
        party.news.clear()
        if party.task_id is not None and party.task_id not in own:
            own |= await _own(party, party.task_id)
        watched = {**own, **party.opened}
        due = [silence for silence in watched.values() if silence]
        for task_id in (task_id for task_id, silence in watched.items() if silence):
            if not await _beat(party, task_id):
                own[task_id] = None
                party.opened.pop(task_id, None)
                await desk.changed(task_id)
        with contextlib.suppress(TimeoutError):
            pause = min([_LOOK_S, *(silence / _BEATS for silence in due)])
            await asyncio.wait_for(party.news.wait(), pause)


async def _own(party: Party, task_id: str) -> dict[str, Any]:
    """Return how long the task that we were started for may be silent; nothing if nobody knows."""
    try:
        return {task_id: silence_of(await party.client.get_task(task_id))}
    except BrokerClientError as error:
        log.warning("%s is not found yet: %s", task_id, error.code)
        return {}


async def _beat(party: Party, task_id: str) -> bool:
    """Say that a task is alive; answers whether it is."""
    try:
        await party.client.heartbeat(task_id)
    except (Conflict, Denied, NotFound) as error:
        log.warning("%s has ended: %s", task_id, error.code)
        return False
    except BrokerClientError as error:
        log.warning("no heartbeat of %s: %s", task_id, error.code)
    return True
