"""One task that a program runs, from its opening to its end: the rules of it, without I/O.

1. Open it; what was perhaps opened when that was interrupted is ended
2. Keep it alive, and notice when it has ended or was silent for too long
3. End it once, with what came of the work
4. Wait until its credentials are confirmed dead, for a while, and say what is left
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
from typing import TYPE_CHECKING, Any, Final

from broker.client import calls
from broker.client.errors import BrokerClientError, Conflict, InvalidRequest
from broker.client.models import TaskEnd
from broker.client.scripts import after
from broker.client.task_errors import TaskEnded, says_over
from broker.durations import parse_duration

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from broker.client.calls import Outcome
    from broker.client.models import Task
    from broker.client.openings import Opening
    from broker.client.scripts import Script
    from broker.clock import Clock

LOG: Final = logging.getLogger("broker.client")
_A_WINDOW: Final = 3
"""How often it beats in the time after which silence ends the task."""
_SOON: Final = 4
"""How much sooner it tries again when a heartbeat came to nothing."""
_FIRST_LOOK_S: Final = 0.1
_LAST_LOOK_S: Final = 1.0
_INTERRUPTS: Final = (KeyboardInterrupt, GeneratorExit, asyncio.CancelledError)


class Work:
    """A task in this program's hands. Many threads may use one."""

    def __init__(self, opening: Opening, own_task: str | None, clock: Clock) -> None:
        """``own_task`` is the one that the client's tokens are for, if they are for one."""
        self._opening = opening
        self._call = opening.call(own_task)
        self.clock = clock
        self.ends = opening.ends
        self.task: Task | None = None
        self.end: TaskEnd | None = None
        self.over = False
        self._lost: TaskEnded | None = None
        self._process = os.getpid()
        self._window = 0.0
        self._heard = 0.0
        self._beat_at = 0.0
        self._behind = 0.0
        self._lock = threading.Lock()
        self._watchers: list[Callable[[], None]] = []

    @property
    def task_id(self) -> str:
        """The task's id.

        Raises:
            InvalidRequest: it isn't open yet.
        """
        return self.opened.task_id

    @property
    def opened(self) -> Task:
        """The task as the broker last showed it; raises as ``task_id`` does."""
        if self.task is None:
            raise InvalidRequest(
                "The task isn't open yet: use it in a `with` block", code="no_task"
            )
        return self.task

    @property
    def elsewhere(self) -> bool:
        """Whether this is a forked child of the process that opened it."""
        return os.getpid() != self._process

    # 1. Opening.

    def open(self) -> Script[None]:
        """Open the task, or find it."""
        if self.task is not None:
            raise InvalidRequest("The task was opened already: make another", code="no_task")
        self._process = os.getpid()
        asked = self.clock.monotonic()
        try:
            task: Task = yield self._call
        except BrokerClientError:
            raise
        except BaseException:
            if self.ends and self._call.request.method == "POST":
                # It may be open by now. The same key finds it, or opens what is ended at once.
                with contextlib.suppress(BrokerClientError):
                    self.task = yield self._call
                    yield from self.finish("cancelled", "interrupted")
            raise
        if task.created_at is not None and self._call.request.method == "POST":
            self._behind = task.created_at.timestamp() - self.clock.now()
        self._window = parse_duration(task.heartbeat) / 1000 if task.heartbeat else 0.0
        self._listen(asked, task)
        if task.state != "active":
            raise self._known_over(task)

    # 2. Watching.

    def alive(self) -> None:
        """Make sure that the task may be worked on, by what is known here.

        Raises:
            TaskEnded: it has ended, or nothing was heard of it for as long as that takes.
            InvalidRequest: it isn't open yet, or is another process's.
        """
        task_id = self.task_id
        if self.elsewhere:
            raise InvalidRequest(
                "This process was forked from the one that runs the task: make a client of its "
                f"own, and join({task_id!r})",
                code="forked",
            )
        if self._lost is not None:
            raise TaskEnded(self._lost.detail, code=self._lost.code, extra=self._lost.extra)
        if self.over:
            extra = {"task_id": task_id, "state": self.end.state if self.end else ""}
            raise TaskEnded(f"This program has done with task {task_id}", extra=extra)
        silent = self.clock.monotonic() - self._heard
        if self._beats and silent > self._window:
            raise TaskEnded(
                f"Task {task_id}: no heartbeat has reached the broker for {silent:.0f} s, so it "
                "ends, or has ended",
                code="heartbeat_missed",
                extra={"task_id": task_id},
            )

    @property
    def _beats(self) -> bool:
        return self._opening.beats and self._window > 0

    def due_in(self) -> float | None:
        """Return in how many seconds the next heartbeat is due; None when there is none more."""
        if self.over or self._lost is not None or not self._beats:
            return None
        return max(self._beat_at - self.clock.monotonic(), 0.0)

    def act(self) -> Script[None]:
        """Send the heartbeat that is due; what goes wrong shows at the task's next use."""
        asked = self.clock.monotonic()
        try:
            task: Task = yield calls.heartbeat(self.task_id)
        except Exception as error:  # noqa: BLE001  whatever it was, the next one is tried
            if says_over(error) and not self.over:
                yield from self.lost(error)
            told = (error.retry_after or 0) if isinstance(error, BrokerClientError) else 0
            pause = max(self._window / (_A_WINDOW * _SOON), told)
            self._beat_at = self.clock.monotonic() + pause
        else:
            self._listen(asked, task)

    def _listen(self, asked: float, task: Task) -> None:
        self.task, self._heard = task, asked
        self._beat_at = asked + self._window / _A_WINDOW

    def lost(self, error: BaseException) -> Script[TaskEnded]:
        """Take an answer for the end of the task; find out how it ended, where one may."""
        try:
            task: Task = yield calls.get_task(self.task_id)
        except BrokerClientError:
            state = str(error.extra.get("state", "")) if isinstance(error, Conflict) else ""
            extra = {"task_id": self.task_id, "state": state}
            found = TaskEnded(f"Task {self.task_id} has ended {state}".rstrip(), extra=extra)
        else:
            found = self._known_over(task)
        self._lost = self._lost or found
        self.changed()
        return self._lost

    def _known_over(self, task: Task) -> TaskEnded:
        self.task = task
        why = f": {task.reason}" if task.reason else ""
        return TaskEnded(
            f"Task {task.task_id} is {task.state}{why}",
            extra={"task_id": task.task_id, "state": task.state, "reason": task.reason},
        )

    def guarded(self, script: Script[Any]) -> Script[Any]:
        """Do something under the task; that it has ended meanwhile is said as ``TaskEnded``."""
        self.alive()
        try:
            return (yield from script)
        except TaskEnded as error:
            self._lost = self._lost or error
            raise
        except BrokerClientError as error:
            if error.code == TaskEnded.code or (says_over(error) and error.status != 404):  # noqa: PLR2004  what isn't found may be something else
                raise (yield from self.lost(error)) from error
            raise

    def left(self, when: datetime | None) -> float | None:
        """Return how many seconds there are until a time of the broker's, by its clock."""
        return None if when is None else when.timestamp() - self.clock.now() - self._behind

    def watch(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called whenever what is due has changed."""
        with self._lock:
            self._watchers.append(wake)

    def changed(self) -> None:
        """Wake those who wait for what is due."""
        for wake in list(self._watchers):
            wake()

    # 3. and 4. The end.

    def finish(self, outcome: Outcome, summary: str | None = None) -> Script[TaskEnd]:
        """End the task, and wait for the death of its credentials.

        Raises:
            TaskEnded: it had ended otherwise.
        """
        task_id = self.task_id
        self.over = True
        self.changed()
        call = calls.complete(task_id, outcome, summary=summary)
        try:
            end: TaskEnd = yield call
        except BrokerClientError as error:
            if not (isinstance(error, Conflict) or says_over(error)):
                raise
            found: TaskEnded = yield from self.lost(error)
            self.end = TaskEnd(state=found.state)
            raise found from None
        until = self.clock.monotonic() + self._opening.patience
        pause = _FIRST_LOOK_S
        self.end = end
        while end.grants.revoking and self.clock.monotonic() + pause < until:
            try:
                self.end = end = yield after(pause, call)
            except BrokerClientError:
                break  # an agent's token has ended with its task: the broker goes on alone
            pause = min(pause * 2, _LAST_LOOK_S)
        if end.grants.revoking:
            LOG.warning(
                "task %s is %s; of its credentials %d are still being revoked",
                *(task_id, end.state, end.grants.revoking),
            )
        return end

    def leave(self, error: BaseException | None) -> Script[None]:
        """End the task as its block ends, if that is ours to do; an error of the block's stays."""
        if self.task is None or self.elsewhere:
            return
        self.over = self.over or not self.ends
        self.changed()
        if self.end is not None or not self.ends:
            return
        try:
            yield from self.finish(*verdict(error))
        except BrokerClientError as trouble:
            if error is None:
                raise
            if not isinstance(error, TaskEnded):
                error.add_note(f"and its task wasn't ended by it: {trouble.detail}")


def verdict(error: BaseException | None) -> tuple[Outcome, str | None]:
    """Return how a task ends whose block ``error`` left, and its summary: never any text of it."""
    if error is None or (isinstance(error, SystemExit) and error.code in (None, 0)):
        return "completed", None
    kind = type(error)
    name = kind.__qualname__
    if kind.__module__ != "builtins":
        name = f"{kind.__module__}.{name}"
    return "cancelled" if isinstance(error, _INTERRUPTS) else "failed", name
