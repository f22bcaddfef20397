"""The rules under deploy/prometheus, what they ask for, and data on which each of them fires."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from broker import measures

if TYPE_CHECKING:
    from tests.exposed import Exposed

DEPLOY: Final = Path(__file__).parents[2] / "deploy"
RULES: Final = DEPLOY / "prometheus/broker.rules.yml"
DASHBOARD: Final = DEPLOY / "grafana/broker.json"
SPECS: Final = {
    **{f"broker_{name}_total": spec for name, spec in measures.COUNTERS.items()},
    **{f"broker_{name}": spec for name, spec in measures.GAUGES.items()},
    **{
        f"broker_{name}_{part}": spec
        for name, spec in measures.HISTOGRAMS.items()
        for part in ("bucket", "count", "sum")
    },
}
"""Every series that there can be, by the name that a query has for it."""
_SELECTOR: Final = re.compile(r"\b(broker_[a-z_]+)(?:\{([^}]*)\})?")
_MATCHER: Final = re.compile(r'([a-z_]+)(=~|!~|!=|=)"([^"]*)"')
_GROUPING: Final = re.compile(r"\b(?:by|without|on) \(([^)]*)\)")
_OF_PROMETHEUS: Final = {"le", "instance", "job"}


@dataclass(frozen=True)
class Rule:
    """One alert, as the file has it."""

    alert: str
    expr: str
    labels: dict[str, str]
    annotations: dict[str, str]
    wait: str = ""


def rules() -> list[Rule]:
    """All of them, in the order of the file."""
    document: Any = yaml.safe_load(RULES.read_text("utf-8"))
    return [
        Rule(r["alert"], r["expr"], r["labels"], r["annotations"], r.get("for", ""))
        for group in document["groups"]
        for r in group["rules"]
    ]


def selectors(expr: str) -> list[tuple[str, list[tuple[str, str, str]]]]:
    """Each series that a query asks for: its name, and (label, operator, value)."""
    return [(name, _MATCHER.findall(inside)) for name, inside in _SELECTOR.findall(expr)]


def unknown_labels(expr: str) -> set[str]:
    """Labels that a query matches or groups by, and that none of its series have."""
    asked = {label.strip() for group in _GROUPING.findall(expr) for label in group.split(",")}
    asked |= {label for _, matchers in selectors(expr) for label, _, _ in matchers}
    had = {label for name, _ in selectors(expr) if name in SPECS for label in SPECS[name].labels}
    return asked - had - _OF_PROMETHEUS


@dataclass(frozen=True)
class Fires:
    """Series in promtool's notation, a sample a minute, and when by them the alert fires."""

    series: dict[str, str]
    at: str = "20m"
    labels: dict[str, str] = field(default_factory=dict[str, str])


def _slow(name: str, labels: str, *, over: str) -> dict[str, str]:
    """A histogram all of whose observations, one a second, are over a bucket's bound."""
    series = f"broker_{name}_bucket{{{labels}, le="
    grows = "0+60x60"
    return {f'{series}"{over}"}}': "0x60", f'{series}"60.0"}}': grows, f'{series}"+Inf"}}': grows}


