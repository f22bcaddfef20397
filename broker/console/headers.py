"""What every answer of the console tells the browser not to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'; "
    # What the broker has rendered is the only HTML that our script puts into a page.
    "require-trusted-types-for 'script'; trusted-types console"
)
HEADERS: Final[Mapping[str, str]] = {
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
    # Pages have ids in their addresses. Forms need an Origin, which "no-referrer" would hide.
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
NO_STORE: Final = "no-store"


class SecurityHeaders:
    """Adds them to whatever the console answers, errors included. Only assets are kept."""

    def __init__(self, app: ASGIApp, *, https: bool) -> None:
        """With ``https`` the browser is told to use nothing else here."""
        self._app = app
        known = dict(HEADERS)
        if https:
            known["Strict-Transport-Security"] = "max-age=31536000"
        self._headers = [(k.lower().encode(), v.encode()) for k, v in known.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                there = {name.lower() for name, _ in message["headers"]}
                added = [pair for pair in self._headers if pair[0] not in there]
                if b"cache-control" not in there:
                    added.append((b"cache-control", NO_STORE.encode()))
                message["headers"] = [*message["headers"], *added]
            await send(message)

        await self._app(scope, receive, guarded)
