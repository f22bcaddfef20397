"""The table of tools: one row each, with all that a client is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeVar

import mcp_types as types

from broker.mcp import calls, shapes

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from pydantic import BaseModel

    from broker.mcp.party import Party

A = TypeVar("A", bound=shapes.Arguments)
R = TypeVar("R", bound=shapes.Result)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """A tool. ``waiting`` writes the result of a call that waits for people, where it may."""

    name: str
    title: str
    description: str
    arguments: type[shapes.Arguments]
    result: type[shapes.Result]
    run: Callable[[Party, Any], Awaitable[shapes.Result]]
    reads: bool = False
    destroys: bool = False
    repeatable: bool = False
    waiting: Callable[[Any, shapes.Approval], shapes.Result] | None = None

    def described(self) -> types.Tool:
        """Return it as clients list it. Hints tell people what to expect; they allow nothing."""
        return types.Tool(
            name=self.name,
            title=self.title,
            description=self.description,
            input_schema=_schema(self.arguments),
            output_schema=_schema(self.result),
            annotations=types.ToolAnnotations(
                title=self.title,
                read_only_hint=self.reads,
                destructive_hint=self.destroys,
                idempotent_hint=self.reads or self.repeatable,
                open_world_hint=False,
            ),
        )


def _schema(model: type[BaseModel]) -> dict[str, Any]:
    schema = model.model_json_schema(mode="validation")
    schema.pop("description", None)  # about the class, for us
    return schema


def _waiting_credential(ask: shapes.RequestCredential, need: shapes.Approval) -> shapes.Credential:
    return shapes.Credential(state="needs_approval", capability=ask.capability, approval=need)


def _waiting_approval(_: shapes.RequestApproval, need: shapes.Approval) -> shapes.Approved:
    return shapes.Approved(state=need.state, approval=need, expires_at=need.expires_at)


_ROWS: Final = (
    Tool(
        name="whoami",
        title="Who am I",
        description="Say as whom the broker knows this agent, and which tasks it has here.",
        arguments=shapes.Nothing,
        result=shapes.Me,
        run=calls.whoami,
        reads=True,
    ),
    Tool(
        name="list_capabilities",
        title="What may be asked for",
        description="List the credentials and tools that the task may ask for, with their power, "
        "effects and arguments. Being listed is no permission: policy decides on each request.",
        arguments=shapes.OfTask,
        result=shapes.Offers,
        run=calls.list_capabilities,
        reads=True,
    ),
    Tool(
        name="open_task",
        title="Open a task",
        description="Open a task for a piece of work, with the least capabilities that it needs. "
        "Every credential belongs to a task and dies with it. Call complete_task when it is done.",
        arguments=shapes.OpenTask,
        result=shapes.TaskState,
        run=calls.open_task,
    ),
    Tool(
        name="request_credential",
        title="Request a credential",
        description="Ask for a credential under the task. The answer has a voucher, not the "
        "secret: hand it unchanged to the tool that needs the credential, before redeem_by. It is "
        "worth nothing to anybody else. With state needs_approval a person has to say yes first: "
        "show them the link, and ask again with the same arguments.",
        arguments=shapes.RequestCredential,
        result=shapes.Credential,
        run=calls.request_credential,
        waiting=_waiting_credential,
    ),
    Tool(
        name="check_tool_call",
        title="May this call be made",
        description="Ask before each call of another tool that list_capabilities lists, with "
        "exactly the arguments of the call. Make the call only if allowed is true, once; then "
        "report_execution. If there is an approval, a person has to say yes: request_approval.",
        arguments=shapes.CheckToolCall,
        result=shapes.Decision,
        run=calls.check_tool_call,
    ),
    Tool(
        name="report_execution",
        title="Report a call",
        description="Say what became of a call that check_tool_call allowed, once.",
        arguments=shapes.ReportExecution,
        result=shapes.Reported,
        run=calls.report_execution,
    ),
    Tool(
        name="request_approval",
        title="Ask people",
        description="Wait for an approval that another tool has answered with (approval_id), or "
        "ask that the task has a capability for a while (capability, intent). An approval is "
        "used by calling the other tool again with the same arguments.",
        arguments=shapes.RequestApproval,
        result=shapes.Approved,
        run=calls.request_approval,
        waiting=_waiting_approval,
    ),
    Tool(
        name="complete_task",
        title="End a task",
        description="End the task and revoke every credential under it, also those of its parts. "
        "It can't be opened again.",
        arguments=shapes.CompleteTask,
        result=shapes.Ended,
        run=calls.complete_task,
        destroys=True,
        repeatable=True,
    ),
)

TOOLS: Final[Mapping[str, Tool]] = {tool.name: tool for tool in _ROWS}
