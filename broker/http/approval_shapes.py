"""The shapes of answers about approvals and elevations, for the OpenAPI document alone."""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import Field

from broker.approvals import ApprovalState
from broker.catalog import Power
from broker.elevations import ReviewState
from broker.http.shapes import RANDOM, Answer, Count, TaskId, Time, Words

APPROVAL_ID: Final = f"^apr_{RANDOM}$"
ELEVATION_ID: Final = f"^elv_{RANDOM}$"
ApprovalId = Annotated[str, Field(pattern=APPROVAL_ID)]
ElevationId = Annotated[str, Field(pattern=ELEVATION_ID)]


class Waiting(Answer):
    """Somebody has to approve it first: ask again, in the same words, once that is done."""

    approval_id: ApprovalId
    state: ApprovalState
    task_id: TaskId
    capability: str
    expires_at: Time
    decision_id: Words
    advice: list[Words]
    detail: Words


class Need(Answer):
    """How many have to say yes, of a group or of all operators, and how many have."""

    group: Words | None
    count: Count
    have: Count


class Ballot(Answer):
    """What one operator said."""

    by: Words
    at: Time
    reason: Words


class Approval(Answer):
    """A request for a human yes. ``request`` is there until it is over."""

    approval_id: ApprovalId
    state: ApprovalState
    task_id: TaskId
    agent: Words
    owner: Words
    requester: Words
    on_behalf_of: Words | None
    action: Words
    capability: Words | None
    power: Power | None
    digest: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    request: dict[str, Any] | None
    intent: Words | None
    purpose: Words | None
    needs: list[Need]
    votes: list[Ballot]
    created_at: Time
    expires_at: Time
    ended_at: Time | None
    escalated_to: list[Words]
    decision_id: Words
    policies: list[Words]
    reason: Words | None
    used_by: Words | None


class ApprovalPage(Answer):
    """A page of approvals, newest first; ``next`` is the cursor of the one after it."""

    items: list[Approval]
    next: Words | None


class Elevation(Answer):
    """A window of time in which a task has a capability more."""

    elevation_id: ElevationId
    task_id: TaskId
    agent: Words
    owner: Words
    capability: Words
    power: Power
    break_glass: bool
    state: Annotated[str, Field(pattern="^(active|ended)$")]
    started_at: Time
    expires_at: Time
    heartbeat: Words | None
    heartbeat_due_at: Time | None
    ended_at: Time | None
    settled_at: Time | None
    reason: Words | None
    intent: Words | None
    by: Words
    approval_id: ApprovalId | None
    rotation: dict[str, Annotated[str, Field(pattern="^(pending|done|failed)$")]] | None
    review: ReviewState | None
    findings: Words | None
    reviewed_by: Words | None
    reviewed_at: Time | None


class ElevationPage(Answer):
    """A page of elevations, newest first; ``next`` is the cursor of the one after it."""

    items: list[Elevation]
    next: Words | None
