"""Traces: what belongs together, by ids that logs, audit events, answers and those we call share.

OpenTelemetry's API alone: whoever runs the broker brings an SDK, or doesn't. Without one nothing is
recorded, and each request still has a trace id: that of its ``traceparent`` header (W3C Trace
Context), or one made here.

Names and values of attributes follow the semantic conventions where they have one (``http.*``,
``url.*``, ``gen_ai.*``). Our own ids are ``task``, ``grant`` and ``decision`` everywhere. What a
tool was called with, and the text of an error, are never in a span.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Mapping
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from opentelemetry import context, trace
from opentelemetry.context import Context
from opentelemetry.trace import (
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    TraceState,
)

from broker.errors import BrokerError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from types import TracebackType

    from opentelemetry.trace import Span, Tracer, TracerProvider

Parent = SpanContext
"""The span of another process, as its ``traceparent`` names it."""
Value = str | int | float | bool
Attributes = Mapping[str, Value]

NAME: Final = "broker"
MAX_TRACESTATE: Final = 512
"""Characters of ``tracestate`` that are passed on; the least that the standard asks for."""
METHODS: Final = frozenset(
    ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "CONNECT")
)
_MAX_VALUE: Final = 256
_MAX_MEMBERS: Final = 32
_LONG_MEMBER: Final = 128
_HOPELESS: Final = 8192
_RANDOM: Final = 2
_FLAGS: Final = 3
"""The flags that are defined: sampled, and random trace id. Others are not passed on."""

TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_MEMBER: Final = re.compile(
    r"([a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13})"
    r"=([ -+\--<>-~]{0,255}[!-+\--<>-~])"
)

_ours: Final = trace.get_tracer(NAME)
"""The process's own: it finds the SDK whenever one is set."""
_recorder: ContextVar[Tracer | None] = ContextVar("recorder", default=None)
_NOTHING: Final = contextlib.nullcontext()


@contextlib.contextmanager
def recorded_by(provider: TracerProvider) -> Generator[None]:
    """Have spans started in here recorded by ``provider`` instead of the process's own."""
    token = _recorder.set(provider.get_tracer(NAME))
    try:
        yield
    finally:
        _recorder.reset(token)


def begin(
    name: str,
    about: Attributes | None = None,
    *,
    parent: Parent | None = None,
    server: bool = False,
    **ids: Value,
) -> contextlib.AbstractContextManager[None]:
    """Begin a piece of work: under the caller's span, or in a trace of its own.

    It has a trace id even if nobody records it. ``about`` are attributes with dots in their names.
    ``server`` says that it answers a request.
    """
    kind = SpanKind.SERVER if server else SpanKind.INTERNAL
    within = Context()
    if parent is not None:
        within = trace.set_span_in_context(NonRecordingSpan(parent), within)
    started = _tracer().start_span(name, within, kind, _given(about, ids))
    if not started.get_span_context().is_valid:
        started = NonRecordingSpan(_made_up())
    return _Within(started)


def span(
    name: str,
    about: Attributes | None = None,
    *,
    client: bool = False,
    fine: type[BaseException] | tuple[()] = (),
    **ids: Value,
) -> contextlib.AbstractContextManager[None]:
    """Have what happens inside as a span below the current one; it may await.

    ``client`` says that it asks somebody else, ``fine`` is an error that is as good as an answer.
    """
    kind = SpanKind.CLIENT if client else SpanKind.INTERNAL
    started = _tracer().start_span(name, None, kind)
    if started is trace.get_current_span():  # nobody records
        return _NOTHING
    if started.is_recording():
        started.set_attributes(_given(about, ids))
    return _Within(started, fine)


class _Within:
    """Makes a span current, and ends it. There are many to a request, so this is short."""

    __slots__ = ("_fine", "_span", "_token")

    def __init__(self, started: Span, fine: type[BaseException] | tuple[()] = ()) -> None:
        self._span = started
        self._fine = fine

    def __enter__(self) -> None:
        self._token = context.attach(trace.set_span_in_context(self._span))

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None and not isinstance(exc, self._fine):
            _failed(self._span, exc)
        context.detach(self._token)
        self._span.end()


def _failed(started: Span, error: BaseException) -> None:
    """Say what kind of error it was; its text could hold anything."""
    ours = isinstance(error, BrokerError)
    started.set_attribute("error.type", error.code if ours else type(error).__qualname__)
    # A refusal is an answer like any other.
    if isinstance(error, Unavailable) or (isinstance(error, Exception) and not ours):
        started.set_status(StatusCode.ERROR)


