"""uvicorn around the application: bound before anything starts, told when it serves."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import socket
import ssl
from typing import TYPE_CHECKING, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from broker.errors import BrokerError, ConfigError
from broker.http.tls import client_chain
from broker.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from types import FrameType

    from fastapi import FastAPI

    from broker.http.tls import ServerTls

log = get_logger("server")
_BACKLOG: Final = 2048
_YOUNG: Final = 20_000
"""Objects more than before until the collector looks, some tens of requests; by default 700."""
_STOP: Final = (signal.SIGINT, signal.SIGTERM)


def bind(host: str, port: int) -> socket.socket:
    """Take the address before anything else is started.

    Raises:
        ConfigError: somebody else has it, or it isn't this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        taken.bind((host, port))
        taken.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        taken.close()
        msg = (
            f"can't listen on {host}:{port}: {getattr(error, 'strerror', None) or error}\n"
            "    another program may be using it: stop that, or choose another port"
        )
        raise ConfigError(msg) from error
    return taken


class _Protocol(HttpToolsProtocol):
    """As uvicorn's, and says which certificates the client has: the TLS extension of ASGI."""

    _chain: tuple[str, ...] = ()

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        chain = client_chain(transport.get_extra_info("ssl_object"))
        self._chain = tuple(map(ssl.DER_cert_to_PEM_cert, chain))

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._chain:
            self.scope["extensions"] = {"tls": {**_UNTOLD, "client_cert_chain": self._chain}}


_UNTOLD: Final = dict.fromkeys(
    ("server_cert", "client_cert_name", "client_cert_error", "tls_version", "cipher_suite")
)
"""Members that the extension asks for, and that nobody here wants to know."""


class _Server(uvicorn.Server):
    def __init__(
        self, config: uvicorn.Config, *, app: FastAPI, tls: ServerTls | None, linger_s: float
    ) -> None:
        super().__init__(config)
        self.on_ready: Callable[[], None] = _nothing
        self._app = app
        self._tls = tls
        self._linger_s = linger_s
        self._loop: asyncio.AbstractEventLoop | None = None
        self._keeping: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self._tls is not None:
            await self._tls.start()
            self._keeping = asyncio.create_task(self._tls.keep())
        await super().startup(sockets)
        if self.started:
            self._loop = asyncio.get_running_loop()
            _spare_collector()
            self.on_ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Say that we are leaving, and go on serving until whoever sends requests has noticed.

        A second signal ends that at once.
        """
        state = self._app.state
        leaving, state.leaving = getattr(state, "leaving", False), True
        if leaving or not self._linger_s or self._loop is None:
            super().handle_exit(sig, frame)
        else:
            log.info("leaving: /readyz says so, and requests are served", seconds=self._linger_s)
            self._loop.call_soon_threadsafe(self._loop.call_later, self._linger_s, self._leave)

    def _leave(self) -> None:
        self.should_exit = True

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, but a second Ctrl-C leaves out the waiting for requests only."""
        getattr(self._app.state, "end_streams", _nothing)()  # else they would be waited for
        if self._keeping is not None:
            self._keeping.cancel()
        await super().shutdown(sockets)
        if self.force_exit:
            await self.lifespan.shutdown()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        """As uvicorn's, which when done raises the signal once more: for us it is a normal stop.

        Whoever called us still has servers to stop.
        """
        before = {number: signal.signal(number, self.handle_exit) for number in _STOP}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def _spare_collector() -> None:
    """Have what is there from the start looked through no more, and the young less often.

    Next to nothing of a request is a cycle: what it made goes when its last reference does.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_YOUNG)


def _nothing() -> None:
    """Nobody waits for the server, or nothing streams."""


class _OurLog(logging.Handler):
    """Takes what libraries log: the message, and of an exception its type and place only."""

    def emit(self, record: logging.LogRecord) -> None:
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, asyncio.CancelledError):
            return  # a request that a second Ctrl-C cut short
        text = record.getMessage().strip()
        if text.startswith("Traceback "):
            # Starlette sends the whole of it as text; its last line starts with the type.
            text = text.rsplit("\n", 1)[-1].partition(":")[0]
        log.log(record.levelno, text, logger=record.name, **({"exc_info": error} if error else {}))


def serve(
    app: FastAPI,
    taken: socket.socket,
    *,
    on_ready: Callable[[], None],
    tls: ServerTls | None = None,
    linger_s: float = 0.0,
) -> None:
    """Serve until SIGINT or SIGTERM, then finish the requests under way and return.

    After the signal new ones are taken for ``linger_s`` seconds more. With ``tls`` https only. What
    would stream for ever ends first: ``app.state.end_streams``.

    Raises:
        BrokerError: the application could not be started.
    """
    logging.basicConfig(handlers=[_OurLog()], level=logging.WARNING, force=True)
    config = uvicorn.Config(
        app,
        loop="uvloop",
        http=_Protocol,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        # A proxy's headers would be believed from anybody who can reach us on loopback.
        proxy_headers=False,
        timeout_graceful_shutdown=15,
    )
    if tls is not None:
        config.load()
        config.ssl = tls.context
    server = _Server(config, app=app, tls=tls, linger_s=linger_s)
    server.on_ready = on_ready
    with contextlib.suppress(SystemExit):  # uvicorn's, when the application can't be started
        server.run(sockets=[taken])
    if refusal := getattr(app.state, "refusal", None):
        raise refusal
    if not server.started:
        raise BrokerError("the server could not start: see the lines above")
