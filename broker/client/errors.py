"""Everything a client call can raise on purpose, in one tree.

    BrokerClientError
    ├── ConnectionFailed    no answer; ``sent`` says whether the broker may have acted
    ├── UnexpectedAnswer    an answer came, and it isn't one of the broker's
    ├── ApprovalRequired    a human has to say yes first; ask again once approved
    ├── InvalidRequest      malformed, or refused before it was sent
    ├── Unauthenticated     no identity, or one that the broker doesn't accept
    ├── Denied              known, and not allowed; or frozen
    │   └── ApprovalDenied  a human said no to this exact request
    ├── NotFound            unknown, or not yours: the two look the same
    ├── Conflict            the thing's state forbids it
    ├── RateLimited         too many requests, or a quota is used up
    └── Unavailable         the broker, or something that it needs, doesn't work now

Branch on the class, and where that is too coarse on ``code``: codes are stable, texts aren't.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, ClassVar, Final

if TYPE_CHECKING:
    from broker.client.messages import Response

_ACCEPTED: Final = 202
_STANDARD: Final = frozenset({"type", "title", "status", "detail", "instance", "code"})


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
    """The caller is known, and policy, role or a freeze says no."""

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
    """Too many requests, or a quota of live tasks or credentials is used up."""

    code = "rate_limited"
    title = "Too many requests"


class Unavailable(BrokerClientError):
    """The broker, or a part that it needs, doesn't work at the moment."""

    code = "unavailable"
    title = "Temporarily unavailable"


_BY_STATUS: Final[dict[int, type[BrokerClientError]]] = {
    _ACCEPTED: ApprovalRequired,
    401: Unauthenticated,
    403: Denied,
    404: NotFound,
    409: Conflict,
    429: RateLimited,
}

_BY_CODE: Final[dict[str | None, type[BrokerClientError]]] = {
    "approval_denied": ApprovalDenied,
    "approval_required": ApprovalRequired,
}

# RFC 6749 section 5.2, RFC 8693 section 2.2.2 and RFC 9396 section 5. RFC 8693 calls a subject
# token that it can't accept an invalid request.
_BY_OAUTH_ERROR: Final[dict[str, type[BrokerClientError]]] = {
    "access_denied": Denied,
    "authorization_pending": ApprovalRequired,
    "invalid_authorization_details": Denied,
    "invalid_client": Unauthenticated,
    "invalid_grant": Unauthenticated,
    "invalid_request": Unauthenticated,
    "invalid_scope": Denied,
    "server_error": Unavailable,
    "slow_down": RateLimited,
    "temporarily_unavailable": Unavailable,
    "unauthorized_client": Denied,
}


def _class_for(status: int) -> type[BrokerClientError]:
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:  # noqa: PLR2004  the class of server errors
        return Unavailable
    return InvalidRequest if status >= 400 else UnexpectedAnswer  # noqa: PLR2004  client errors


def _text(document: dict[str, Any], member: str) -> str | None:
    value = document.get(member)
    return value if isinstance(value, str) and value else None


def from_response(response: Response) -> BrokerClientError:
    """Return the error that an answer of the API stands for: RFC 9457, or whatever came."""
    document = response.mapping()
    code = _text(document, "code")
    detail = _text(document, "detail")
    if code is None and detail is None and response.status != _ACCEPTED:
        detail = f"HTTP {response.status} without a reason: is this the broker's address?"
    kind = _BY_CODE.get(code) or _class_for(response.status)
    if kind is ApprovalRequired:
        code = kind.code  # a 202 is no problem document: it has none
    return kind(
        detail or "",
        code=code or f"http_{response.status}",
        title=_text(document, "title"),
        status=response.status,
        retry_after=response.retry_after,
        extra={name: value for name, value in document.items() if name not in _STANDARD},
    )


def from_token_response(response: Response) -> BrokerClientError:
    """Return the error that an answer of the token endpoint stands for."""
    document = response.mapping()
    error = _text(document, "error")
    if error is None:
        return from_response(response)
    kind = _BY_OAUTH_ERROR.get(error, _class_for(response.status))
    why = _text(document, "error_description") or error
    return kind(
        f"The broker doesn't accept this identity: {why}" if kind is Unauthenticated else why,
        code=error,
        status=response.status,
        retry_after=response.retry_after,
        extra={k: v for k, v in document.items() if k not in {"error", "error_description"}},
    )
