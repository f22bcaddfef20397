"""What ends the tasks of a program that ends without ending them: signals, and its exit.

On SIGTERM and SIGHUP every open task of the process is ended, and then happens what would have
happened: the handler that was there before, or the signal's default. The handler is there while
there are open tasks, and only if the first of them was opened in the main thread, as Python wants
it. What can't be caught is the heartbeat's: the broker ends the task once one is missed.

A handler may interrupt anything, so this takes no lock: a thread of its own does the work, over
connections of its own, and is waited for so long and no longer.
"""

from __future__ import annotations

import _thread
import atexit
import contextlib
import os
import queue
import signal
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

_PATIENCE_S: Final = 10.0
_NUMBERS: Final = tuple(
    getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Open(Protocol):
    """A task that is to be ended if nothing else ends it."""

    @property
    def owner(self) -> object:
        """The client that it was opened by."""
        ...

    def end_now(self, why: str) -> None:
        """End it, blocking, over a connection of its own; raise nothing that is an error."""
        ...


_open: dict[int, Open] = {}
"""By identity, in the order of their opening: so a root ends before its children."""
_before: dict[int, Any] = {}
"""The handlers that were there before ours."""
_ending: list[bool] = []


def add(task: Open) -> None:
    """See to the end of a task."""
    _open[id(task)] = task
    if threading.current_thread() is threading.main_thread():
        for number in _NUMBERS:
            _catch(number)


def remove(task: Open) -> None:
    """It has ended."""
    _open.pop(id(task), None)
    if not _open and threading.current_thread() is threading.main_thread():
        for number in list(_before):
            if signal.getsignal(number) is _caught:
                signal.signal(number, _before.pop(number))


def of(owner: object) -> list[Open]:
    """Return the open tasks of a client."""
    return [task for task in list(_open.values()) if task.owner is owner]


def end(tasks: list[Open], why: str) -> None:
    """End tasks, one after the other."""
    for task in tasks:
        task.end_now(why)


def _catch(number: int) -> None:
    before = signal.getsignal(number)
    if before in (_caught, signal.SIG_IGN, None):  # None: whoever set it isn't Python
        return
    _before[number] = before
    with contextlib.suppress(ValueError):  # not the main interpreter
        signal.signal(number, _caught)


def _caught(number: int, frame: FrameType | None) -> None:
    before = _before.get(number, signal.SIG_DFL)
    if not _ending:  # a second signal doesn't wait again
        _ending.append(True)
        try:
            _in_a_thread(lambda: end(list(_open.values()), signal.Signals(number).name))
        finally:
            _ending.clear()
    if callable(before):
        before(number, frame)
        return
    signal.signal(number, before)
    os.kill(os.getpid(), number)


def _in_a_thread(work: Callable[[], None]) -> None:
    done: queue.SimpleQueue[None] = queue.SimpleQueue()

    def run() -> None:
        try:
            work()
        finally:
            done.put(None)

    # threading.Thread takes locks that the thread which was interrupted may hold.
    _thread.start_new_thread(run, ())
    with contextlib.suppress(queue.Empty):
        done.get(timeout=_PATIENCE_S)


def _at_exit() -> None:
    end(list(_open.values()), "the program ended")


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    # What its parent runs is none of a child's business.
    os.register_at_fork(after_in_child=_open.clear)
