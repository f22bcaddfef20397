"""While the child runs: heartbeats, renewals, and a look whether its credentials still live."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Final

from broker.client import ApprovalRequired, BrokerClientError, Conflict, Denied, NotFound
from broker.exec.work import PASSING

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from broker.client import Client, IssuedGrant
    from broker.clock import Clock
    from broker.exec.work import Work

_RENEWED_AT: Final = 1 / 3
"""What is left of a credential's life when it is renewed."""
_OVER: Final = frozenset({"task_not_active", "invalid_authorization_details"})
"""What a heartbeat is answered when the task has ended: who runs it, and its agent."""


class Watch:
    """A thread that keeps a task alive, and says when it is dead nevertheless.

    ``say`` tells the person; ``dead`` is called once, with why, when the task or a credential was
    ended by somebody else. A credential whose time is up is only said: that was known before.
    """

    def __init__(
        self,
        broker: Client,
        work: Work,
        *,
        interval: float,
        say: Callable[[str], None],
        dead: Callable[[str], None],
        clock: Clock,
    ) -> None:
        """``interval`` is in seconds, a third of the window or less."""
        self._broker = broker
        self._work = work
        self._interval = interval
        self._say = say
        self._dead = dead
        self._clock = clock
        self._stopped = threading.Event()
        self._silent = False
        now = clock.now()
        self._lives = {g.grant_id: _Life(g, now) for g in work.grants}
        self._thread = threading.Thread(target=self._run, name="broker-heartbeat", daemon=True)

    def start(self) -> None:
        """Begin; no fork after this."""
        self._thread.start()

    def stop(self) -> None:
        """Say and do no more; an answer that is on its way isn't waited for."""
        self._stopped.set()

    def _run(self) -> None:
        while not self._stopped.wait(self._pause()):
            try:
                why = self._beat() or self._look()
            except BrokerClientError as error:
                self._tell_silence(error)
                continue
            self._silent = False
            if why and not self._stopped.is_set():
                self._dead(why)
                return

    def _ended(self, error: BrokerClientError) -> str:
        """Return why an error says that the task has ended, if it does."""
        if error.code not in _OVER and not isinstance(error, NotFound):
            return ""
        why = error.detail
        with contextlib.suppress(BrokerClientError):  # whoever acts under it can't any more
            task = self._broker.get_task(self._work.task.task_id)
            why = f"{task.state} ({task.reason})" if task.reason else task.state
        return f"its task was ended: {why}"

    def _pause(self) -> float:
        """Until the next heartbeat, or renewal if that is sooner; never at once."""
        now = self._clock.now()
        soonest = min((life.due - now for life in self._lives.values()), default=self._interval)
        return max(0.2, min(self._interval, soonest))

    def _beat(self) -> str:
        """Say that we live; return why that is in vain, if it is."""
        try:
            self._broker.heartbeat(self._work.task.task_id)
        except BrokerClientError as error:
            if why := self._ended(error):
                return why
            raise
        return ""

    def _look(self) -> str:
        """Renew what is to be renewed; return why a credential is dead, if one is."""
        for life in list(self._lives.values()):
            if life.due <= self._clock.now():
                self._renew(life)
            found = self._broker.get_grant(life.grant.grant_id)
            if found.state in {"active", "pending"}:
                life.renewed(found.expires_at, self._clock.now())
                continue
            del self._lives[life.grant.grant_id]
            if found.reason != "expired":
                why = (found.reason or found.state).replace("_", " ")
                return f"its credential of {life.grant.capability} was revoked: {why}"
            self._note(f"the credential of {life.grant.capability} has expired")
        return ""

    def _renew(self, life: _Life) -> None:
        capability = life.grant.capability
        life.due = self._clock.now() + self._interval  # should this fail
        try:
            self._broker.renew_grant(life.grant.grant_id)
        except PASSING:
            raise
        except Conflict as error:
            if error.code == "not_renewable":
                life.due = float("inf")
                self._note(
                    f"the credential of {capability} can't live longer than it does; "
                    "a running command can't be given another"
                )
        except (ApprovalRequired, Denied) as error:
            life.due = float("inf")
            self._note(f"the credential of {capability} isn't renewed: {error.detail}")

    def _tell_silence(self, error: BrokerClientError) -> None:
        if not self._silent:
            self._note(f"no heartbeat: {error.detail}")
        self._silent = True

    def _note(self, text: str) -> None:
        if not self._stopped.is_set():
            self._say(text)


class _Life:
    """When a credential is to be renewed; for ever later once it can't be."""

    def __init__(self, grant: IssuedGrant, now: float) -> None:
        self.grant = grant
        self.due = float("inf")
        """Epoch seconds."""
        self._end = 0.0
        self.renewed(grant.expires_at, now)

    def renewed(self, expires_at: datetime | None, now: float) -> None:
        """Note when it ends by now."""
        if expires_at is not None and expires_at.timestamp() != self._end:
            self._end = expires_at.timestamp()
            self.due = now + (self._end - now) * (1 - _RENEWED_AT)
