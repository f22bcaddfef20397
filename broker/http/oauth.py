"""The OAuth front door: token exchange, introspection, revocation, metadata, keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from broker.errors import AuthenticationError, OAuthError
from broker.http.callers import The, broker_of, oauth_client
from broker.http.oauth_shapes import AccessToken, Introspected, JwkSet, OneTokenForm, TokenForm
from broker.http.openapi import OPEN, OPTIONAL, answers, form
from broker.http.problems import NO_STORE
from broker.http.transport import transport_of
from broker.identity.dpop import ALGORITHMS as DPOP_ALGORITHMS
from broker.identity.models import Role
from broker.introspection import INTROSPECTION_TYPE
from broker.keys import KeyRotation
from broker.token_request import (
    DETAIL_TYPE,
    GRANT_TYPES,
    SEALED,
    Form,
    read_client,
    read_request,
)

router = APIRouter()
_FORM: Final = "application/x-www-form-urlencoded"
_MAX_FIELDS: Final = 50
_JWKS_CACHING: Final = {"Cache-Control": "public, max-age=300"}
"""Shorter than `[broker] key_publish` can be: no cache lacks a key that signs."""
_JWT_ANSWER: Final = f"application/{INTROSPECTION_TYPE}"
_CLIENT_AUTH: Final = ("private_key_jwt", "spiffe_jwt", "tls_client_auth")
_CLIENT_AUTH_ALGORITHMS: Final = ("ES256", "ES384", "ES512", "EdDSA", "PS256", "RS256")


async def _form(request: Request) -> Form:
    """Read a form body with its repeated fields (RFC 6749 appendix B)."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise OAuthError("invalid_request", f"send the parameters as {_FORM}")
    try:
        text = (await request.body()).decode("ascii")
        return parse_qs(text, keep_blank_values=True, max_num_fields=_MAX_FIELDS, errors="strict")
    except ValueError:
        raise OAuthError("invalid_request", "the form is malformed") from None


def _token_of(form: Form) -> str:
    """Return the ``token`` of a form; ``token_type_hint`` may be there, and only hints."""
    values = form.get("token", [])
    if len(values) != 1 or not values[0]:  # empty is omitted (RFC 6749 section 3.2)
        raise OAuthError("invalid_request", "token is given exactly once")
    if len(form.get("token_type_hint", [])) > 1:
        raise OAuthError("invalid_request", "token_type_hint is given more than once")
    return values[0]


@router.post(
    "/oauth/token",
    responses=answers(200, AccessToken, 400, 401, 403, 429, oauth=True),
    openapi_extra=form(TokenForm) | OPEN,
)
async def token(request: Request) -> JSONResponse:
    """Exchange a proof of identity for an access token (RFC 8693, RFC 6749 section 4.4)."""
    if request.headers.getlist("authorization"):
        # Where a shared secret would be sent (RFC 6749 section 2.3.1).
        msg = "there are no client secrets: send client_assertion, or a subject_token alone"
        raise OAuthError("invalid_client", msg)
    broker = await broker_of(request)
    form, transport = await _form(request), transport_of(request)
    answer = await broker.exchange.answer(read_request(form), read_client(form), transport)
    if answer.task is not None:
        broker.pipeline.prefetch(answer.task)
    headers = {**NO_STORE, **answer.allowance.headers()}
    if transport.dpop:
        headers["DPoP-Nonce"] = await broker.access.possession.nonce()
    return JSONResponse(answer.body, headers=headers)


