"""``/v1``: tasks, grants, revocations, freezes, the audit log."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse

from broker.access import Caller
from broker.errors import AuthenticationError, InvalidRequest
from broker.grants import GrantState
from broker.http.problems import NO_STORE
from broker.service import Broker
from broker.steps import Outcome
from broker.tasks import TaskState
from broker.wire import (
    CompleteTask,
    Freeze,
    OpenTask,
    RequestGrant,
    Revoke,
    delivery_json,
    grant_json,
    task_json,
)

router = APIRouter(prefix="/v1", default_response_class=JSONResponse)


def broker_of(request: Request) -> Broker:
    """Return the app's broker."""
    broker: Broker = request.app.state.broker
    return broker


async def authenticated(request: Request) -> Caller:
    """Step 1: the caller, from an access token of ours in the Authorization header (RFC 6750)."""
    values = request.headers.getlist("authorization")
    scheme, _, token = values[0].partition(" ") if len(values) == 1 else ("", "", "")
    if scheme.lower() != "bearer" or not token:
        msg = "Send an access token as 'Authorization: Bearer …'; POST /oauth/token gives one."
        raise AuthenticationError(msg)
    return await broker_of(request).access.authenticate(token.strip())


def idempotency_key(
    request: Request,
    idempotency_key: Annotated[str | None, Header(max_length=255)] = None,
) -> str | None:
    """Return the request's Idempotency-Key, if it has one."""
    given = request.headers.getlist("idempotency-key")
    if len(given) > 1 or not all(k.isascii() and k.isprintable() and k.strip() for k in given):
        raise InvalidRequest("Idempotency-Key: once, 1 to 255 printable ASCII characters")
    return idempotency_key


The = Annotated[Broker, Depends(broker_of)]
By = Annotated[Caller, Depends(authenticated)]
Key = Annotated[str | None, Depends(idempotency_key)]
Limit = Annotated[int, Query(ge=1, le=500)]
Word = Annotated[str, Query(max_length=320)]
Cursor = Annotated[str, Query(pattern=r"^([0-9]{1,15}\|(tsk|grt)_[0-9a-z]{26})?$")]
EventId = Annotated[str, Query(pattern=r"^([0-9]{1,15}-[0-9a-f]{2}-[0-9]{1,15})?$")]
OfTask = Annotated[str, Query(pattern=f"^({'|'.join(TaskState)})?$")]
OfGrant = Annotated[str, Query(pattern=f"^({'|'.join(GrantState)})?$")]


def _outcome(outcome: Outcome) -> dict[str, int]:
    return {"revoked": outcome.revoked, "revoking": outcome.revoking}


@router.post("/tasks", status_code=201)
async def open_task(broker: The, caller: By, key: Key, ask: OpenTask) -> dict[str, Any]:
    """Open a task for an agent; an agent opens a child of its own task."""
    task, notes = await broker.open_task(caller, ask, key)
    return task_json(task, notes)


@router.get("/tasks")
async def list_tasks(
    broker: The,
    caller: By,
    state: OfTask = "",
    agent: Word = "",
    limit: Limit = 50,
    cursor: Cursor = "",
) -> dict[str, Any]:
    """List the tasks that concern the caller, newest first."""
    return await broker.tasks(caller, state=state, agent=agent, limit=limit, cursor=cursor)


@router.get("/tasks/{task_id}")
async def show_task(broker: The, caller: By, task_id: str) -> dict[str, Any]:
    """Show a task."""
    return task_json(await broker.task(caller, task_id))


@router.post("/tasks/{task_id}/heartbeat")
async def heartbeat(broker: The, caller: By, task_id: str) -> dict[str, Any]:
    """Say that the task is alive."""
    return task_json(await broker.heartbeat(caller, task_id))


@router.post("/tasks/{task_id}/complete")
async def complete(broker: The, caller: By, task_id: str, ask: CompleteTask) -> dict[str, Any]:
    """End a task; everything it held is revoked and, as far as it goes in time, confirmed dead."""
    state, outcome = await broker.complete(caller, task_id, ask)
    return {"state": state, "grants": _outcome(outcome)}


@router.post("/tasks/{task_id}/grants", status_code=201)
async def request_grant(
    broker: The, caller: By, key: Key, task_id: str, ask: RequestGrant
) -> Response:
    """Issue a credential under a task. This answer is its only delivery."""
    issued = await broker.request_grant(caller, task_id, ask, key)
    minted = issued.minted
    body = delivery_json(issued.grant, minted.type, minted.fields, issued.notes)
    return JSONResponse(body, 201, NO_STORE)


@router.get("/grants")
async def list_grants(
    broker: The,
    caller: By,
    task_id: Word = "",
    agent: Word = "",
    state: OfGrant = "",
    limit: Limit = 50,
    cursor: Cursor = "",
) -> dict[str, Any]:
    """List the grants that concern the caller, newest first; never a secret."""
    return await broker.grants(
        caller, task_id=task_id, agent=agent, state=state, limit=limit, cursor=cursor
    )


@router.get("/grants/{grant_id}")
async def show_grant(broker: The, caller: By, grant_id: str) -> dict[str, Any]:
    """Show a grant; never its secret."""
    return grant_json(await broker.grant(caller, grant_id))


@router.delete("/grants/{grant_id}")
async def revoke_grant(broker: The, caller: By, grant_id: str) -> dict[str, Any]:
    """Revoke a grant now."""
    return grant_json(await broker.revoke_grant(caller, grant_id))


@router.post("/revocations")
async def revoke(broker: The, caller: By, ask: Revoke) -> dict[str, Any]:
    """Revoke all that a selector matches, and with freeze stop more from being issued."""
    revocation_id, outcome = await broker.operators.revoke(caller, ask)
    return {"revocation_id": revocation_id, "matched": outcome.matched, **_outcome(outcome)}


@router.get("/freezes")
async def list_freezes(broker: The, caller: By) -> dict[str, Any]:
    """List what is frozen."""
    return await broker.operators.freezes(caller)


@router.post("/freezes", status_code=201)
async def freeze(broker: The, caller: By, ask: Freeze) -> dict[str, Any]:
    """Stop issuing for a selector; what is live stays so."""
    await broker.operators.freeze(caller, ask)
    return {"selector": ask.selector.field, "frozen": True}


@router.delete("/freezes")
async def thaw(broker: The, caller: By, ask: Freeze) -> dict[str, Any]:
    """Allow issuing for a selector again."""
    await broker.operators.thaw(caller, ask)
    return {"selector": ask.selector.field, "frozen": False}


@router.get("/audit/events")
async def list_events(
    broker: The, caller: By, task_id: Word = "", after: EventId = "", limit: Limit = 100
) -> dict[str, Any]:
    """List audit events, oldest first, after the event with this id."""
    return await broker.operators.events(caller, task_id=task_id, after=after, limit=limit)
