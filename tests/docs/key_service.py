"""A service that gives API keys, for ``docs/backends/writing.md``. Nothing of the broker is in it.

``PUT /keys/ID`` makes a key for so many seconds, ``GET`` and ``DELETE`` look it up and end it: all
of them want the admin's token. ``GET /tickets`` wants a key.
"""

from __future__ import annotations

import json
import secrets
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


@dataclass
class KeyService:
    """The service, on a port of its own while its ``with`` block lasts."""

    admin: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)
    keys: dict[str, tuple[str, float]] = field(default_factory=dict[str, Any], repr=False)
    url: str = ""

    def accepts(self, key: str) -> bool:
        """Whether tickets are shown to the holder of a key."""
        now = time.monotonic()
        held = list(self.keys.values())
        return any(secrets.compare_digest(known, key) and now < end for known, end in held)

    def __enter__(self) -> Self:
        self._server = ThreadingHTTPServer(
            ("127.0.0.1", 0), type("Handler", (_Handler,), {"service": self})
        )
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    service: KeyService

    def do_GET(self) -> None:
        if self.path == "/tickets":
            self._answer(200 if self.service.accepts(self._bearer()) else 401)
        elif self._by_admin():
            _, end = self.service.keys.get(self._id(), ("", 0.0))
            self._answer(200 if time.monotonic() < end else 404)

    def do_PUT(self) -> None:
        if self._by_admin():
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            key = secrets.token_urlsafe(24)
            self.service.keys[self._id()] = (key, time.monotonic() + body["seconds"])
            self._answer(201, {"key": key})

    def do_DELETE(self) -> None:
        if self._by_admin():
            gone = self.service.keys.pop(self._id(), None) is None
            self._answer(404 if gone else 204)

    def _id(self) -> str:
        return self.path.removeprefix("/keys/")

    def _bearer(self) -> str:
        return (self.headers["Authorization"] or "").removeprefix("Bearer ")

    def _by_admin(self) -> bool:
        good = secrets.compare_digest(self._bearer(), self.service.admin)
        if not good:
            self._answer(401)
        return good

    def _answer(self, status: int, body: dict[str, str] | None = None) -> None:
        self.send_response(status)
        content = json.dumps(body).encode() if body else b""
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name
        """Say nothing."""
