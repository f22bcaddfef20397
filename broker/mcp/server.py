"""The protocol's requests, and what they are answered with, whatever transport they come by."""

from __future__ import annotations

import json
import logging
import re
import traceback
from dataclasses import fields
from typing import TYPE_CHECKING, Any, Final

import mcp_types as types
from mcp.server.lowlevel import Server
from mcp.server.request_state import RequestStateBoundary, RequestStateSecurity
from mcp.server.subscriptions import InMemorySubscriptionBus, ListenHandler, ResourceUpdated
from mcp.shared.exceptions import MCPError
from pydantic import ValidationError

from broker import __version__
from broker.client import ApprovalRequired, BrokerClientError
from broker.mcp import asking, failures
from broker.mcp.party import SCHEME, resource_of
from broker.mcp.tools import TOOLS

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import DataclassInstance
    from mcp.server.context import ServerRequestContext

    from broker.mcp.party import Party
    from broker.mcp.tools import Tool

    Context = ServerRequestContext[Any, Any]

log = logging.getLogger(__name__)
NAME: Final = "broker"
_INSTRUCTIONS: Final = """\
Credentials for tools come from here, each for one task, and die with it. Start with whoami and \
list_capabilities. request_credential answers with a voucher: hand it on to the tool that needs \
the credential, and never ask anybody for the secret itself. Before a call of a tool that is \
listed ask check_tool_call, and afterwards report_execution. When the work is done call \
complete_task.\
"""
_TASK: Final = re.compile(rf"{SCHEME}([A-Za-z0-9_]{{1,100}})/?")
_NO_SUCH: Final = "There is no such resource."
_UNSAFE: Final = frozenset({"extra"})


class Desk:
    """Answers requests, each for the party that it comes from."""

    def __init__(self, party_of: Callable[[Context], Party]) -> None:
        """``party_of`` says who sends a request, by proof."""
        self._party_of = party_of
        self._bus = InMemorySubscriptionBus()
        self._streams = ListenHandler(self._bus)

    def server(self) -> Server[Any]:
        """Return the server that asks this desk."""
        made: Server[Any] = Server(
            NAME,
            version=__version__,
            title="Broker",
            instructions=_INSTRUCTIONS,
            get_tool_input_schema=_input_schema,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            on_list_resources=self._list_resources,
            on_list_resource_templates=self._list_templates,
            on_read_resource=self._read_resource,
            on_subscriptions_listen=self._listen,
        )
        # Nothing of ours is kept at the client between two rounds: what comes back is forged.
        boundary = RequestStateBoundary(RequestStateSecurity.ephemeral(), default_audience=NAME)
        made.middleware.append(boundary)
        return made

    # Tools.

    async def _list_tools(
        self, _: Context, __: types.PaginatedRequestParams | None
    ) -> types.ListToolsResult:
        return types.ListToolsResult(tools=[tool.described() for tool in TOOLS.values()])

    async def _call_tool(
        self, context: Context, call: types.CallToolRequestParams
    ) -> types.CallToolResult | types.InputRequiredResult:
        """Answer a call.

        1. The tool, and arguments that are its own
        2. Whose call it is
        3. What the broker says
        4. Where people have to say yes: show the link, wait for a while, ask once more
        """
        tool = TOOLS.get(call.name)
        if tool is None:
            raise MCPError(types.INVALID_PARAMS, "There is no such tool.")
        try:
            ask = tool.arguments.model_validate(call.arguments or {})
        except ValidationError as error:
            return failures.unfit(error)
        party = self._party_of(context)
        try:
            try:
                result = await tool.run(party, ask)
            except ApprovalRequired as error:
                return await self._with_people(context, call, tool, party, error)
            return await self._done(tool, party, result)
        except BrokerClientError as error:
            return failures.failed(error)
        except MCPError:
            raise
        except Exception as error:  # noqa: BLE001  whatever it is, the client isn't told
            log.error("%s failed: %s", tool.name, _place_of(error))  # noqa: TRY400  no texts
            return failures.unforeseen()

    async def _with_people(
        self,
        context: Context,
        call: types.CallToolRequestParams,
        tool: Tool,
        party: Party,
        error: ApprovalRequired,
    ) -> types.CallToolResult | types.InputRequiredResult:
        ask = tool.arguments.model_validate(call.arguments or {})
        need = await asking.needed(party, error)
        if tool.waiting is None or not error.approval_id:
            return failures.failed(error, **({"link": need.link} if error.approval_id else {}))
        patience = int(getattr(ask, "wait_seconds", 0))
        if asking.can_show(context):
            shown = await asking.show(context, call, need)
            if isinstance(shown, types.InputRequiredResult):
                return shown
            patience = max(patience, asking.PATIENCE_S) if shown else patience
        if patience:
            await party.client.wait_for_approval(error.approval_id, f"{patience}s")
            try:
                return await self._done(tool, party, await tool.run(party, ask))
            except ApprovalRequired as again:
                need = await asking.needed(party, again)
        return await self._done(tool, party, tool.waiting(ask, need))

    async def _done(self, tool: Tool, party: Party, result: Any) -> types.CallToolResult:  # noqa: ANN401  each tool's own
        """Write a result; whoever watches the task is told that it may be another by now."""
        if not tool.reads:
            for task_id in {*party.tasks, getattr(result, "task_id", None)} - {None}:
                await self.changed(str(task_id))
        document = result.model_dump(mode="json", exclude_none=True)
        return types.CallToolResult(
            content=[types.TextContent(text=json.dumps(document))], structured_content=document
        )

    # Tasks as resources.

    async def changed(self, task_id: str) -> None:
        """Tell whoever watches a task to read it again."""
        await self._bus.publish(ResourceUpdated(uri=resource_of(task_id)))

    async def _list_resources(
        self, context: Context, _: types.PaginatedRequestParams | None
    ) -> types.ListResourcesResult:
        found = [
            types.Resource(
                uri=resource_of(task_id), name=task_id, title="Task", mime_type="application/json"
            )
            for task_id in self._party_of(context).tasks
        ]
        return types.ListResourcesResult(resources=found)

    async def _list_templates(
        self, _: Context, __: types.PaginatedRequestParams | None
    ) -> types.ListResourceTemplatesResult:
        template = types.ResourceTemplate(
            uri_template=f"{SCHEME}{{task_id}}",
            name="task",
            title="A task",
            description="A task as it is now, its credentials (never a secret), and what waits "
            "for people.",
            mime_type="application/json",
        )
        return types.ListResourceTemplatesResult(resource_templates=[template])

    async def _read_resource(
        self, context: Context, asked: types.ReadResourceRequestParams
    ) -> types.ReadResourceResult:
        party = self._party_of(context)
        uri = str(asked.uri)
        try:
            task_id = _task_in(party, uri)
            document = await _state(party, task_id)
        except BrokerClientError as error:
            raise _refused(error, uri) from None
        text = json.dumps(document, default=_plain)
        content = types.TextResourceContents(uri=asked.uri, text=text, mime_type="application/json")
        return types.ReadResourceResult(contents=[content])

    async def _listen(
        self, context: Context, asked: types.SubscriptionsListenRequestParams
    ) -> types.SubscriptionsListenResult:
        """Let a client watch what it may read, and nothing else."""
        party = self._party_of(context)
        for uri in asked.notifications.resource_subscriptions or ():
            try:
                await party.client.get_task(_task_in(party, str(uri)))
            except BrokerClientError as error:
                raise _refused(error, str(uri)) from None
        return await self._streams(context, asked)