VAULT: Final = {"backend": "vault"}
READ: Final = {"backend": "vault", "power": "read"}
FIRING: Final[dict[str, Fires]] = {
    "BrokerDown": Fires(
        {'up{job="broker", instance="b1"}': "1 0x30"}, labels={"job": "broker", "instance": "b1"}
    ),
    "BrokerAbsent": Fires({}),
    "BrokerFailing": Fires(
        {
            'broker_http_requests_total{route="/v1/tasks", method="GET", status="200"}': "0+60x30",
            'broker_http_requests_total{route="/v1/tasks", method="GET", status="503"}': "0+3x30",
        }
    ),
    "BrokerVersionsDiffer": Fires(
        {
            'broker_build_info{version="1.0", instance="b1"}': "1x90",
            'broker_build_info{version="1.1", instance="b2"}': "1x90",
        },
        at="80m",
    ),
    "BrokerCredentialStuck": Fires(
        {'broker_stuck_grants{backend="vault", power="read"}': "0 0 1x30"}, labels=READ
    ),
    "BrokerNobodySweeps": Fires({"broker_overdue_items": "0 3x30"}),
    "BrokerSweepsLate": Fires({"broker_sweep_lag_seconds": "0 4x30"}),
    "BrokerJobStands": Fires(
        {'broker_job_age_seconds{name="sweep", instance="b1"}': "1+60x30"},
        labels={"name": "sweep", "instance": "b1"},
    ),
    "BrokerJobFails": Fires(
        {'broker_job_failures_total{name="look"}': "0+2x40"}, at="30m", labels={"name": "look"}
    ),
    "BrokerRevokingFails": Fires(
        {'broker_revoke_duration_seconds_count{backend="vault", outcome="refused"}': "0+1x30"},
        labels=VAULT,
    ),
    "BrokerRevocationsPileUp": Fires(
        {'broker_failing_grants{backend="vault"}': "0 101x30"}, labels=VAULT
    ),
    "BrokerSlowToRevoke": Fires(
        _slow("time_to_dead_seconds", 'backend="vault", power="read"', over="5.0"),
        at="40m",
        labels=READ,
    ),
    "BrokerPrivilegedSlowToRevoke": Fires(
        _slow("time_to_dead_seconds", 'backend="vault", power="privileged"', over="5.0"),
        at="40m",
        labels=VAULT,
    ),
    "BrokerLaneShut": Fires({'broker_shut_lanes{backend="vault"}': "0 1x30"}, labels=VAULT),
    "BrokerUnknownGrants": Fires({"broker_unknown_grants": "2x90"}, at="80m"),
    "BrokerReconcileFinds": Fires(
        {'broker_reconcile_findings_total{kind="orphan_token"}': "0x10 1x30"},
        labels={"kind": "orphan_token"},
    ),
    "BrokerReconcileBlind": Fires(
        {"broker_reconcile_problems_total": "0x60 1x60 2x60 3x60 4x60"}, at="230m"
    ),
    "BrokerIssuingStopped": Fires(
        {'broker_circuits_open{backend="vault"}': "0 1x30"}, labels=VAULT
    ),
    "BrokerIssueUnavailable": Fires(
        {'broker_issue_duration_seconds_count{backend="vault", outcome="unavailable"}': "0+1x30"},
        labels=VAULT,
    ),
    "BrokerSlowToIssue": Fires(
        _slow("issue_duration_seconds", 'backend="vault", outcome="ok"', over="2.5"),
        at="40m",
        labels=VAULT,
    ),
    "BrokerQuotaReached": Fires(
        {'broker_quota_refusals_total{limit="max_live_per_agent"}': "0+12x40"},
        at="30m",
        labels={"limit": "max_live_per_agent"},
    ),
    "BrokerHeartbeatsMissed": Fires({"broker_missed_heartbeats_total": "0+2x30"}),
    "BrokerPolicyErrors": Fires({"broker_policy_errors_total": "0x17 1x30"}),
    "BrokerPolicyNotRead": Fires({'broker_policy_reloads_total{outcome="failed"}': "0x17 1x30"}),
    "BrokerSlowToDecide": Fires(
        _slow("decision_duration_seconds", 'action="issue_grant"', over="0.05"),
        at="40m",
        labels={"action": "issue_grant"},
    ),
    "BrokerManyDenials": Fires(
        {
            'broker_decisions_total{action="call_tool", effect="deny"}': "0+30x40",
            'broker_decisions_total{action="call_tool", effect="allow"}': "0+10x40",
        },
        at="30m",
    ),
    "BrokerBreakGlass": Fires(
        {'broker_decisions_total{action="break_glass", effect="allow"}': "0x17 1x30"}
    ),
    "BrokerReviewDue": Fires({"broker_open_reviews": "1x1600"}, at="1500m"),
    "BrokerApprovalsWait": Fires(
        {
            "broker_pending_approvals": "2x90",
            'broker_decisions_total{action="approve", effect="allow"}': "5x90",
        },
        at="80m",
    ),
    "BrokerCallsUnreported": Fires({"broker_unreported_executions": "10x60 10+20x120"}, at="140m"),
    "BrokerAuditStopsIssuing": Fires({"broker_audit_stops_issuing": "0 1x30"}),
    "BrokerAuditBehind": Fires({'broker_audit_lag_seconds{sink="log"}': "0 16x30"}),
    "BrokerAuditSinkBehind": Fires(
        {
            'broker_audit_lag_seconds{sink="siem", instance="b1"}': "0+60x30",
            'broker_audit_lag_seconds{sink="siem", instance="b2"}': "0+60x30",
        },
        labels={"sink": "siem"},
    ),
    "BrokerAuditSinkFails": Fires(
        {'broker_audit_sink_failures_total{sink="siem"}': "0+1x40"},
        at="30m",
        labels={"sink": "siem"},
    ),
    "BrokerAuditLogSetBack": Fires({"broker_audit_log_records": "900x10 700x30"}),
    "BrokerNewsLost": Fires(
        {'broker_notifications_total{channel="security", outcome="refused"}': "0x10 1x30"},
        labels={"channel": "security", "outcome": "refused"},
    ),
    "BrokerLedgerDown": Fires(
        {'broker_ledger_up{instance="b1"}': "1 0x30"}, labels={"instance": "b1"}
    ),
    "BrokerQuarantined": Fires({"broker_quarantined": "0 1x30"}),
    "BrokerLedgerCanLose": Fires({"broker_ledger_durable": "1 0x30"}),
    "BrokerLedgerSlow": Fires(
        _slow("ledger_duration_seconds", 'call="reserve"', over="0.05"), at="40m"
    ),
    "BrokerLedgerErrors": Fires({'broker_ledger_errors_total{call="reserve"}': "0+1x30"}),
    "BrokerTokensRefused": Fires(
        {'broker_token_exchanges_total{outcome="invalid_client"}': "0+90x40"},
        at="30m",
        labels={"outcome": "invalid_client"},
    ),
}


def healthy(live: Exposed) -> dict[str, str]:
    """What a broker showed, going on for hours: what it counted grows, and takes no time.

    Its names and labels are real. How long things took on this machine is not what is looked at.
    """
    found: dict[str, str] = {}
    for (name, labels), value in live.samples.items():
        bucket = name.endswith("_bucket")
        if bucket:
            rest = tuple(pair for pair in labels if pair[0] != "le")
            value = live.samples[name.removesuffix("_bucket") + "_count", rest]  # noqa: PLW2901
        counted = bucket or name.endswith(("_total", "_count", "_sum"))
        series = f"{name}{{{', '.join(f'{k}={json.dumps(v)}' for k, v in labels)}}}"
        found[series] = f"{value}+{value}x80" if counted else f"{value}x80"
    return found
