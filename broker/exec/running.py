"""One command as one task, from the first request to the last look."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from broker.exec.child import Child, Ended
from broker.exec.files import SecretFiles
from broker.exec.interruption import Interrupted
from broker.exec.members import Members
from broker.exec.watching import Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from broker.client import Client, IssuedGrant
    from broker.client.calls import Outcome
    from broker.clock import Clock
    from broker.exec.handover import Handover
    from broker.exec.work import Living, Work

REVOKED: Final = 123
UNCONFIRMED: Final = 124
REFUSED: Final = 125
NOT_EXECUTABLE: Final = 126
NOT_FOUND: Final = 127


class _NotStarted(Exception):
    """The command could not be started, although it was there when we looked."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.why = error.strerror
        self.code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What is to be run, with what. Times are in seconds, ``environ`` is without credentials."""

    command: Sequence[str]
    environ: Mapping[str, str] = field(repr=False)
    folder: str | None
    capabilities: Sequence[str]
    parameters: Mapping[str, Mapping[str, str]]
    intent: str
    handover: Handover
    interval: float
    terminates: bool
    grace: float
    limit: float


class Run:
    """Runs one order under one work. ``say`` tells the person, ``show`` only one who is there."""

    def __init__(
        self,
        order: Order,
        work: Work,
        broker: Client,
        *,
        say: Callable[[str], None],
        show: Callable[[str], None],
        clock: Clock,
    ) -> None:
        """Nothing is asked for yet."""
        self._order = order
        self._work = work
        self._broker = broker
        self._say = say
        self._show = show
        self._clock = clock
        self._revoked = False

    def run(self, attempt: Callable[[Callable[[Client], IssuedGrant]], IssuedGrant]) -> int:
        """Return the exit code.

        1. Ask for the credentials, each with ``attempt``.
        2. Make the environment of them.
        3. Start the command, and keep the task alive until it has ended.
        4. End the task, and look until all of it is dead: whatever came before.
        """
        outcome: Outcome = "failed"
        summary = "the command was not started"
        code = REFUSED
        try:
            with SecretFiles() as files:
                given = self._asked(attempt)
                environ = {**self._order.environ, **self._order.handover.filled(given, files)}
                ended = self._ran(environ)
            outcome, summary, code = _outcome(ended), ended.words(), ended.exit_code
            code = REVOKED if self._revoked else code
        except Interrupted as told:
            outcome, summary, code = "cancelled", "interrupted", told.exit_code
        except _NotStarted as error:
            self._say(f"{self._order.command[0]}: {error.why}")
            code = error.code
        finally:
            dead = self._end(outcome, summary)
        if not dead:
            self._say(f"the command's own end: {summary}")
        return code if dead else UNCONFIRMED

    def _asked(
        self, attempt: Callable[[Callable[[Client], IssuedGrant]], IssuedGrant]
    ) -> dict[str, Members]:
        given: dict[str, Members] = {}
        for capability in self._order.capabilities:
            parameters = self._order.parameters.get(capability, {})
            issued = self._work.request(capability, self._order.intent, parameters, attempt)
            for text in issued.notes:
                self._say(f"note: {text}")
            given[capability] = Members(issued, task_id=self._work.task.task_id)
        return given

    def _ran(self, environ: Mapping[str, str]) -> Ended:
        try:
            child = Child(self._order.command, environ, self._order.folder)
        except OSError as error:
            raise _NotStarted(error) from None

        def dead(why: str) -> None:
            self._revoked = self._order.terminates
            if self._order.terminates:
                self._say(f"{why}; the command is told to end")
                child.end(self._order.grace)
            else:
                self._say(f"{why}; the command goes on without")

        watch = Watch(
            self._broker,
            self._work,
            interval=self._order.interval,
            say=self._say,
            dead=dead,
            clock=self._clock,
        )
        watch.start()
        try:
            return child.wait()
        finally:
            watch.stop()

    def _end(self, outcome: Outcome, summary: str) -> bool:
        """End the task; return whether all that can be revoked is confirmed dead."""
        said: set[int] = set()

        def waiting(count: int) -> None:
            if count not in said:
                said.add(count)
                self._show(f"waiting until {count} more of its credentials are confirmed dead")

        try:
            living = self._work.end(outcome, summary, self._order.limit, waiting)
        except Interrupted:
            self._say(f"interrupted before its credentials were confirmed dead: {self._look()}")
            return False
        for one in living:
            self._say(self._words(one))
        return not any(one.revocable for one in living)

    def _words(self, one: Living) -> str:
        whose = f"the credential of {one.capability}" if one.grant_id else "a credential"
        if not one.revocable:
            until = f"until {one.until:%Y-%m-%d %H:%M:%SZ}" if one.until else "on"
            return f"{whose} can't be revoked: it may live {until}"
        return f"{whose} is not confirmed dead: {one.state}; follow it with `{self._look()}`"

    def _look(self) -> str:
        return f"broker grant list --task {self._work.task.task_id}"


def _outcome(ended: Ended) -> Outcome:
    if ended.exit_code == 0:
        return "completed"
    return "cancelled" if ended.cancelled else "failed"
