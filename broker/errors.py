"""Every error the broker raises on purpose, in one tree.

    BrokerError
    ├── ConfigError               the configuration can't be used
    ├── RequestError              the caller asked for something that can't be
    │   ├── InvalidRequest          malformed or contradictory
    │   ├── NotFound                unknown, or not yours: the two look the same
    │   ├── PayloadTooLarge
    │   ├── Conflict                the thing exists, its state forbids this
    │   │   ├── TaskNotActive
    │   │   ├── IdempotencyConflict
    │   │   ├── RequestInProgress
    │   │   ├── AlreadyDelivered
    │   │   ├── NotDeadYet
    │   │   ├── NotRenewable            it lives as long as it may
    │   │   ├── WrappingIntercepted     somebody else has opened what was wrapped
    │   │   └── WrappingExpired         nobody has opened it in time
    │   └── QuotaExceeded           try again later
    │       └── RateLimited           asked too often
    ├── AuthenticationError       who is calling could not be proved
    │   ├── InvalidToken
    │   └── InvalidDpopProof        the sender doesn't prove that it holds its key
    │       └── UseDpopNonce
    ├── AccessDenied              proved, and not allowed
    │   ├── ApprovalRequired        a human has to say yes first, and is asked
    │   ├── ApprovalDenied          a human said no
    │   ├── BindingRequired         a token bound to a key is needed
    │   ├── Frozen
    │   └── PrincipalSuspended      by an operator, or since its owner left
    ├── OAuthError                an error of RFC 6749 section 5.2 and its extensions
    └── Unavailable               a part we need doesn't answer
        ├── LedgerUnavailable
        ├── LedgerNewer             a newer release has changed the ledger's layout
        ├── AuditUnavailable        the signed log can't keep up
        ├── Quarantined             the ledger was set back, and nobody has reconciled it yet
        ├── BackendUnavailable      and the outcome is unknown
        └── BackendRefused          the backend said no: nothing was issued
            ├── ParametersRefused     because of what the caller asked of it
            └── BackendDown           or can't be reached at all

``code`` is stable and public, ``detail`` is public text, and the private cause travels as
``__cause__`` and is logged, never shown. There is no HTTP in here: ``http/problems.py`` maps
each class to a status once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Mapping


class BrokerError(Exception):
    """Base of all errors; ``detail`` and ``extra`` may be shown to the caller."""

    code: ClassVar[str] = "internal_error"
    title: ClassVar[str] = "Internal error"

    def __init__(
        self, detail: str = "", *, retry_after: int | None = None, **extra: object
    ) -> None:
        """``retry_after`` is in seconds; ``extra`` becomes members of the problem document."""
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.retry_after = retry_after
        self.extra = extra


class ConfigError(BrokerError):
    """The configuration can't be used; the detail says where, why, and what to write instead."""

    code = "config_invalid"
    title = "Invalid configuration"


class RequestError(BrokerError):
    """The caller asked for something that can't be."""

    code = "invalid_request"
    title = "Invalid request"


class InvalidRequest(RequestError):
    """A malformed or contradictory request."""


class NotFound(RequestError):
    """Unknown, or not the caller's: from outside the two can't be told apart."""

    code = "not_found"
    title = "Not found"


class PayloadTooLarge(RequestError):
    """The body is over the limit."""

    code = "payload_too_large"
    title = "Payload too large"


class Conflict(RequestError):
    """The thing exists, and its state forbids what was asked."""

    code = "conflict"
    title = "Conflict"


class TaskNotActive(Conflict):
    """The task has ended or is not approved yet."""

    code = "task_not_active"
    title = "Task not active"


class IdempotencyConflict(Conflict):
    """An idempotency key came back with another request."""

    code = "idempotency_key_reused"
    title = "Idempotency key reused"


class RequestInProgress(Conflict):
    """The first request with this idempotency key is still being worked on."""

    code = "request_in_progress"
    title = "Request in progress"


class AlreadyDelivered(Conflict):
    """The credential was delivered once and is stored nowhere."""

    code = "credential_already_delivered"
    title = "Credential already delivered"


class NotDeadYet(Conflict):
    """There is no receipt of a revocation that isn't confirmed."""

    code = "not_dead_yet"
    title = "Not dead yet"


class NotRenewable(Conflict):
    """The credential lives as long as it may, or its backend can't renew it: rotate it."""

    code = "not_renewable"
    title = "Not renewable"


class WrappingIntercepted(Conflict):
    """What was wrapped was opened by somebody else, or exchanged for another; it is revoked."""

    code = "wrapping_intercepted"
    title = "Wrapped credential intercepted"


