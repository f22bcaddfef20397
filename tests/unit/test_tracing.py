"""Traces: what is read of a caller, what is passed on, and what a span may hold."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import SpanKind, StatusCode

from broker import logs, tracing
from broker.errors import AccessDenied, LedgerUnavailable, NotFound

if TYPE_CHECKING:
    from collections.abc import Generator

    from opentelemetry.sdk.trace import ReadableSpan

TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN: Final = "00f067aa0ba902b7"
GOOD: Final = f"00-{TRACE}-{SPAN}-01"
FORM: Final = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-0[0-3]")


class Recorded:
    """What an SDK has recorded in this test alone."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))

    @property
    def spans(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}


@pytest.fixture
def recorded() -> Generator[Recorded]:
    made = Recorded()
    yield made
    made.provider.shutdown()


# ── what a caller sends ──────────────────────────────────────────────────────────────────────────


def test_a_good_header_is_the_parent() -> None:
    parent = tracing.read_parent([GOOD])
    assert parent is not None
    with tracing.begin("work", parent=parent):
        assert tracing.traceparent() == GOOD
        assert tracing.ids() == {"trace_id": TRACE, "span_id": SPAN}
        assert tracing.headers() == {"traceparent": GOOD}


@pytest.mark.parametrize(
    "header",
    [
        "",
        "00",
        f"00-{TRACE}-{SPAN}",
        f"00-{TRACE}-{SPAN}-",
        f"00-{TRACE}-{SPAN}-1",
        f"00-{TRACE}-{SPAN}-0g",
        f"00-{TRACE}-{SPAN}-01-",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{TRACE}-{SPAN}-010",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE}-{SPAN.upper()}-01",
        f"00-{TRACE[1:]}-{SPAN}-01",
        f"00-{TRACE}0-{SPAN}-01",
        f"00-{TRACE}-{SPAN[1:]}-01",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"ff-{TRACE}-{SPAN}-01",
        f"FF-{TRACE}-{SPAN}-01",
        f"0-{TRACE}-{SPAN}-01",
        f"000-{TRACE}-{SPAN}-01",
        f"01-{TRACE}-{SPAN}-01more",
        f"00_{TRACE}_{SPAN}_01",
        f"00-{TRACE}-{SPAN}-01\n",
        f"{GOOD},{GOOD}",
        f"\N{FULLWIDTH DIGIT ZERO}0-{TRACE}-{SPAN}-01",
        pytest.param("x" * 10_000, id="long"),
    ],
)
def test_what_is_not_exactly_the_standard_is_ignored(header: str) -> None:
    assert tracing.read_parent([header]) is None


def test_two_headers_are_none() -> None:
    assert tracing.read_parent([GOOD, GOOD]) is None
    assert tracing.read_parent([]) is None


@pytest.mark.parametrize(
    ("header", "flags"),
    [
        (f"01-{TRACE}-{SPAN}-01", "01"),
        (f"cc-{TRACE}-{SPAN}-00-what-will-come", "00"),
        (f"cc-{TRACE}-{SPAN}-01-", "01"),
        (f"00-{TRACE}-{SPAN}-ff", "03"),  # those that mean nothing yet are not passed on
        (f"00-{TRACE}-{SPAN}-08", "00"),
        (f" \t{GOOD}\t ", "01"),
    ],
)
def test_later_versions_and_flags_are_read_as_far_as_they_are_known(
    header: str, flags: str
) -> None:
    with tracing.begin("work", parent=tracing.read_parent([header])):
        assert tracing.traceparent() == f"00-{TRACE}-{SPAN}-{flags}"


@given(st.text(max_size=80) | st.from_regex(tracing.TRACEPARENT))
def test_whatever_is_sent_what_goes_out_is_valid(header: str) -> None:
    with tracing.begin("work", parent=tracing.read_parent([header])):
        assert FORM.fullmatch(tracing.traceparent())


# ── tracestate ───────────────────────────────────────────────────────────────────────────────────


def _passed_on(*states: str) -> str:
    with tracing.begin("work", parent=tracing.read_parent([GOOD], states)):
        assert tracing.traceparent() == GOOD  # whatever became of the state
        return tracing.headers().get("tracestate", "")


