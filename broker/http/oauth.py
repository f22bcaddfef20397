"""The OAuth front door: token exchange, introspection, metadata, keys."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from broker.access import GRANT_TYPE
from broker.errors import OAuthError
from broker.http.api import By, The
from broker.http.problems import NO_STORE

router = APIRouter()
_FORM: Final = "application/x-www-form-urlencoded"
_MAX_FIELDS: Final = 50


async def _form(request: Request) -> dict[str, list[str]]:
    """Read a form body with its repeated fields (RFC 6749 appendix B)."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise OAuthError("invalid_request", f"send the parameters as {_FORM}")
    try:
        text = (await request.body()).decode("ascii")
        return parse_qs(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict")
    except ValueError:
        raise OAuthError("invalid_request", "the form is malformed") from None


@router.post("/oauth/token")
async def token(request: Request, broker: The) -> JSONResponse:
    """Exchange a workload identity for an access token (RFC 8693)."""
    answer, task = await broker.access.exchange(await _form(request))
    if task is not None:
        broker.pipeline.prefetch(task)
    return JSONResponse(answer, headers=NO_STORE)


@router.post("/oauth/introspect")
async def introspect(request: Request, broker: The, caller: By) -> JSONResponse:
    """Say whether a token is alive, to the resource server it is for (RFC 7662)."""
    values = (await _form(request)).get("token", [])
    if len(values) != 1:
        raise OAuthError("invalid_request", "token is given exactly once")
    return JSONResponse(await broker.access.introspect(caller, values[0]), headers=NO_STORE)


@router.get("/.well-known/jwks.json")
async def jwks(request: Request) -> dict[str, Any]:
    """Publish the broker's public keys (RFC 7517)."""
    keys: dict[str, Any] = request.app.state.jwks
    return keys


def metadata(issuer: str) -> dict[str, Any]:
    """Return the authorization server's metadata (RFC 8414 section 2)."""
    return {
        "issuer": issuer,
        "token_endpoint": f"{issuer}/oauth/token",
        "introspection_endpoint": f"{issuer}/oauth/introspect",
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "grant_types_supported": [GRANT_TYPE],
        # The subject token is the proof; there are no client secrets.
        "token_endpoint_auth_methods_supported": ["none"],
        "authorization_details_types_supported": ["broker_task"],
    }


def metadata_path(issuer: str) -> str:
    """Return where the metadata is: before an issuer's path (RFC 8414 section 3.1)."""
    return f"/.well-known/oauth-authorization-server{urlsplit(issuer).path}"
