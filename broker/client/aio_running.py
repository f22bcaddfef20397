"""A task that a program runs, for asynchronous callers: as ``running.py``, with ``await``."""

from __future__ import annotations

import asyncio
import contextlib
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Self, TypeVar

from broker.client import exits, task_calls
from broker.client.methods import describe
from broker.client.running import Ending
from broker.client.scripts import aplay, unbroken
from broker.client.task_calls import Handle
from broker.client.tools import Guard, declared, tool

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping
    from types import TracebackType
    from typing import Unpack

    from broker.client.aio import AsyncClient
    from broker.client.holding import Renewals
    from broker.client.openings import Opening
    from broker.client.scripts import Script
    from broker.client.sync import Client
    from broker.client.tools import Asking, Guarding, Tool
    from broker.client.work import Work

    Answer = Coroutine[Any, Any, "T"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


def _do(
    build: Callable[Concatenate[Handle, P], Script[T]],
) -> Callable[Concatenate[AsyncRunningTask, P], Answer[T]]:
    async def method(self: AsyncRunningTask, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.play(build(self, *args, **kwargs))

    describe(method, build, "T", given=1)
    return method


def _below(
    build: Callable[Concatenate[Handle, P], Opening],
) -> Callable[Concatenate[AsyncRunningTask, P], AsyncRunningTask]:
    def method(self: AsyncRunningTask, /, *args: P.args, **kwargs: P.kwargs) -> AsyncRunningTask:
        return self.client.running(build(self, *args, **kwargs))

    describe(method, build, "AsyncRunningTask", given=1)
    return method


class AsyncRunningTask(Handle):
    """A task in this program's hands, as ``RunningTask``; for one event loop.

        async with client.task("report-writer", "nightly report", ["orders-read"]) as task:
            orders = await task.grant("orders-read")

    It keeps itself alive by a task of asyncio's. A cancellation waits until it has ended.
    """

    def __init__(self, client: AsyncClient, work: Work, twin: Callable[[], Client] | None) -> None:
        """``twin`` makes a client as ``Ending`` wants it, where there can be one."""
        super().__init__(work)
        self.client = client
        self._ending = Ending(work, client, twin) if twin is not None else None
        self._keepers: list[asyncio.Task[None]] = []

    async def open(self) -> Self:
        """Open the task. A block does; without one it is yours to ``complete``."""
        await aplay(self.work.open(), self.client.run)
        if self.work.ends and self._ending is not None:
            exits.add(self._ending)
        self._keep(self.work)
        return self

    async def __aenter__(self) -> Self:
        return await self.open() if self.work.task is None or self.work.over else self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await unbroken(self._leave(error))

    async def play(self, script: Script[T]) -> T:
        """Do what a script says, for this task."""
        done = await aplay(script, self.client.run)
        if self.work.end is not None:
            await self._settle()
        elif self.renewals.any:
            self._keep(self.renewals)
        return done

    def _keep(self, chore: Work | Renewals) -> None:
        if len(self._keepers) == (0 if chore is self.work else 1):
            self._keepers.append(asyncio.create_task(self._kept(chore)))

    async def _kept(self, chore: Work | Renewals) -> None:
        wake, loop = asyncio.Event(), asyncio.get_running_loop()

        def woken() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: so is this
                loop.call_soon_threadsafe(wake.set)

        self.work.watch(woken)
        while (pause := chore.due_in()) is not None:
            try:
                await asyncio.wait_for(wake.wait(), pause)
            except TimeoutError:
                await aplay(chore.act(), self.client.run)
            wake.clear()

    async def _leave(self, error: BaseException | None) -> None:
        try:
            await aplay(self.work.leave(error), self.client.run)
        finally:
            await self._settle()

    async def _settle(self) -> None:
        if self.work.end is not None and self._ending is not None:
            exits.remove(self._ending)
        others = [keeper for keeper in self._keepers if keeper is not asyncio.current_task()]
        for keeper in others:
            keeper.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    child = _below(task_calls.child)
    grant = _do(task_calls.grant)
    unwrap = _do(task_calls.unwrap)
    rotate = _do(task_calls.rotate)
    release = _do(task_calls.release)
    complete = _do(task_calls.complete)

    # Tools.

    def bind(
        self, function: Callable[P, Coroutine[Any, Any, R] | R] | Tool[P, Any]
    ) -> Callable[P, Answer[R]]:
        """Return a tool that is called for this task, and awaited.

        A function that isn't asynchronous runs in a thread.
        """
        made = declared(function)

        @wraps(made.function)
        async def later(*args: P.args, **kwargs: P.kwargs) -> R:
            return await self.play(made.call(self, args, kwargs))

        return later

    def tool(
        self, name: str = "", **asking: Unpack[Asking]
    ) -> Callable[[Callable[P, Coroutine[Any, Any, R] | R]], Callable[P, Answer[R]]]:
        """Make of a function a tool that is asked about before each call; see ``RunningTask``."""
        declare = tool(name, **asking)
        return lambda function: self.bind(declare(function))

    def guard(
        self, dispatch: Callable[..., Coroutine[Any, Any, R] | R], **guarding: Unpack[Guarding]
    ) -> Callable[..., Answer[R]]:
        """Make of ``dispatch(name, arguments)`` one that asks first; see ``RunningTask``."""
        made = Guard(dispatch, guarding)

        @wraps(dispatch)
        async def later(
            name: str,
            arguments: Mapping[str, Any],
            *args: Any,  # noqa: ANN401  the dispatcher's own
            **kwargs: Any,  # noqa: ANN401  as above
        ) -> Any:  # noqa: ANN401  as above
            return await self.play(made.call(self, name, arguments, args, kwargs))

        return later
