"""What goes over the wire about approvals, elevations and reviews."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from broker.approvals import ANYBODY, Yeses
from broker.clock import to_rfc3339
from broker.durations import format_duration
from broker.wire import Duration, LongText, Name, Request, Text

if TYPE_CHECKING:
    from broker.approvals import Approval
    from broker.elevations import Elevation
    from broker.tasks import Task


class Vote(Request):
    """``POST /v1/approvals/{id}/approve`` and ``…/deny``."""

    reason: Text


class Elevate(Request):
    """``POST /v1/tasks/{id}/elevations``: one capability more, for a window of time.

    It ends early when the task is silent for ``heartbeat``.
    """

    capability: Name
    intent: Text
    ttl: Duration | None = None
    heartbeat: Duration | None = None


class BreakGlass(Request):
    """``POST /v1/tasks/{id}/break-glass``: the same with nobody asked, and a review afterwards."""

    capability: Name
    intent: Text
    ttl: Duration | None = None


class CloseReview(Request):
    """``POST /v1/reviews/{id}/close``."""

    findings: LongText


def approval_json(approval: Approval, have: Yeses, *, insider: bool) -> dict[str, Any]:
    """An approval as its readers see it; ``insider`` are those who watch over everything.

    Who asked isn't told who votes how, so that an agent has nobody to work on, nor which policies
    stand in its way.
    """
    votes = [
        {"by": vote.by, "at": to_rfc3339(vote.at), "reason": vote.reason} for vote in approval.votes
    ]
    return {
        "approval_id": approval.id,
        "state": approval.state,
        "task_id": approval.task_id,
        "agent": approval.agent,
        "owner": approval.owner,
        "requester": approval.requester,
        "on_behalf_of": approval.subject or None,
        "action": approval.action,
        "capability": approval.capability or None,
        "power": approval.power or None,
        "digest": approval.digest,
        "request": json.loads(approval.request) if approval.request else None,
        "intent": approval.intent or None,
        "purpose": approval.purpose or None,
        "needs": [
            {
                "group": group or None,
                "count": count,
                "have": have.total if group == ANYBODY else (have.groups or {}).get(group, 0),
            }
            for group, count in sorted(approval.needs.items())
        ],
        "votes": votes if insider else [],
        "created_at": to_rfc3339(approval.created_at),
        "expires_at": to_rfc3339(approval.expires_at),
        "ended_at": _time(approval.ended_at),
        "escalated_to": list(approval.escalated),
        "decision_id": approval.decision_id,
        "policies": list(approval.policies) if insider else [],
        "reason": approval.reason or None,
        "used_by": approval.used_by or None,
    }


def elevation_json(task: Task, elevation: Elevation, *, live: bool) -> dict[str, Any]:
    """An elevation as its readers see it."""
    return {
        "elevation_id": elevation.id,
        "task_id": task.id,
        "agent": task.agent,
        "owner": task.owner,
        "capability": elevation.capability,
        "power": elevation.power,
        "break_glass": elevation.break_glass,
        "state": "active" if live else "ended",
        "started_at": to_rfc3339(elevation.started_at),
        "expires_at": to_rfc3339(elevation.expires_at),
        "heartbeat": format_duration(elevation.heartbeat_ms) if elevation.heartbeat_ms else None,
        "heartbeat_due_at": _time(elevation.heartbeat_due),
        "ended_at": _time(elevation.ended_at),
        "settled_at": _time(elevation.settled_at),
        "reason": elevation.reason or None,
        "intent": elevation.intent or None,
        "by": elevation.by,
        "approval_id": elevation.approval_id or None,
        "rotation": dict(elevation.rotation) or None,
        "review": elevation.review or None,
        "findings": elevation.findings or None,
        "reviewed_by": elevation.reviewed_by or None,
        "reviewed_at": _time(elevation.reviewed_at),
    }


def _time(milliseconds: int) -> str | None:
    return to_rfc3339(milliseconds) if milliseconds else None
