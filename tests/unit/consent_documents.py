"""What the broker answers about approvals and elevations, for tests of the client and the CLI."""

from __future__ import annotations

from typing import Any, Final

APPROVAL: Final[dict[str, Any]] = {
    "approval_id": "apr_1",
    "state": "pending",
    "task_id": "tsk_1",
    "agent": "report-writer",
    "owner": "data@example.com",
    "requester": "ci",
    "on_behalf_of": None,
    "action": "call_tool",
    "capability": "deploy",
    "power": "privileged",
    "digest": "d" * 64,
    "request": {
        "arguments": {"service": "shop", "version": "1.2", "force": False, "after": None},
        "destination": "",
        "effects": [],
        "ttl_ms": 600_000,
    },
    "intent": "ship it",
    "purpose": "release 1.2",
    "needs": [{"group": "security", "count": 2, "have": 1}],
    "votes": [{"by": "alice", "at": "2026-01-02T03:04:05.678Z", "reason": "ticket 7"}],
    "created_at": "2026-01-02T03:04:05.678Z",
    "expires_at": "2099-01-02T04:04:05.678Z",
    "ended_at": None,
    "escalated_to": ["leads"],
    "decision_id": "dec_1",
    "policies": ["privileged-by-approval"],
    "reason": None,
    "used_by": None,
    "new_in_a_later_version": 7,
}
APPROVED: Final[dict[str, Any]] = {**APPROVAL, "state": "approved", "votes": [], "request": None}
DENIED: Final[dict[str, Any]] = {
    **APPROVAL,
    "state": "denied",
    "reason": "not today",
    "request": None,
}
ACCEPTED: Final[dict[str, Any]] = {
    "approval_id": "apr_1",
    "state": "pending",
    "task_id": "tsk_1",
    "capability": "deploy",
    "expires_at": "2026-01-02T04:04:05.678Z",
    "decision_id": "dec_1",
    "detail": "Somebody has to approve this.",
}
ELEVATION: Final[dict[str, Any]] = {
    "elevation_id": "elv_1",
    "task_id": "tsk_1",
    "agent": "report-writer",
    "owner": "data@example.com",
    "capability": "deploy",
    "power": "privileged",
    "break_glass": False,
    "state": "active",
    "started_at": "2026-01-02T03:04:05.678Z",
    "expires_at": "2026-01-02T03:14:05.678Z",
    "heartbeat": "30s",
    "heartbeat_due_at": "2026-01-02T03:04:35.678Z",
    "ended_at": None,
    "settled_at": None,
    "reason": None,
    "intent": "ship it",
    "by": "report-writer",
    "approval_id": "apr_1",
    "rotation": None,
    "review": None,
    "findings": None,
    "reviewed_by": None,
    "reviewed_at": None,
    "new_in_a_later_version": 7,
}
GLASS: Final[dict[str, Any]] = {
    **ELEVATION,
    "break_glass": True,
    "approval_id": None,
    "review": "open",
    "rotation": {"database/rotate-root/orders": "failed"},
}


def page(*items: dict[str, Any], following: str | None = None) -> dict[str, Any]:
    return {"items": list(items), "next": following}
