"""What a broker says of itself: its metadata, whether it is up, and whether it is ready.

The functions take all from the application's state: FastAPI remembers every function it has served,
so one that held a broker would keep it for as long as the process lives.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from fastapi import Request
from fastapi.responses import JSONResponse

from broker.http import authzen, oauth

if TYPE_CHECKING:
    from fastapi import FastAPI


def install(app: FastAPI, path: str) -> None:
    """Add the documents, below the issuer's ``path``, and the probes; the API's own has neither."""
    documents = {
        "oauth-authorization-server": _authorization_server,
        "oauth-protected-resource": _protected_resource,
        "authzen-configuration": _decision_point,
    }
    for name, document in documents.items():
        app.add_api_route(oauth.well_known(name, path), document, include_in_schema=False)
    app.add_api_route("/healthz", _health, include_in_schema=False)
    app.add_api_route("/readyz", _readiness, include_in_schema=False)


async def _authorization_server(request: Request) -> dict[str, Any]:
    state = request.app.state
    return oauth.metadata(state.broker.access.issuer, state.keys.ring.jwks())


async def _protected_resource(request: Request) -> dict[str, Any]:
    return oauth.resource_metadata(request.app.state.broker.access.issuer)


async def _decision_point(request: Request) -> dict[str, str]:
    return authzen.metadata(request.app.state.broker.access.issuer)


async def _health() -> dict[str, str]:
    return {"status": "ok"}


async def _readiness(request: Request) -> JSONResponse:
    parts: dict[str, str] = await request.app.state.ready()
    if getattr(request.app.state, "leaving", False):
        parts["shutdown"] = "this broker is being stopped"
    # A warning doesn't take the broker out of service; what stops issuing does.
    fine = all(state == "ok" or state.startswith("warning") for state in parts.values())
    body = {"status": "ready" if fine else "unavailable", "checks": parts}
    return JSONResponse(body, 200 if fine else 503)
