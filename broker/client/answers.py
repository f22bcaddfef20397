"""From an answer that isn't what was asked for to the error that it stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.client import errors, reasons

if TYPE_CHECKING:
    from broker.client.errors import BrokerClientError
    from broker.client.messages import Response

_ACCEPTED: Final = 202
_STANDARD: Final = frozenset({"type", "title", "status", "detail", "instance", "code"})

_BY_STATUS: Final[dict[int, type[BrokerClientError]]] = {
    _ACCEPTED: errors.ApprovalRequired,
    401: errors.Unauthenticated,
    403: errors.Denied,
    404: errors.NotFound,
    409: errors.Conflict,
    429: errors.RateLimited,
}

_SAID: Final[tuple[type[BrokerClientError], ...]] = (
    *(errors.ApprovalRequired, errors.ApprovalDenied),
    *(errors.InvalidRequest, reasons.PayloadTooLarge, errors.NotFound),
    *(
        errors.Conflict,
        reasons.TaskNotActive,
        reasons.IdempotencyConflict,
        reasons.RequestInProgress,
    ),
    *(reasons.AlreadyDelivered, reasons.NotDeadYet, reasons.NotRenewable),
    *(reasons.WrappingIntercepted, reasons.WrappingExpired),
    *(errors.RateLimited, reasons.QuotaExceeded),
    *(errors.Unauthenticated, reasons.InvalidToken, reasons.InvalidDpopProof, reasons.UseDpopNonce),
    *(errors.Denied, reasons.BindingRequired, reasons.Frozen, reasons.PrincipalSuspended),
    *(errors.Unavailable, reasons.InternalError, reasons.ConfigInvalid, reasons.LedgerUnavailable),
    *(reasons.LedgerNewer, reasons.AuditUnavailable, reasons.Quarantined),
    *(reasons.BackendUnavailable, reasons.BackendRefused),
)
BY_CODE: Final = {kind.code: kind for kind in _SAID}
"""The class of each ``code`` of the API; ``tests/http`` compares it with the server's own."""

BY_OAUTH_ERROR: Final[dict[str, type[BrokerClientError]]] = {
    "access_denied": errors.ApprovalDenied,
    "authorization_pending": errors.ApprovalRequired,
    "expired_token": reasons.ApprovalExpired,
    "invalid_authorization_details": reasons.InvalidAuthorizationDetails,
    "invalid_client": reasons.InvalidClient,
    "invalid_dpop_proof": reasons.InvalidDpopProof,
    "invalid_grant": reasons.InvalidGrant,
    "invalid_request": reasons.IdentityRefused,
    "invalid_scope": reasons.InvalidScope,
    "invalid_target": reasons.InvalidTarget,
    "server_error": reasons.InternalError,
    "slow_down": reasons.SlowDown,
    "temporarily_unavailable": errors.Unavailable,
    "unauthorized_client": reasons.UnauthorizedClient,
    "unsupported_grant_type": reasons.UnsupportedGrantType,
    "use_dpop_nonce": reasons.UseDpopNonce,
}
"""The class of each ``error`` of the token endpoint: RFC 6749 section 5.2, RFC 8693 section 2.2.2,
RFC 9396 section 5, RFC 9449 sections 5 and 8, RFC 8628 section 3.5. RFC 8693 calls a subject token
that it can't accept an invalid request."""


def _class_for(status: int) -> type[BrokerClientError]:
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:  # noqa: PLR2004  the class of server errors
        return errors.Unavailable
    return errors.InvalidRequest if status >= 400 else errors.UnexpectedAnswer  # noqa: PLR2004  client errors


def text(document: dict[str, Any], member: str) -> str | None:
    """Return a member that is a text, and not an empty one."""
    value = document.get(member)
    return value if isinstance(value, str) and value else None


def from_response(response: Response) -> BrokerClientError:
    """Return the error that an answer of the API stands for: RFC 9457, or whatever came."""
    document = response.mapping()
    code = text(document, "code")
    detail = text(document, "detail")
    if code is None and detail is None and response.status != _ACCEPTED:
        detail = f"HTTP {response.status} without a reason: is this the broker's address?"
    kind = BY_CODE.get(code or "") or _class_for(response.status)
    if kind is errors.ApprovalRequired:
        code = kind.code  # a 202 is no problem document: it has none
    return kind(
        detail or "",
        code=code or f"http_{response.status}",
        title=text(document, "title"),
        status=response.status,
        retry_after=response.retry_after,
        extra={name: value for name, value in document.items() if name not in _STANDARD},
    )


def from_token_response(response: Response) -> BrokerClientError:
    """Return the error that an answer of the token endpoint stands for."""
    document = response.mapping()
    error = text(document, "error")
    if error is None:
        return from_response(response)
    kind = BY_OAUTH_ERROR.get(error, _class_for(response.status))
    why = text(document, "error_description") or error
    refused = issubclass(kind, reasons.IdentityRefused)
    return kind(
        f"The broker doesn't accept this identity: {why}" if refused else why,
        code=error,
        status=response.status,
        retry_after=response.retry_after,
        extra={k: v for k, v in document.items() if k not in {"error", "error_description"}},
    )
