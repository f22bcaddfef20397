"""A caller's trace reaches Vault: what is sent there is looked at on its way to the real server."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final

import httpx2
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind

from broker import tracing
from tests.http.parties import party_world
from tests.world import logs_in

if TYPE_CHECKING:
    from collections.abc import Generator

    from broker.config import Config
    from broker.dev.stack import DevStack
    from tests.world import World

TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
GOOD: Final = f"00-{TRACE}-00f067aa0ba902b7-01"


class Passage:
    """An HTTP server that hands everything on to another, and remembers what came by."""

    def __init__(self, target: str) -> None:
        self.seen: list[tuple[str, str, dict[str, str]]] = []
        passage, client = self, httpx2.Client(base_url=target)

        class Handler(BaseHTTPRequestHandler):
            def _pass_on(self) -> None:
                headers = {name.lower(): value for name, value in self.headers.items()}
                body = self.rfile.read(int(headers.get("content-length", "0")))
                passage.seen.append((self.command, self.path, headers))
                answer = client.request(self.command, self.path, content=body, headers=headers)
                self.send_response(answer.status_code)
                self.send_header("content-type", answer.headers.get("content-type", ""))
                self.send_header("content-length", str(len(answer.content)))
                self.end_headers()
                self.wfile.write(answer.content)

            do_GET = do_POST = do_PUT = do_LIST = _pass_on  # noqa: N815  names the library looks for

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002
                pass

        self._client = client
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._client.close()

    def traces(self, path: str) -> set[str]:
        """The trace of each request for what begins with this path; empty where it had none."""
        return {
            headers.get("traceparent", "")[3:35]
            for _, asked, headers in self.seen
            if asked.startswith(f"/v1/{path}")
        }


@contextmanager
def passage(config: Config) -> Generator[Passage]:
    assert config.vault is not None
    made = Passage(config.vault.address)
    yield made
    made.close()


async def _life(world: World) -> None:
    """A credential is issued within the caller's trace, and ends with its task."""
    task = await world.open()
    path = f"/v1/tasks/{task['task_id']}/grants"
    more: dict[str, Any] = {"task_id": task["task_id"], "headers": {"traceparent": GOOD}}
    answer = await world.call(task["agent"], "POST", path, {"capability": "orders-read"}, **more)
    assert answer.status_code == 201, answer.text
    credential = answer.json()["credential"]
    assert await logs_in(credential)
    await world.complete(task)
    assert not await logs_in(credential)


async def test_vault_is_told_the_callers_trace(engines: tuple[DevStack, Config]) -> None:
    with passage(engines[1]) as way:
        world = party_world(engines[0], vault={"address": way.url})
        await world.app.connection.command("FLUSHALL")
        await _life(world)
        await world.close()

    assert way.traces("database/creds/orders-read") == {TRACE}
    # Each of the rest belongs to a request too, the one that ended the task: threads kept it.
    for path in ("sys/leases/revoke", "sys/leases/lookup", "auth/token/revoke-accessor"):
        (other,) = way.traces(path)
        assert len(other) == 32
        assert other != TRACE


async def test_who_records_sees_the_calls_below_the_request(
    engines: tuple[DevStack, Config],
) -> None:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with passage(engines[1]) as way:
        world = party_world(engines[0], vault={"address": way.url})
        await world.app.connection.command("FLUSHALL")
        with tracing.recorded_by(provider):
            await _life(world)
        await world.close()
    provider.shutdown()

    calls = [s for s in exporter.get_finished_spans() if s.kind is SpanKind.CLIENT]
    reads = [
        s for s in calls if (s.attributes or {})["url.path"] == "/v1/database/creds/orders-read"
    ]
    (read,) = reads
    assert read.context is not None
    assert f"{read.context.trace_id:032x}" == TRACE
    asked = next(h for _, path, h in way.seen if path == "/v1/database/creds/orders-read")
    assert asked["traceparent"] == f"00-{TRACE}-{read.context.span_id:016x}-01"
    # A look for what is gone is no failure, whatever status Vault answers it with.
    looks = [s for s in calls if (s.attributes or {})["url.path"] == "/v1/sys/leases/lookup"]
    assert looks
    assert all(s.status.is_unset for s in looks)
    text = "".join(span.to_json() for span in exporter.get_finished_spans())
    tokens = {headers["x-vault-token"] for _, _, headers in way.seen if "x-vault-token" in headers}
    assert tokens
    assert not [token for token in tokens if token in text]
