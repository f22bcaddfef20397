"""Waiting for a human yes, and then doing what it was for."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, NamedTuple, TypeVar

from cyclopts import Parameter

from broker.cli import output
from broker.cli.approval_view import deciders, outcome
from broker.cli.connection import Connection, duration
from broker.cli.refusals import CommandFailed
from broker.cli.text import ago, span
from broker.clock import SystemClock
from broker.durations import parse_duration

if TYPE_CHECKING:
    from broker.client import Approval, Client

T = TypeVar("T")
Wait = Annotated[
    str | None,
    Parameter(
        help="Wait so long for a human's approval, if it takes one.",
        validator=duration,
        metavar="TIME",
    ),
]


class Meanwhile(NamedTuple):
    """What is done while somebody waits: ``every`` is in seconds."""

    every: float
    do: Callable[[Client], object]


def approved(connection: Connection, task: str, call: Callable[[Client], T], wait: str | None) -> T:
    """Make a call; with ``wait`` again once a human has approved it.

    Raises:
        ApprovalRequired: nobody has, in that time.
        ApprovalDenied: somebody said no.
        CommandFailed: it ended in another way; to ask again would ask them again.
    """
    return connection.ask(task, lambda broker: attempt(broker, call, wait, quiet=connection.json))


def attempt(
    broker: Client,
    call: Callable[[Client], T],
    wait: str | None,
    *,
    quiet: bool,
    meanwhile: Meanwhile | None = None,
) -> T:
    """As ``approved``, with a client at hand, and something to do every so often meanwhile."""
    from broker.client import ApprovalRequired

    try:
        return call(broker)
    except ApprovalRequired as error:
        if wait is None or not error.approval_id:
            raise
        asked = error.approval_id
    progress = None if quiet else _Progress(wait)
    if progress is not None:
        output.note(f"waiting for approval {asked}; interrupted, it stays asked for")
        progress(broker.get_approval(asked))
    found = _decided(broker, asked, wait, progress, meanwhile)
    if found.state in {"expired", "cancelled", "used"}:
        raise CommandFailed(
            f"Approval {asked} is {outcome(found)}: nothing was done",
            code=f"approval_{found.state}",
            hint="" if _is_over(found) else "give the same command to ask anew",
        )
    # Denied, or still pending: the broker says so, and what to do about it.
    return call(broker)


def _decided(
    broker: Client, asked: str, wait: str, progress: _Progress | None, meanwhile: Meanwhile | None
) -> Approval:
    """Wait until it isn't pending, or time is up."""
    if meanwhile is None:
        return broker.wait_for_approval(asked, wait, on_pending=progress)
    left = parse_duration(wait) / 1000
    until = SystemClock().monotonic() + left
    while True:
        at_a_time = timedelta(seconds=max(min(left, meanwhile.every), 0.1))
        found = broker.wait_for_approval(asked, at_a_time, on_pending=progress)
        left = until - SystemClock().monotonic()
        if found.state != "pending" or left <= 0:
            return found
        meanwhile.do(broker)


def _is_over(approval: Approval) -> bool:
    """Whether its task has ended, so that there is nothing to ask for any more."""
    return (approval.reason or "").startswith("task_")


class _Progress:
    """Says who has to decide, and how long is left, whenever that isn't as it was."""

    def __init__(self, wait: str) -> None:
        self._until = SystemClock().now() + parse_duration(wait) / 1000
        self._said = ""

    def __call__(self, approval: Approval) -> None:
        words = deciders(approval)
        if words == self._said or approval.state != "pending":
            return
        self._said = words
        now = SystemClock().now()
        left = span(max(round(self._until - now), 0))
        output.note(
            f"it needs {words}: `broker approval approve {approval.approval_id}`; "
            f"it ends {ago(approval.expires_at, now)}, this waits {left}"
        )
