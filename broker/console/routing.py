"""Routes of the console: each says what it needs, and is guarded by that before its own code runs.

There is no other way to add one, so a route without a need can't be. A page takes ``Here``: who is
looking, as the broker's caller, and how to answer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Depends, Request
from starlette.responses import HTMLResponse, RedirectResponse

from broker.access import Caller
from broker.clock import to_rfc3339
from broker.console.forms import check_origin, check_token, read_form
from broker.console.rights import Right
from broker.console.sessions import Session
from broker.errors import AccessDenied, AuthenticationError, BrokerError, InvalidRequest
from broker.http.api import each_once

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.responses import Response

    from broker.console.app import Console

OPEN: Final = "open"
"""What a route needs that anybody may use who can reach the console."""
NEED: Final = "x-console-needs"
FRESH: Final = "x-console-fresh"
THEME: Final = "broker-theme"
THEMES: Final = ("auto", "light", "dark")
_SAFE: Final = ("GET", "HEAD")


class SignInNeeded(AuthenticationError):
    """There is no session."""

    title = "Sign in first"


class SignInAgain(SignInNeeded):
    """There is one, and its person has to prove anew who they are."""

    title = "Sign in again to do this"


@dataclass(frozen=True, slots=True)
class Visit:
    """A request of somebody who may make it. ``form`` is what was sent with a POST."""

    console: Console
    request: Request
    session: Session
    form: dict[str, str] = field(default_factory=dict[str, str], repr=False)

    @property
    def caller(self) -> Caller:
        """The person, as the broker's methods take a caller."""
        return self.session.caller

    def may(self, right: Right) -> bool:
        """Say whether to show what needs a right; the route asks again."""
        return right in self.session.rights

    def page(self, template: str, *, title: str, status: int = 200, **values: Any) -> HTMLResponse:  # noqa: ANN401  what templates take
        """Answer with a page."""
        return self.console.page(self.request, template, status, self, title=title, **values)

    def go(self, path: str, notice: str = "") -> RedirectResponse:
        """Answer a form: go and see a page of the console, which may say ``notice`` (a word)."""
        query = f"?done={notice}" if notice else ""
        return RedirectResponse(f"{self.console.base}{path}{query}", 303)

    async def now(self) -> str:
        """Return the ledger's time, as the broker's answers write times."""
        return to_rfc3339(await self.console.broker.pipeline.queries.now())

    def must_repeat(self, name: str) -> None:
        """Refuse a form whose ``confirm`` doesn't repeat what it is about.

        Raises:
            InvalidRequest: it says something else, or nothing.
        """
        if self.field("confirm") != name:
            raise InvalidRequest(f"To confirm, write {name} into the last field. Nothing was done.")

    def field(self, name: str, most: int = 1000) -> str:
        """Return a field of the form, without space around it; empty if it wasn't filled in.

        Raises:
            InvalidRequest: it is longer than ``most`` characters.
        """
        value = self.form.get(name, "").strip()
        if len(value) > most:
            raise InvalidRequest(f"{name}: at most {most} characters")
        return value


async def visit_of(request: Request) -> Visit:
    """Return what the guard has let in."""
    visit: Visit = request.state.visit
    return visit


Here = Annotated[Visit, Depends(visit_of)]


def _guard(needs: Right | None, *, fresh: bool) -> Callable[[Request], Any]:
    async def guard(request: Request) -> None:
        console: Console = request.app.state.console
        if request.method not in _SAFE:
            check_origin(request, console.origin)
        if needs is None:
            return
        session = await console.sessions.find(request)
        if session is None:
            raise SignInNeeded
        request.state.session = session  # error pages are this person's as well
        if needs not in session.rights:
            raise AccessDenied(f"You may not do this: it needs the right to {needs}.")
        form: dict[str, str] = {}
        if request.method not in _SAFE:
            form = await read_form(request)
            check_token(form, session.csrf)
        if fresh and not console.sessions.is_fresh(session):
            raise SignInAgain
        request.state.visit = Visit(console, request, session, form)

    return guard


class Pages:
    """A router whose routes say what they need."""

    def __init__(self) -> None:
        """Without any routes yet."""
        self.router = APIRouter(default_response_class=HTMLResponse)

    def get(self, path: str, needs: Right | None, *, fresh: bool = False) -> Any:  # noqa: ANN401  a decorator
        """Add a page. ``needs=None`` is for anybody; ``fresh`` for who signed in a moment ago."""
        return self._route("GET", path, needs, fresh=fresh)

    def post(self, path: str, needs: Right | None, *, fresh: bool = False) -> Any:  # noqa: ANN401  as above
        """Add what a form is sent to; as ``get``. Origin and token are checked before."""
        return self._route("POST", path, needs, fresh=fresh)

    def _route(self, method: str, path: str, needs: Right | None, *, fresh: bool) -> Any:  # noqa: ANN401  as above
        return self.router.api_route(
            path,
            methods=[method],
            dependencies=[Depends(each_once), Depends(_guard(needs, fresh=fresh))],
            openapi_extra={NEED: needs or OPEN, FRESH: fresh},
        )


def answer_error(request: Request, error: BrokerError, status: int) -> Response:
    """Answer an error with a page, or lead somebody who isn't signed in to where they can."""
    console: Console = request.app.state.console
    if isinstance(error, SignInNeeded):
        if request.method in _SAFE and not _is_stream(request):
            return RedirectResponse(
                console.sign_in_url(request, fresh=isinstance(error, SignInAgain)), 303
            )
        status = 401
    session: Session | None = getattr(request.state, "session", None)
    visit = Visit(console, request, session) if session is not None else None
    answer = console.page(
        request,
        "error.html",
        status,
        visit,
        title=error.title,
        detail=error.detail,
        code=error.code,
        number=status,
        sign_in=_way_in(console, request, error),
    )
    if error.retry_after is not None:
        answer.headers["Retry-After"] = str(error.retry_after)
    return answer


def _way_in(console: Console, request: Request, error: BrokerError) -> str:
    """Return where to sign in if that helps, and from there back to the page of a form."""
    if isinstance(error, SignInAgain):  # such a form is at the address of its page
        return console.sign_in_url(request, fresh=True)
    return f"{console.base}/sign-in" if isinstance(error, SignInNeeded) else ""


def _is_stream(request: Request) -> bool:
    return "text/event-stream" in request.headers.get("accept", "")
