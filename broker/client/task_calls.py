"""What can be done with a task that a program runs, as scripts; see ``running.py``.

``RunningTask`` and ``AsyncRunningTask`` turn each function that takes a handle first into a method
of the same name and arguments.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from broker.client import calls, grant_calls, openings
from broker.client.holding import HeldGrant, Renewals, asked, consented, replaced

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.client.building import Duration
    from broker.client.calls import Outcome
    from broker.client.grant_calls import Delivery
    from broker.client.holding import OnChange, OnWait
    from broker.client.models import Grant, IssuedGrant, Task, TaskEnd
    from broker.client.openings import Opening
    from broker.client.scripts import Script
    from broker.client.work import Work
    from broker.secret import Secret


class Handle:
    """What is known of a running task, without asking."""

    def __init__(self, work: Work) -> None:
        self._work = work
        self._renewals = Renewals(work)

    @property
    def work(self) -> Work:
        """The rules of it."""
        return self._work

    @property
    def renewals(self) -> Renewals:
        """What is kept alive under it."""
        return self._renewals

    @property
    def task_id(self) -> str:
        """The task's id, which is no secret: hand it to the agent as ``BROKER_TASK_ID``."""
        return self._work.task_id

    @property
    def info(self) -> Task:
        """The task as the broker last showed it: its deadline, and in ``notes`` what it changed."""
        return self._work.opened

    @property
    def end(self) -> TaskEnd | None:
        """How it ended here: ``end.grants.revoking`` credentials aren't confirmed dead yet."""
        return self._work.end

    def check(self) -> None:
        """Make sure that the task may be worked on, by what is known here.

        Raises:
            TaskEnded: it has ended, or no heartbeat reached the broker in time.
        """
        self._work.alive()

    def __repr__(self) -> str:
        shown = self._work.task
        return f"{type(self).__name__}({shown.task_id if shown else 'not open'!r})"


def child(  # noqa: PLR0913  the members of the request
    handle: Handle,
    agent: str,
    purpose: str,
    capabilities: Sequence[str],
    *,
    ttl: Duration | None = None,
    heartbeat: Duration | None = "1m",
    context: Mapping[str, Any] | None = None,
    limits: Mapping[str, Any] | None = None,
    confirm_within: Duration = "10s",
) -> Opening:
    """Open a task below this one for as long as a block lasts; as the client's ``task``.

    It has at most what this one has, and ends with it.
    """
    handle.work.alive()
    return openings.task(
        agent,
        purpose,
        capabilities,
        ttl=ttl,
        heartbeat=heartbeat,
        context=context,
        limits=limits,
        parent_task_id=handle.task_id,
        confirm_within=confirm_within,
    )


def grant(  # noqa: PLR0913  the members of the request
    handle: Handle,
    capability: str,
    *,
    ttl: Duration | None = None,
    parameters: Mapping[str, Any] | None = None,
    intent: str | None = None,
    delivery: Delivery | None = None,
    wrap_ttl: Duration | None = None,
    wait: Duration | None = None,
    on_wait: OnWait | None = None,
    renew: bool = True,
    rotate: Duration | bool = False,
    on_change: OnChange | None = None,
) -> Script[HeldGrant]:
    """Get a credential under the task.

    Where a human has to say yes it raises ``ApprovalRequired``; with ``wait`` it waits so long for
    that, calls ``on_wait`` with the approval every half a minute or so, and raises
    ``ApprovalDenied`` after a no. While the task runs the credential is renewed in the background,
    as long as it may be. With ``rotate`` another then takes its place, and ``on_change`` is called
    with the handle: open new connections with it. The old one lives on for the overlap, which
    ``rotate`` may say ("1m").
    """
    ask = partial(
        asked,
        handle.work,
        capability,
        ttl=ttl,
        parameters=parameters,
        intent=intent,
        delivery=delivery,
        wrap_ttl=wrap_ttl,
    )
    issued: IssuedGrant = yield from handle.work.guarded(consented(ask, wait, on_wait))
    held = HeldGrant(
        handle.work,
        issued,
        ttl=ttl,
        delivery=delivery,
        wrap_ttl=wrap_ttl,
        rotate=rotate,
        on_change=on_change,
    )
    if renew or rotate:
        handle.renewals.add(held)
    return held


def unwrap(
    handle: Handle, grant_id: str, token: Secret | str, *, renew: bool = True
) -> Script[HeldGrant]:
    """Open what was delivered wrapped, as the task's agent; ``Conflict`` if somebody else did."""

    def ask() -> Script[IssuedGrant]:
        return (yield grant_calls.unwrap_grant(grant_id, token))

    issued: IssuedGrant = yield from handle.work.guarded(ask())
    held = HeldGrant(handle.work, issued)
    if renew:
        handle.renewals.add(held)
    return held


def rotate(handle: Handle, held: HeldGrant, *, overlap: Duration | None = None) -> Script[None]:
    """Replace a credential now; the old one lives on for ``overlap``."""
    yield from handle.work.guarded(replaced(held, overlap))


def release(handle: Handle, held: HeldGrant) -> Script[Grant]:
    """Give a credential back before the task ends: it is revoked."""
    handle.renewals.drop(held)

    def ask() -> Script[Grant]:
        return (yield calls.revoke_grant(held.grant_id))

    return (yield from handle.work.guarded(ask()))


def complete(
    handle: Handle, outcome: Outcome = "completed", *, summary: str | None = None
) -> Script[TaskEnd]:
    """End the task now, and wait for the death of its credentials; the block does no more then.

    Raises ``TaskEnded`` if it had ended otherwise.
    """
    handle.work.alive()
    return (yield from handle.work.finish(outcome, summary))
