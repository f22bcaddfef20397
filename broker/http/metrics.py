"""``GET /metrics``, for Prometheus, and what of HTTP itself is measured.

It is open like ``/healthz``: it says how much, never whose. ``[metrics] token_file`` closes it.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastapi import Request, Response

from broker.errors import AuthenticationError
from broker.http.problems import problem
from broker.http.routes import template_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from broker.metrics import Metrics
    from broker.secret import Secret

PATH: Final = "/metrics"
NOWHERE: Final = "none"
"""The route of a request that found none."""
_BEARER: Final = "bearer "


@dataclass(frozen=True, slots=True)
class Scrape:
    """What is shown: ``read`` brings it up to date, ``token`` is asked for if there is one.

    ``shared`` shows what other processes that serve beside this one have measured, too.
    """

    metrics: Metrics
    read: Callable[[], Awaitable[object]]
    token: Secret | None = None
    shared: Callable[[str], Awaitable[tuple[bytes, str]]] | None = None

    async def show(self, accept: str) -> tuple[bytes, str]:
        """Return all of it, and its media type."""
        if self.shared is not None:
            return await self.shared(accept)
        await self.read()
        return self.metrics.exposition(accept)


def install(app: FastAPI, scrape: Scrape) -> None:
    """Add the page to the application; it is no part of the API's document."""
    app.state.scrape = scrape
    app.add_api_route(PATH, _metrics, include_in_schema=False)


async def _metrics(request: Request) -> Response:
    scrape: Scrape = request.app.state.scrape
    if scrape.token is not None and not _bears(request, scrape.token):
        error = AuthenticationError("Send the metrics token: Authorization: Bearer …")
        refused = problem(error)
        refused.headers["WWW-Authenticate"] = 'Bearer realm="broker metrics"'
        return refused
    accept = ",".join(request.headers.getlist("accept"))
    body, media_type = await scrape.show(accept)
    # As a header: Starlette would add a second charset to the media type.
    return Response(body, headers={"Content-Type": media_type, "Cache-Control": "no-store"})


def _bears(request: Request, token: Secret) -> bool:
    given = request.headers.getlist("authorization")
    if len(given) != 1 or not given[0].lower().startswith(_BEARER):
        return False
    found = given[0][len(_BEARER) :].strip(" ").encode("latin-1")
    return secrets.compare_digest(found, token.reveal().encode())


class RequestTimes:
    """Counts and measures every answer, by route, method and status."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        """Wrap ``app``."""
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, then take note of how it went."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = self._metrics.now()
        status = 0

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            route = template_of(scope) or NOWHERE
            self._metrics.answered(route, scope["method"], status, since=began)
