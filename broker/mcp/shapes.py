"""What the tools take and give. Arguments are strict: no conversions, and no unknown members."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Text = Annotated[str, Field(min_length=1, max_length=1000)]
Name = Annotated[str, Field(min_length=1, max_length=200)]
Duration = Annotated[
    str,
    Field(description="A duration such as 90s, 15m or 1h30m.", pattern=r"^([0-9]+(ms|[dhms]))+$"),
]
TaskId = Annotated[
    Name | None, Field(description="The task; may be left out where there is only one.")
]


class Arguments(BaseModel):
    """What every tool's arguments are made from."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class Result(BaseModel):
    """What every tool's result is made from."""

    model_config = ConfigDict(extra="forbid")


class Nothing(Arguments):
    """No arguments."""


class OfTask(Arguments):
    """A task, or the only one."""

    task_id: TaskId = None


class Me(Result):
    """Who the broker takes this agent for: nothing that is said in a call changes it."""

    principal: str
    role: str
    owner: str
    acts_for: str | None = Field(None, description="The agent that tasks are opened for here.")
    presented_to: str | None = Field(None, description="The server that acts with its token.")
    tasks: list[str] = Field(description="The tasks that may be named here.")


class Offer(Result):
    """Something that may be asked for under the task; policy decides when it is."""

    name: str
    kind: Literal["credential", "tool"]
    power: str
    data_class: str
    effects: list[str]
    ttl: str | None = None
    max_ttl: str | None = None
    model_may_see: bool = Field(description="Whether plaintext may be asked for.")
    tool: str | None = None
    arguments: dict[str, str] | None = None


class Offers(Result):
    """What may be asked for under a task."""

    task_id: str
    capabilities: list[Offer]


class OpenTask(Arguments):
    """A new task."""

    purpose: Annotated[Text, Field(description="What it is for, in words that people will read.")]
    capabilities: Annotated[
        list[Name], Field(min_length=1, max_length=50, description="What it may ask for.")
    ]
    agent: Annotated[
        Name | None, Field(description="The agent it is for, if this agent passes a part on.")
    ] = None
    ttl: Duration | None = None
    parent_task_id: Annotated[Name | None, Field(description="The task it is a part of.")] = None


class TaskState(Result):
    """A task as it is now."""

    task_id: str
    state: str
    agent: str
    purpose: str
    capabilities: list[str]
    expires_at: datetime | None = None
    parent_task_id: str | None = None
    notes: list[str] = Field(default_factory=list[str], description="What the broker changed.")


class Approval(Result):
    """What a human has to say yes to. The link is for people, who sign in there."""

    approval_id: str
    state: str
    link: str
    expires_at: datetime | None = None


class RequestCredential(OfTask):
    """A credential."""

    capability: Name
    ttl: Duration | None = None
    parameters: Annotated[
        dict[str, Any] | None, Field(description="What the capability leaves open.")
    ] = None
    intent: Annotated[Text | None, Field(description="Why it is needed; people read it.")] = None
    form: Annotated[
        Literal["voucher", "plaintext"],
        Field(description="plaintext only where list_capabilities says model_may_see."),
    ] = "voucher"


class Credential(Result):
    """A credential's voucher, or what it waits for.

    A voucher is good once, for the task's own agent: hand it to the tool that needs the credential.
    """

    state: Literal["issued", "needs_approval"]
    capability: str
    grant_id: str | None = None
    voucher: str | None = None
    redeem_by: datetime | None = None
    expires_at: datetime | None = None
    plaintext: dict[str, Any] | None = None
    approval: Approval | None = None
    notes: list[str] = Field(default_factory=list[str])


class CheckToolCall(OfTask):
    """A call of a tool that is about to be made."""

    tool: Annotated[Name, Field(description="The tool's name in list_capabilities.")]
    arguments: Annotated[
        dict[str, Any], Field(description="Exactly what it will be called with.")
    ] = Field(default_factory=dict[str, Any])
    destination: Annotated[Text | None, Field(description="The URL or host it goes to.")] = None
    effects: Annotated[list[Name], Field(max_length=20)] = Field(default_factory=list[str])
    intent: Text | None = None


class Decision(Result):
    """Whether the call may be made, once, now."""

    allowed: bool
    decision_id: str = Field(description="What the execution is reported under.")
    reason: str | None = None
    reason_text: str | None = None
    advice: list[str] = Field(default_factory=list[str])
    approval: Approval | None = None


class ReportExecution(OfTask):
    """What became of a call that was allowed."""

    decision_id: Name
    outcome: Literal["succeeded", "failed", "not_executed"]
    took: Duration | None = None
    result_digest: Name | None = None
    error_type: Name | None = None
    effects: Annotated[list[Name], Field(max_length=20)] = Field(default_factory=list[str])


class Reported(Result):
    """A decision that is closed."""

    task_id: str
    decision_id: str
    outcome: str


class RequestApproval(OfTask):
    """One of two: an approval that is waited for, or a capability that is wanted for a while."""

    approval_id: Annotated[
        Name | None, Field(description="An approval that another tool has answered with.")
    ] = None
    capability: Annotated[
        Name | None, Field(description="A capability that the task is to have for a while.")
    ] = None
    intent: Annotated[Text | None, Field(description="Why; needed with a capability.")] = None
    ttl: Duration | None = None
    wait_seconds: Annotated[
        int, Field(ge=0, le=300, description="How long to wait for the people.")
    ] = 0


class Approved(Result):
    """Where an approval stands; an approved one is used by asking again, in the same words."""

    state: str
    approval: Approval | None = None
    elevation_id: str | None = None
    expires_at: datetime | None = None


class CompleteTask(OfTask):
    """A task that is over."""

    outcome: Literal["completed", "failed", "cancelled"] = "completed"
    summary: Text | None = None


class Ended(Result):
    """A task that has ended, and what became of its credentials."""

    task_id: str
    state: str
    revoked: int
    revoking: int
