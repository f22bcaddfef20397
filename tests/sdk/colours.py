"""One way to write a test for both clients: the asynchronous one, driven from outside its loop."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from typing import TYPE_CHECKING, Any

from broker.client import AsyncClient, AsyncRunningTask, Client

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine


class Blocking:
    """Something asynchronous as if it weren't: what it answers is waited for."""

    def __init__(self, target: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._target = target
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        return self._plain(getattr(self._target, name))

    def __enter__(self) -> Any:
        return self._plain(self._target.__aenter__())

    def __exit__(self, *left_by: object) -> None:
        self._plain(self._target.__aexit__(*left_by))

    def _plain(self, value: Any) -> Any:
        if inspect.iscoroutine(value):
            return self._plain(self._wait(value))
        if isinstance(value, AsyncClient | AsyncRunningTask):
            return Blocking(value, self._loop)
        return functools.wraps(value)(self._call(value)) if inspect.isroutine(value) else value

    def _call(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*args: Any, **kwargs: Any) -> Any:
            return self._plain(self._in_the_loop(function, args, kwargs))

        return called

    def _in_the_loop(self, function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        async def call() -> Any:
            done = function(*args, **kwargs)
            return await done if inspect.iscoroutine(done) else done

        return self._wait(call())

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)


class Colour:
    """Makes clients of one of the two kinds, and closes them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._made: list[Any] = []

    def client(self, *args: Any, **kwargs: Any) -> Any:
        """A client that blocks, whichever it is inside."""
        if self.name == "sync":
            made: Any = Client(*args, **kwargs)
        else:
            made = Blocking(AsyncClient(*args, **kwargs), self._loop)
        self._made.append(made)
        return made

    def close(self) -> None:
        for made in self._made:
            made.__exit__(None, None, None)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()
