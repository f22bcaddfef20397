"""The shapes of the API's answers, for the OpenAPI document alone.

Answers are built by the ``…_json`` functions of ``wire.py`` and never pass through these models:
they say what a client may rely on, and ``tests/http/test_schemathesis.py`` holds real answers
against them. Every member named is always there, null where there is nothing to say. More may be
added, so the document leaves objects open; the tests close them.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from pydantic import BaseModel, ConfigDict, Field

from broker.catalog import Power, Revocability
from broker.grants import GrantState
from broker.tasks import TaskState

RANDOM: Final = "[0-9a-f]{2}[0-9a-hjkmnp-tv-z]{24}"
TASK_ID: Final = f"^tsk_{RANDOM}$"
GRANT_ID: Final = f"^grt_{RANDOM}$"
_CURSOR: Final = rf"^[0-9]{{13}}\|(tsk|grt)_{RANDOM}$"
EVENT_ID: Final = "^[0-9]{1,15}-[0-9a-f]{2}-[0-9]{1,15}$"
_DURATION: Final = r"^([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$"

AMOUNT: Final = r"^[0-9]+\.[0-9]{4}$"

TaskId = Annotated[str, Field(pattern=TASK_ID)]
GrantId = Annotated[str, Field(pattern=GRANT_ID)]
Time = Annotated[str, Field(json_schema_extra={"format": "date-time"}, pattern="Z$")]
Count = Annotated[int, Field(ge=0)]
Words = Annotated[str, Field(min_length=1)]


class Answer(BaseModel):
    """What every shape is made from."""


class Budget(Answer):
    """How much a task was given; null where a kind isn't bounded here."""

    grants: Count | None
    calls: Count | None
    amount: Annotated[str, Field(pattern=AMOUNT)] | None


class Limits(Answer):
    """What a task is limited to; null for any."""

    data_classes: list[Words] | None
    effects: list[Words] | None
    parameters: dict[str, dict[str, list[str | int | float | bool]]] | None
    delegate_to: list[Words] | None
    budget: Budget | None


class Counted(Answer):
    """What has become of a budget; `reserved` is what children were given of it."""

    given: Count
    spent: Count
    reserved: Count
    left: Count


class Amounts(Answer):
    """What has become of a budget of amounts, in decimals."""

    given: Annotated[str, Field(pattern=AMOUNT)]
    spent: Annotated[str, Field(pattern=AMOUNT)]
    reserved: Annotated[str, Field(pattern=AMOUNT)]
    left: Annotated[str, Field(pattern=AMOUNT)]


class Account(Answer):
    """What has become of a task's own budget; null where a kind isn't bounded here."""

    grants: Counted | None
    calls: Counted | None
    amount: Amounts | None


class Task(Answer):
    """A task as its readers see it."""

    task_id: TaskId
    state: TaskState
    agent: Words
    owner: Words
    purpose: Words
    capabilities: Annotated[list[Words], Field(min_length=1)]
    created_at: Time
    expires_at: Time
    created_by: Words
    on_behalf_of: Words
    parent_task_id: TaskId | None
    root_task_id: TaskId
    heartbeat: Annotated[str, Field(pattern=_DURATION, min_length=2)] | None
    heartbeat_due_at: Time | None
    context: dict[str, Any]
    ended_at: Time | None
    closed_at: Time | None
    reason: Words | None
    summary: Words | None
    limits: Limits
    budget: Account | None
    notes: list[Words]


class TaskPage(Answer):
    """A page of tasks, newest first; ``next`` is the cursor of the one after it."""

    items: list[Task]
    next: Annotated[str, Field(pattern=_CURSOR)] | None


class Revocations(Answer):
    """How many credentials are confirmed dead, are still being revoked, and were given up."""

    revoked: Count
    revoking: Count
    abandoned: Count


class Ended(Answer):
    """A task that has ended, and what became of its grants."""

    state: TaskState
    grants: Revocations


