"""A bound on request bodies, counted as they arrive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.errors import PayloadTooLarge
from broker.http.problems import problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send


class BodyLimit:
    """Refuses bodies over ``limit`` bytes with 413, whatever Content-Length said."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        """Wrap ``app``."""
        self._app = app
        self._limit = limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Read the body up to the limit, then hand it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = bytearray()
        more = True
        while more:
            message = await receive()
            if message["type"] != "http.request":
                return  # the client hung up
            body += message.get("body", b"")
            more = message.get("more_body", False)
            if len(body) > self._limit:
                error = PayloadTooLarge(f"The body is over {self._limit} bytes, the most accepted.")
                await problem(error)(scope, receive, send)
                return
        whole: list[Message] = [{"type": "http.request", "body": bytes(body), "more_body": False}]

        async def replay() -> Message:
            return whole.pop() if whole else await receive()

        await self._app(scope, replay, send)
