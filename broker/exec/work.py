"""The task that a command runs as, and the credentials it is given: begun, and ended for sure."""

from __future__ import annotations

import threading
import uuid
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker.client import BrokerClientError, Conflict, ConnectionFailed, RateLimited, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from broker.client import Client, Grant, IssuedGrant, Task
    from broker.client.calls import Outcome
    from broker.clock import Clock

PASSING: Final = (ConnectionFailed, RateLimited, Unavailable)
"""Errors that the next attempt may not meet any more."""

_DEAD: Final = frozenset({"revoked", "failed"})
_SOONEST_S: Final = 0.1
_LATEST_S: Final = 2.0
_SLOWER: Final = 1.5


@dataclass(frozen=True, slots=True)
class Living:
    """A grant that isn't confirmed dead: its state, or why not even that could be seen.

    ``revocable`` ones ought to be; what is ``ttl_only`` or was there before lives on ``until`` then
    or for ever, as its capability says.
    """

    grant_id: str
    capability: str
    state: str
    revocable: bool = True
    until: datetime | None = None

    @property
    def dying(self) -> bool:
        """Whether waiting may help."""
        return self.revocable and self.state != "abandoned"


class Work:
    """One task, and the grants of ours under it.

    A task that was there before goes on when we end: only its grants from here are revoked.
    """

    def __init__(self, broker: Client, task: Task, *, own: bool, clock: Clock) -> None:
        """``own``: we opened the task, and end it."""
        self._broker = broker
        self.task = task
        self.own = own
        self._clock = clock
        self.grants: list[IssuedGrant] = []
        self._asking: Callable[[], IssuedGrant] | None = None
        self._abandoned: dict[str, str] = {}

    def request(
        self,
        capability: str,
        intent: str,
        parameters: Mapping[str, str],
        attempt: Callable[[Callable[[Client], IssuedGrant]], IssuedGrant],
    ) -> IssuedGrant:
        """Ask for a credential; ``attempt`` makes the call, and again when a human has said yes."""
        key = str(uuid.uuid4())

        def call(broker: Client) -> IssuedGrant:
            return broker.request_grant(
                self.task.task_id,
                capability,
                intent=intent,
                parameters=parameters or None,
                idempotency_key=key,
            )

        self._asking = lambda: call(self._broker)
        issued = attempt(call)
        self.grants.append(issued)
        self._asking = None
        return issued

    def end(
        self, outcome: Outcome, summary: str, limit: float, waiting: Callable[[int], None]
    ) -> Sequence[Living]:
        """End it, and look until all of it is confirmed dead, or ``limit`` seconds are over.

        ``waiting`` is told how many aren't yet, whenever that was looked at. Returns those that
        aren't: none, if all went well.
        """
        until = self._clock.monotonic() + limit
        order = self._complete if self.own else self._revoke
        pause = _SOONEST_S
        ordered = False
        while True:
            try:
                ordered = ordered or order(outcome, summary)
                living = self._living()
            except PASSING as error:
                living = self._unseen(error)
                pause = max(pause, error.retry_after or 0)
            except BrokerClientError as error:
                return self._unseen(error)
            left = until - self._clock.monotonic()
            dying = sum(one.dying for one in living)
            if not dying or left <= 0:
                return living
            waiting(dying)
            threading.Event().wait(min(pause, left))
            pause = min(pause * _SLOWER, _LATEST_S)

    def _complete(self, outcome: Outcome, summary: str) -> bool:
        try:
            self._broker.complete(self.task.task_id, outcome, summary=summary)
        except Conflict:  # it has been ended by somebody else, and its grants with it
            return True
        return True

    def _revoke(self, _: Outcome, __: str) -> bool:
        """Revoke the grants of ours, and what we may have been given without learning of it."""
        if self._asking is not None:
            try:
                self.grants.append(self._asking())
            except Conflict as error:
                if (lost := error.extra.get("grant_id")) is not None:
                    self._abandoned[str(lost)] = "?"
            except PASSING:
                raise
            except BrokerClientError:
                pass  # it was refused
            self._asking = None
        for grant_id in self._ours():
            self._broker.revoke_grant(grant_id)
        return True

    def _ours(self) -> dict[str, str]:
        return {grant.grant_id: grant.capability for grant in self.grants} | self._abandoned

    def _living(self) -> list[Living]:
        found: list[Grant]
        if self.own:
            # All that there are: the answer to a request may have been lost.
            found = list(self._broker.iter_grants(task_id=self.task.task_id))
        else:
            found = [self._broker.get_grant(grant_id) for grant_id in self._ours()]
        return [_living(grant) for grant in found if grant.state not in _DEAD]

    def _unseen(self, error: BrokerClientError) -> list[Living]:
        rows = self._ours() or ({"": "?"} if self._asking else {})
        return [Living(grant_id, name, error.detail) for grant_id, name in rows.items()]


def _living(grant: Grant) -> Living:
    return Living(
        grant.grant_id,
        grant.capability,
        grant.state,
        revocable=grant.revocability in {None, "instant"},
        until=grant.ends_by_itself_at or grant.expires_at,
    )
