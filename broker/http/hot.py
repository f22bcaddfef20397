"""The routes that most requests take, looked up by their path ahead of all the others.

FastAPI tries its routes one after another, and looks for what an endpoint wants to be given. For
one that reads its request itself that is a third of the work. These are in FastAPI's table as well,
which the API's document is made of and which answers whatever isn't exactly one of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from fastapi import Request

from broker.errors import BrokerError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from fastapi import Response
    from starlette.types import ASGIApp, Receive, Scope, Send

    Endpoint = Callable[[Request], Awaitable[Response]]


class _Route(NamedTuple):
    path: str
    endpoint: Endpoint


class HotRoutes:
    """Answers POSTs to some paths, and leaves the rest to what it is around."""

    def __init__(self, app: ASGIApp, endpoints: Mapping[str, Endpoint]) -> None:
        """``endpoints`` are by path: coroutine functions that take the request and nothing else."""
        self._app = app
        self._routes = {path: _Route(path, endpoint) for path, endpoint in endpoints.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        route = self._routes.get(scope["path"]) if scope["type"] == "http" else None
        if route is None or scope["method"] != "POST" or scope["query_string"]:
            await self._app(scope, receive, send)
            return
        scope["route"] = route
        request = Request(scope, receive, send)
        try:
            response = await route.endpoint(request)
        except BrokerError as error:
            response = await request.app.exception_handlers[BrokerError](request, error)
        await response(scope, receive, send)
