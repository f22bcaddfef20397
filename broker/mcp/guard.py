"""Who may come in over HTTP (MCP authorization 2026-07-28): a resource server of the broker's.

 1. A token of the broker's in the Authorization header, on each request (RFC 6750 section 2.1)
 2. The broker says whether it is alive, and for us (RFC 7662): a revoked one is refused at once
 3. Its scope is enough
 4. What is done then is done with another token, which the broker makes of it (``party.py``)

A token is looked at here and goes no further than to the broker that made it.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import urlsplit

from mcp.server.auth.middleware.auth_context import AuthContextMiddleware
from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
from mcp.server.auth.provider import AccessToken
from starlette.authentication import AuthCredentials
from starlette.datastructures import Headers
from starlette.responses import JSONResponse

from broker.client import BrokerClientError, Secret
from broker.mcp.party import Party

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Receive, Scope, Send

    from broker.client import AsyncClient

log = logging.getLogger(__name__)
SCOPE: Final = "mcp"
PARTY: Final = "broker.party"
"""Where the party of a request stands in its ASGI scope."""
_MAX_PARTIES: Final = 1000
_NO_STORE: Final = {"Cache-Control": "no-store"}


class Refusal(NamedTuple):
    """An answer to whoever isn't let in."""

    status: int
    error: str
    why: str


_NO_TOKEN: Final = Refusal(401, "", "Send an access token for this server in Authorization.")
_BAD_TOKEN: Final = Refusal(401, "invalid_token", "The token is not a live one for this server.")
_BOUND: Final = Refusal(401, "invalid_token", "The token is bound to a key: bring a plain one.")
_NO_SCOPE: Final = Refusal(403, "insufficient_scope", f"The scope {SCOPE} is needed.")
_DOWN: Final = Refusal(503, "temporarily_unavailable", "The broker can't be asked right now.")


class Guard:
    """Lets requests in, each with its party; the path of the metadata is open to anybody."""

    def __init__(self, app: ASGIApp, broker: AsyncClient, resource: str) -> None:
        """Ask ``broker`` as the resource server that answers for ``resource``."""
        parts = urlsplit(resource)
        self._app = AuthContextMiddleware(app)
        self._broker = broker
        self._resource = resource
        self._path = parts.path or "/"
        # Before the path of what it is about (RFC 9728 section 3.1).
        below = "" if parts.path == "/" else parts.path
        self._metadata_path = f"/.well-known/oauth-protected-resource{below}"
        self._metadata_url = f"{parts.scheme}://{parts.netloc}{self._metadata_path}"
        self._parties: OrderedDict[bytes, Party] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if scope["path"] == self._metadata_path and scope["method"] in ("GET", "HEAD"):
            await (await self._metadata())(scope, receive, send)
            return
        if scope["path"] != self._path:
            await JSONResponse({"error": "not_found"}, 404)(scope, receive, send)
            return
        entered = await self._enter(scope)
        if isinstance(entered, Refusal):
            await self._answer(entered)(scope, receive, send)
            return
        await self._app({**scope, **entered}, receive, send)

    async def _metadata(self) -> JSONResponse:
        """Say what clients have to know to get a token (RFC 9728 section 2)."""
        try:
            issuer = await self._broker.get_issuer()
        except BrokerClientError:
            return self._answer(_DOWN)
        document = {
            "resource": self._resource,
            "authorization_servers": [issuer],
            "scopes_supported": [SCOPE],
            "bearer_methods_supported": ["header"],
            "authorization_details_types_supported": ["broker_task"],
            "resource_name": "Broker, for agents",
        }
        return JSONResponse(document)

    async def _enter(self, scope: Scope) -> dict[str, Any] | Refusal:
        values = Headers(scope=scope).getlist("authorization")
        scheme, _, token = values[0].partition(" ") if len(values) == 1 else ("", "", "")
        token = token.strip()
        if scheme.lower() != "bearer" or not token or not token.isascii():
            return _NO_TOKEN
        try:
            said = await self._broker.introspect(token)
        except BrokerClientError as error:
            log.warning("cannot ask the broker: %s: %s", error.code, error.detail)
            return _DOWN
        refusal = self._refusal(said)
        return refusal or self._let_in(token, said)

    def _refusal(self, said: Mapping[str, Any]) -> Refusal | None:
        audience = said.get("aud")
        meant = audience == self._resource or (
            isinstance(audience, list) and self._resource in audience
        )
        if said.get("active") is not True or not meant or not _task_of(said):
            return _BAD_TOKEN
        if said.get("cnf"):
            return _BOUND
        return None if SCOPE in str(said.get("scope", "")).split() else _NO_SCOPE

    def _let_in(self, token: str, said: Mapping[str, Any]) -> dict[str, Any]:
        task_id = _task_of(said)
        digest = hashlib.sha256(token.encode()).digest()
        party = self._parties.pop(digest, None)
        if party is None:
            client = self._broker.presenting(Secret(token))
            party = Party(client, task_id=task_id)
        self._parties[digest] = party
        if len(self._parties) > _MAX_PARTIES:
            self._parties.popitem(last=False)
        user = AuthenticatedUser(
            AccessToken(
                token=digest.hex(),  # the SDK never needs the token itself, so it doesn't get it
                client_id=str(said.get("client_id", "")),
                scopes=[SCOPE],
                expires_at=said.get("exp"),
                resource=self._resource,
                # A session is one task's: another token of the same agent isn't enough.
                subject=f"{said.get('sub', '')} {task_id}",
                claims={"iss": str(said.get("iss", ""))},
            )
        )
        return {"user": user, "auth": AuthCredentials([SCOPE]), PARTY: party}

    def _answer(self, refusal: Refusal) -> JSONResponse:
        """Say how to come back (RFC 6750 section 3, RFC 9728 section 5.1)."""
        headers = dict(_NO_STORE)
        if refusal.status in (401, 403):
            error = f'error="{refusal.error}", error_description="{refusal.why}", '
            challenge = f'resource_metadata="{self._metadata_url}", scope="{SCOPE}"'
            headers["WWW-Authenticate"] = f"Bearer {error if refusal.error else ''}{challenge}"
        else:
            headers["Retry-After"] = "5"
        code = refusal.error or "unauthenticated"
        body = {"error": code, "error_description": refusal.why}
        return JSONResponse(body, refusal.status, headers)


def _task_of(said: Mapping[str, Any]) -> str | None:
    """Return the task that a token is for (RFC 9396, of our type)."""
    details: Any = said.get("authorization_details")
    try:
        found: Any = details[0]["task_id"]
    except (TypeError, LookupError):
        return None
    return found if isinstance(found, str) else None
