"""What the decision point remembers of tasks, and how it names values that it doesn't tell."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from broker.tasks import Task
    from broker.trail import Survey

_REMEMBERED: Final = 2000
"""Tasks whose last known state is kept. It is only a guess: every write checks it."""


class Fingerprints(Protocol):
    """What names a value in the log without telling it."""

    def of_value(self, value: object) -> str:
        """Return the fingerprint of a JSON value."""
        ...


class Known:
    """The last known state of some tasks, so that a decision is one trip to the ledger."""

    def __init__(self) -> None:
        self._tasks: OrderedDict[str, tuple[Task, Survey]] = OrderedDict()

    def get(self, task_id: str) -> tuple[Task, Survey] | None:
        """Return it, if there is one."""
        return self._tasks.get(task_id)

    def keep(self, task: Task, survey: Survey) -> None:
        """Remember it; the oldest is forgotten."""
        self._tasks[task.id] = task, survey
        self._tasks.move_to_end(task.id)
        if len(self._tasks) > _REMEMBERED:
            self._tasks.popitem(last=False)

    def drop(self, task_id: str) -> None:
        """It was wrong."""
        self._tasks.pop(task_id, None)
