"""Errors as models read them: the broker's stable code, and what to do next."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import mcp_types as types

if TYPE_CHECKING:
    from pydantic import ValidationError

    from broker.client import BrokerClientError

_HINTS: Final = {
    "connection_failed": "The broker can't be reached; nothing was done. Try again later.",
    "no_answer": "It may have been done all the same: look before you ask again.",
    "identity_missing": "Whoever runs this server has to set BROKER_IDENTITY_TOKEN_FILE.",
    "invalid_authorization_details": "Whoever runs this server has to set BROKER_TASK_ID to a live "
    "task of this agent, or give it the identity of an orchestrator.",
    "task_not_active": "The task has ended: open another.",
    "approval_denied": "A person said no: asking again doesn't ask them again.",
    "approval_required": "A person has to say yes first: show them the link.",
    "credential_already_delivered": "Ask for another one.",
}


def failed(error: BrokerClientError, **more: object) -> types.CallToolResult:
    """Return the result of a call that the broker, or the way to it, has refused."""
    problem = {**error.as_problem(), **more}
    if hint := _HINTS.get(error.code):
        problem["hint"] = hint
    return _result(problem)


def unfit(error: ValidationError) -> types.CallToolResult:
    """Return the result of a call with arguments that aren't the tool's; none is repeated."""
    found = [
        {"field": ".".join(map(str, fault["loc"])) or "arguments", "reason": fault["msg"]}
        for fault in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    said = "; ".join(f"{fault['field']}: {fault['reason']}" for fault in found[:20])
    return _result({"code": "invalid_arguments", "detail": said, "errors": found[:20]})


def unforeseen() -> types.CallToolResult:
    """Return the result of a call that went wrong in here: why is in our log alone."""
    detail = "Something went wrong in the broker's MCP server; its log says what."
    return _result({"code": "internal_error", "detail": detail})


def _result(problem: dict[str, Any]) -> types.CallToolResult:
    document = json.loads(json.dumps({"error": problem}, default=str))
    return types.CallToolResult(
        content=[types.TextContent(text=json.dumps(document))],
        structured_content=document,
        is_error=True,
    )