@pytest.mark.parametrize(
    ("sent", "goes_on"),
    [
        (["a=1,b=2"], "a=1,b=2"),
        (["a=1", "b=2"], "a=1,b=2"),
        ([" a=1 ,\tb=2,, "], "a=1,b=2"),
        (["fw529a3039@dt=FfAAAA"], "fw529a3039@dt=FfAAAA"),
        (["a=x y"], "a=x y"),
        ([",".join(f"k{n}=v" for n in range(32))], ",".join(f"k{n}=v" for n in range(32))),
    ],
)
def test_a_tracestate_is_passed_on(sent: list[str], goes_on: str) -> None:
    assert _passed_on(*sent) == goes_on


@pytest.mark.parametrize(
    "sent",
    [
        ["a"],
        ["a="],
        ["=1"],
        ["a=1,b"],
        ["A=1"],
        ["a=1,a=2"],
        ["a=1=2"],
        ["a=b\x7f"],
        ["a=ä"],
        ["a b=1"],
        pytest.param([f"{'k' * 257}=1"], id="long key"),
        pytest.param([f"k={'v' * 257}"], id="long value"),
        pytest.param([",".join(f"k{n}=v" for n in range(33))], id="33 members"),
        pytest.param(["a=1" + "," * 9000], id="9000 commas"),
    ],
)
def test_a_tracestate_that_cant_be_read_is_dropped_alone(sent: list[str]) -> None:
    assert _passed_on(*sent) == ""


def test_a_long_tracestate_loses_its_long_members_first_and_then_its_last() -> None:
    long = f"long={'v' * 200}"
    short = [f"k{n:02}={'v' * 20}" for n in range(24)]
    goes_on = _passed_on(",".join([long, *short]))

    assert len(goes_on) <= tracing.MAX_TRACESTATE
    members = goes_on.split(",")
    assert members == short[: len(members)]
    assert len(",".join([*members, short[len(members)]])) > tracing.MAX_TRACESTATE


# ── without an SDK ───────────────────────────────────────────────────────────────────────────────


def test_nothing_is_current_outside_of_work() -> None:
    assert tracing.traceparent() == ""
    assert tracing.headers() == {}
    assert tracing.ids() == {}
    tracing.note(name="nobody hears", task="tsk_1")


def test_work_without_a_caller_has_a_trace_of_its_own() -> None:
    seen: set[str] = set()
    for _ in range(3):
        with tracing.begin("work"):
            first = tracing.traceparent()
            assert FORM.fullmatch(first)
            assert first.endswith("-02")  # random, and nobody recorded it
            with tracing.span("inside", task="tsk_1"):
                assert tracing.traceparent() == first
            seen.add(first)
        assert tracing.traceparent() == ""
    assert len(seen) == 3


def test_work_begun_within_other_work_is_its_own() -> None:
    with tracing.begin("outer"):
        outer = tracing.traceparent()
        with tracing.begin("inner"):
            assert tracing.traceparent()[3:35] != outer[3:35]
        assert tracing.traceparent() == outer


async def test_a_span_holds_over_awaits_and_tasks_see_their_own() -> None:
    async def work(ready: asyncio.Event) -> tuple[str, str]:
        with tracing.begin("work"):
            before = tracing.traceparent()
            ready.set()
            await asyncio.sleep(0)
            return before, tracing.traceparent()

    events = [asyncio.Event() for _ in range(5)]
    answers = await asyncio.gather(*(work(event) for event in events))
    assert all(before == after for before, after in answers)
    assert len({before for before, _ in answers}) == 5


# ── with an SDK ──────────────────────────────────────────────────────────────────────────────────


def test_spans_are_recorded_below_each_other(recorded: Recorded) -> None:
    parent = tracing.read_parent([GOOD], ["a=1"])
    with (
        tracing.recorded_by(recorded.provider),
        tracing.begin("GET", parent=parent, server=True),
        tracing.span("mint", grant="grt_1", attempt=1, empty=""),
        tracing.span("POST", client=True),
    ):
        outgoing = tracing.headers()
        tracing.note({"http.route": "/v1"}, name="renamed")

    spans = recorded.spans
    assert set(spans) == {"GET", "mint", "renamed"}
    server, mint, client = spans["GET"], spans["mint"], spans["renamed"]
    assert server.parent is not None
    assert (server.parent.span_id, server.parent.is_remote) == (int(SPAN, 16), True)
    assert mint.parent == server.context
    assert client.parent == mint.context
    assert (server.kind, mint.kind, client.kind) == (
        SpanKind.SERVER,
        SpanKind.INTERNAL,
        SpanKind.CLIENT,
    )
    assert dict(mint.attributes or {}) == {"grant": "grt_1", "attempt": 1}
    assert dict(client.attributes or {}) == {"http.route": "/v1"}
    assert client.context is not None
    assert outgoing == {
        "traceparent": f"00-{TRACE}-{client.context.span_id:016x}-01",
        "tracestate": "a=1",
    }