def _place_of(error: Exception) -> str:
    """Say what kind of error it is, and where it was raised: its text may hold anything."""
    frames = traceback.extract_tb(error.__traceback__)
    return " < ".join([type(error).__name__, *(f"{f.name}:{f.lineno}" for f in reversed(frames))])


def _input_schema(name: str) -> dict[str, Any] | None:
    tool = TOOLS.get(name)
    return None if tool is None else tool.described().input_schema


def _task_in(party: Party, uri: str) -> str:
    found = _TASK.fullmatch(uri)
    if found is None:
        raise MCPError(types.INVALID_PARAMS, _NO_SUCH, {"uri": uri})
    return party.task(found[1])


async def _state(party: Party, task_id: str) -> dict[str, Any]:
    task = await party.client.get_task(task_id)
    grants = await party.client.list_grants(task_id=task_id)
    waiting = await party.client.list_approvals(state="pending", task_id=task_id)
    return {
        "task": _shown(task),
        "grants": [_shown(grant) for grant in grants.items],
        "approvals": [
            {
                "approval_id": approval.approval_id,
                "state": approval.state,
                "action": approval.action,
                "capability": approval.capability,
                "expires_at": approval.expires_at,
                "link": await party.link(approval.approval_id),
            }
            for approval in waiting.items
        ],
    }


def _shown(model: DataclassInstance) -> dict[str, Any]:
    """Return the members of a model that say something."""
    names = [f.name for f in fields(model) if f.name not in _UNSAFE]
    pairs = ((name, getattr(model, name)) for name in names)
    return {name: value for name, value in pairs if value not in (None, "", ())}


def _plain(value: Any) -> Any:  # noqa: ANN401  whatever JSON doesn't know
    return value.isoformat() if hasattr(value, "isoformat") else dict(value)


def _refused(error: BrokerClientError, uri: str) -> MCPError:
    """Return a refusal; what is unknown and what isn't the caller's look the same."""
    gone = error.status in (403, 404) or error.code == "not_found"
    if gone:
        return MCPError(types.INVALID_PARAMS, _NO_SUCH, {"uri": uri})
    data = {"uri": uri, "code": error.code}
    return MCPError(types.INTERNAL_ERROR, error.detail, data)
