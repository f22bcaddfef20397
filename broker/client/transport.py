"""What both clients share of httpx2: its settings, and its exceptions turned into ours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import httpx2

from broker import __version__
from broker.client.errors import ConnectionFailed
from broker.client.messages import Response

if TYPE_CHECKING:
    from broker.client.messages import Request

TIMEOUT: Final = 30.0
WITHIN: Final = "broker_within"
"""The extension of an httpx2 request that says how many seconds all of it may take."""
_CONNECT_TIMEOUT: Final = 5.0
_ERRNO: Final = re.compile(r"\[Errno -?\d+\] ")
_UNSENT: Final = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.LocalProtocolError,
    httpx2.PoolTimeout,
    httpx2.UnsupportedProtocol,
)


def settings(timeout: float) -> dict[str, Any]:
    """Return the arguments of an httpx2 client: time limits, no proxies or netrc, no redirects."""
    return {
        "timeout": httpx2.Timeout(timeout, connect=min(timeout, _CONNECT_TIMEOUT)),
        "trust_env": False,
        "follow_redirects": False,
        "headers": {"accept": "application/json", "user-agent": f"broker-client/{__version__}"},
    }


def arguments(url: str, request: Request, usual: httpx2.Timeout) -> dict[str, Any]:
    """Return the arguments of an httpx2 client's ``request`` method; ``usual`` is its own limit."""
    limit = httpx2.Timeout(usual)
    if limit.read is not None:
        limit.read += request.patience
    if request.within is not None:
        for step in ("connect", "read", "write", "pool"):
            usually: float | None = getattr(limit, step)
            setattr(limit, step, min(request.within, usually or request.within))
    return {
        "timeout": limit,
        "method": request.method,
        "url": url + request.path,
        "headers": request.headers,
        "content": request.content or None,
        "extensions": {} if request.within is None else {WITHIN: request.within},
    }


def received(response: httpx2.Response) -> Response:
    """Turn a whole httpx2 answer into ours."""
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Response(response.status_code, headers, response.content)


def failed(url: str, error: httpx2.RequestError) -> ConnectionFailed:
    """Turn any of httpx2's request errors into ours."""
    sent = not isinstance(error, _UNSENT)
    if sent:
        why = "no answer in time" if isinstance(error, httpx2.TimeoutException) else str(error)
        detail = f"The broker at {url} got the request, perhaps; its answer was lost: {why}"
    else:
        why = _ERRNO.sub("", str(error)) or "no connection in time"
        detail = f"The broker at {url} can't be reached: {why}"
    return ConnectionFailed(detail, sent=sent)