def test_a_sampler_that_drops_everything_still_leaves_ids() -> None:
    with tracing.recorded_by(TracerProvider(sampler=ALWAYS_OFF)), tracing.begin("work"):
        assert FORM.fullmatch(tracing.traceparent())


def test_what_one_test_records_no_other_does(recorded: Recorded) -> None:
    with tracing.recorded_by(recorded.provider), tracing.begin("mine"):
        pass
    with tracing.begin("nobody's"):
        pass
    assert set(recorded.spans) == {"mine"}


@pytest.mark.parametrize(
    ("error", "kind", "status"),
    [
        (AccessDenied("hvs.secret"), "access_denied", StatusCode.UNSET),
        (NotFound("hvs.secret"), "not_found", StatusCode.UNSET),
        (LedgerUnavailable("hvs.secret"), "ledger_unavailable", StatusCode.ERROR),
        (ValueError("hvs.secret"), "ValueError", StatusCode.ERROR),
        (asyncio.CancelledError("hvs.secret"), "CancelledError", StatusCode.UNSET),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_of_an_error_its_kind_is_recorded_and_never_its_text(
    recorded: Recorded, error: BaseException, kind: str, status: StatusCode
) -> None:
    with pytest.raises(type(error)), tracing.recorded_by(recorded.provider), tracing.begin("work"):
        raise error

    span = recorded.spans["work"]
    assert dict(span.attributes or {}) == {"error.type": kind}
    assert span.status.status_code is status
    assert "hvs.secret" not in span.to_json()


def test_an_error_that_is_as_good_as_an_answer_is_none(recorded: Recorded) -> None:
    with (
        pytest.raises(NotFound),
        tracing.recorded_by(recorded.provider),
        tracing.begin("work"),
        tracing.span("look", fine=NotFound),
    ):
        raise NotFound
    assert dict(recorded.spans["look"].attributes or {}) == {}
    assert recorded.spans["work"].attributes == {"error.type": "not_found"}


def test_long_values_are_cut(recorded: Recorded) -> None:
    with (
        tracing.recorded_by(recorded.provider),
        tracing.begin("work", {"gen_ai.tool.name": "t" * 5000}),
    ):
        pass
    assert recorded.spans["work"].attributes == {"gen_ai.tool.name": "t" * 256}


def test_an_unknown_method_is_other() -> None:
    assert tracing.of_method("GET") == {"http.request.method": "GET"}
    assert tracing.of_method("LIST") == {
        "http.request.method": "_OTHER",
        "http.request.method_original": "LIST",
    }


PROCESS: Final = """
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from broker import tracing

with tracing.begin("before there is an SDK"):
    pass
exporter = InMemorySpanExporter()
provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)
with tracing.begin("work"), tracing.span("inside"):
    pass
print(*[span.name for span in exporter.get_finished_spans()])
"""


def test_the_sdk_of_the_process_is_found_whenever_it_comes() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROCESS], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["inside", "work"]


# ── logs ─────────────────────────────────────────────────────────────────────────────────────────


def test_log_lines_have_the_ids_of_the_span(
    recorded: Recorded, capsys: pytest.CaptureFixture[str]
) -> None:
    logs.configure(json=True)
    try:
        log = logs.get_logger("test")
        log.info("outside", task="tsk_1")
        with tracing.begin("work", parent=tracing.read_parent([GOOD])):
            log.info("no sdk", grant="grt_1")
        with tracing.recorded_by(recorded.provider), tracing.begin("recorded"):
            log.info("sdk", decision="dec_1")
    finally:
        logs.configure(json=False)

    outside, inside, sdk = map(json.loads, capsys.readouterr().err.splitlines())
    assert "trace_id" not in outside
    assert "span_id" not in outside
    assert (inside["trace_id"], inside["span_id"]) == (TRACE, SPAN)
    context = recorded.spans["recorded"].context
    assert context is not None
    assert sdk["trace_id"] == f"{context.trace_id:032x}"
    assert sdk["span_id"] == f"{context.span_id:016x}"
    assert (outside["task"], inside["grant"], sdk["decision"]) == ("tsk_1", "grt_1", "dec_1")
