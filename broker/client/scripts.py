"""Scripts: what is done for a task, step by step, for blocking and asynchronous callers alike.

A script is a generator whose steps are calls of the API, or acts of the program's own: a tool, a
callback. Its player does each step and sends back what came of it; what goes wrong, a cancellation
too, is thrown into the script where it happened. No I/O in a script.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from broker.client.messages import Call, Conversation

T = TypeVar("T")
_nothing = dict[str, Any]
Calling = Call[Any] | Conversation[Any]


@dataclass(slots=True)
class Act:
    """Something that the program itself does; ``begun`` once it does.

    A ``brief`` one may be done on an event loop; another that isn't asynchronous goes to a thread.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = field(default_factory=_nothing)
    brief: bool = False
    begun: bool = False

    def __call__(self) -> Any:  # noqa: ANN401  whatever the program's function returns
        """Do it."""
        self.begun = True
        try:
            return self.function(*self.args, **self.kwargs)
        except StopIteration as error:  # it would end the script (PEP 479)
            raise RuntimeError("the function raised StopIteration") from error


Step = Calling | Act
Script = Generator[Step, Any, T]


def play(script: Script[T], run: Callable[[Calling], Any]) -> T:
    """Do a script's steps one after the other; ``run`` makes its calls."""
    try:
        step = next(script)
        while True:
            try:
                done = _now(step) if isinstance(step, Act) else run(step)
            except BaseException as error:  # noqa: BLE001  the script decides what to do about it
                step = script.throw(error)
            else:
                step = script.send(done)
    except StopIteration as end:
        return end.value


async def aplay(script: Script[T], run: Callable[[Calling], Awaitable[Any]]) -> T:
    """Do a script's steps without blocking the event loop; ``run`` makes its calls."""
    try:
        step = next(script)
        while True:
            try:
                done = await (_later(step) if isinstance(step, Act) else run(step))
            except BaseException as error:  # noqa: BLE001  as above
                step = script.throw(error)
            else:
                step = script.send(done)
    except StopIteration as end:
        return end.value


def _now(act: Act) -> Any:  # noqa: ANN401  as the act itself
    done = act()
    if inspect.iscoroutine(done):
        done.close()
        act.begun = False
        raise TypeError("the function is asynchronous and was called as if it weren't")
    return done


async def _later(act: Act) -> Any:  # noqa: ANN401  as the act itself
    if act.brief or is_async(act.function):
        done = act()
    else:
        # A thread can't be stopped: what it does is waited for, so that its end is known.
        done = await unbroken(asyncio.to_thread(act))
    return await done if inspect.isawaitable(done) else done


def is_async(function: Callable[..., Any]) -> bool:
    """Say whether a function, or an object that can be called, is a coroutine function."""
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(function, "__call__", None)  # noqa: B004  it isn't asked whether it is there
    )


async def unbroken(work: Coroutine[Any, Any, T]) -> T:
    """Do it to its end; a cancellation that comes meanwhile is raised afterwards."""
    task = asyncio.ensure_future(work)
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        failed = None if task.cancelled() else task.exception()
        raise cancelled from failed
    return task.result()


def after(seconds: float, call: Call[T]) -> Call[T]:
    """Return the call, to be sent after a pause."""
    return replace(call, request=replace(call.request, delay=seconds))
