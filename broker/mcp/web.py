"""Over streamable HTTP, for any agent that brings a token for this server.

It listens on loopback unless told otherwise, and has no TLS of its own: from elsewhere it is
reached by a proxy that has. Requests with another Host or Origin than its own are refused, so no
page in a browser reaches it by a name of its own (DNS rebinding).
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import uvicorn
from mcp.server.transport_security import TransportSecuritySettings

from broker.client import InvalidRequest
from broker.mcp.guard import PARTY, Guard
from broker.mcp.server import Desk

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from mcp.server.context import ServerRequestContext
    from starlette.types import ASGIApp

    from broker.client import AsyncClient
    from broker.mcp.party import Party

_STOP: Final = (signal.SIGTERM, signal.SIGINT)
_GRACE_S: Final = 10


@dataclass(frozen=True, slots=True)
class Place:
    """Where it listens, which URL it answers for, and which web pages may call it."""

    host: str
    port: int
    resource: str
    origins: tuple[str, ...] = ()


def checked(place: Place) -> Place:
    """Return a place that is safe to serve at.

    Raises:
        InvalidRequest: others could listen in, or nobody could say which server it is.
    """
    parts = urlsplit(place.resource)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise InvalidRequest("--resource is a URL like https://mcp.example.com/mcp")
    if parts.scheme == "http" and not _is_loopback(parts.hostname or ""):
        raise InvalidRequest("--resource: tokens go there, so it is https but on this machine")
    if not _is_loopback(place.host) and parts.scheme == "http":
        msg = "--listen: others reach this, so say in --resource by which https URL"
        raise InvalidRequest(msg)
    return place


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def application(broker: AsyncClient, place: Place) -> ASGIApp:
    """Make the application; ``broker`` is a client with the resource server's identity."""
    parts = urlsplit(place.resource)
    name = f"[{place.host}]" if ":" in place.host else place.host
    security = TransportSecuritySettings(
        allowed_hosts=[parts.netloc, f"{name}:{place.port}"],
        allowed_origins=[f"{parts.scheme}://{parts.netloc}", *place.origins],
    )
    server = Desk(_party_of).server()
    app = server.streamable_http_app(
        streamable_http_path=parts.path or "/", transport_security=security
    )
    return Guard(app, broker, place.resource)


def _party_of(context: ServerRequestContext[Any, Any]) -> Party:
    """Return who has sent just this request, whatever session it is in."""
    assert context.request is not None  # noqa: S101  it came over HTTP
    party: Party = context.request.scope[PARTY]
    return party


def bind(place: Place) -> socket.socket:
    """Listen.

    Raises:
        InvalidRequest: somebody else does already, or it is no address of ours.
    """
    family = socket.AF_INET6 if ":" in place.host else socket.AF_INET
    try:
        return socket.create_server((place.host, place.port), family=family)
    except OSError as error:
        why = error.strerror or "it can't be listened on"
        raise InvalidRequest(f"--listen {place.host}:{place.port}: {why}") from None


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._on_ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """As uvicorn's, which when done raises the signal once more: for us it is a normal stop."""
        before = {number: signal.signal(number, self.handle_exit) for number in _STOP}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def serve(
    broker: AsyncClient,
    place: Place,
    taken: socket.socket,
    *,
    on_ready: Callable[[], None],
) -> None:
    """Serve until SIGINT or SIGTERM."""
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(name)s: %(message)s")
    config = uvicorn.Config(
        application(broker, place),
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # A proxy's headers would be believed from anybody who can reach us on loopback.
        proxy_headers=False,
        timeout_graceful_shutdown=_GRACE_S,
    )
    asyncio.run(_serve(_Server(config, on_ready), broker, taken))


async def _serve(server: uvicorn.Server, broker: AsyncClient, taken: socket.socket) -> None:
    try:
        await server.serve(sockets=[taken])
    finally:
        await broker.aclose()