class WrappingExpired(Conflict):
    """The wrapping token's time was up before it was opened here; the credential is revoked."""

    code = "wrapping_expired"
    title = "Wrapped credential expired"


class QuotaExceeded(RequestError):
    """A limit of live credentials or tasks is reached."""

    code = "quota_exceeded"
    title = "Quota exceeded"


class RateLimited(QuotaExceeded):
    """The principal asks more often than its quota allows; ``headers`` say how much that is."""

    code = "rate_limited"
    title = "Too many requests"

    def __init__(
        self,
        detail: str = "",
        *,
        retry_after: int = 1,
        headers: Mapping[str, str] | None = None,
        **extra: object,
    ) -> None:
        """``retry_after`` is in seconds; ``headers`` go into the answer."""
        super().__init__(detail, retry_after=retry_after, **extra)
        self.headers = dict(headers or {})


class AuthenticationError(BrokerError):
    """Who is calling could not be proved."""

    code = "unauthenticated"
    title = "Authentication required"


class InvalidToken(AuthenticationError):
    """The token presented is malformed, expired, revoked, or meant for somebody else."""

    code = "invalid_token"
    title = "Invalid token"


class InvalidDpopProof(AuthenticationError):
    """The sender doesn't prove possession of its key (RFC 9449 sections 5 and 7.1)."""

    code = "invalid_dpop_proof"
    title = "Invalid DPoP proof"


class UseDpopNonce(InvalidDpopProof):
    """The proof is good, but not of now: make another with ``nonce`` (RFC 9449 section 8)."""

    code = "use_dpop_nonce"
    title = "DPoP nonce required"

    def __init__(
        self, detail: str = "", *, nonce: str = "", retry_after: int | None = None
    ) -> None:
        """``nonce`` travels in a header of the answer, not in its body."""
        super().__init__(detail, retry_after=retry_after)
        self.nonce = nonce


class AccessDenied(BrokerError):
    """The caller is known, and policy or role says no."""

    code = "access_denied"
    title = "Access denied"


class ApprovalRequired(AccessDenied):
    """Policy asks for a human yes before this may happen."""

    code = "approval_required"
    title = "Approval required"


class ApprovalDenied(AccessDenied):
    """A human was asked whether exactly this may happen, and said no."""

    code = "approval_denied"
    title = "Approval denied"


class BindingRequired(AccessDenied):
    """Policy asks for a token that is bound to a key, and the caller's is not."""

    code = "binding_required"
    title = "Bound token required"


class Frozen(AccessDenied):
    """An operator froze what this request touches."""

    code = "frozen"
    title = "Frozen by an operator"


class PrincipalSuspended(AccessDenied):
    """A principal that this hangs from is suspended or retired, or its owner has left."""

    code = "principal_suspended"
    title = "Principal suspended"


class OAuthError(BrokerError):
    """An error answer of the token endpoint (RFC 6749 section 5.2, RFC 8693 section 2.2.2).

    ``error`` is the OAuth error code, which is also our ``code`` for it.
    """

    code = "oauth_error"
    title = "OAuth error"

    def __init__(self, error: str, detail: str = "", **extra: object) -> None:
        """``error`` such as ``invalid_request``; ``extra`` become members of the answer."""
        super().__init__(detail or error)
        self.extra = extra
        self.error = error


class Unavailable(BrokerError):
    """A part the broker needs doesn't answer; trying again later may work."""

    code = "unavailable"
    title = "Temporarily unavailable"


class LedgerUnavailable(Unavailable):
    """Redis doesn't answer or refuses writes: nothing is issued."""

    code = "ledger_unavailable"
    title = "Ledger unavailable"


class LedgerNewer(Unavailable):
    """The ledger belongs to a newer release: this replica issues nothing, and goes on revoking."""

    code = "ledger_newer"
    title = "Ledger of a newer release"


class AuditUnavailable(Unavailable):
    """Events wait too long to be written to the signed log: nothing is issued until they are."""

    code = "audit_unavailable"
    title = "Audit log unavailable"


class Quarantined(Unavailable):
    """The ledger was restored or lost: nothing is issued until an operator has reconciled it."""

    code = "quarantined"
    title = "In quarantine"


class BackendUnavailable(Unavailable):
    """A backend didn't answer: what it did, if anything, is unknown."""

    code = "backend_unavailable"
    title = "Backend unavailable"


class BackendRefused(Unavailable):
    """A backend answered no: it did nothing."""

    code = "backend_refused"
    title = "Backend refused"


class ParametersRefused(BackendRefused):
    """Rules at the backend, such as a role's, don't allow the parameters that were asked for.

    The caller is told of it as an ``InvalidRequest``.
    """


class BackendDown(BackendRefused):
    """A backend can't be reached at all, or does nothing for anybody: it did nothing."""
