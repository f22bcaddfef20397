"""The calls about approvals, elevations and broken glass; see ``calls.py``."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Literal

from broker.client.approvals import Approval, Elevation
from broker.client.building import Duration, duration, issued, one, page, path_to, seconds
from broker.client.messages import Request, get, send_json

if TYPE_CHECKING:
    from broker.client.messages import Call, PageCall

ReviewState = Literal["open", "closed"]


def list_approvals(
    *,
    state: str | None = None,
    task_id: str | None = None,
    cursor: str | None = None,
    limit: int | None = None,
) -> PageCall[Approval]:
    """Read one page of the approvals that the caller may see; an agent names its task."""
    query = {"state": state, "task_id": task_id, "cursor": cursor, "limit": limit}
    return page(Approval, "/v1/approvals", query)


def get_approval(approval_id: str, *, wait: Duration | None = None) -> Call[Approval]:
    """Read one approval. With ``wait``, at most a minute, the answer comes once it isn't pending.

    ``wait_for_approval`` waits for longer, whatever happens to the connection.
    """
    patience = 0.0 if wait is None else seconds(wait)
    held = f"{int(patience)}s" if patience >= 1 else None
    request = get(path_to("/v1/approvals", approval_id), {"wait": held})
    return one(Approval, replace(request, patience=patience))


def approve(approval_id: str, reason: str) -> Call[Approval]:
    """Say yes to one exact request; it stays ``pending`` until enough people have."""
    return _vote(approval_id, "approve", reason)


def deny(approval_id: str, reason: str) -> Call[Approval]:
    """Say no to one exact request: one no is enough."""
    return _vote(approval_id, "deny", reason)


def withdraw_approval(approval_id: str) -> Call[Approval]:
    """Take back what one asked for; again is no error."""
    request = Request("DELETE", path_to("/v1/approvals", approval_id), repeatable=True)
    return one(Approval, request)


def elevate(
    task_id: str,
    capability: str,
    *,
    intent: str,
    ttl: Duration | None = None,
    heartbeat: Duration | None = None,
) -> Call[Elevation]:
    """Ask that a task has a capability for a window; it ends earlier if a heartbeat is missed.

    Raises ``ApprovalRequired`` as ``request_grant`` does.
    """
    document = {
        "capability": capability,
        "ttl": duration(ttl),
        "heartbeat": duration(heartbeat),
        "intent": intent,
    }
    request = send_json("POST", path_to("/v1/tasks", task_id, "elevations"), document)
    return issued(Elevation, request)


def list_elevations(task_id: str) -> PageCall[Elevation]:
    """Read the elevations of a task, the ended too; all on one page."""
    return page(Elevation, path_to("/v1/tasks", task_id, "elevations"), {})


def end_elevation(task_id: str, elevation_id: str) -> Call[Elevation]:
    """End an elevation, and with it every credential that was issued under it."""
    below = path_to("elevations", elevation_id)
    request = Request("DELETE", path_to("/v1/tasks", task_id, below), repeatable=True)
    return one(Elevation, request)


def break_glass(
    task_id: str, capability: str, *, intent: str, ttl: Duration | None = None
) -> Call[Elevation]:
    """Take a capability for a task at once, unapproved. People are alarmed, and review it."""
    document = {"capability": capability, "ttl": duration(ttl), "intent": intent}
    return one(Elevation, send_json("POST", path_to("/v1/tasks", task_id, "break-glass"), document))


def list_reviews(
    *, state: ReviewState | None = None, cursor: str | None = None, limit: int | None = None
) -> PageCall[Elevation]:
    """Read one page of the broken glasses, by whether their review is ``open`` or ``closed``."""
    return page(Elevation, "/v1/reviews", {"state": state, "cursor": cursor, "limit": limit})


def close_review(elevation_id: str, findings: str) -> Call[Elevation]:
    """Close the review of a broken glass; not for whoever broke it."""
    path = path_to("/v1/reviews", elevation_id, "close")
    return one(Elevation, send_json("POST", path, {"findings": findings}))


def _vote(approval_id: str, how: str, reason: str) -> Call[Approval]:
    path = path_to("/v1/approvals", approval_id, how)
    return one(Approval, send_json("POST", path, {"reason": reason}))
