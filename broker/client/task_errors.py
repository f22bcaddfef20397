"""What can go wrong with a task that a program runs, below the tree of ``errors.py``.

TaskNotActive
└── TaskEnded               the task isn't active any more, or its heartbeat was missed
Conflict
├── GrantEnded              the credential has ended, and could not be renewed
└── ApprovalLapsed          nobody decided in time, or it was withdrawn: asking again asks anew
Denied
└── ToolDenied              the call may not be made; ``advice`` says what would change that
    └── ToolNeedsApproval   a human has to say yes to exactly this call: ``ApprovalRequired``
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from broker.client.errors import (
    ApprovalRequired,
    BrokerClientError,
    Conflict,
    Denied,
    NotFound,
)
from broker.client.reasons import TaskNotActive

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.client.decisions import ToolDecision

_OVER: Final = frozenset({"task_not_active", "invalid_authorization_details"})


class TaskEnded(TaskNotActive):
    """The task has ended, or is as good as ended: whatever was issued under it is dead or dies."""

    code = "task_not_active"
    title = "The task has ended"

    @property
    def task_id(self) -> str:
        """The task."""
        return str(self.extra.get("task_id") or "")

    @property
    def state(self) -> str:
        """The state it ended in, if the broker said so."""
        return str(self.extra.get("state") or "")

    @property
    def reason(self) -> str:
        """Why it ended, if the broker said so."""
        return str(self.extra.get("reason") or "")


class GrantEnded(Conflict):
    """The credential's time is up; the cause is why it doesn't live longer."""

    code = "grant_ended"
    title = "The credential has ended"


class ApprovalLapsed(Conflict):
    """The approval is over without a yes or a no; ``code`` is ``approval_expired`` or the like."""

    code = "approval_lapsed"
    title = "The approval is over"


class ToolDenied(Denied):
    """The decision point says no to a call, and it wasn't made.

    The text is what anybody may read, for a model too: why, and what would change it.
    """

    title = "The call is denied"

    def __init__(self, tool: str, context: Mapping[str, Any]) -> None:
        """``context`` is that of the decision."""
        told = cast("Mapping[str, Any]", context.get("reason_user") or {})
        why = next((str(text) for text in told.values()), self.title)
        self.tool = tool
        self.advice: tuple[str, ...] = tuple(map(str, context.get("advice") or ()))
        request = cast("Mapping[str, Any]", context.get("access_request") or {})
        super().__init__(
            " ".join((f"{tool}:", why, *self.advice)),
            code=str(context.get("reason") or self.code),
            retry_after=_whole(request.get("interval")),
            extra={
                **context,
                "approval_id": request.get("id"),
                "expires_at": request.get("expires_at"),
            },
        )

    @property
    def decision_id(self) -> str:
        """What the decision is called in the log."""
        return str(self.extra.get("decision_id") or "")


class ToolNeedsApproval(ToolDenied, ApprovalRequired):
    """Ask again with the same arguments once ``approval_id`` is approved, or pass ``wait``."""

    title = "The call needs approval"


def refusal(tool: str, decision: ToolDecision) -> BrokerClientError:
    """Return the error that a decision which isn't a yes stands for."""
    context = decision.context
    if context.get("reason") == TaskEnded.code:
        return TaskEnded(f"{tool}: the task has ended", extra=dict(context))
    if context.get("effect") == "needs_approval":
        return ToolNeedsApproval(tool, context)
    return ToolDenied(tool, context)


def says_over(error: BaseException) -> bool:
    """Say whether an answer about a task means that it has ended.

    Of an agent whose task has ended the token endpoint takes none; of a task that was forgotten
    nothing is known.
    """
    return isinstance(error, NotFound) or (
        isinstance(error, BrokerClientError) and error.code in _OVER
    )


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) else None
