"""A task that a program runs, for blocking callers."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, Final, ParamSpec, Self, TypeVar, cast

from broker.client import exits, task_calls
from broker.client.methods import describe
from broker.client.scripts import aplay, is_async, play
from broker.client.task_calls import Handle
from broker.client.tools import Guard, declared, tool

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from contextlib import AbstractContextManager
    from types import TracebackType
    from typing import Unpack

    from broker.client.holding import Renewals
    from broker.client.openings import Opening
    from broker.client.scripts import Calling, Script
    from broker.client.sync import Client
    from broker.client.tools import Asking, Guarding, Tool
    from broker.client.work import Work

    Twin = Callable[[], AbstractContextManager[Client]]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_JOIN_S: Final = 2.0


def _do(
    build: Callable[Concatenate[Handle, P], Script[T]],
) -> Callable[Concatenate[RunningTask, P], T]:
    def method(self: RunningTask, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self.play(build(self, *args, **kwargs))

    describe(method, build, "T", given=1)
    return method


def _below(
    build: Callable[Concatenate[Handle, P], Opening],
) -> Callable[Concatenate[RunningTask, P], RunningTask]:
    def method(self: RunningTask, /, *args: P.args, **kwargs: P.kwargs) -> RunningTask:
        return self.client.running(build(self, *args, **kwargs))

    describe(method, build, "RunningTask", given=1)
    return method


class Ending:
    """Ends a task that nothing else has ended; for ``exits``."""

    def __init__(self, work: Work, owner: object, twin: Twin) -> None:
        """``twin`` makes a blocking client of the same caller, with connections of its own."""
        self._work = work
        self._twin = twin
        self.owner = owner

    def end_now(self, why: str) -> None:
        """Cancel the task."""
        if self._work.end is not None or self._work.elsewhere:
            return
        # Nobody is there to be told: the broker ends it once its heartbeat is missed.
        with contextlib.suppress(Exception), self._twin() as client:
            play(self._work.finish("cancelled", why), client.run)


class _Keeper:
    """Does in a thread what is due for a task, when it is."""

    def __init__(self, chore: Work | Renewals, work: Work, run: Callable[[Calling], Any]) -> None:
        self._chore = chore
        self._run = run
        self._wake = threading.Event()
        work.watch(self._wake.set)
        self._thread = threading.Thread(target=self._keep, name=work.task_id, daemon=True)
        self._thread.start()

    def _keep(self) -> None:
        while (pause := self._chore.due_in()) is not None:
            if self._wake.wait(pause):
                self._wake.clear()
            else:
                play(self._chore.act(), self._run)

    def join(self) -> None:
        """Wait for its end, for a while: it may be in the middle of a call."""
        if self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)


class RunningTask(Handle):
    """A task in this program's hands: a context manager that ends it, whatever happens.

        with client.task("report-writer", "nightly report", ["orders-read"]) as task:
            orders = task.grant("orders-read")
            connect(orders.dsn().reveal())

    It keeps itself alive from a thread of its own. Any number of threads may use it: hand it to
    them. Where no block fits, ``open()`` it and ``complete()`` it.
    """

    def __init__(self, client: Client, work: Work, twin: Twin) -> None:
        """``twin`` makes a client as ``Ending`` wants it."""
        super().__init__(work)
        self.client = client
        self._ending = Ending(work, client, twin)
        self._keepers: list[_Keeper] = []
        self._lock = threading.Lock()

    def open(self) -> Self:
        """Open the task. A ``with`` block does; without one it is yours to ``complete``."""
        play(self.work.open(), self.client.run)
        try:
            if self.work.ends:
                exits.add(self._ending)
            self._keep(self.work)
        except BaseException as error:
            self._leave(error)
            raise
        return self

    def __enter__(self) -> Self:
        return self.open() if self.work.task is None or self.work.over else self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._leave(error)

    def play(self, script: Script[T]) -> T:
        """Do what a script says, for this task."""
        done = play(script, self.client.run)
        if self.work.end is not None:
            self._settle()
        elif self.renewals.any:
            self._keep(self.renewals)
        return done

    def _keep(self, chore: Work | Renewals) -> None:
        with self._lock:
            if len(self._keepers) == (0 if chore is self.work else 1):
                self._keepers.append(_Keeper(chore, self.work, self.client.run))

    def _leave(self, error: BaseException | None) -> None:
        try:
            play(self.work.leave(error), self.client.run)
        finally:
            self._settle()

    def _settle(self) -> None:
        if self.work.end is not None:
            exits.remove(self._ending)
        for keeper in list(self._keepers):
            keeper.join()

    child = _below(task_calls.child)
    grant = _do(task_calls.grant)
    unwrap = _do(task_calls.unwrap)
    rotate = _do(task_calls.rotate)
    release = _do(task_calls.release)
    complete = _do(task_calls.complete)

    # Tools.

    def bind(self, function: Callable[P, R] | Tool[P, R]) -> Callable[P, R]:
        """Return a tool that is called for this task; of a plain function the one of its name."""
        made = declared(function)

        @wraps(made.function)
        def now(*args: P.args, **kwargs: P.kwargs) -> R:
            return self.play(made.call(self, args, kwargs))

        @wraps(made.function)
        async def later(*args: P.args, **kwargs: P.kwargs) -> Any:  # noqa: ANN401  what it awaits
            return await aplay(made.call(self, args, kwargs), self._in_a_thread)

        return cast("Callable[P, R]", later) if is_async(made.function) else now

    def tool(
        self, name: str = "", **asking: Unpack[Asking]
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Make of a function a tool that is asked about before each call, and reported after.

        Takes what ``broker.client.tool`` takes. A denied call isn't made and raises ``ToolDenied``,
        which says why and what would change it.
        """
        declare = tool(name, **asking)
        return lambda function: self.bind(declare(function))

    def guard(self, dispatch: Callable[..., R], **guarding: Unpack[Guarding]) -> Callable[..., R]:
        """Make of ``dispatch(name, arguments)`` one whose calls are asked about and reported.

        Takes what ``tool`` takes, ``effects_of`` for those of single tools, and ``names`` for tools
        that the catalogue calls otherwise.
        """
        made = Guard(dispatch, guarding)

        @wraps(dispatch)
        def now(name: str, arguments: Mapping[str, Any], *args: Any, **kwargs: Any) -> R:  # noqa: ANN401  the dispatcher's own
            return self.play(made.call(self, name, arguments, args, kwargs))

        @wraps(dispatch)
        async def later(
            name: str,
            arguments: Mapping[str, Any],
            *args: Any,  # noqa: ANN401  as above
            **kwargs: Any,  # noqa: ANN401  as above
        ) -> Any:  # noqa: ANN401  as above
            script = made.call(self, name, arguments, args, kwargs)
            return await aplay(script, self._in_a_thread)

        return cast("Callable[..., R]", later) if is_async(dispatch) else now

    def _in_a_thread(self, call: Calling) -> Awaitable[Any]:
        """Make a call for a tool that is asynchronous although its task isn't."""
        return asyncio.to_thread(self.client.run, call)
