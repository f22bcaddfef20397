"""Signing in, by the identity provider or by a one-time link, and signing out."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from fastapi import Request
from starlette.responses import RedirectResponse, Response

from broker.console.forms import read_form, way_back
from broker.console.rights import Right
from broker.console.routing import THEME, THEMES, Here, Pages
from broker.console.sessions import COOKIE, drop_cookie, set_cookie
from broker.errors import AccessDenied, InvalidRequest, InvalidToken, NotFound

if TYPE_CHECKING:
    from broker.console.app import Console
    from broker.console.people import Person
    from broker.identity.oidc import JwtIssuer
    from broker.ledger.replay import Replay

pages = Pages()
BEGUN: Final = "__Host-broker-sign-in"
LINK_S: Final = 600
"""The longest that a link may be good for."""
_FORM: Final = "/sign-in"
_MAX_TOKEN: Final = 8000
_YEAR_S: Final = 31_536_000


@dataclass(frozen=True, slots=True)
class Links:
    """One-time links: a token of an issuer on this machine, for the console alone, used up once."""

    issuer: JwtIssuer
    replay: Replay

    async def redeem(self, console: Console, token: str) -> Person:
        """Return whom a link signs in.

        Raises:
            AccessDenied: it is no link, too old, or was used.
        """
        try:
            identity = await self.issuer.verify(token)
        except InvalidToken as error:
            raise AccessDenied(f"The link is no good: {error.detail}.") from error
        jti = identity.claims.get("jti")
        if not isinstance(jti, str) or not jti:
            raise AccessDenied("The link is no good: its token has no jti.")
        person = await console.people.by_link(identity)
        if not await self.replay.claim("console-link", jti, 2 * LINK_S * 1000):
            raise AccessDenied("The link was used: `broker dev console` makes another.")
        return person


@pages.get("/sign-in", None)
async def choose(request: Request, return_to: str = "", fresh: str = "") -> Response:
    """Show the ways to sign in."""
    console = _console(request)
    back = way_back(return_to, console.base)
    return console.page(
        request,
        "sign_in.html",
        200,
        None,
        title="Sign in",
        provider=console.client.settings.issuer.name if console.client else "",
        links=console.links is not None,
        return_to=back,
        fresh=bool(fresh),
    )


@pages.get("/sign-in/start", None)
async def start(request: Request, return_to: str = "", fresh: str = "") -> Response:
    """Go to the identity provider, with a secret in a cookie that the answer must fit."""
    console = _console(request)
    if console.client is None:
        raise NotFound("No identity provider is configured: [console] issuer.")
    secret = secrets.token_urlsafe(32)
    back = way_back(return_to, console.base)
    answer = RedirectResponse(await console.client.begin(secret, back, fresh=bool(fresh)), 303)
    set_cookie(answer, BEGUN, secret, LINK_S)
    return answer


@pages.get("/sign-in/callback", None)
async def callback(request: Request) -> Response:
    """Take the provider's answer, once."""
    console = _console(request)
    if console.client is None:
        raise NotFound("No identity provider is configured: [console] issuer.")
    secret, given = request.cookies.get(BEGUN, ""), dict(request.query_params)
    begun = console.client.begun(secret, given)
    if not await console.replay.claim("console-state", given["state"], 2 * LINK_S * 1000):
        raise AccessDenied("This sign-in was finished before: begin again.")
    identity = await console.client.finish(secret, given, begun)
    person = await console.people.by_groups(identity)
    answer = RedirectResponse(way_back(begun.way_back, console.base), 303)
    await console.sessions.begin(person, request, answer)
    drop_cookie(answer, BEGUN)
    return answer


@pages.get("/sign-in/link", None)
async def show_link(request: Request, token: str = "") -> Response:
    """Ask before a link is used up: what only looks at addresses must not spend it."""
    console = _links(request)
    if len(token) > _MAX_TOKEN:
        raise InvalidRequest("The link is too long.")
    return console.page(request, "link.html", 200, None, title="Sign in", token=token)


@pages.post("/sign-in/link", None)
async def use_link(request: Request) -> Response:
    """Sign in by a link."""
    console = _links(request)
    form = await read_form(request)
    assert console.links is not None  # noqa: S101  _links has looked
    person = await console.links.redeem(console, form.get("token", ""))
    answer = RedirectResponse(f"{console.base}/", 303)
    await console.sessions.begin(person, request, answer)
    return answer


@pages.post("/sign-out", Right.READ)
async def sign_out(visit: Here) -> Response:
    """End this session, or with ``everywhere`` all of this person's."""
    console = visit.console
    if visit.field("everywhere"):
        await console.sessions.end_all(visit.session)
    else:
        await console.sessions.end(visit.request)
    answer = RedirectResponse(f"{console.base}/signed-out", 303)
    drop_cookie(answer, COOKIE)
    return answer


@pages.get("/signed-out", None)
async def signed_out(request: Request) -> Response:
    """Say that it is done, and where to sign out of the provider."""
    console = _console(request)
    way_out = ""
    if console.client is not None:
        way_out = await console.client.way_out(f"{console.origin}{console.base}/signed-out")
    return console.page(request, "signed_out.html", 200, None, title="Signed out", way_out=way_out)


@pages.post("/theme", Right.READ)
async def theme(visit: Here) -> Response:
    """Remember whether somebody wants light, dark, or what their system says."""
    console, chosen = visit.console, visit.field("theme")
    if chosen not in THEMES:
        raise InvalidRequest(f"theme: one of {', '.join(THEMES)}")
    answer = RedirectResponse(way_back(visit.field("return_to"), console.base), 303)
    path = f"{console.base}/"
    answer.set_cookie(THEME, chosen, max_age=_YEAR_S, path=path, samesite="lax", httponly=True)
    return answer


def _console(request: Request) -> Console:
    console: Console = request.app.state.console
    return console


def _links(request: Request) -> Console:
    console = _console(request)
    if console.links is None:
        raise NotFound("Links are not configured here: [console] link_issuer.")
    return console
