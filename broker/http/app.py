"""The FastAPI application around a broker."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from fastapi import Depends, FastAPI

import broker
from broker.audit_desk import AuditDesk
from broker.http import about, api, authzen, oauth, problems
from broker.http import approvals as approvals_api
from broker.http import audit as audit_api
from broker.http import grants as grants_api
from broker.http import keys as keys_api
from broker.http import metrics as metrics_page
from broker.http import overview as overview_api
from broker.http import policy as policy_api
from broker.http import power as power_api
from broker.http import principals as principals_api
from broker.http import quotas as quotas_api
from broker.http import reconcile as reconcile_api
from broker.http import reports as reports_api
from broker.http import signals as signals_api
from broker.http import trees as trees_api
from broker.http import whoami as whoami_api
from broker.http.hot import HotRoutes
from broker.http.limits import BodyLimit
from broker.http.openapi import DescribedApp, operation_name
from broker.http.tracing import RequestSpans

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from contextlib import AbstractAsyncContextManager
    from ipaddress import IPv4Network, IPv6Network

    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp

    from broker.audit_log import AuditLog
    from broker.dry_runs import DryRuns
    from broker.http.metrics import Scrape
    from broker.keys import KeyRotation
    from broker.oversight import Oversight
    from broker.overview import Overviews
    from broker.owners import Owners
    from broker.principals import Principals
    from broker.service import Broker

Readiness = dict[str, str]
"""Each part by name, and ``ok`` or what is wrong with it."""


class ObservedApp(DescribedApp):
    """The application within what observes it."""

    _scrape: Scrape | None = None

    def show(self, scrape: Scrape) -> None:
        """Measure every answer, and show that and the rest at ``/metrics``."""
        self._scrape = scrape
        metrics_page.install(self, scrape)

    def build_middleware_stack(self) -> ASGIApp:
        """Put what observes outside of all else, also of what answers for unforeseen errors."""
        stack = super().build_middleware_stack()
        if self._scrape is not None:
            stack = metrics_page.RequestTimes(stack, self._scrape.metrics)
        return RequestSpans(authzen.RequestIds(stack))


def routed(
    issuer: str,
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
) -> ObservedApp:
    """Make the application without a broker in it: its routes, and the document of them."""
    app = _bare(lifespan)
    app.router.routes.extend(_routes(urlsplit(issuer).path))
    return app


def _bare(
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
) -> ObservedApp:
    return ObservedApp(
        title="Broker",
        summary="Just-in-time credentials for AI agents: every credential belongs to one task.",
        version=broker.__version__,
        generate_unique_id_function=operation_name,
        dependencies=[Depends(api.each_once)],
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        # Without this FastAPI answers /v1/tasks/ with a redirect built from the Host header.
        redirect_slashes=False,
        # FastAPI's own, which an SDK would switch on, keeps queries and the texts of errors.
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )


@cache
def _routes(path: str) -> tuple[BaseRoute, ...]:
    """Return the routes below an issuer's path, made once: they know no broker, and cost 60 ms."""
    app = _bare()
    # Below the issuer's path too, so that its own URLs lead here without a proxy. First, since
    # routes are tried in their order, and this is where most requests go.
    app.include_router(oauth.router, prefix=path)
    app.include_router(api.router)
    app.include_router(grants_api.router)
    app.include_router(approvals_api.router)
    app.include_router(authzen.router, prefix=path)
    app.include_router(authzen.reports)
    app.include_router(keys_api.router)
    app.include_router(principals_api.router)
    app.include_router(policy_api.router)
    app.include_router(signals_api.router)
    app.include_router(power_api.router)
    app.include_router(trees_api.router)
    app.include_router(whoami_api.router)
    app.include_router(reports_api.router)
    app.include_router(quotas_api.router)
    app.include_router(reconcile_api.router)
    app.include_router(audit_api.router)
    app.include_router(overview_api.router)
    about.install(app, path)
    return tuple(app.router.routes)


def create_app(  # noqa: PLR0913  the parts of the API
    service: Broker,
    *,
    keys: KeyRotation,
    principals: Principals,
    owners: Owners,
    oversight: Oversight,
    overview: Overviews,
    dry_runs: DryRuns,
    login: Mapping[str, Any] | None = None,
    audit: AuditLog | None = None,
    max_body: int,
    trusted_proxies: Sequence[IPv4Network | IPv6Network] = (),
    ready: Callable[[], Awaitable[Readiness]],
    lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]] | None = None,
) -> ObservedApp:
    """Build the application. ``max_body`` is in bytes; ``ready`` looks at every part.

    ``login`` is what ``/v1/login`` answers: the issuer that people log in at, if they do.
    """
    issuer = service.access.issuer
    app = routed(issuer, lifespan)
    app.state.broker = service
    app.state.keys = keys
    app.state.trusted_proxies = trusted_proxies
    app.state.principals = principals
    app.state.owners = owners
    app.state.oversight = oversight
    app.state.policing = oversight.policing
    app.state.overview = overview
    app.state.dry_runs = dry_runs
    app.state.login = login
    app.state.audit = audit
    app.state.audit_desk = AuditDesk(audit) if audit is not None else None
    app.state.decisions = service.decisions
    app.state.ready = ready
    parts = urlsplit(issuer)
    metadata = oauth.well_known("oauth-protected-resource", issuer)
    app.state.resource_metadata = f"{parts.scheme}://{parts.netloc}{metadata}"
    problems.install(app, f"{parts.path}/oauth/", app.state.resource_metadata)

    hot = {
        "/oauth/token": oauth.token,
        "/oauth/introspect": oauth.introspect,
        authzen.EVALUATION: authzen.evaluate_access,
        authzen.EVALUATIONS: authzen.evaluate_accesses,
    }
    app.add_middleware(
        HotRoutes, endpoints={f"{parts.path}{path}": endpoint for path, endpoint in hot.items()}
    )
    app.add_middleware(BodyLimit, limit=max_body)
    return app
