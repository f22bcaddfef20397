"""What the client knows: when each credential may be dead at the earliest, and has to be.

The client writes one JSON object a line; what kind is in ``is``. Times are seconds of the machine's
clock, which nobody steps: only brokers are told another time.

- ``task``: opened. ``id``, ``parent``, ``asked``, ``answered``, ``expires``; ``heartbeat`` in
  seconds, or 0.
- ``contact``: the agent of a task called. ``task``, ``asked``, ``answered``.
- ``grant``: a credential was had. ``id``, ``task``, ``user``, ``session`` (a connection is kept),
  ``expires``.
- ``end``: a task, a grant or all (``of``) was ended. ``id``, ``asked``, ``answered`` or null,
  ``dead`` if the broker said that nothing of it lives.
- ``tried``: at the very end. ``user``, whether its ``login`` and its ``session`` still work.
- ``count``: how many calls were answered, refused and lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    Line = Mapping[str, Any]

_WHOLE_S: Final = 1.5
"""A lease is of whole seconds: OpenBao may end it so long before the grant's own time is over."""


@dataclass(frozen=True, slots=True)
class Credential:
    """One that the client was given.

    Before ``may_die`` nothing and nobody asked for its end. After ``must_die`` it is past its time.
    From ``said_dead`` on the broker has said that it is dead.
    """

    grant: str
    task: str
    user: str
    may_die: float
    must_die: float
    said_dead: float
    why: str


@dataclass(slots=True)
class _Life:
    """What bounds a credential: the earliest of each."""

    may: float = math.inf
    must: float = math.inf
    said: float = math.inf
    why: str = ""

    def ends(self, may: float, must: float, why: str, said: float = math.inf) -> None:
        if must < self.must:
            self.why = why
        self.may, self.must = min(self.may, may), min(self.must, must)
        self.said = min(self.said, said)


@dataclass(slots=True)
class Model:
    """All that the client said."""

    tasks: dict[str, Line] = field(default_factory=dict[str, Any])
    grants: dict[str, Line] = field(default_factory=dict[str, Any])
    ends: list[Line] = field(default_factory=list[Any])
    contacts: dict[str, Line] = field(default_factory=dict[str, Any])
    tried: dict[str, Line] = field(default_factory=dict[str, Any])
    counts: Line = field(default_factory=dict[str, Any])

    @classmethod
    def of(cls, lines: Iterable[Line]) -> Model:
        model = cls()
        for line in lines:
            model.add(line)
        return model

    def add(self, line: Line) -> None:
        match line["is"]:
            case "task":
                self.tasks[line["id"]] = line
            case "contact":
                self.contacts[line["task"]] = line
            case "grant":
                self.grants[line["id"]] = line
            case "end":
                self.ends.append(line)
            case "tried":
                self.tried[line["user"]] = line
            case "count":
                self.counts = line
            case other:
                raise AssertionError(other)

    def credentials(self) -> list[Credential]:
        lives = {task_id: self._task_life(task_id) for task_id in self.tasks}
        return [self._credential(line, lives) for line in self.grants.values()]

    def _task_life(self, task_id: str) -> _Life:
        life = _Life()
        current: str | None = task_id
        while current is not None:  # it ends with any above it
            task = self.tasks[current]
            life.ends(task["expires"], task["expires"], "deadline")
            if task["heartbeat"]:
                last = self.contacts.get(current, task)
                heard = task["heartbeat"]
                # What else counts as a sign of life is the broker's business: not before it could
                # have been missed since the task was opened, not after it was since the last call.
                life.ends(task["asked"] + heard, last["answered"] + heard, "silent")
            for end in self.ends:
                if end["of"] == "all" or (end["of"] == "task" and end["id"] == current):
                    if end["of"] == "all" and end["asked"] < task["asked"]:
                        continue
                    _ended(life, end)
            current = task["parent"]
        return life

    def _credential(self, line: Line, lives: Mapping[str, _Life]) -> Credential:
        of_task = lives[line["task"]]
        life = _Life(of_task.may, of_task.must, of_task.said, of_task.why)
        life.ends(line["expires"] - _WHOLE_S, line["expires"], "expiry")
        for end in self.ends:
            if end["of"] == "grant" and end["id"] == line["id"]:
                _ended(life, end)
        return Credential(
            line["id"], line["task"], line["user"], life.may, life.must, life.said, life.why
        )


def _ended(life: _Life, end: Line) -> None:
    """Take a call that ends something: it may work once it is made, and has when it is answered."""
    answered = math.inf if end["answered"] is None else end["answered"]
    life.ends(end["asked"], answered, end["of"], answered if end["dead"] else math.inf)
