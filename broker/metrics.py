"""What the broker counts and measures, for Prometheus; ``measures.py`` is the list of it.

One object per application, with a registry of its own. Values of labels are names of the
configuration, words of our own code, or ``other``: never an id, never what a caller made up, so
that nobody can make them grow.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
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
    LIMITS,
    NEWS_OUTCOMES,
    OAUTH_ERRORS,
    OK,
    OTHER,
    OUTCOMES,
    POWERS,
    PREFIX,
)
from broker.tracing import METHODS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from types import TracebackType

    from prometheus_client.metrics_core import Metric

    from broker.clock import Clock

_CALL: Final = "call:"
_LAST: Final = 500
"""How many of the last deaths are remembered one by one."""
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
    """What the ledger holds: grants by backend and power, the rest in all.

    ``lag_ms`` is how long the first due item has waited.
    """

    live: Mapping[tuple[str, str], int]
    stuck: Mapping[tuple[str, str], int]
    unknown: int
    unreported: int
    approvals: int
    reviews: int
    scheduled: int
    due: int
    overdue: int
    lag_ms: int
    quarantined: bool


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
            "limit": frozenset(LIMITS),
            "method": METHODS,
            "channel": frozenset(),
            "outcome": frozenset((*OUTCOMES, *NEWS_OUTCOMES, *OAUTH_ERRORS, *_codes(BrokerError))),
            "power": frozenset(POWERS),
            "sink": frozenset(),
        }
        self._done: dict[str, float] = {}
        self._children: dict[tuple[str, ...], Callable[[float], None]] = {}
        self.times_to_dead: deque[int] = deque(maxlen=_LAST)
        """Of the last grants confirmed dead, in milliseconds, for whoever looks at this replica."""
        self._gauges.set("build_info", 1, broker.__version__)
        # What can be alarmed about is there from the start, as zero.
        for kind in ("task", "grant"):
            self._child("claims", kind)
        for outcome in (OK, FAILED):
            self._child("policy_reloads", outcome)
            self._child("lockouts", outcome)
        self._child("decisions", "break_glass", "allow")

    def exposition(self, accept: str) -> tuple[bytes, str]:
        """Return everything, and its media type: OpenMetrics if ``accept`` asks for it, or text."""
        encode, media_type = choose_encoder(acceptable(accept))
        return encode(self._registry), media_type

    # Issuing and revoking.

    def issuing(self, backend: str) -> AbstractContextManager[None]:
        """Measure steps 4 to 7: how they end is taken from the error that leaves."""
        return self._timed_by_outcome("issue_duration_seconds", self._bounded("backend", backend))

    def over_quota(self, limit: str) -> None:
        """Take note of a credential that was refused since a limit is reached."""
        self._count("quota_refusals", limit)

    def revoking(self, backend: str) -> AbstractContextManager[None]:
        """Measure steps 9 and 10, as far as the backend is asked."""
        return self._timed_by_outcome("revoke_duration_seconds", self._bounded("backend", backend))

    def dead(self, backend: str, power: str, *, asked_at: int, ended_at: int) -> None:
        """Take note of a grant that is confirmed dead; both times in epoch milliseconds."""
        backend, power = self._bounded("backend", backend), self._bounded("power", power)
        took = max(0, ended_at - asked_at)
        self.times_to_dead.append(took)
        self._child("time_to_dead_seconds", backend, power)(took / 1000)

    def abandoned(self, backend: str, power: str) -> None:
        """Take note of a grant that was given up: nobody confirms that it is dead."""
        self._count("abandoned_grants", backend, power)

    def claimed(self, *, tasks: int, grants: int) -> None:
        """Take note of what a sweep took on."""
        self._child("claims", "task")(tasks)
        self._child("claims", "grant")(grants)

    def silent(self, tasks: int) -> None:
        """Take note of tasks that ended since their heartbeat was missed."""
        self._child("missed_heartbeats")(tasks)

    def shut_out(self, accounts: int, *, done: bool) -> None:
        """Take note of accounts that were to be shut out at their target."""
        self._child("lockouts", OK if done else FAILED)(accounts)

    def follow_job(self, job: str) -> None:
        """Say from now on how long ago a job was done; ``job`` is its name in the code."""
        self._child("job_failures", job)
        self.job_done(job)
        self.follow("job_age_seconds", lambda: self.now() - self._done[job], job)

    def job_done(self, job: str) -> None:
        """Take note of a scheduled job that did what it is there for."""
        self._done[job] = self.now()

    def job_failed(self, job: str) -> None:
        """Take note of a scheduled job that failed."""
        self._child("job_failures", job)(1)

    def reconciled(self, findings: Mapping[str, int], problems: int) -> None:
        """Take note of a comparison: how much of each kind it found, what it couldn't compare."""
        for kind, count in findings.items():
            self._child("reconcile_findings", kind)(count)
        self._child("reconcile_problems")(problems)

    # Policy.

    def deciding(self, action: str) -> AbstractContextManager[None]:
        """Measure a decision; what it was is said by ``decided``."""
        observe = self._child("decision_duration_seconds", self._bounded("action", _action(action)))
        return _Timed(self._clock, lambda seconds, _: observe(seconds))

    def decided(self, action: str, effect: str) -> None:
        """Take note of what policy said."""
        self._count("decisions", _action(action), effect)

    def policy_failed(self) -> None:
        """Take note of an evaluation that met an error."""
        self._count("policy_errors")

    def policies_read(self, *, ok: bool) -> None:
        """Take note of changed policies that were read: they are in force now, or can't be used."""
        self._count("policy_reloads", OK if ok else FAILED)

    # The audit log and its sinks.

    def follow_sink(
        self, sink: str, *, lag_s: Callable[[], Reading], waiting: Callable[[], Reading]
    ) -> None:
        """Have it read how far a sink is behind: the age of the oldest event it lacks, how many.

        ``sink`` is its name in the configuration; the log itself is one too.
        """
        self._known["sink"] |= {sink}
        self._child("audit_sink_failures", sink)
        self.follow("audit_lag_seconds", lag_s, sink)
        self.follow("audit_waiting_events", waiting, sink)

    def audit_size(self, size: int) -> None:
        """Say how many records the audit log has ever had."""
        self._gauges.set("audit_log_records", size)

    def news_of(self, channel: str) -> Callable[[str], None]:
        """Return what counts what became of news to a channel of the configuration."""
        self._known["channel"] |= {channel}
        for outcome in NEWS_OUTCOMES:
            self._child("notifications", channel, outcome)
        return lambda outcome: self._count("notifications", channel, outcome)

    def sink_failed(self, sink: str) -> None:
        """Take note of a delivery to a sink that failed."""
        self._count("audit_sink_failures", sink)

    # The edges.

    def exchanging(self) -> AbstractContextManager[None]:
        """Count a token request, by the error that leaves."""

        def finished(_: float, error: BaseException | None) -> None:
            code = error.error if isinstance(error, OAuthError) else ""
            code = code or (error.code if isinstance(error, BrokerError) else _outcome(error))
            self._count("token_exchanges", code)

        return _Timed(self._clock, finished)

    def now(self) -> float:
        """Return the time by which is measured, for ``answered``."""
        return self._clock.monotonic()

    def answered(self, route: str, method: str, status: int, *, since: float) -> None:
        """Take note of an HTTP answer, with 0 of none; ``route`` is the template of its path."""
        seconds = self._clock.monotonic() - since
        said = str(status) if status else "none"
        method = self._bounded("method", method)
        self._child("http_requests", route, method, said)(1)
        self._child("http_request_duration_seconds", route, method)(seconds)

    def asking_ledger(self, call: str) -> AbstractContextManager[None]:
        """Measure a trip to the ledger; ``call`` is a script's name, or a word for the kind."""
        observe = self._child("ledger_duration_seconds", call)

        def finished(seconds: float, error: BaseException | None) -> None:
            observe(seconds)
            if isinstance(error, Exception):
                self._child("ledger_errors", call)(1)

        return _Timed(self._clock, finished)

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
            ("pending_approvals", readings and {(): readings.approvals}),
            ("open_reviews", readings and {(): readings.reviews}),
            ("scheduled_items", readings and {(): readings.scheduled}),
            ("due_items", readings and {(): readings.due}),
            ("overdue_items", readings and {(): readings.overdue}),
            ("sweep_lag_seconds", readings and {(): readings.lag_ms / 1000}),
            ("quarantined", readings and {(): float(readings.quarantined)}),
        ):
            self._gauges.replace(name, found or {})

    # How all of it is written.

    def _bounded(self, label: str, value: str) -> str:
        return value if value in self._known[label] else OTHER

    def _count(self, name: str, *values: str) -> None:
        labels = COUNTERS[name].labels
        self._child(name, *(self._bounded(*pair) for pair in zip(labels, values, strict=True)))(1)

    def _child(self, name: str, *values: str) -> Callable[[float], None]:
        """Return what counts or observes for these values of the labels, bounded ones."""
        key = name, *values
        found = self._children.get(key)
        if found is None:
            if name in COUNTERS:
                counter = self._counters[name]
                found = (counter.labels(*values) if values else counter).inc
            else:
                found = self._histograms[name].labels(*values).observe
            self._children[key] = found
        return found

    def _timed_by_outcome(self, name: str, backend: str) -> _Timed:
        def finished(seconds: float, error: BaseException | None) -> None:
            self._child(name, backend, _outcome(error))(seconds)

        return _Timed(self._clock, finished)


class _Timed:
    """Measures what happens inside. There are several to each request, so this is short."""

    __slots__ = ("_began", "_clock", "_finished")

    def __init__(
        self, clock: Clock, finished: Callable[[float, BaseException | None], None]
    ) -> None:
        self._clock = clock
        self._finished = finished

    def __enter__(self) -> None:
        self._began = self._clock.monotonic()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._finished(self._clock.monotonic() - self._began, exc)


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


def acceptable(accept: str) -> str:
    """Return what of a header may be told to the library."""
    return ",".join(filter(_MEDIA_RANGE.fullmatch, accept.split(",")))


def _action(name: str) -> str:
    """Return the name of an action; each tool has one of its own, in the group of all."""
    return "call_tool" if name.startswith(_CALL) else name


def _outcome(error: BaseException | None) -> str:
    if error is None:
        return OK
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
