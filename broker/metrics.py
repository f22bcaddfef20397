"""What the broker counts and measures, for Prometheus; ``measures.py`` is the list of it.

One object per application, with a registry of its own. Values of labels are names of the
configuration, words of our own code, or ``other``: never an id, never what a caller made up, so
that nobody can make them grow.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import GaugeMetricFamily
from prometheus_client.registry import Collector

import broker
from broker.errors import BackendRefused, BrokerError, OAuthError, Unavailable
from broker.measures import (
    ACTIONS,
    COUNTERS,
    EFFECTS,
    FAILED,
    GAUGES,
    HISTOGRAMS,
    OAUTH_ERRORS,
    OK,
    OTHER,
    OUTCOMES,
    POWERS,
    PREFIX,
)
from broker.tracing import METHODS

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
    from types import TracebackType

    from prometheus_client.metrics_core import Metric

    from broker.clock import Clock

_CALL: Final = "call:"
# Prometheus asks for these; a version the library doesn't know would go into the answer as it came.
_MEDIA_RANGE: Final = re.compile(
    r"[ \t]*(application/openmetrics-text|text/plain)"
    r"([ \t]*;[ \t]*(version=(0\.0\.1|0\.0\.4|1\.0\.0)|(q|charset|escaping)=[a-zA-Z0-9.\-]*))*"
    r"[ \t]*"
)

Reading = float | None
"""A value, or None where it isn't known: then nothing is said of it."""


@dataclass(frozen=True, slots=True)
class LedgerReadings:
    """What the ledger holds: grants by backend and power, the rest in all."""

    live: Mapping[tuple[str, str], int]
    stuck: Mapping[tuple[str, str], int]
    unknown: int
    unreported: int
    scheduled: int
    due: int
    overdue: int


class Metrics:
    """The metrics of one application."""

    def __init__(self, clock: Clock, *, backends: Iterable[str] = ()) -> None:
        """Measure with ``clock``; ``backends`` are all that a label may name."""
        self._clock = clock
        self._registry = CollectorRegistry(auto_describe=False)
        self._counters = {
            name: Counter(PREFIX + name, spec.help, spec.labels, registry=self._registry)
            for name, spec in COUNTERS.items()
        }
        self._histograms = {
            name: Histogram(
                PREFIX + name, spec.help, spec.labels, registry=self._registry, buckets=spec.buckets
            )
            for name, spec in HISTOGRAMS.items()
        }
        self._gauges = _Gauges()
        self._registry.register(self._gauges)
        self._known: dict[str, frozenset[str]] = {
            "action": frozenset(ACTIONS),
            "backend": frozenset(backends),
            "effect": frozenset(EFFECTS),
            "method": METHODS,
            "outcome": frozenset((*OUTCOMES, *OAUTH_ERRORS, *_codes(BrokerError))),
            "power": frozenset(POWERS),
            "sink": frozenset(),
        }
        self._trips: dict[str, tuple[Callable[[float], None], Callable[[], None]]] = {}
        self._gauges.set("build_info", 1, broker.__version__)
        # What can be alarmed about is there from the start, as zero.
        for kind in ("task", "grant"):
            self._counters["claims"].labels(kind)
        for outcome in (OK, FAILED):
            self._counters["policy_reloads"].labels(outcome)

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return everything, and its media type: OpenMetrics if ``accept`` asks for it, or text."""
        ranges = filter(_MEDIA_RANGE.fullmatch, accept.split(","))
        encode, media_type = choose_encoder(",".join(ranges))
        return encode(self._registry), media_type

    # Issuing and revoking.

    def issuing(self, backend: str) -> contextlib.AbstractContextManager[None]:
        """Measure steps 4 to 7: how they end is taken from the error that leaves."""
        return self._timed("issue_duration_seconds", backend=backend)

    def revoking(self, backend: str) -> contextlib.AbstractContextManager[None]:
        """Measure steps 9 and 10, as far as the backend is asked."""
        return self._timed("revoke_duration_seconds", backend=backend)

    def dead(self, backend: str, power: str, *, asked_at: int, ended_at: int) -> None:
        """Take note of a grant that is confirmed dead; both times in epoch milliseconds."""
        seconds = max(0, ended_at - asked_at) / 1000
        self._observe("time_to_dead_seconds", seconds, backend=backend, power=power)

    def claimed(self, *, tasks: int, grants: int) -> None:
        """Take note of what a sweep took on."""
        self._counters["claims"].labels("task").inc(tasks)
        self._counters["claims"].labels("grant").inc(grants)

    def job_failed(self, job: str) -> None:
        """Take note of a scheduled job that failed; ``job`` is its name in the code."""
        self._count("job_failures", job=job)

    # Policy.

    def deciding(self, action: str) -> contextlib.AbstractContextManager[None]:
        """Measure a decision; what it was is said by ``decided``."""
        return self._timed("decision_duration_seconds", action=_action(action))

    def decided(self, action: str, effect: str) -> None:
        """Take note of what policy said."""
        self._count("decisions", action=_action(action), effect=effect)

    def policy_failed(self) -> None:
        """Take note of an evaluation that met an error."""
        self._count("policy_errors")

    def policies_read(self, *, ok: bool) -> None:
        """Take note of changed policies that were read: they are in force now, or can't be used."""
        self._count("policy_reloads", outcome=OK if ok else FAILED)

    # The audit log and its sinks.

    def follow_sink(
        self, sink: str, *, lag_s: Callable[[], Reading], waiting: Callable[[], Reading]
    ) -> None:
        """Have it read how far a sink is behind: the age of the oldest event it lacks, how many.

        ``sink`` is its name in the configuration; the log itself is one too.
        """
        self._known["sink"] |= {sink}
        self.follow("audit_lag_seconds", lag_s, sink)
        self.follow("audit_waiting_events", waiting, sink)

    def audit_size(self, size: int) -> None:
        """Say how many records the audit log has ever had."""
        self._gauges.set("audit_log_records", size)

    def sink_failed(self, sink: str) -> None:
        """Take note of a delivery to a sink that failed."""
        self._count("audit_sink_failures", sink=sink)

    # The edges.

    @contextlib.contextmanager
    def exchanging(self) -> Generator[None]:
        """Count a token request, by the error that leaves."""
        outcome = OK
        try:
            yield
        except OAuthError as error:
            outcome = error.error
            raise
        except BrokerError as error:
            outcome = error.code
            raise
        except BaseException as error:
            outcome = _outcome(error)
            raise
        finally:
            self._count("token_exchanges", outcome=outcome)

    def now(self) -> float:
        """Return the time by which is measured, for ``answered``."""
        return self._clock.monotonic()

    def answered(self, route: str, method: str, status: int, *, since: float) -> None:
        """Take note of an HTTP answer, with 0 of none; ``route`` is the template of its path."""
        seconds = self._clock.monotonic() - since
        said = str(status) if status else "none"
        self._count("http_requests", route=route, method=method, status=said)
        self._observe("http_request_duration_seconds", seconds, route=route, method=method)

    def asking_ledger(self, call: str) -> contextlib.AbstractContextManager[None]:
        """Measure a trip to the ledger; ``call`` is a script's name, or a word for the kind."""
        measured = self._trips.get(call)
        if measured is None:
            observe = self._histograms["ledger_duration_seconds"].labels(call).observe
            measured = observe, self._counters["ledger_errors"].labels(call).inc
            self._trips[call] = measured
        return _Trip(self._clock, *measured)

    # What is read when somebody looks.

    def follow(self, gauge: str, read: Callable[[], Reading], *labels: str) -> None:
        """Have a gauge read each time it is asked for."""
        self._gauges.set(gauge, read, *labels)

    def ledger_read(self, readings: LedgerReadings | None) -> None:
        """Say what the ledger holds, or with None that it doesn't answer."""
        self._gauges.set("ledger_up", float(readings is not None))
        for name, found in (
            ("live_grants", readings and readings.live),
            ("stuck_grants", readings and readings.stuck),
            ("unknown_grants", readings and {(): readings.unknown}),
            ("unreported_executions", readings and {(): readings.unreported}),
            ("scheduled_items", readings and {(): readings.scheduled}),
            ("due_items", readings and {(): readings.due}),
            ("overdue_items", readings and {(): readings.overdue}),
        ):
            self._gauges.replace(name, found or {})

    # How all of it is written.

    def _bounded(self, label: str, value: str) -> str:
        known = self._known.get(label)
        return value if known is None or value in known else OTHER

    def _count(self, name: str, **labels: str) -> None:
        counter = self._counters[name]
        values = [self._bounded(label, value) for label, value in labels.items()]
        (counter.labels(*values) if values else counter).inc()

    def _observe(self, name: str, seconds: float, **labels: str) -> None:
        values = [self._bounded(label, value) for label, value in labels.items()]
        self._histograms[name].labels(*values).observe(seconds)

    @contextlib.contextmanager
    def _timed(self, name: str, **labels: str) -> Generator[None]:
        began, outcome = self._clock.monotonic(), OK
        try:
            yield
        except BaseException as error:
            outcome = _outcome(error)
            raise
        finally:
            if "outcome" in HISTOGRAMS[name].labels:
                labels["outcome"] = outcome
            self._observe(name, self._clock.monotonic() - began, **labels)


