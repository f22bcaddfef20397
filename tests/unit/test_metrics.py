"""The metrics by themselves: what each call counts, what labels can't become, how it is written."""

from __future__ import annotations

import asyncio
import re
from typing import TYPE_CHECKING, Final

import pytest

import broker
from broker import measures
from broker.errors import (
    AccessDenied,
    BackendRefused,
    BackendUnavailable,
    InvalidDpopProof,
    LedgerUnavailable,
    OAuthError,
)
from broker.metrics import LedgerReadings, Metrics
from tests.clocks import ManualClock
from tests.exposed import OPENMETRICS, exposed

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

READINGS: Final = LedgerReadings(
    live={("vault", "read"): 3, ("token", "operate"): 1},
    stuck={("vault", "read"): 2},
    unknown=5,
    unreported=6,
    approvals=9,
    reviews=10,
    scheduled=9,
    due=4,
    overdue=1,
    lag_ms=7500,
    quarantined=True,
)

PROMETHEUS_3: Final = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
"""What version 3 of it asks for."""


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def metrics(clock: ManualClock) -> Metrics:
    return Metrics(clock, backends=("vault", "token"))


# ── how it is written ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
def test_every_metric_has_help_and_a_name_by_the_rules(metrics: Metrics, accept: str) -> None:
    found = exposed(metrics, accept).families
    known = {*measures.COUNTERS, *measures.GAUGES, *measures.HISTOGRAMS}

    assert {f.name for f in found if not f.name.endswith("_created")} == {
        f"broker_{name}" for name in known
    }
    for family in found:
        assert family.documentation, family.name
        assert re.fullmatch(r"broker(_[a-z]+)+", family.name)
        assert family.type in {"counter", "gauge", "histogram"}


def test_units_are_base_units() -> None:
    named = {*measures.COUNTERS, *measures.GAUGES, *measures.HISTOGRAMS}
    assert not [n for n in named if re.search(r"_(ms|millis|minutes|hours|kb|mb)(_|$)", n)]
    assert all(name.endswith("_seconds") for name in measures.HISTOGRAMS)
    assert not [name for name in measures.COUNTERS if name.endswith("_total")]  # it is added


@pytest.mark.parametrize("name", measures.HISTOGRAMS)
def test_buckets_reach_from_a_millisecond_to_a_minute(name: str) -> None:
    buckets = measures.HISTOGRAMS[name].buckets
    assert buckets == tuple(sorted(set(buckets)))
    assert buckets[0] <= 0.001
    assert buckets[-1] >= 60


@pytest.mark.parametrize(
    ("accept", "media_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/html", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=0.0.4;q=0.3", "text/plain; version=0.0.4; charset=utf-8"),
        (
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
            "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores",
        ),
        (
            PROMETHEUS_3,
            "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=allow-utf-8",
        ),
    ],
)
def test_the_form_is_the_one_that_was_asked_for(
    metrics: Metrics, accept: str, media_type: str
) -> None:
    body, found = metrics.exposition(accept)
    assert found == media_type
    assert body.endswith(b"# EOF\n") == media_type.startswith("application/openmetrics-text")


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text;version=x",
        "application/openmetrics-text;version=1.x",
        "application/openmetrics-text;version=99.0.0",
        "application/openmetrics-text;version=1.0.0;escaping=\x00",
        "application/openmetrics-text;version=1.0.0\r\nX: y",
        "text/plain;version=1..",
        "text/plain;version=1.0.0;escaping=\N{SNOWMAN}",
        ";;;=,,,;version",
        pytest.param("text/plain" + ";q=" * 20_000 + "!", id="long"),
    ],
)
def test_a_hostile_accept_gets_the_plain_form(metrics: Metrics, accept: str) -> None:
    assert metrics.exposition(accept)[1] == "text/plain; version=0.0.4; charset=utf-8"


def test_two_of_them_share_nothing(metrics: Metrics, clock: ManualClock) -> None:
    other = Metrics(clock)
    metrics.policy_failed()
    assert exposed(metrics).value("policy_errors_total") == 1
    assert exposed(other).value("policy_errors_total") == 0