class Grant(Answer):
    """A grant as its readers see it; never its secret."""

    grant_id: GrantId
    task_id: TaskId
    agent: Words
    capability: Words
    backend: Words
    power: Power
    state: GrantState
    created_at: Time
    expires_at: Time
    revoke_requested_at: Time | None
    ended_at: Time | None
    ends_by_itself_at: Time | None
    account: Words | None
    revocability: Revocability | None
    evidence: Words | None
    statement: Words | None
    time_to_dead_ms: Count | None
    attempts: Count
    next_attempt_at: Time | None
    reason: Words | None
    error: Words | None
    intent: Words | None
    replaces: GrantId | None
    replaced_by: GrantId | None


class ReceiptClaims(Answer):
    """What a receipt says: as the grant does, and whether its death is confirmed.

    ``issued`` is null where nobody knows whether there ever was a credential; nothing is left of
    it then. ``attempts`` are those that had failed before.
    """

    iss: Words
    iat: Count
    grant_id: GrantId
    task_id: TaskId
    agent: Words
    capability: Words
    backend: Words
    power: Power
    account: Words | None
    revocability: Revocability | None
    state: GrantState
    created_at: Time
    expires_at: Time
    revoke_requested_at: Time | None
    reason: Words | None
    ended_at: Time
    evidence: Words | None
    statement: Words | None
    attempts: Count
    time_to_dead_ms: Count | None
    confirmed: bool
    issued: bool | None
    audit_event_id: Annotated[str, Field(pattern=EVENT_ID)] | None


class Receipt(Answer):
    """A signed receipt (a JWS of type `revocation-receipt+jwt`), and what it says."""

    receipt: Annotated[str, Field(pattern=r"^[\w-]+\.[\w-]+\.[\w-]+$")]
    claims: ReceiptClaims


class GrantPage(Answer):
    """A page of grants, newest first; ``next`` is the cursor of the one after it."""

    items: list[Grant]
    next: Annotated[str, Field(pattern=_CURSOR)] | None


class Credential(Answer):
    """The secret itself. Which members there are depends on ``type``; all are strings."""

    model_config = ConfigDict(json_schema_extra={"additionalProperties": {"type": "string"}})

    type: Words


class IssuedGrant(Grant):
    """A grant just made, and its credential: the only answer that ever carries it."""

    credential: Credential
    notes: list[Words]


class Revocation(Revocations):
    """What an operator's revocation found."""

    revocation_id: Annotated[str, Field(pattern=f"^rev_{RANDOM}$")]
    matched: Count


class FreezeOutcome(Answer):
    """Whether a selector, written ``agent:NAME``, is frozen now."""

    selector: Words
    frozen: bool


class Frozen(Answer):
    """A freeze: of what, by whom, since when, why."""

    selector: Words
    by: Words
    reason: Words
    at: Time


class FreezePage(Answer):
    """Everything that is frozen."""

    items: list[Frozen]
    next: None


class Event(Answer):
    """An audit event; ``data`` depends on ``type``. ``chain`` is the root task's id."""

    id: Annotated[str, Field(pattern=EVENT_ID)]
    time: Time
    type: Words
    task_id: TaskId | None
    grant_id: GrantId | None
    principal: Words | None
    chain: TaskId | None
    decision: Words | None
    traceparent: Words | None
    data: dict[str, Any]


class EventPage(Answer):
    """A page of audit events, oldest first; ``next`` is what to give as ``after``."""

    items: list[Event]
    next: Annotated[str, Field(pattern=EVENT_ID)] | None


class FieldError(Answer):
    """One field of a request that is wrong; what was sent is not repeated."""

    field: Words
    reason: Words


class OAuthProblem(Answer):
    """An error of the OAuth endpoints (RFC 6749 section 5.2)."""

    error: Annotated[str, Field(pattern="^[a-z_]+$")]
    error_description: Annotated[str, Field(pattern=r"^[\x20-\x21\x23-\x5b\x5d-\x7e]+$")]
