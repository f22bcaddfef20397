"""The credentials that a task holds: asked for, kept alive, replaced, given back. No I/O.

1. Ask; wait for a human's yes where one is needed, and ask again in the same words
2. After two thirds of its life renew it; where that isn't possible, rotate it if that was asked
3. What stands in the way for a while is tried again; what is final shows when its time is up
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Final

from broker.client import calls, grant_calls
from broker.client.approval_waiting import wait_for_approval
from broker.client.conventions import variables
from broker.client.errors import (
    ApprovalDenied,
    ApprovalRequired,
    BrokerClientError,
    Conflict,
    ConnectionFailed,
    InvalidRequest,
    RateLimited,
    Unavailable,
)
from broker.client.scripts import Act
from broker.client.task_errors import ApprovalLapsed, GrantEnded
from broker.client.work import LOG
from broker.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime
    from typing import TypeVar

    from broker.client.approvals import Approval
    from broker.client.building import Duration
    from broker.client.credential import Credential
    from broker.client.grant_calls import Delivery
    from broker.client.messages import Call
    from broker.client.models import Grant, IssuedGrant, RenewedGrant
    from broker.client.scripts import Script
    from broker.client.work import Work

    T = TypeVar("T")
    OnWait = Callable[[Approval], object]
    OnChange = Callable[["HeldGrant"], object]

_SPENT: Final = 2 / 3
_LEAST_S: Final = 1.0
"""Two attempts are never nearer to each other, and an end no further off than this is no gain."""
_IDLE_S: Final = 3600.0
_PASSING: Final = (ApprovalRequired, ConnectionFailed, RateLimited, Unavailable)


class HeldGrant:
    """A credential that a task holds. What it gives is the current one: it may be rotated.

    ``dsn()`` and ``env()`` have it as programs take it, ``credential`` has each member. Nothing of
    it is shown by accident.
    """

    def __init__(
        self,
        work: Work,
        issued: IssuedGrant,
        *,
        ttl: Duration | None = None,
        delivery: Delivery | None = None,
        wrap_ttl: Duration | None = None,
        rotate: Duration | bool = False,
        on_change: OnChange | None = None,
    ) -> None:
        """``rotate`` is the overlap, or True for the usual. Another is delivered as this was."""
        self._work = work
        self._now = issued, issued.expires_at
        self._stopped: BrokerClientError | None = None
        self.ttl = ttl
        self.delivery: Delivery | None = delivery
        self.wrap_ttl = wrap_ttl
        self.rotate = rotate
        self.on_change = on_change

    @property
    def issued(self) -> IssuedGrant:
        """The answer that brought the current credential."""
        return self._now[0]

    @property
    def grant_id(self) -> str:
        """The current grant's id; after a rotation it is another."""
        return self.issued.grant_id

    @property
    def capability(self) -> str:
        """What was granted."""
        return self.issued.capability

    @property
    def expires_at(self) -> datetime | None:
        """When it ends, as things are."""
        return self._now[1]

    @property
    def credential(self) -> Credential:
        """The current credential.

        Raises:
            TaskEnded: its task has ended, and it with it.
            GrantEnded: its time is up.
        """
        self._work.alive()
        issued, expires_at = self._now
        left = self._work.left(expires_at)
        if left is not None and left <= 0:
            why = f": {self._stopped.detail}" if self._stopped else ""
            raise GrantEnded(f"{issued.grant_id} ended at {expires_at}{why}") from self._stopped
        return issued.credential

    def dsn(self) -> Secret:
        """Return the connection string, with the password in it.

        Raises:
            InvalidRequest: it has none. It raises what ``credential`` does as well.
        """
        credential = self.credential
        if credential.dsn is None:
            raise InvalidRequest(
                f"{self.capability} has no connection string: give the capability a `dsn` in the "
                f"catalogue, or use its members: {', '.join(credential.names)}",
                code="no_dsn",
            )
        return credential.dsn

    def env(self) -> dict[str, str]:
        """Return the environment variables by which programs take it, revealed, for a child.

        Raises:
            InvalidRequest: there is no convention for it. Also raises what ``credential`` does.
        """
        found = variables(self.credential)
        return {k: v.reveal() if isinstance(v, Secret) else v for k, v in found.items()}

    def __repr__(self) -> str:
        issued, expires_at = self._now
        return f"HeldGrant({issued.grant_id!r}, {issued.capability!r}, expires_at={expires_at})"

    def take(self, issued: IssuedGrant) -> None:
        """Hold another credential in its place."""
        self._now, self._stopped = (issued, issued.expires_at), None

    def prolong(self, grant: Grant) -> float:
        """Note that it lives longer; return by how many seconds."""
        issued, before = self._now
        self._now = issued, grant.expires_at
        return (grant.expires_at - before).total_seconds() if before and grant.expires_at else 0.0

    def stop(self, why: BrokerClientError) -> None:
        """Note why it will not live longer."""
        self._stopped = why
        LOG.warning("%s will end at %s: %s", self.grant_id, self.expires_at, why.code)


