"""The console as an application of its own, for mounting below the broker's."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlsplit

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import State
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from broker import errors
from broker.console.assets import Assets
from broker.console.contents import CHAPTERS
from broker.console.headers import SecurityHeaders
from broker.console.live import Feeds
from broker.console.rendering import Templates
from broker.console.routing import THEME, THEMES, Pages, Visit, answer_error
from broker.http.problems import status_of
from broker.logs import get_logger

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from broker.audit_log import AuditLog
    from broker.console.oidc import SignInClient
    from broker.console.people import People
    from broker.console.sessions import Sessions
    from broker.console.sign_in import Links
    from broker.ledger.replay import Replay
    from broker.oversight import Oversight
    from broker.overview import Overviews
    from broker.owners import Owners
    from broker.principals import Principals
    from broker.service import Broker

log = get_logger("console")
PATH: Final = "/console"


_assets = Pages()


@_assets.get("/assets/{version}/{name}", None)
async def asset(request: Request, version: str, name: str) -> Response:
    """Return a style sheet or a script."""
    console: Console = request.app.state.console
    return console.assets.answer(version, name)


@dataclass(frozen=True, kw_only=True)
class Console:
    """What pages work with: the broker's own parts, the sessions, the templates.

    ``issuer`` is the broker's URL, which people see the console below. ``parts`` is the state of
    the broker's application, by whose parts the API works too.
    """

    issuer: str
    parts: State
    people: People
    sessions: Sessions
    replay: Replay
    client: SignInClient | None = None
    links: Links | None = None
    assets: Assets = field(init=False)
    templates: Templates = field(init=False)
    feeds: Feeds = field(init=False, default_factory=Feeds)

    def __post_init__(self) -> None:
        """Read the templates and assets."""
        assets = Assets(self.base)
        object.__setattr__(self, "assets", assets)
        object.__setattr__(self, "templates", Templates(self.base, assets))

    @property
    def broker(self) -> Broker:
        """Tasks, grants, approvals, revocations, the log: what ``/v1`` calls as well."""
        return self.parts.broker

    @property
    def overview(self) -> Overviews:
        """What is so now."""
        return self.parts.overview

    @property
    def principals(self) -> Principals:
        """The register: agents, and what may become of them."""
        return self.parts.principals

    @property
    def owners(self) -> Owners:
        """Who answers for them."""
        return self.parts.owners

    @property
    def oversight(self) -> Oversight:
        """Effective power, chains, what nobody uses, policies, reconciling."""
        return self.parts.oversight

    @property
    def audit(self) -> AuditLog | None:
        """The signed log, unless it is off."""
        return self.parts.audit

    @property
    def base(self) -> str:
        """The console's path, without a slash at its end."""
        return f"{urlsplit(self.issuer).path}{PATH}"

    @property
    def origin(self) -> str:
        """Scheme, host and port that browsers know the console by."""
        parts = urlsplit(self.issuer)
        return f"{parts.scheme}://{parts.netloc}"

    def end_streams(self) -> None:
        """End everything that streams: the broker stops."""
        self.feeds.close()

    def sign_in_url(self, request: Request, *, fresh: bool = False) -> str:
        """Return where to sign in, and come back to what a request asked for."""
        # Where it is mounted is left out of the path in FastAPI's hands, and this has it whole.
        asked = self.base + request.scope["path"].removeprefix(request.scope["root_path"])
        query = request.scope["query_string"].decode("latin-1")
        back = quote(f"{asked}?{query}" if query else asked, safe="/")
        return f"{self.base}/sign-in?return_to={back}{'&fresh=yes' if fresh else ''}"

    def page(
        self,
        request: Request,
        template: str,
        status: int,
        visit: Visit | None,
        **values: Any,  # noqa: ANN401  what templates take
    ) -> HTMLResponse:
        """Render a page in the frame that all have; ``visit`` is None for who isn't signed in."""
        theme = request.cookies.get(THEME, "")
        entries = [c for c in CHAPTERS if c.label and visit is not None and visit.may(c.needs)]
        path = request.scope["path"].removeprefix(request.scope["root_path"])
        frame = {
            "visit": visit,
            "theme": theme if theme in THEMES else "auto",
            "themes": THEMES,
            "navigation": entries,
            "here": path,
            "origin": self.origin,
        }
        return HTMLResponse(self.templates.render(template, {**frame, **values}), status)


class _Guarded(FastAPI):
    """The application within what adds the headers, also to answers for unforeseen errors."""

    def build_middleware_stack(self) -> ASGIApp:
        console: Console = self.state.console
        https = console.origin.startswith("https:")
        return SecurityHeaders(super().build_middleware_stack(), https=https)


def create_console(console: Console) -> FastAPI:
    """Build the application around what its pages work with."""
    app = _Guarded(
        title="Broker console",
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )
    app.state.console = console
    # The routes themselves, made once when they were imported: they know no console.
    for pages in (*(chapter.pages for chapter in CHAPTERS), _assets):
        app.router.routes.extend(pages.router.routes)
    _answer_errors(app)
    return app


def _answer_errors(app: FastAPI) -> None:
    """Answer every error with a page; the unforeseen is logged, not shown."""

    async def on_broker_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, errors.BrokerError)  # noqa: S101  registered for this class
        status = status_of(error)
        if status >= 500:  # noqa: PLR2004
            log.warning("page failed", path=request.url.path, code=error.code)
        return answer_error(request, error, status)

    async def on_invalid(request: Request, _: Exception) -> Response:
        return answer_error(request, errors.InvalidRequest("The address is malformed."), 400)

    async def on_http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101  registered for this class
        found = errors.NotFound("There is no such page.")
        if error.status_code == 404:  # noqa: PLR2004
            return answer_error(request, found, 404)
        answer = answer_error(request, errors.InvalidRequest(error.detail), error.status_code)
        answer.headers.update(error.headers or {})
        return answer

    async def on_unforeseen(request: Request, error: Exception) -> Response:
        log.error(
            "unforeseen error", path=request.url.path, error=type(error).__name__, exc_info=error
        )
        unforeseen = errors.BrokerError("Something unforeseen happened; it was logged.")
        return answer_error(request, unforeseen, 500)

    app.add_exception_handler(errors.BrokerError, on_broker_error)
    app.add_exception_handler(RequestValidationError, on_invalid)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_unforeseen)
