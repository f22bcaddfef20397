"""A small real HTTP server that speaks the wire contract's shapes, for the client and the CLI.

It checks every token exchange and every bearer token; all else it answers as the test says.
"""

from __future__ import annotations

import json
import threading
from collections import defaultdict, deque
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, parse_qsl, urlsplit

if TYPE_CHECKING:
    from collections.abc import Generator

JWT = "eyJ.workload.jwt"
HANG_UP = 0


@dataclass(frozen=True)
class Seen:
    """A request that came in."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def form(self) -> dict[str, list[str]]:
        return parse_qs(self.body.decode())


@dataclass(frozen=True)
class Answer:
    status: int
    document: object
    headers: dict[str, str]


@dataclass
class FakeBroker:
    """What it was asked, and its answers to each ``METHOD /path``; the last of a row stays."""

    url: str = ""
    issuer: str | None = "https://issuer.example"
    token_lifetime: int | None = 300
    accepts: set[str] = field(default_factory=set[str])
    seen: list[Seen] = field(default_factory=list[Seen])
    exchanges: list[Seen] = field(default_factory=list[Seen])
    answers: dict[str, deque[Answer]] = field(default_factory=lambda: defaultdict(deque))

    def on(self, route: str, status: int, document: object = None, **headers: str) -> None:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        self.answers[route].append(Answer(status, document, names))

    @property
    def last(self) -> Seen:
        return self.seen[-1]

    def answer(self, request: Seen) -> Answer:
        if request.path == "/.well-known/oauth-authorization-server":
            return Answer(200, {"issuer": self.issuer}, {}) if self.issuer else Answer(404, {}, {})
        if request.path == "/oauth/token":
            self.exchanges.append(request)
            queue = self.answers["POST /oauth/token"]
            return queue.popleft() if queue else self._exchange(request)
        self.seen.append(request)
        queue = self.answers[f"{request.method} {request.path}"]
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.accepts:
            return problem(401, "invalid_token", "The token is not valid.")
        if not queue:
            return problem(404, "not_found", "No such thing.")
        return queue.popleft() if len(queue) > 1 else queue[0]

    def _exchange(self, request: Seen) -> Answer:
        form = request.form
        good = {
            "grant_type": ["urn:ietf:params:oauth:grant-type:token-exchange"],
            "subject_token": [JWT],
            "subject_token_type": ["urn:ietf:params:oauth:token-type:jwt"],
            "resource": [self.issuer or self.url],
        }
        if {name: form.get(name) for name in good} != good:
            return Answer(400, {"error": "invalid_request", "error_description": "bad form"}, {})
        token = f"at-{len(self.exchanges)}"
        self.accepts.add(token)
        answer = {"access_token": token, "token_type": "Bearer", "expires_in": self.token_lifetime}
        return Answer(200, answer, {})


def problem(status: int, code: str, detail: str, **members: object) -> Answer:
    headers = {"content-type": "application/problem+json"}
    document = {"code": code, "title": "Title", "detail": detail, "status": status, **members}
    return Answer(status, document, headers)


@contextmanager
def running() -> Generator[FakeBroker]:
    """Serve on a free port of the loopback interface."""
    broker = FakeBroker()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 16  # headers and body leave as one

        def handle_any(self) -> None:
            parts = urlsplit(self.path)
            length = int(self.headers.get("content-length", 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            query = dict(parse_qsl(parts.query))
            body = self.rfile.read(length)
            answer = broker.answer(Seen(self.command, parts.path, query, headers, body))
            if answer.status == HANG_UP:
                self.close_connection = True
                return
            raw = answer.document
            content = raw if isinstance(raw, bytes) else json.dumps(raw).encode()
            content = b"" if raw is None else content
            self.send_response(answer.status)
            for name, value in {"content-type": "application/json", **answer.headers}.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_DELETE = handle_any  # noqa: N815  the names http.server calls

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  its name
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    broker.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield broker
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


TASK: dict[str, Any] = {
    "task_id": "tsk_00aaaaaaaaaaaaaaaaaaaaaaaa",
    "state": "active",
    "agent": "report-writer",
    "owner": "data@example.com",
    "purpose": "nightly report",
    "capabilities": ["orders-read"],
    "created_at": "2026-01-02T03:04:05.678Z",
    "expires_at": "2026-01-02T04:04:05.678Z",
    "parent_task_id": None,
    "root_task_id": "tsk_00aaaaaaaaaaaaaaaaaaaaaaaa",
    "created_by": "ci",
    "heartbeat": "30s",
    "reason": None,
    "notes": ["ttl clamped from 2h to 1h"],
    "new_in_a_later_version": 7,
}
GRANT: dict[str, Any] = {
    "grant_id": "grt_00bbbbbbbbbbbbbbbbbbbbbbbb",
    "task_id": TASK["task_id"],
    "agent": "report-writer",
    "capability": "orders-read",
    "backend": "vault",
    "power": "read",
    "state": "revoked",
    "created_at": "2026-01-02T03:04:05.678Z",
    "expires_at": "2026-01-02T03:09:05.678Z",
    "revoke_requested_at": "2026-01-02T03:05:00.000Z",
    "ended_at": "2026-01-02T03:05:00.012Z",
    "time_to_dead_ms": 12,
    "attempts": 1,
    "reason": "task completed",
    "error": None,
}
PASSWORD = "canary-pa$$'word"
DSN = f"postgresql://v-orders:{PASSWORD}@db:5432/orders"
ISSUED: dict[str, Any] = {
    "grant_id": GRANT["grant_id"],
    "capability": "orders-read",
    "state": "active",
    "expires_at": "2026-01-02T03:09:05.678Z",
    "credential": {
        "type": "database",
        "username": "v-orders",
        "password": PASSWORD,
        "dsn": DSN,
        "port": 5432,
    },
    "notes": [],
}
EVENT: dict[str, Any] = {
    "id": "evt_1",
    "time": "2026-01-02T03:04:05.678Z",
    "type": "task.opened",
    "task_id": TASK["task_id"],
    "grant_id": None,
    "principal": "ci",
    "data": {"purpose": "nightly report"},
}
