"""Waiting for a human yes, and then doing what it was for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, TypeVar

from cyclopts import Parameter

from broker.cli import output
from broker.cli.connection import Connection, duration
from broker.cli.text import ago
from broker.clock import SystemClock

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


def approved(connection: Connection, task: str, call: Callable[[Client], T], wait: str | None) -> T:
    """Make a call; with ``wait`` again once a human has approved it.

    Raises:
        ApprovalRequired: nobody has, in that time.
    """
    from broker.client import ApprovalRequired

    try:
        return connection.ask(task, call)
    except ApprovalRequired as error:
        if wait is None or not error.approval_id:
            raise
        asked = error.approval_id
    output.note(f"waiting for approval {asked}: broker approval approve {asked} --reason …")
    connection.ask(task, lambda broker: broker.wait_for_approval(asked, wait, on_pending=_still))
    return connection.ask(task, call)


def _still(approval: Approval) -> None:
    votes = ", ".join(f"{n.have} of {n.count} {n.group or 'operators'}" for n in approval.needs)
    ends = ago(approval.expires_at, SystemClock().now())
    output.note(f"still waiting: {votes} said yes; it ends {ends}")