class _Trip(contextlib.AbstractContextManager[None]):
    """Measures one trip to the ledger: there are several to each request, so this is short."""

    __slots__ = ("_began", "_clock", "_failed", "_observe")

    def __init__(
        self, clock: Clock, observe: Callable[[float], None], failed: Callable[[], None]
    ) -> None:
        self._clock = clock
        self._observe = observe
        self._failed = failed
        self._began = clock.monotonic()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._observe(self._clock.monotonic() - self._began)
        if isinstance(exc, Exception):
            self._failed()


class _Gauges(Collector):
    """Gauges that say nothing until something is known of them."""

    def __init__(self) -> None:
        self._held: dict[str, dict[tuple[str, ...], float | Callable[[], Reading]]] = {
            name: {} for name in GAUGES
        }

    def set(self, name: str, value: float | Callable[[], Reading], *labels: str) -> None:
        self._held[name][labels] = value

    def replace(self, name: str, values: Mapping[tuple[str, ...], float]) -> None:
        self._held[name] = dict(values)

    def collect(self) -> Iterator[Metric]:
        for name, spec in GAUGES.items():
            family = GaugeMetricFamily(PREFIX + name, spec.help, labels=spec.labels)
            for labels, held in self._held[name].items():
                value = held() if callable(held) else held
                if value is not None:
                    family.add_metric(labels, value)
            yield family


def _action(name: str) -> str:
    """Return the name of an action; each tool has one of its own, in the group of all."""
    return "call_tool" if name.startswith(_CALL) else name


def _outcome(error: BaseException) -> str:
    if isinstance(error, asyncio.CancelledError):
        return "cancelled"
    if isinstance(error, BackendRefused):
        return "refused"
    if isinstance(error, Unavailable):
        return "unavailable"
    return "denied" if isinstance(error, BrokerError) else "error"


def _codes(error: type[BrokerError]) -> Iterator[str]:
    yield error.code
    for narrower in error.__subclasses__():
        yield from _codes(narrower)
