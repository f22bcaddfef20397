"""The FastAPI application around a broker."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.responses import JSONResponse

import broker
from broker.http import api, oauth, problems
from broker.http.limits import BodyLimit

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    from broker.service import Broker

Readiness = dict[str, str]
"""Each part by name, and ``ok`` or what is wrong with it."""


def create_app(
    service: Broker,
    *,
    jwks: Mapping[str, Any],
    max_body: int,
    ready: Callable[[], Awaitable[Readiness]],
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
) -> FastAPI:
    """Build the application. ``max_body`` is in bytes; ``ready`` looks at every part."""
    app = FastAPI(
        title="Broker",
        summary="Just-in-time credentials for AI agents: every credential belongs to one task.",
        version=broker.__version__,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        # Without this FastAPI answers /v1/tasks/ with a redirect built from the Host header.
        redirect_slashes=False,
    )
    app.state.broker = service
    app.state.jwks = jwks
    app.include_router(api.router)
    issuer = service.access.issuer
    # Served below the issuer's path too, so that its own URLs lead here without a proxy.
    below = urlsplit(issuer).path
    app.include_router(oauth.router, prefix=below)
    problems.install(app, f"{below}/oauth/")

    @app.get(oauth.metadata_path(issuer), include_in_schema=False)
    async def metadata() -> dict[str, Any]:
        return oauth.metadata(issuer)

    @app.get("/healthz", include_in_schema=False)
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz", include_in_schema=False)
    async def readiness() -> JSONResponse:
        parts = await ready()
        # A warning doesn't take the broker out of service; what stops issuing does.
        fine = all(state == "ok" or state.startswith("warning") for state in parts.values())
        body = {"status": "ready" if fine else "unavailable", "checks": parts}
        return JSONResponse(body, 200 if fine else 503)

    app.add_middleware(BodyLimit, limit=max_body)
    return app
