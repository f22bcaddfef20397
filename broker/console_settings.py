"""The console of a replica, made of its configuration and its other parts."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from starlette.responses import RedirectResponse
from starlette.routing import Route

from broker.console.app import Console, create_console
from broker.console.oidc import ClientSettings, SignInClient
from broker.console.people import People
from broker.console.rights import ConsoleRole
from broker.console.sessions import Sessions, SessionTimes
from broker.console.sign_in import LINK_S, Links
from broker.identity.oidc import JwtIssuer
from broker.ledger.replay import Replay
from broker.ledger.sessions import SessionTable

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request

    from broker.clock import Clock
    from broker.config import Config
    from broker.identity.models import IssuerSettings
    from broker.ledger.connection import Connection
    from broker.service import Broker


def sign_in_client(config: Config, clock: Clock) -> SignInClient | None:
    """Make the console's client at the identity provider, if one is configured.

    Raises:
        ConfigError: it can't be asked safely.
    """
    section, own = config.console, config.broker.issuer
    if section.issuer is None or section.client_id is None or not section.enabled:
        return None
    client = ClientSettings(
        issuer=_issuer(config, section.issuer),
        client_id=section.client_id,
        redirect_uri=f"{own}/console/sign-in/callback",
        scopes=section.scopes,
        secret_file=section.client_secret_file,
        key_file=section.client_key_file,
    )
    return SignInClient(client, clock)


def mount_console(
    app: FastAPI,
    config: Config,
    connection: Connection,
    clock: Clock,
    client: SignInClient | None,
) -> None:
    """Put the console below the broker's application, whose parts its pages work with.

    It is not there if the configuration has it off.
    """
    section, own, replay = config.console, config.broker.issuer, Replay(connection)
    if not section.enabled:
        return
    broker: Broker = app.state.broker
    people = People(
        broker.pipeline.catalog,
        broker.access.directory,
        groups_claim=section.groups_claim,
        roles={role: getattr(section.roles, role) for role in ConsoleRole},
    )
    times = SessionTimes(section.idle, section.max_session, section.fresh)
    links = None
    if section.link_issuer is not None:
        issuer = _issuer(config, section.link_issuer)
        ours = replace(issuer, audience=f"{own}/console", max_lifetime_s=LINK_S)
        links = Links(JwtIssuer(ours, clock), replay)
    console = Console(
        issuer=own,
        parts=app.state,
        people=people,
        sessions=Sessions(SessionTable(connection), people, times, clock),
        replay=replay,
        client=client,
        links=links,
    )
    app.router.routes.append(Route(console.base, _first_page, include_in_schema=False))
    app.mount(console.base, create_console(console), name="console")
    app.state.end_streams = console.end_streams


async def _first_page(request: Request) -> RedirectResponse:
    """Lead from the console's path to its first page, which links are relative to."""
    return RedirectResponse(f"{request.scope['path']}/", 308)


def _issuer(config: Config, name: str) -> IssuerSettings:
    return next(settings for settings in config.issuers() if settings.name == name)
