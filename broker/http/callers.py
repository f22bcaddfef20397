"""From a request to whoever sends it: the one place where HTTP meets ``access.py``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from broker.access import BEARER, DPOP, Caller
from broker.errors import AuthenticationError, OAuthError
from broker.http.transport import transport_of
from broker.service import Broker
from broker.token_request import read_client

if TYPE_CHECKING:
    from broker.catalog import Principal
    from broker.token_request import Form


async def broker_of(request: Request) -> Broker:
    """Return the app's broker. Async though it waits for nothing: else it is run in a thread."""
    broker: Broker = request.app.state.broker
    return broker


async def authenticated(request: Request) -> Caller:
    """Step 1: the caller, from an access token of ours in the Authorization header.

    By RFC 6750 section 2.1, or RFC 9449 section 7.1 where the token is bound to a key. Never from
    the query or the body, where tokens end up in logs.
    """
    values = request.headers.getlist("authorization")
    scheme, _, token = values[0].partition(" ") if len(values) == 1 else ("", "", "")
    if scheme.lower() not in (BEARER, DPOP) or not token:
        msg = "Send an access token as 'Authorization: Bearer …'; POST /oauth/token gives one."
        raise AuthenticationError(msg)
    access = (await broker_of(request)).access
    return await access.authenticate(token.strip(), scheme.lower(), transport_of(request))


async def oauth_client(request: Request, form: Form) -> Principal | None:
    """Return the client of an OAuth endpoint, by whatever it proves itself with, or None.

    Raises:
        OAuthError: ``invalid_request``: in two ways at once (RFC 6749 section 2.3).
    """
    given, access = read_client(form), (await broker_of(request)).access
    if request.headers.getlist("authorization"):
        if given.assertion:
            raise OAuthError("invalid_request", "authenticate in one way, not in two")
        return (await authenticated(request)).principal
    found = await access.client(given, transport_of(request))
    return found[1] if found is not None else None


The = Annotated[Broker, Depends(broker_of)]
By = Annotated[Caller, Depends(authenticated)]