# ── what is counted ──────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "ok"),
        (AccessDenied(), "denied"),
        (BackendRefused(), "refused"),
        (BackendUnavailable(), "unavailable"),
        (LedgerUnavailable(), "unavailable"),
        (asyncio.CancelledError(), "cancelled"),
        (KeyError("x"), "error"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
@pytest.mark.parametrize("which", ["issue", "revoke"])
def test_what_is_measured_says_how_it_ended(
    metrics: Metrics, clock: ManualClock, which: str, error: BaseException | None, outcome: str
) -> None:
    measure: Callable[[str], AbstractContextManager[None]] = (
        metrics.issuing if which == "issue" else metrics.revoking
    )

    def work() -> None:
        with measure("vault"):
            clock.advance(0.25)
            if error is not None:
                raise error

    if error is None:
        work()
    else:
        with pytest.raises(type(error)):
            work()

    found = exposed(metrics)
    assert found.values(f"{which}_duration_seconds_count") == {("vault", outcome): 1}
    assert found.values(f"{which}_duration_seconds_sum") == {("vault", outcome): 0.25}


def test_the_time_to_dead_is_that_of_the_ledger(metrics: Metrics) -> None:
    metrics.dead("vault", "privileged", asked_at=1_000, ended_at=3_500)
    metrics.dead("vault", "privileged", asked_at=1_000, ended_at=900)  # clocks of two nodes
    found = exposed(metrics)
    assert found.value("time_to_dead_seconds_sum", backend="vault", power="privileged") == 2.5
    assert found.value("time_to_dead_seconds_count", backend="vault", power="privileged") == 2


def test_claims_and_jobs(metrics: Metrics) -> None:
    assert exposed(metrics).values("claims_total") == {("task",): 0, ("grant",): 0}
    metrics.claimed(tasks=2, grants=7)
    metrics.claimed(tasks=0, grants=1)
    metrics.silent(3)
    metrics.job_failed("prune")
    assert exposed(metrics).values("claims_total") == {("task",): 2, ("grant",): 8}
    assert exposed(metrics).values("job_failures_total") == {("prune",): 1}
    assert exposed(metrics).value("missed_heartbeats_total") == 3


def test_a_jobs_age_begins_anew_when_it_is_done(metrics: Metrics, clock: ManualClock) -> None:
    metrics.follow_job("sweep")
    assert exposed(metrics).values("job_failures_total") == {("sweep",): 0}
    clock.advance(90)
    metrics.job_failed("sweep")
    assert exposed(metrics).values("job_age_seconds") == {("sweep",): 90}
    metrics.job_done("sweep")
    clock.advance(2)
    assert exposed(metrics).values("job_age_seconds") == {("sweep",): 2}


def test_what_reconciling_found_adds_up(metrics: Metrics) -> None:
    metrics.reconciled({"orphan_token": 0, "lease_gone": 0}, problems=0)
    metrics.reconciled({"orphan_token": 2}, problems=1)
    metrics.reconciled({"orphan_token": 2}, problems=0)
    found = exposed(metrics)
    assert found.values("reconcile_findings_total") == {("orphan_token",): 4, ("lease_gone",): 0}
    assert found.value("reconcile_problems_total") == 1


def test_what_is_alarmed_about_is_there_as_zero(metrics: Metrics) -> None:
    """The first of a kind would be no increase otherwise."""
    metrics.follow_sink("siem", lag_s=lambda: 0, waiting=lambda: 0)
    found = exposed(metrics)
    for name in ("missed_heartbeats_total", "policy_errors_total", "reconcile_problems_total"):
        assert found.value(name) == 0, name
    assert found.values("decisions_total") == {("break_glass", "allow"): 0}
    assert found.values("audit_sink_failures_total") == {("siem",): 0}


def test_no_label_is_one_that_prometheus_keeps_for_itself() -> None:
    specs = (*measures.COUNTERS.values(), *measures.GAUGES.values(), *measures.HISTOGRAMS.values())
    assert not {"job", "instance"} & {label for spec in specs for label in spec.labels}


def test_decisions_and_policies(metrics: Metrics, clock: ManualClock) -> None:
    with metrics.deciding("call:send_mail"):
        clock.advance(0.0004)
    metrics.decided("call:send_mail", "allow")
    metrics.decided("issue_grant", "needs_approval")
    metrics.policy_failed()
    metrics.policies_read(ok=True)
    metrics.policies_read(ok=False)
    metrics.policies_read(ok=False)

    found = exposed(metrics)
    assert found.values("decisions_total") == {
        ("call_tool", "allow"): 1,
        ("issue_grant", "needs_approval"): 1,
        ("break_glass", "allow"): 0,
    }
    assert found.values("decision_duration_seconds_count") == {("call_tool",): 1}
    assert found.value("policy_errors_total") == 1
    assert found.values("policy_reloads_total") == {("ok",): 1, ("failed",): 2}


def test_the_audit_log_and_its_sinks(metrics: Metrics) -> None:
    behind = {"siem": (1.5, 3.0), "log": (0.0, None)}
    for sink in behind:
        metrics.follow_sink(
            sink, lag_s=lambda s=sink: behind[s][0], waiting=lambda s=sink: behind[s][1]
        )
    metrics.audit_size(4096)
    metrics.sink_failed("siem")
    found = exposed(metrics)
    assert found.values("audit_lag_seconds") == {("siem",): 1.5, ("log",): 0}
    assert found.values("audit_waiting_events") == {("siem",): 3}
    behind["siem"] = (0.0, 0.0)
    assert exposed(metrics).value("audit_waiting_events", sink="siem") == 0
    assert found.value("audit_log_records") == 4096
    assert found.values("audit_sink_failures_total") == {("siem",): 1, ("log",): 0}


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (None, "ok"),
        (OAuthError("invalid_target"), "invalid_target"),
        (OAuthError("made_up_by_nobody"), "other"),
        (InvalidDpopProof(), "invalid_dpop_proof"),
        (LedgerUnavailable(), "ledger_unavailable"),
        (RuntimeError(), "error"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_token_requests_are_counted_by_their_error(
    metrics: Metrics, error: Exception | None, outcome: str
) -> None:
    def work() -> None:
        with metrics.exchanging():
            if error is not None:
                raise error

    if error is None:
        work()
    else:
        with pytest.raises(type(error)):
            work()
    assert exposed(metrics).values("token_exchanges_total") == {(outcome,): 1}


def test_trips_to_the_ledger(metrics: Metrics, clock: ManualClock) -> None:
    with metrics.asking_ledger("reserve"):
        clock.advance(0.002)
    with pytest.raises(LedgerUnavailable), metrics.asking_ledger("reserve"):
        raise LedgerUnavailable
    with pytest.raises(asyncio.CancelledError), metrics.asking_ledger("reserve"):
        raise asyncio.CancelledError
    found = exposed(metrics)
    assert found.values("ledger_duration_seconds_count") == {("reserve",): 3}
    assert found.values("ledger_errors_total") == {("reserve",): 1}


def test_answers(metrics: Metrics, clock: ManualClock) -> None:
    since = metrics.now()
    clock.advance(0.5)
    metrics.answered("/v1/tasks", "POST", 201, since=since)
    metrics.answered("none", "BREW", 0, since=since)
    found = exposed(metrics)
    assert found.value("http_requests_total", route="/v1/tasks", method="POST", status="201") == 1
    assert found.value("http_requests_total", route="none", method="other", status="none") == 1
    assert found.value("http_request_duration_seconds_sum", route="/v1/tasks", method="POST") == 0.5


# ── what is read when somebody looks ─────────────────────────────────────────────────────────────


def test_a_gauge_says_nothing_until_something_is_known(metrics: Metrics) -> None:
    found = exposed(metrics)
    for name in set(measures.GAUGES) - {"build_info"}:
        assert found.values(name) == {}, name
    assert found.values("build_info") == {(broker.__version__,): 1}


def test_what_the_ledger_holds_goes_when_it_doesnt_answer(metrics: Metrics) -> None:
    metrics.ledger_read(READINGS)
    found = exposed(metrics)
    assert found.value("ledger_up") == 1
    assert found.values("live_grants") == {("vault", "read"): 3, ("token", "operate"): 1}
    assert found.values("stuck_grants") == {("vault", "read"): 2}
    assert found.value("unknown_grants") == 5
    assert found.value("unreported_executions") == 6
    assert found.value("pending_approvals") == 9
    assert found.value("open_reviews") == 10
    assert (found.value("scheduled_items"), found.value("due_items")) == (9, 4)
    assert found.value("overdue_items") == 1
    assert found.value("sweep_lag_seconds") == 7.5
    assert found.value("quarantined") == 1

    metrics.ledger_read(None)

    found = exposed(metrics)
    assert found.value("ledger_up") == 0
    for name in ("live_grants", "stuck_grants", "unknown_grants", "due_items", "overdue_items"):
        assert found.values(name) == {}, name  # an old value would look like a good one


def test_a_followed_gauge_is_read_each_time(metrics: Metrics) -> None:
    values: list[float | None] = [3, 5, None]
    metrics.follow("work_in_flight", lambda: values.pop(0))
    metrics.follow("shut_lanes", lambda: 1, "vault")
    assert exposed(metrics).value("work_in_flight") == 3
    assert exposed(metrics).value("work_in_flight") == 5
    found = exposed(metrics)
    assert found.value("work_in_flight") is None
    assert found.value("shut_lanes", backend="vault") == 1


# ── labels ───────────────────────────────────────────────────────────────────────────────────────


def test_no_caller_makes_labels_grow(metrics: Metrics) -> None:
    def misuse(word: str) -> None:
        for measure in (metrics.issuing, metrics.revoking, metrics.deciding):
            with measure(word):
                pass
        metrics.dead(word, word, asked_at=0, ended_at=1)
        metrics.decided(word, word)
        metrics.decided(f"call:{word}", "allow")
        metrics.sink_failed(word)
        metrics.answered("none", word, 404, since=metrics.now())
        with pytest.raises(OAuthError), metrics.exchanging():
            raise OAuthError(word)

    misuse("first")
    before = set(exposed(metrics).samples)
    for n in range(300):
        misuse(f"word{n}")
    after = exposed(metrics)
    assert set(after.samples) == before
    assert "word1" not in after.body
    assert "first" not in after.body
