"""The other end of a login in a browser: one page on a free port of this machine (RFC 8252)."""

from __future__ import annotations

import queue
import secrets
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Final, Self
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from types import TracebackType

_PATH: Final = "/callback"
_DONE: Final = b"""<!doctype html><meta charset="utf-8"><title>broker</title>
<p>You can close this window and go back to your terminal."""


class Loopback:
    """Waits for the browser to come back with the state that it was sent off with."""

    def __init__(self, state: str) -> None:
        """Only 127.0.0.1 is listened on, and only an answer with this state is taken."""
        came: queue.Queue[dict[str, str]] = queue.Queue()

        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                """Take the answer; anything else that comes by is turned away."""
                parts = urlsplit(self.path)
                pairs = parse_qsl(parts.query, keep_blank_values=True)
                said = dict(pairs)
                ours = secrets.compare_digest(
                    said.get("state", "").encode(), state.encode()
                ) and len(said) == len(pairs)
                if parts.path != _PATH or not ours:
                    self.send_error(404)
                    return
                self.send_response(200)
                for name, value in _HEADERS.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(_DONE)))
                self.end_headers()
                self.wfile.write(_DONE)
                came.put(said)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name
                """Say nothing: the code is in the address."""

        self._came = came
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )

    @property
    def url(self) -> str:
        """Where the browser is to come back to."""
        return f"http://127.0.0.1:{self._server.server_port}{_PATH}"

    def wait(self, seconds: float) -> dict[str, str] | None:
        """Return the parameters that came, or None if nothing did in time."""
        try:
            return self._came.get(timeout=seconds)
        except queue.Empty:
            return None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


_HEADERS: Final = {
    "content-type": "text/html; charset=utf-8",
    "cache-control": "no-store",
    "referrer-policy": "no-referrer",
    "content-security-policy": "default-src 'none'; frame-ancestors 'none'",
}
