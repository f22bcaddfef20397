"""One trace: from the caller to the answer, the events, the log, and the spans of who records."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Final

import httpx2
import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from broker import logs, tracing
from tests.http.parties import UNKNOWN_TASK

if TYPE_CHECKING:
    from collections.abc import Generator

    from opentelemetry.sdk.trace import ReadableSpan

    from tests.world import World

TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN: Final = "00f067aa0ba902b7"
GOOD: Final = f"00-{TRACE}-{SPAN}-01"
FORM: Final = re.compile(r"00-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3]")


@pytest.fixture
def recorded() -> Generator[InMemorySpanExporter]:
    """What this test's requests leave with an SDK, and no other test's."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with tracing.recorded_by(provider):
        yield exporter
    provider.shutdown()


def _server_spans(exporter: InMemorySpanExporter) -> list[ReadableSpan]:
    return [s for s in exporter.get_finished_spans() if s.kind is SpanKind.SERVER]


async def test_the_answer_names_the_trace_of_the_caller(world: World) -> None:
    answer = await world.http.get("/healthz", headers={"traceparent": GOOD})
    assert answer.headers["traceresponse"] == GOOD
    assert "traceparent" not in answer.headers


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("traceparent", "00-nonsense")],
        [("traceparent", GOOD.upper())],
        [("traceparent", f"ff{GOOD[2:]}")],
        [("traceparent", GOOD), ("traceparent", GOOD)],
        [("tracestate", "a=1")],
    ],
)
async def test_without_a_good_header_a_new_trace_begins(
    world: World, headers: list[tuple[str, str]]
) -> None:
    seen = [(await world.http.get("/healthz", headers=headers)).headers for _ in range(2)]
    traces = {found["traceresponse"] for found in seen}
    assert len(traces) == 2
    assert all(FORM.fullmatch(trace) and TRACE not in trace for trace in traces)


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nowhere", 404),
        ("PUT", "/v1/tasks", 405),
        ("GET", "/v1/tasks", 401),
        ("POST", "/oauth/token", 400),
    ],
)
async def test_refusals_name_it_too(world: World, method: str, path: str, status: int) -> None:
    answer = await world.http.request(method, path, headers={"traceparent": GOOD})
    assert answer.status_code == status
    assert answer.headers["traceresponse"] == GOOD


async def test_a_body_over_the_limit_is_refused_within_the_trace(world: World) -> None:
    body = b"x" * (world.config.broker.max_body + 1)
    answer = await world.http.post("/v1/tasks", content=body, headers={"traceparent": GOOD})
    assert answer.status_code == 413
    assert answer.headers["traceresponse"] == GOOD


async def test_the_events_of_a_request_are_of_its_trace(world: World) -> None:
    ask = {"agent": "report-writer", "purpose": "x", "capabilities": ["orders-read"]}
    answer = await world.call(
        "orchestrator", "POST", "/v1/tasks", ask, headers={"traceparent": GOOD}
    )
    task = answer.json()
    other = await world.http.get("/healthz")
    await world.complete(task)

    page = await world.app.pipeline.queries.events(task_id=task["task_id"])

    traces = {event.type: event.trace for event in page.items}
    assert traces["task.opened"] == GOOD
    assert FORM.fullmatch(traces["task.ended"])
    assert traces["task.ended"] not in {GOOD, other.headers["traceresponse"]}


async def test_what_ends_by_itself_has_a_trace_of_its_own(world: World) -> None:
    task = await world.open()
    await world.sweep(ahead_ms=86_400_000)
    page = await world.app.pipeline.queries.events(task_id=task["task_id"])
    traces = {event.type: event.trace for event in page.items}
    assert FORM.fullmatch(traces["task.ended"])
    assert traces["task.ended"] != traces["task.opened"]


async def test_the_span_of_a_request_says_what_it_was(
    world: World, recorded: InMemorySpanExporter
) -> None:
    path = f"/v1/tasks/{UNKNOWN_TASK}"
    answer = await world.call(
        "operator", "GET", f"{path}?secret=hvs.x", headers={"traceparent": GOOD}
    )

    span = next(s for s in _server_spans(recorded) if s.name.startswith("GET"))
    assert span.name == "GET /v1/tasks/{task_id}"
    assert dict(span.attributes or {}) == {
        "http.request.method": "GET",
        "http.route": "/v1/tasks/{task_id}",
        "http.response.status_code": 404,
        "url.path": path,
        "url.scheme": "http",
    }
    assert span.status.status_code is StatusCode.UNSET
    assert span.parent is not None
    assert f"{span.parent.span_id:016x}" == SPAN
    assert span.context is not None
    ours = f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert answer.headers["traceresponse"] == ours


async def test_a_path_that_leads_nowhere_is_not_recorded(
    world: World, recorded: InMemorySpanExporter
) -> None:
    await world.http.request("BREW", "/hvs.secret?hvs.secret")
    (span,) = _server_spans(recorded)
    assert span.name == "HTTP"
    assert dict(span.attributes or {}) == {
        "http.request.method": "_OTHER",
        "http.request.method_original": "BREW",
        "http.response.status_code": 404,
        "url.scheme": "http",
    }


async def test_each_request_is_one_span_of_ours_and_none_of_the_frameworks(
    world: World, recorded: InMemorySpanExporter
) -> None:
    await world.http.get("/healthz")
    (span,) = recorded.get_finished_spans()
    assert span.instrumentation_scope is not None
    assert span.instrumentation_scope.name == tracing.NAME


async def test_an_unforeseen_error_is_logged_and_recorded_within_its_trace(
    world: World, recorded: InMemorySpanExporter, capsys: pytest.CaptureFixture[str]
) -> None:
    async def broken() -> None:
        raise RuntimeError("hvs.secret")

    app = world.app.http()
    app.add_api_route("/broken", broken)
    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    logs.configure(json=True)
    try:
        async with httpx2.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            answer = await client.get("/broken", headers={"traceparent": GOOD})
    finally:
        logs.configure(json=False)

    assert answer.status_code == 500
    (span,) = _server_spans(recorded)
    assert span.context is not None
    assert answer.headers["traceresponse"] == f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert span.status.status_code is StatusCode.ERROR
    assert "hvs.secret" not in span.to_json()
    (line,) = map(json.loads, capsys.readouterr().err.splitlines())
    assert (line["event"], line["trace_id"]) == ("unforeseen error", TRACE)