class Renewals:
    """Keeps grants alive for as long as their task is."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._due: dict[HeldGrant, float] = {}
        self._lock = threading.Lock()

    def add(self, held: HeldGrant, share: float = _SPENT) -> None:
        """Renew it once this share of the rest of its life is over, if there is a use in that."""
        left, task_left = self._work.left(held.expires_at), self._left_of_task()
        with self._lock:
            if left is None or (task_left is not None and left >= task_left - _LEAST_S):
                self._due.pop(held, None)  # it ends with its task
            else:
                self._due[held] = self._work.clock.monotonic() + max(left * share, _LEAST_S)
        self._work.changed()

    @property
    def any(self) -> bool:
        """Whether there is something to keep alive."""
        return bool(self._due)

    def drop(self, held: HeldGrant) -> None:
        """Let it end."""
        with self._lock:
            self._due.pop(held, None)

    def _left_of_task(self) -> float | None:
        return self._work.left(self._work.opened.expires_at)

    def due_in(self) -> float | None:
        """Return in how many seconds there is something to do; None once there is nothing more."""
        if self._work.over:
            return None
        with self._lock:
            first = min(self._due.values(), default=None)
        return _IDLE_S if first is None else max(first - self._work.clock.monotonic(), 0.0)

    def act(self) -> Script[None]:
        """Renew what is due."""
        now = self._work.clock.monotonic()
        with self._lock:
            due = [held for held, when in self._due.items() if when <= now]
        for held in due:
            try:
                yield from self._prolong(held)
            except _PASSING as error:
                LOG.info("%s couldn't be renewed yet: %s", held.grant_id, error.code)
                self.add(held, 1 / 2)
                if (self._work.left(held.expires_at) or 0.0) <= 0:
                    self._give_up(held, error)
            except BrokerClientError as error:
                self._give_up(held, error)
            except Exception as error:  # noqa: BLE001  the next one is tried
                LOG.warning("renewing %s failed: %s", held.grant_id, type(error).__qualname__)
                self.add(held, 1 / 2)

    def _give_up(self, held: HeldGrant, error: BrokerClientError) -> None:
        self.drop(held)
        if not self._work.over:
            held.stop(error)

    def _prolong(self, held: HeldGrant) -> Script[None]:
        try:
            grant: RenewedGrant = yield grant_calls.renew_grant(held.grant_id, ttl=held.ttl)
        except Conflict as error:
            if error.code != "not_renewable" or not held.rotate:
                raise
            yield from replaced(held)
        else:
            if held.prolong(grant) < _LEAST_S and held.rotate:
                yield from replaced(held)
        self.add(held)


def replaced(held: HeldGrant, overlap: Duration | None = None) -> Script[None]:
    """Put another credential in the place of one that is held, new before old, and say so."""
    if overlap is None and not isinstance(held.rotate, bool):
        overlap = held.rotate
    issued = yield from _delivered(
        lambda: grant_calls.rotate_grant(
            held.grant_id,
            overlap=overlap,
            ttl=held.ttl,
            delivery=held.delivery,
            wrap_ttl=held.wrap_ttl,
        )
    )
    held.take(issued)
    if held.on_change is None:
        return
    try:
        yield Act(held.on_change, (held,), brief=True)
    except Exception as error:  # noqa: BLE001  the program's own; the credential is good
        LOG.warning("on_change of %s failed: %s", held.grant_id, type(error).__qualname__)


def asked(
    work: Work,
    capability: str,
    *,
    ttl: Duration | None = None,
    parameters: Mapping[str, Any] | None = None,
    intent: str | None = None,
    delivery: Delivery | None = None,
    wrap_ttl: Duration | None = None,
) -> Script[IssuedGrant]:
    """Ask for a credential."""
    return _delivered(
        lambda: grant_calls.request_grant(
            work.task_id,
            capability,
            ttl=ttl,
            parameters=parameters,
            intent=intent,
            delivery=delivery,
            wrap_ttl=wrap_ttl,
        )
    )


def _delivered(call: Callable[[], Call[IssuedGrant]]) -> Script[IssuedGrant]:
    """Have a credential issued; one whose answer was lost is revoked, and asked for anew."""
    try:
        issued: IssuedGrant = yield call()
    except Conflict as error:
        lost = error.extra.get("grant_id")
        if error.code != "credential_already_delivered" or not isinstance(lost, str):
            raise
        yield calls.revoke_grant(lost)
        issued = yield call()
    return issued


def consented(
    ask: Callable[[], Script[T]], wait: Duration | None, on_wait: OnWait | None
) -> Script[T]:
    """Ask; with ``wait`` again once humans have decided.

    Raises:
        ApprovalRequired: nobody has, in that time.
        ApprovalDenied: somebody said no.
        ApprovalLapsed: it ended in another way; to ask again would ask them again.
    """
    try:
        return (yield from ask())
    except ApprovalRequired as error:
        needed = error
    if wait is None or not needed.approval_id:
        raise needed
    approval: Approval = yield wait_for_approval(needed.approval_id, wait, on_pending=on_wait)
    about = {"approval_id": approval.approval_id, "reason": approval.reason}
    if approval.state == "pending":
        raise needed
    if approval.state == "denied":
        raise ApprovalDenied(f"Approval {approval.approval_id} was denied", extra=about)
    if approval.state != "approved":
        raise ApprovalLapsed(
            f"Approval {approval.approval_id} is {approval.state}: nothing was done",
            code=f"approval_{approval.state}",
            extra=about,
        )
    return (yield from ask())
