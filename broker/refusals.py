"""The errors in which the pipeline tells a caller that nothing was issued."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.errors import (
    AccessDenied,
    AlreadyDelivered,
    ApprovalRequired,
    BackendUnavailable,
    BindingRequired,
    BrokerError,
    RequestInProgress,
    TaskNotActive,
    Unavailable,
)
from broker.grants import GrantState
from broker.logs import get_logger
from broker.policy import Effect

if TYPE_CHECKING:
    from broker.grants import Grant
    from broker.policy import Decision

log = get_logger("pipeline")


def refusal(decision: Decision, decision_id: str) -> BrokerError:
    """Say what policy refused, and nothing that only insiders should know."""
    if decision.effect is Effect.NEEDS_APPROVAL:
        msg = "This capability is privileged and needs an approval, which is not available yet."
        return ApprovalRequired(msg, decision_id=decision_id)
    if "task_over" in decision.reasons:
        return TaskNotActive("The task is not active: its time is up.", decision_id=decision_id)
    if "backend_backlog" in decision.reasons:
        msg = (
            "Too many credentials of this capability could not be revoked yet, so nothing new is "
            "issued for it until they are."
        )
        return BackendUnavailable(msg, retry_after=30, decision_id=decision_id)
    if "binding_required" in decision.reasons:
        msg = (
            "This capability is for tokens that are bound to a key: exchange your identity again, "
            "with a DPoP proof (RFC 9449) or over mutual TLS (RFC 8705)."
        )
        return BindingRequired(msg, decision_id=decision_id)
    msg = (
        "Policy refused this request: there is no such capability, or this task or its agent may "
        "not have it. An operator can look the decision up in the audit log."
    )
    return AccessDenied(msg, decision_id=decision_id)


def replayed(grant: Grant) -> BrokerError:
    """Answer a repeated request: the first one has made this grant."""
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


def cannot_issue(backend: str, error: BrokerError) -> BrokerError:
    """Say that a backend can't issue now; why is for the log."""
    if not isinstance(error, Unavailable):
        return error
    log.warning("cannot issue", backend=backend, error=error.detail)
    return BackendUnavailable(
        f"Backend {backend!r} can't issue right now; nothing was delivered. Try again shortly.",
        retry_after=error.retry_after or 5,
    )
