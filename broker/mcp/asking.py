"""Where people have to say yes: the one at the client is shown the link, if the client can.

They answer at the broker, where they sign in as themselves. Nothing that a client sends back says
yes to anything: ``accept`` means that they have seen the link (MCP, elicitation in URL mode).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import mcp_types as types
from mcp.shared.exceptions import MCPError
from mcp_types.version import MODERN_PROTOCOL_VERSIONS

from broker.mcp.shapes import Approval

if TYPE_CHECKING:
    from mcp.server.context import ServerRequestContext

    from broker.client import ApprovalRequired
    from broker.mcp.party import Party

    Context = ServerRequestContext[Any, Any]

_KEY: Final = "approval"
PATIENCE_S: Final = 60
"""How long a call waits for those who have seen the link."""


async def needed(party: Party, error: ApprovalRequired) -> Approval:
    """Return what people have to say yes to."""
    return Approval(
        approval_id=error.approval_id,
        state="pending",
        link=await party.link(error.approval_id),
        expires_at=error.expires_at,
    )


def can_show(context: Context) -> bool:
    """Say whether the client can show somebody a link."""
    declared = context.session.client_capabilities
    return bool(declared and declared.elicitation and declared.elicitation.url)


async def show(
    context: Context, call: types.CallToolRequestParams, need: Approval
) -> types.InputRequiredResult | bool:
    """Have the link shown. Says whether it was, or returns what the call is to be answered with.

    A client of today asks its user and comes again; an older one is asked while it waits.
    """
    answered = (call.input_responses or {}).get(_KEY)
    if answered is not None:
        return isinstance(answered, types.ElicitResult) and answered.action == "accept"
    message = "The agent needs a person's yes. Sign in at the broker to look at what it asks for."
    asked = types.ElicitRequestURLParams(
        message=message, url=need.link, elicitation_id=need.approval_id
    )
    if context.protocol_version in MODERN_PROTOCOL_VERSIONS:
        return types.InputRequiredResult(input_requests={_KEY: types.ElicitRequest(params=asked)})
    try:
        answer = await context.session.elicit_url(
            message, need.link, need.approval_id, related_request_id=context.request_id
        )
    except MCPError:
        return False  # it said that it can, and can't: the link is in the result as well
    return answer.action == "accept"
