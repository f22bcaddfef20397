"""The list of what is measured: each metric with its help, its labels and its buckets.

The words that labels may have are here too, but for names of the configuration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

PREFIX: Final = "broker_"
OTHER: Final = "other"
_FAST: Final = (0.0001, 0.00025, 0.0005)
_BUCKETS: Final = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0),
)
_LONG: Final = (300.0, 1800.0)


@dataclass(frozen=True, slots=True)
class Spec:
    """One metric; its buckets are in seconds, and a histogram's alone."""

    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = _BUCKETS


COUNTERS: Final = {
    "abandoned_grants": Spec(
        "Grants given up by a statement, not confirmed dead.", ("backend", "power")
    ),
    "audit_sink_failures": Spec("Deliveries to an audit sink that failed.", ("sink",)),
    "claims": Spec("Due items that this replica's sweeps took on.", ("kind",)),
    "decisions": Spec("What policy said.", ("action", "effect")),
    "http_requests": Spec("Requests answered.", ("route", "method", "status")),
    "job_failures": Spec("Runs of a scheduled job that failed.", ("name",)),
    "ledger_errors": Spec("Trips to the ledger that failed.", ("call",)),
    "lockouts": Spec("Accounts that were to be shut out at their target.", ("outcome",)),
    "missed_heartbeats": Spec("Tasks that this replica ended since they were silent."),
    "notifications": Spec("What became of news to a channel.", ("channel", "outcome")),
    "policy_errors": Spec("Evaluations that met an error; each of them is a denial."),
    "policy_reloads": Spec("Policies that had changed and were read anew.", ("outcome",)),
    "quota_refusals": Spec("Credentials refused since a limit was reached.", ("limit",)),
    "reconcile_findings": Spec(
        "Of runs on this replica: what ledger, backends and targets disagree on.", ("kind",)
    ),
    "reconcile_problems": Spec("Of runs on this replica: what could not be compared."),
    "token_exchanges": Spec("Token requests, by error code or ok.", ("outcome",)),
}
HISTOGRAMS: Final = {
    "decision_duration_seconds": Spec(
        "How long a decision took.", ("action",), (*_FAST, *_BUCKETS)
    ),
    "http_request_duration_seconds": Spec("How long an answer took.", ("route", "method")),
    "issue_duration_seconds": Spec(
        "From an allowed request to its credential, or to the refusal.", ("backend", "outcome")
    ),
    "ledger_duration_seconds": Spec("A trip to the ledger.", ("call",), (*_FAST, *_BUCKETS)),
    "revoke_duration_seconds": Spec(
        "One attempt to revoke at the backend and to look there whether it is gone.",
        ("backend", "outcome"),
    ),
    "time_to_dead_seconds": Spec(
        "From the moment a grant was to be revoked until it was confirmed dead.",
        ("backend", "power"),
        (*_BUCKETS, *_LONG),
    ),
}
GAUGES: Final = {
    "audit_lag_seconds": Spec("Age of the oldest event that a sink doesn't have yet.", ("sink",)),
    "audit_log_records": Spec("Records that the audit log has ever had, as this replica knows."),
    "audit_stops_issuing": Spec("Whether nothing is issued, since events wait too long."),
    "audit_waiting_events": Spec("Events that a sink doesn't have yet.", ("sink",)),
    "build_info": Spec("The version that runs.", ("version",)),
    "circuits_open": Spec(
        "Whether nothing is issued on a backend: it can't be reached, or its backlog is too long.",
        ("backend",),
    ),
    "job_age_seconds": Spec(
        "How long ago a scheduled job was last done without failing, or the replica started.",
        ("name",),
    ),
    "due_items": Spec("Tasks and grants whose time has come and that nobody has taken on."),
    "ledger_durable": Spec("Whether the ledger keeps what it was told, as far as is known."),
    "ledger_up": Spec("Whether the ledger answered when it was last read for these figures."),
    "live_grants": Spec("Grants that are not confirmed dead.", ("backend", "power")),
    "overdue_items": Spec("Of the due items, those a sweep should have taken on long ago."),
    "policy_generation": Spec("Which policies are in force; it grows with each reload."),
    "scheduled_items": Spec("Tasks and grants that a sweep will look at, now or later."),
    "shut_lanes": Spec("Capabilities whose revocations get no answer.", ("backend",)),
    "failing_grants": Spec(
        "Of the live grants, those of which at least one attempt to revoke has failed.",
        ("backend",),
    ),
    "stuck_grants": Spec(
        "Of the live grants, those that could not be revoked within the budget of retries.",
        ("backend", "power"),
    ),
    "sweep_lag_seconds": Spec("How long a due item has waited for a sweep, at most."),
    "unknown_grants": Spec("Live grants of capabilities that the configuration doesn't have."),
    "pending_approvals": Spec("Requests that wait for a human yes."),
    "quarantined": Spec("Whether the ledger is in quarantine, and nothing is issued."),
    "open_reviews": Spec("Break-glasses that nobody has looked at afterwards."),
    "unreported_executions": Spec("Allowed tool calls of which nobody has said yet what became."),
    "work_in_flight": Spec("Pieces of work under way in this replica, such as revocations."),
}

POWERS: Final = ("read", "operate", "privileged")
ACTIONS: Final = (
    *(
        "open_task",
        "delegate",
        "issue_grant",
        "elevate",
        "break_glass",
        "call_tool",
        "approve",
        "operate",
    ),
)
LIMITS: Final = (
    "max_live_per_task",
    *("max_live_per_agent", "max_live_per_orchestrator"),
    *("max_live_per_capability", "max_live_per_backend"),
    *("issue_rate_per_agent", "issue_rate_per_orchestrator"),
    *("issue_rate_per_capability", "issue_rate_per_backend"),
)
EFFECTS: Final = ("allow", "deny", "needs_approval")
OK: Final = "ok"
FAILED: Final = "failed"
OUTCOMES: Final = (OK, FAILED, "denied", "refused", "unavailable", "cancelled", "error")
TOLD: Final = "told"
TOO_LATE: Final = "too_late"
REFUSED: Final = "refused"
NEWS_OUTCOMES: Final = (TOLD, TOO_LATE, REFUSED)
OAUTH_ERRORS: Final = (
    *("invalid_request", "invalid_client", "invalid_grant", "unauthorized_client"),
    *("unsupported_grant_type", "invalid_scope", "invalid_target", "access_denied"),
    *("invalid_authorization_details", "authorization_pending", "slow_down", "expired_token"),
)
