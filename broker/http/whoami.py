"""``/v1/whoami`` and ``/v1/tasks/{id}/capabilities``: what a caller is, and what it may ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from fastapi import APIRouter
from fastapi.responses import JSONResponse

from broker.catalog import Power
from broker.clock import to_rfc3339
from broker.durations import format_duration
from broker.http.api import TaskId as TaskPath
from broker.http.callers import By, The
from broker.http.openapi import answers
from broker.http.shapes import Answer, TaskId, Time, Words
from broker.identity.models import Role
from broker.wire import page_json

if TYPE_CHECKING:
    from broker.catalog import Capability

router = APIRouter(prefix="/v1", default_response_class=JSONResponse)


class WhoAmI(Answer):
    """Who calls, as its token proves: nothing that a caller says of itself is in here.

    An agent has a task. `capabilities` are what a narrowed token is good for, null for all of the
    task's. By a `sealed` token no credential is seen. `presented_to` is the resource server that
    acts by a token which the agent has presented to it.
    """

    principal: Words
    role: Role
    owner: Words
    task_id: TaskId | None
    capabilities: list[Words] | None
    sealed: bool
    presented_to: Words | None
    expires_at: Time


class Offer(Answer):
    """A capability of a task: a `credential` to ask for, or a `tool` to ask about before a call.

    `arguments` are a tool's by name, each with its type; `?` at its end: may be left out. What has
    `model_may_see` is given to sealed tokens in plain.
    """

    name: Words
    kind: Literal["credential", "tool"]
    power: Power
    data_class: Words
    effects: list[Words]
    ttl: Words | None
    max_ttl: Words | None
    model_may_see: bool
    tool: Words | None
    arguments: dict[str, Words] | None


class OfferPage(Answer):
    """All that may be asked for under a task, on one page."""

    items: list[Offer]
    next: None


@router.get("/whoami", responses=answers(200, WhoAmI))
async def whoami(caller: By) -> dict[str, Any]:
    """Say who calls, and by which token."""
    return {
        "principal": caller.name,
        "role": caller.principal.role,
        "owner": caller.principal.owner,
        "task_id": caller.task.id if caller.task else None,
        "capabilities": None if caller.capabilities is None else sorted(caller.capabilities),
        "sealed": caller.sealed,
        "presented_to": caller.presenter or None,
        "expires_at": to_rfc3339(caller.expires_at * 1000),
    }


@router.get("/tasks/{task_id}/capabilities", responses=answers(200, OfferPage, 404))
async def list_capabilities(broker: The, caller: By, task_id: TaskPath) -> dict[str, Any]:
    """List what may be asked for under a task; policy decides when it is asked for."""
    task = await broker.task(caller, task_id)
    names = set(task.capabilities)
    if caller.capabilities is not None:
        names &= caller.capabilities
    known = broker.pipeline.catalog.capabilities
    return page_json([_offer(known[name]) for name in sorted(names) if name in known], None)


def _offer(capability: Capability) -> dict[str, Any]:
    tool = capability.is_tool
    arguments = {
        name: f"{kind}{'?' if optional else ''}"
        for name, (kind, optional) in sorted(capability.arguments.items())
    }
    return {
        "name": capability.name,
        "kind": "tool" if tool else "credential",
        "power": capability.power,
        "data_class": capability.data_class,
        "effects": sorted(capability.effects),
        "ttl": None if tool else format_duration(capability.ttl_ms),
        "max_ttl": None if tool else format_duration(capability.max_ttl_ms),
        "model_may_see": capability.model_may_see,
        "tool": (capability.tool or capability.name) if tool else None,
        "arguments": arguments if tool else None,
    }