@router.post(
    "/oauth/introspect",
    responses=answers(200, Introspected, 400, 401, 403, oauth=True, also=_JWT_ANSWER),
    openapi_extra=form(OneTokenForm) | OPTIONAL,
)
async def introspect(request: Request) -> Response:
    """Say whether a token is alive, to the resource server it is for (RFC 7662, RFC 9701)."""
    broker = await broker_of(request)
    form = await _form(request)
    client = await oauth_client(request, form)
    if client is None:
        raise AuthenticationError("Send an access token, or authenticate as a client.")
    answer = await broker.introspection.introspect(client, _token_of(form))
    if _JWT_ANSWER not in request.headers.get("accept", ""):
        return JSONResponse(answer, headers={**NO_STORE, "Vary": "Accept"})
    signed = broker.introspection.signed(client, answer)
    return Response(signed, headers={**NO_STORE, "Vary": "Accept"}, media_type=_JWT_ANSWER)


@router.post(
    "/oauth/revoke",
    responses=answers(200, None, 400, 401, 403, oauth=True),
    openapi_extra=form(OneTokenForm) | OPTIONAL,
)
async def revoke(request: Request, broker: The) -> Response:
    """End a token and all that was had with it (RFC 7009)."""
    form = await _form(request)
    client = await oauth_client(request, form)
    named = form.get("client_id", [""])[0]
    await broker.introspection.revoke(client, _token_of(form), named)
    return Response(headers=NO_STORE)


@router.get(
    "/.well-known/jwks.json", responses=answers(200, JwkSet, oauth=True), openapi_extra=OPEN
)
async def jwks(request: Request) -> JSONResponse:
    """Publish the broker's public keys (RFC 7517), those that will sign before long included."""
    keys: KeyRotation = request.app.state.keys
    return JSONResponse(keys.ring.jwks(), headers=_JWKS_CACHING)


def metadata(issuer: str, keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return the authorization server's metadata (RFC 8414 section 2); ``keys`` are its own."""
    auth = {
        f"{endpoint}_endpoint_auth_methods_supported": [*none, *_CLIENT_AUTH]
        # A subject token, or the token itself, is then the proof; there are no client secrets.
        for endpoint, none in (("token", ["none"]), ("introspection", []), ("revocation", ["none"]))
    }
    algorithms = {
        f"{endpoint}_endpoint_auth_signing_alg_values_supported": list(_CLIENT_AUTH_ALGORITHMS)
        for endpoint in ("token", "introspection", "revocation")
    }
    return {
        "issuer": issuer,
        "token_endpoint": f"{issuer}/oauth/token",
        "introspection_endpoint": f"{issuer}/oauth/introspect",
        "revocation_endpoint": f"{issuer}/oauth/revoke",
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        # Required, and never empty (section 3.2); there is no authorization endpoint, so the one
        # registered type by which nothing is issued.
        "response_types_supported": ["none"],
        "grant_types_supported": list(GRANT_TYPES),
        **auth,
        **algorithms,
        "scopes_supported": [*map(str, Role), SEALED],
        "authorization_details_types_supported": [DETAIL_TYPE],
        "introspection_signing_alg_values_supported": sorted({k["alg"] for k in keys["keys"]}),
        "dpop_signing_alg_values_supported": list(DPOP_ALGORITHMS),
        "tls_client_certificate_bound_access_tokens": True,
        "protected_resources": [issuer],
        "service_documentation": f"{issuer}/openapi.json",
    }


def resource_metadata(issuer: str) -> dict[str, Any]:
    """Return the metadata of the API as a protected resource (RFC 9728 section 2)."""
    return {
        "resource": issuer,
        "authorization_servers": [issuer],
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "scopes_supported": [*map(str, Role), SEALED],
        "bearer_methods_supported": ["header"],
        "authorization_details_types_supported": [DETAIL_TYPE],
        "dpop_signing_alg_values_supported": list(DPOP_ALGORITHMS),
        "tls_client_certificate_bound_access_tokens": True,
        "resource_name": "Broker",
    }


def well_known(name: str, issuer: str) -> str:
    """Return the path of a well-known document: before the path of what it is about.

    RFC 8414 section 3.1, RFC 9728 section 3.1.
    """
    return f"/.well-known/{name}{urlsplit(issuer).path}"