def is_recorded() -> bool:
    """Say whether anybody records the current span."""
    return trace.get_current_span().is_recording()


def note(about: Attributes | None = None, *, name: str = "", error: str = "", **ids: Value) -> None:
    """Say more of the current span: attributes, another ``name``, or that it failed and how."""
    current = trace.get_current_span()
    if not current.is_recording():
        return
    current.set_attributes(_given(about, ids))
    if name:
        current.update_name(name)
    if error:
        current.set_attribute("error.type", error)
        current.set_status(StatusCode.ERROR)


def traceparent() -> str:
    """Return the current span as a ``traceparent`` header has it, or an empty string."""
    current = trace.get_current_span().get_span_context()
    return _written(current) if current.is_valid else ""


def headers() -> dict[str, str]:
    """Return the headers that tell whoever is called what they work for.

    Threads have no current span: take them before handing over, and pass them on.
    """
    current = trace.get_current_span().get_span_context()
    if not current.is_valid:
        return {}
    found = {"traceparent": _written(current)}
    if current.trace_state:
        found["tracestate"] = current.trace_state.to_header()
    return found


def ids() -> dict[str, str]:
    """Return ``trace_id`` and ``span_id`` of the current span; empty without one."""
    current = trace.get_current_span().get_span_context()
    if not current.is_valid:
        return {}
    return {
        "trace_id": trace.format_trace_id(current.trace_id),
        "span_id": trace.format_span_id(current.span_id),
    }


def of_method(method: str) -> dict[str, Value]:
    """Return the attributes of an HTTP method: strangers are ``_OTHER``, and named beside it."""
    if method in METHODS:
        return {"http.request.method": method}
    return {"http.request.method": "_OTHER", "http.request.method_original": method}


def read_parent(traceparents: Sequence[str], tracestates: Sequence[str] = ()) -> Parent | None:
    """Read a request's headers; None if they aren't exactly what the standard says.

    Each is given as often as it was sent. A ``tracestate`` that can't be read is dropped alone.
    """
    if len(traceparents) != 1:
        return None
    match = TRACEPARENT.fullmatch(traceparents[0].strip(" \t"))
    if match is None:
        return None
    version, trace_id, span_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None
    found = SpanContext(
        int(trace_id, 16),
        int(span_id, 16),
        is_remote=True,
        trace_flags=TraceFlags(int(flags, 16) & _FLAGS),
        trace_state=TraceState(_members(tracestates)),
    )
    return found if found.is_valid else None


def _members(tracestates: Sequence[str]) -> list[tuple[str, str]]:
    """Read ``tracestate``, shortened by its standard's rule (section 3.3.1.5) if it is long."""
    if sum(map(len, tracestates)) > _HOPELESS:
        return []
    texts = [text.strip(" \t") for header in tracestates for text in header.split(",")]
    texts = [text for text in texts if text]
    matches = [_MEMBER.fullmatch(text) for text in texts]
    pairs = [(match[1], match[2]) for match in matches if match]
    if len(pairs) < len(texts) or len(pairs) > _MAX_MEMBERS:
        return []
    if len({key for key, _ in pairs}) < len(pairs):
        return []
    while _length(pairs) > MAX_TRACESTATE:
        long = [pair for pair in pairs if _length([pair]) > _LONG_MEMBER]
        pairs.remove((long or pairs)[-1])
    return pairs


def _length(pairs: Sequence[tuple[str, str]]) -> int:
    return sum(len(key) + len(value) + 2 for key, value in pairs) - 1


def _made_up() -> SpanContext:
    random = secrets.token_bytes(24)
    return SpanContext(
        int.from_bytes(random[:16]) or 1,
        int.from_bytes(random[16:]) or 1,
        is_remote=False,
        trace_flags=TraceFlags(_RANDOM),
    )


def _written(current: SpanContext) -> str:
    return f"00-{current.trace_id:032x}-{current.span_id:016x}-{current.trace_flags:02x}"


def _given(about: Attributes | None, ids: Attributes) -> dict[str, Value]:
    """Leave out what is empty, and cut what is long."""
    return {
        key: value[:_MAX_VALUE] if isinstance(value, str) else value
        for key, value in {**(about or {}), **ids}.items()
        if value != ""
    }


def _tracer() -> Tracer:
    return _recorder.get() or _ours
