"""What an error of the client is about, where the broker says so by its ``code``: a class for each.

The tree is drawn in ``errors.py``.
"""

from __future__ import annotations

from broker.client.errors import (
    Conflict,
    ConnectionFailed,
    Denied,
    InvalidRequest,
    RateLimited,
    Unauthenticated,
    Unavailable,
)


class IdentityUnavailable(ConnectionFailed):
    """Who gives out the workload identity gave no answer; nothing was asked of the broker."""

    code = "identity_unavailable"
    title = "No identity at the moment"


class PayloadTooLarge(InvalidRequest):
    """The body is over the broker's limit."""

    code = "payload_too_large"
    title = "Payload too large"


class InvalidTarget(InvalidRequest):
    """The broker gives no token for that resource: its URL and its ``issuer`` may differ."""

    code = "invalid_target"
    title = "No token for that target"


class UnsupportedGrantType(InvalidRequest):
    """The token endpoint doesn't do token exchange: it may not be the broker's."""

    code = "unsupported_grant_type"
    title = "Unsupported grant type"


class IdentityMissing(Unauthenticated):
    """There is no source of a workload identity, or the one there is holds none."""

    code = "identity_missing"
    title = "No workload identity"


class IdentityRefused(Unauthenticated):
    """The broker doesn't accept the workload identity (RFC 8693 section 2.2.2)."""

    code = "invalid_request"
    title = "Identity not accepted"


class InvalidClient(IdentityRefused):
    """The broker doesn't know who presents the identity."""

    code = "invalid_client"
    title = "Client not proved"


class InvalidGrant(IdentityRefused):
    """What was presented is none of this client's."""

    code = "invalid_grant"
    title = "Grant not accepted"


class InvalidToken(Unauthenticated):
    """The access token is malformed, expired, revoked, or meant for somebody else."""

    code = "invalid_token"
    title = "Invalid token"


class InvalidDpopProof(Unauthenticated):
    """It isn't proved that the sender holds its key: the clock or the URL may be wrong."""

    code = "invalid_dpop_proof"
    title = "Invalid DPoP proof"


class UseDpopNonce(InvalidDpopProof):
    """The broker wants another nonce, again and again."""

    code = "use_dpop_nonce"
    title = "DPoP nonce required"


class ApprovalExpired(Denied):
    """Nobody said yes in time, or the approval is used up."""

    code = "expired_token"
    title = "Approval expired"


class BindingRequired(Denied):
    """Policy asks for a token that is bound to a key: use ``dpop``, or mutual TLS."""

    code = "binding_required"
    title = "Bound token required"


class Frozen(Denied):
    """An operator froze what this request touches."""

    code = "frozen"
    title = "Frozen by an operator"


class PrincipalSuspended(Denied):
    """A principal that this hangs from is suspended or retired, or its owner has left."""

    code = "principal_suspended"
    title = "Principal suspended"


class UnauthorizedClient(Denied):
    """The caller is known, and may not have such a token."""

    code = "unauthorized_client"
    title = "Client not authorised"


class InvalidScope(Denied):
    """The caller may not have a token with that scope."""

    code = "invalid_scope"
    title = "Scope not granted"


class InvalidAuthorizationDetails(Denied):
    """An agent has to name a live task of its own, and nobody else may name one."""

    code = "invalid_authorization_details"
    title = "No such task of yours"


class TaskNotActive(Conflict):
    """The task has ended, or isn't approved yet."""

    code = "task_not_active"
    title = "Task not active"


class IdempotencyConflict(Conflict):
    """The idempotency key came with another request before."""

    code = "idempotency_key_reused"
    title = "Idempotency key reused"


class RequestInProgress(Conflict):
    """The first request with this idempotency key is still being worked on."""

    code = "request_in_progress"
    title = "Request in progress"


class AlreadyDelivered(Conflict):
    """The credential was delivered once, to whoever got that answer, and is stored nowhere.

    When the answer was lost: revoke the grant ``grant_id``, and ask for another.
    """

    code = "credential_already_delivered"
    title = "Credential already delivered"

    @property
    def grant_id(self) -> str:
        """The grant whose credential can't be shown again."""
        return str(self.extra.get("grant_id") or "")


class NotDeadYet(Conflict):
    """There is no receipt of a revocation that isn't confirmed."""

    code = "not_dead_yet"
    title = "Not dead yet"


class NotRenewable(Conflict):
    """The credential lives as long as it may: rotate it."""

    code = "not_renewable"
    title = "Not renewable"


class WrappingIntercepted(Conflict):
    """What was wrapped was opened by somebody else; it is revoked."""

    code = "wrapping_intercepted"
    title = "Wrapped credential intercepted"


class WrappingExpired(Conflict):
    """What was wrapped wasn't opened in time; it is revoked."""

    code = "wrapping_expired"
    title = "Wrapped credential expired"


class QuotaExceeded(RateLimited):
    """A limit of live tasks or credentials is reached; ``extra`` may say which."""

    code = "quota_exceeded"
    title = "Quota exceeded"


class SlowDown(RateLimited):
    """It was asked again before the interval was over."""

    code = "slow_down"
    title = "Asked too soon"


class InternalError(Unavailable):
    """The broker itself failed; its log says how."""

    code = "internal_error"
    title = "Internal error"


class ConfigInvalid(InternalError):
    """The broker's configuration can't be used."""

    code = "config_invalid"
    title = "Invalid configuration"


class LedgerUnavailable(Unavailable):
    """The broker's ledger doesn't answer: nothing is issued."""

    code = "ledger_unavailable"
    title = "Ledger unavailable"


class AuditUnavailable(Unavailable):
    """The signed log can't keep up: nothing is issued until it does."""

    code = "audit_unavailable"
    title = "Audit log unavailable"


class LedgerNewer(Unavailable):
    """A replica of an older release was asked, during an upgrade: another one may answer."""

    code = "ledger_newer"
    title = "Ledger of a newer release"


class Quarantined(Unavailable):
    """The ledger was restored or lost: nothing is issued until an operator has reconciled it."""

    code = "quarantined"
    title = "In quarantine"


class BackendUnavailable(Unavailable):
    """A backend gives no credential at the moment; none was delivered."""

    code = "backend_unavailable"
    title = "Backend unavailable"


class BackendRefused(Unavailable):
    """A backend said no: it did nothing."""

    code = "backend_refused"
    title = "Backend refused"
