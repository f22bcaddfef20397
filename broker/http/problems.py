"""Errors to answers, in one place: RFC 9457 problem documents, and OAuth's own form.

A class has its status here once; ``tests/http`` walks the whole error tree over this table.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, cast

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.routing import Match

from broker import errors
from broker.identity.dpop import ALGORITHMS
from broker.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from fastapi import FastAPI, Request, Response

log = get_logger("http")
NO_STORE: Final = {"Cache-Control": "no-store", "Pragma": "no-cache"}

STATUS: Final[dict[type[errors.BrokerError], int]] = {
    errors.BrokerError: 500,
    errors.ConfigError: 500,
    errors.RequestError: 400,
    errors.NotFound: 404,
    errors.PayloadTooLarge: 413,
    errors.Conflict: 409,
    errors.IdempotencyConflict: 422,
    errors.QuotaExceeded: 429,
    errors.AuthenticationError: 401,
    errors.AccessDenied: 403,
    errors.OAuthError: 400,
    errors.Unavailable: 503,
}
"""The status of a class, and of its subclasses that have none of their own."""

_MAX_FIELD_ERRORS: Final = 20
_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")

_BY_STATUS: Final = {
    404: ("not_found", "Not found"),
    405: ("method_not_allowed", "Method not allowed"),
}


def status_of(error: errors.BrokerError) -> int:
    """Return the HTTP status of an error."""
    return next(STATUS[cls] for cls in type(error).__mro__ if cls in STATUS)


def problem(error: errors.BrokerError, metadata: str = "") -> JSONResponse:
    """Write an error as a problem document (RFC 9457 section 3).

    ``metadata`` is the URL that a challenge names (RFC 9728 section 5.1).
    """
    status = status_of(error)
    headers = _headers(error)
    if status == 401:  # noqa: PLR2004
        headers["WWW-Authenticate"] = _challenge(error, metadata)
    return _document(status, error.code, error.title, error.detail, headers, error.extra)


def _challenge(error: errors.BrokerError, metadata: str = "") -> str:
    """Say how to come back: with which schemes, and what was wrong (RFC 6750 3, RFC 9449 7.1)."""
    about = f', resource_metadata="{metadata}"' if metadata else ""
    algorithms = f'algs="{" ".join(ALGORITHMS)}"'
    if isinstance(error, errors.InvalidDpopProof):
        return f'DPoP error="{error.code}", {algorithms}{about}'
    invalid = ', error="invalid_token"' if isinstance(error, errors.InvalidToken) else ""
    return f'Bearer realm="broker"{invalid}{about}, DPoP {algorithms}{invalid}'


def _headers(error: errors.BrokerError) -> dict[str, str]:
    """Return the headers that any answer of this error has."""
    headers: dict[str, str] = dict(NO_STORE)
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, errors.UseDpopNonce):
        headers["DPoP-Nonce"] = error.nonce
    if isinstance(error, errors.RateLimited):
        headers |= error.headers
    return headers


def _document(
    status: int,
    code: str,
    title: str,
    detail: str,
    headers: Mapping[str, str] | None = None,
    extra: Mapping[str, object] | None = None,
) -> JSONResponse:
    body = {
        "type": f"urn:broker:problem:{code}",
        "title": title,
        "status": status,
        "code": code,
        "detail": detail,
        **(extra or {}),
    }
    return JSONResponse(body, status, headers, media_type="application/problem+json")


def oauth_problem(error: errors.BrokerError, *, challenge: bool = False) -> JSONResponse:
    """Write an error as the token endpoint must (RFC 6749 section 5.2).

    ``challenge`` says that the caller is to be told how to come back, as by any other resource.
    """
    if isinstance(error, errors.OAuthError):
        code = error.error
        status = 401 if challenge and code == "invalid_client" else 400
    elif isinstance(error, errors.Unavailable):
        code, status = "temporarily_unavailable", 503
    elif isinstance(error, errors.InvalidDpopProof):
        # RFC 9449 sections 5 and 8; at a resource sections 7.1 and 9.
        code, status = error.code, 401 if challenge else 400
    elif isinstance(error, errors.AuthenticationError):
        code, status = "invalid_client", 401
    elif isinstance(error, errors.AccessDenied):
        code, status = "unauthorized_client", 403
    else:
        status = status_of(error)
        known = {429: "temporarily_unavailable", 500: "server_error"}
        code = known.get(status, "invalid_request")
    headers = _headers(error)
    if status == 401:  # noqa: PLR2004
        headers["WWW-Authenticate"] = _challenge(error)
    # Section 5.2 allows printable ASCII without the double quote and the backslash.
    text = error.detail.replace('"', "'").replace("\\", "/").replace("…", "...")
    description = "".join(c if " " <= c <= "~" else "?" for c in text)
    extra = error.extra if isinstance(error, errors.OAuthError) else {}
    body = {"error": code, "error_description": description, **extra}
    return JSONResponse(body, status, headers)


def invalid_request(items: Sequence[Mapping[str, Any]]) -> errors.InvalidRequest:
    """Name each field that is wrong, without repeating what was sent.

    ``items`` are pydantic's; the first part of each ``loc`` is where the field was.
    """
    found = [_field_error(item) for item in items[:_MAX_FIELD_ERRORS]]
    detail = "; ".join(f"{row['field']}: {row['reason']}" for row in found) or "malformed request"
    if len(items) > len(found):
        detail += f"; and {len(items) - len(found)} more"
    return errors.InvalidRequest(detail, errors=found)


def _field_error(item: Mapping[str, Any]) -> dict[str, str]:
    where = [str(part) for part in item["loc"][1:]]
    match item["type"]:
        case "extra_forbidden":
            reason = "unknown field"
        case "missing":
            reason = "required"
        case "json_invalid":
            where, reason = [], "not valid JSON"
        case _:
            reason = str(item["msg"]).removeprefix("Value error, ")
    return {"field": ".".join(where)[:200] or str(item["loc"][0]), "reason": reason[:300]}


def _allowed(app: FastAPI, request: Request) -> str:
    """List what a path does take (RFC 9110 section 10.2.1); a route knows its own method only."""
    asked: dict[str, Any] = {
        "type": "http",
        "path": request.url.path,
        "root_path": "",
        "headers": [],
    }
    return ", ".join(
        method
        for method in _METHODS
        if any(r.matches({**asked, "method": method})[0] is Match.FULL for r in app.routes)
    )


def install(app: FastAPI, oauth_paths: str, metadata: str) -> None:
    """Answer every error of the app in these forms; the unforeseen is logged, not shown.

    Below ``oauth_paths`` errors have OAuth's form. ``metadata`` is where the API's own is
    (RFC 9728).
    """

    def answer(request: Request, error: errors.BrokerError) -> Response:
        oauth = request.url.path.startswith(oauth_paths)
        if oauth:
            # Introspection is a resource for its callers, whatever they come with (RFC 7662 2.3).
            resource = request.url.path.endswith("/introspect")
            return oauth_problem(error, challenge=resource or "authorization" in request.headers)
        return problem(error, metadata)

    async def on_broker_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, errors.BrokerError)  # noqa: S101  registered for this class
        if status_of(error) >= 500:  # noqa: PLR2004
            log.warning(
                "request failed",
                path=request.url.path,
                code=error.code,
                cause=type(error.__cause__).__name__,
            )
        return answer(request, error)

    async def on_invalid(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101  registered for this class
        items = cast("Sequence[Mapping[str, Any]]", error.errors())
        return problem(invalid_request(items))

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101  registered for this class
        code, title = _BY_STATUS.get(error.status_code, ("invalid_request", "Invalid request"))
        detail = "There is nothing at this path." if error.status_code == 404 else title  # noqa: PLR2004
        headers = dict(error.headers or {})
        if error.status_code == 405:  # noqa: PLR2004
            headers["Allow"] = _allowed(app, request)
        return _document(error.status_code, code, title, detail, headers)

    async def on_unforeseen(request: Request, error: Exception) -> Response:
        # The traceback would name values; its type and place are enough to find it.
        log.error(
            "unforeseen error", path=request.url.path, error=type(error).__name__, exc_info=error
        )
        return answer(request, errors.BrokerError("Something unforeseen happened; it was logged."))

    app.add_exception_handler(errors.BrokerError, on_broker_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_unforeseen)
