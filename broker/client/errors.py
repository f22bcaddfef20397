"""Everything a client call can raise on purpose, in one tree.

    BrokerClientError
    ├── ConnectionFailed        no answer; ``sent`` says whether the broker may have acted
    │   └── IdentityUnavailable   who gives out the workload identity gave no answer
    ├── UnexpectedAnswer        an answer came, and it isn't one of the broker's
    ├── ApprovalRequired        a human has to say yes first; ask again once approved
    ├── InvalidRequest          malformed, or refused before it was sent
    │   ├── PayloadTooLarge
    │   ├── InvalidTarget         the token endpoint gives no token for that
    │   └── UnsupportedGrantType
    ├── Unauthenticated         who is calling could not be proved
    │   ├── IdentityMissing       no source of a workload identity, or it holds none
    │   ├── IdentityRefused       the broker doesn't accept the workload identity
    │   │   ├── InvalidClient
    │   │   └── InvalidGrant
    │   ├── InvalidToken          the access token is expired, revoked, or another's
    │   └── InvalidDpopProof      it isn't proved that the sender holds its key
    │       └── UseDpopNonce
    ├── Denied                  known, and not allowed
    │   ├── ApprovalDenied        a human said no to this exact request
    │   ├── ApprovalExpired       nobody said yes in time
    │   ├── BindingRequired       a token bound to a key is needed: ``dpop``, or mutual TLS
    │   ├── Frozen                by an operator
    │   ├── PrincipalSuspended
    │   ├── UnauthorizedClient
    │   ├── InvalidScope
    │   └── InvalidAuthorizationDetails   no live task of the agent's own was named
    ├── NotFound                unknown, or not yours: the two look the same
    ├── Conflict                the thing's state forbids it
    │   ├── TaskNotActive
    │   ├── IdempotencyConflict   the key came with another request before
    │   ├── RequestInProgress     the first request with this key is still going on
    │   ├── AlreadyDelivered      the credential was delivered, and can't be again
    │   ├── NotDeadYet
    │   ├── NotRenewable
    │   ├── WrappingIntercepted
    │   └── WrappingExpired
    ├── RateLimited             too many requests
    │   ├── QuotaExceeded         a limit of live tasks or credentials is reached
    │   └── SlowDown
    └── Unavailable             the broker, or something that it needs, doesn't work now
        ├── InternalError         the broker itself failed
        │   └── ConfigInvalid
        ├── LedgerUnavailable
        ├── LedgerNewer           that replica is of an older release: ask again
        ├── AuditUnavailable
        ├── Quarantined           the ledger was set back; an operator has to reconcile it
        ├── BackendUnavailable
        └── BackendRefused

The inner ones are in ``reasons.py``; all of them are names of ``broker.client``.

Branch on the class, and where that is too coarse on ``code``: codes are stable, texts aren't. A
code that is newer than this client is raised as the class that its HTTP status stands for.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, ClassVar


class BrokerClientError(Exception):
    """Base of all errors of the client; ``detail`` is for people, ``code`` for programs."""

    code: str = "client_error"
    title: ClassVar[str] = "The request failed"

    def __init__(
        self,
        detail: str = "",
        *,
        code: str | None = None,
        title: str | None = None,
        status: int | None = None,
        retry_after: int | None = None,
        extra: dict[str, Any] | None = None,
    ) -> None:
        """``status`` is None when no answer came; ``retry_after`` is in seconds."""
        self.detail = detail or title or self.title
        super().__init__(self.detail)
        self.code = code or self.code
        self.heading = title or self.title
        self.status = status
        self.retry_after = retry_after
        self.extra: dict[str, Any] = extra or {}

    def as_problem(self) -> dict[str, Any]:
        """Return the error as the members of a problem document."""
        problem: dict[str, Any] = {"code": self.code, "title": self.heading, "detail": self.detail}
        if self.status is not None:
            problem["status"] = self.status
        if self.retry_after is not None:
            problem["retry_after"] = self.retry_after
        return {**self.extra, **problem}


class ConnectionFailed(BrokerClientError):
    """The broker gave no answer."""

    code = "connection_failed"
    title = "The broker can't be reached"

    def __init__(self, detail: str = "", *, sent: bool = False) -> None:
        """``sent``: the request may have arrived, so what came of it is unknown."""
        super().__init__(detail, code="no_answer" if sent else None)
        self.sent = sent


class UnexpectedAnswer(BrokerClientError):
    """Something answered, but not as the broker's contract says."""

    code = "unexpected_answer"
    title = "Not an answer of the broker"


class ApprovalRequired(BrokerClientError):
    """Policy wants a human yes to this exact request; ask again, unchanged, once approved.

    ``retry_after`` is how many seconds to leave between looks at it.
    """

    code = "approval_required"
    title = "Approval needed"

    @property
    def approval_id(self) -> str:
        """What an operator approves or denies; empty if nobody has been asked."""
        return str(self.extra.get("approval_id") or "")

    @property
    def expires_at(self) -> datetime | None:
        """Until when an operator can say yes, if the broker said so."""
        try:
            return datetime.fromisoformat(str(self.extra.get("expires_at"))).astimezone(UTC)
        except ValueError:
            return None


class InvalidRequest(BrokerClientError):
    """The request is malformed or contradicts itself."""

    code = "invalid_request"
    title = "Invalid request"


class Unauthenticated(BrokerClientError):
    """Who is calling could not be proved."""

    code = "unauthenticated"
    title = "Authentication required"


class Denied(BrokerClientError):
    """The caller is known, and policy or role says no."""

    code = "access_denied"
    title = "Access denied"


class ApprovalDenied(Denied):
    """A human said no to this exact request; asking again doesn't ask them again."""

    code = "approval_denied"
    title = "Approval denied"

    @property
    def approval_id(self) -> str:
        """The approval that was denied."""
        return str(self.extra.get("approval_id") or "")


class NotFound(BrokerClientError):
    """Unknown, or not the caller's."""

    code = "not_found"
    title = "Not found"


class Conflict(BrokerClientError):
    """The thing exists, and its state forbids what was asked."""

    code = "conflict"
    title = "Conflict"


class RateLimited(BrokerClientError):
    """Too many requests: ``retry_after`` says how many seconds to wait."""

    code = "rate_limited"
    title = "Too many requests"


class Unavailable(BrokerClientError):
    """The broker, or a part that it needs, doesn't work at the moment."""

    code = "unavailable"
    title = "Temporarily unavailable"
