"""Each request as a span: under the caller's, if it says which, and told in the answer.

The ``traceresponse`` header (drafted by the W3C beside Trace Context) names our span. A
``traceparent`` that isn't exactly what the standard says is ignored, and a new trace begins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker import tracing
from broker.http.routes import template_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

RESPONSE: Final = b"traceresponse"
_FAILED: Final = 500


class RequestSpans:
    """Makes each request's span current while it is served."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap ``app``."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request within its span."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        parent = tracing.read_parent(_sent(scope, b"traceparent"), _sent(scope, b"tracestate"))
        method = tracing.of_method(scope["method"])
        name = scope["method"] if scope["method"] in tracing.METHODS else "HTTP"
        status = 0
        about = {**method, "url.scheme": scope["scheme"]}
        with tracing.begin(name, about, parent=parent, server=True):
            told = tracing.traceparent().encode()

            async def tell(message: Message) -> None:
                nonlocal status
                if message["type"] == "http.response.start":
                    status = message["status"]
                    message["headers"] = [*message["headers"], (RESPONSE, told)]
                await send(message)

            try:
                await self._app(scope, receive, tell)
            finally:
                if tracing.is_recorded():
                    _note(scope, name, status)


def _sent(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in scope["headers"] if key == name]


def _note(scope: Scope, name: str, status: int) -> None:
    """Say what has become known since. A path that leads nowhere could hold anything."""
    found: dict[str, str | int] = {"http.response.status_code": status} if status else {}
    route = template_of(scope)
    if route:
        name = f"{name} {route}"
        found |= {"http.route": route, "url.path": scope["path"]}
    tracing.note(found, name=name, error=str(status) if status >= _FAILED else "")
