"""The errors in which the pipeline tells a caller that nothing was issued."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from broker.clock import to_rfc3339
from broker.errors import (
    AccessDenied,
    AlreadyDelivered,
    ApprovalDenied,
    ApprovalRequired,
    BackendUnavailable,
    BindingRequired,
    BrokerError,
    IdempotencyConflict,
    InvalidRequest,
    ParametersRefused,
    QuotaExceeded,
    RequestInProgress,
    TaskNotActive,
    Unavailable,
)
from broker.grants import GrantState
from broker.logs import get_logger
from broker.policy import Effect

if TYPE_CHECKING:
    from broker.approvals import Approval
    from broker.grants import Grant
    from broker.policy import Decision
    from broker.rulings import Ruling

log = get_logger("pipeline")


_REFUSED: Final = (
    "Policy refused this request: there is no such capability, or this task or its agent may not "
    "have it. An operator can look the decision up in the audit log."
)
_NEEDS_APPROVAL: Final = (
    "A human has to approve exactly this request. Ask again, in the same words, once that is done."
)
POLL_S: Final = 5
"""How long to wait before asking again whether an approval is decided."""
LIMITED: Final = {
    "data_class_outside_limits": "The task is limited to other classes of data.",
    "effect_outside_limits": "The task is limited to other effects.",
    "parameter_outside_limits": (
        "The task is limited to other values of a parameter, or it isn't given."
    ),
    "budget_exhausted": "The budget that the task draws on has too little left.",
}
"""What a task's own limits refuse; whoever runs it can read them."""
_SAID: Final[dict[str, tuple[type[BrokerError], str]]] = {
    "task_over": (TaskNotActive, "The task is not active: its time is up."),
    "backend_backlog": (
        BackendUnavailable,
        (
            "Too many credentials of this capability, or of its backend as a whole, could not be "
            "revoked yet, so nothing new is issued until they are."
        ),
    ),
    "binding_required": (
        BindingRequired,
        (
            "This capability is for tokens that are bound to a key: exchange your identity again, "
            "with a DPoP proof (RFC 9449) or over mutual TLS (RFC 8705)."
        ),
    ),
    "is_a_tool": (
        InvalidRequest,
        "This is a tool: nothing is issued for it. Ask POST /access/v1/evaluation before a call.",
    ),
    "denied_by_policy": (
        AccessDenied,
        "A policy forbids this as it stands. An operator can have the decision explained.",
    ),
    "approval_denied": (
        ApprovalDenied,
        "An approver said no to exactly this request. It can be asked for again later.",
    ),
    "policy_error": (
        AccessDenied,
        "The policies can't be evaluated, so nothing is allowed. An operator has to look.",
    ),
}
"""Reasons that whoever asked may know, and how they are told."""


def refusal(ruling: Ruling) -> BrokerError:
    """Say what policy refused, and nothing that only insiders should know."""
    decision, about = ruling.decision, advised(ruling.decision)
    about["decision_id"] = ruling.id
    if ruling.approval is not None:
        about["approval_id"] = ruling.approval.id
    if decision.effect is Effect.NEEDS_APPROVAL:
        if ruling.approval is not None:
            about |= waiting_for(ruling.approval)
        return ApprovalRequired(_NEEDS_APPROVAL, retry_after=POLL_S, **about)
    kind, detail = _SAID.get(decision.reasons[0], (AccessDenied, _REFUSED))
    if (limited := decision.reasons[0]) in LIMITED:
        kind = QuotaExceeded if limited == "budget_exhausted" else AccessDenied
        return kind(LIMITED[limited], reason=limited, **about)
    wait = 30 if kind is BackendUnavailable else None
    return kind(detail, retry_after=wait, **about)


def waiting_for(approval: Approval) -> dict[str, Any]:
    """Return what is told of an approval that a request waits for."""
    return {
        "approval_id": approval.id,
        "state": str(approval.state),
        "task_id": approval.task_id,
        "capability": approval.capability,
        "expires_at": to_rfc3339(approval.expires_at),
    }


def advised(decision: Decision) -> dict[str, Any]:
    """Return what policies say in public of how to get another answer, as members of a problem."""
    return {"advice": list(decision.advice)} if decision.advice else {}


_TOLD: Final = frozenset(
    (
        "more_than_token",
        "more_than_parent",
        "chain_too_deep",
        "chain_has_a_cycle",
        "delegate_not_named",
    )
)
"""Reasons that say nothing the caller didn't know."""


def not_opened(ruling: Ruling) -> BrokerError:
    """Say that a task was not opened."""
    decision = ruling.decision
    reason = decision.reasons[0]
    if reason in _TOLD:
        words = ": ".join((reason.replace("_", " "), *decision.notes))
        return AccessDenied(f"Policy refused the task: {words}.", reason=reason)
    if decision.effect is Effect.NEEDS_APPROVAL:
        msg = "Policy wants a human's approval for this, and none can be asked for to open a task."
        return ApprovalRequired(msg, decision_id=ruling.id, **advised(decision))
    msg = (
        "Policy refused the task: there is no such agent or capability, or the agent may not have "
        "one of these capabilities. An operator can look the decision up in the audit log."
    )
    return AccessDenied(msg, decision_id=ruling.id, **advised(decision))


def replayed(grant: Grant | None) -> BrokerError:
    """Answer a repeated request: the first one has made this grant, or one that is forgotten."""
    if grant is None:
        msg = "This Idempotency-Key was used before. Use a new key for a new request."
        return IdempotencyConflict(msg)
    if grant.state is GrantState.PENDING:
        return RequestInProgress(
            "The first request with this key is still going on.", retry_after=1
        )
    msg = (
        f"This Idempotency-Key made grant {grant.id}, now {grant.state}. Its credential was "
        "delivered once and is stored nowhere: if the answer was lost, revoke that grant and ask "
        "again with a new key."
    )
    return AlreadyDelivered(msg, grant_id=grant.id, state=str(grant.state))


def not_asked(backend: str, shut_for: float) -> BrokerError:
    """Say that a backend isn't even asked, since it gives no answers, for so many seconds."""
    return BackendUnavailable(
        f"Backend {backend!r} doesn't answer at the moment; nothing was asked of it. Try again.",
        retry_after=math.ceil(shut_for),
    )


def cannot_issue(backend: str, error: BrokerError) -> BrokerError:
    """Say that a backend can't issue now; why is for the log."""
    if not isinstance(error, Unavailable):
        return error
    if isinstance(error, ParametersRefused):
        return InvalidRequest(f"{error.detail} Ask with others.", field="parameters")
    log.warning("cannot issue", backend=backend, error=error.detail)
    return BackendUnavailable(
        f"Backend {backend!r} can't issue right now; nothing was delivered. Try again shortly.",
        retry_after=error.retry_after or 5,
    )
