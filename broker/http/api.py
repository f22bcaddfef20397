"""``/v1``: tasks, grants, revocations, freezes, the audit log."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import WithJsonSchema

from broker.errors import ApprovalRequired, InvalidRequest
from broker.grants import GrantState
from broker.http import approval_shapes, shapes
from broker.http.callers import By, The
from broker.http.openapi import answers
from broker.http.problems import NO_STORE
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
from broker.wire_grants import AbandonGrant, RetryGrant

if TYPE_CHECKING:
    from broker.steps import Issued

router = APIRouter(prefix="/v1", default_response_class=JSONResponse)

_KEY: Final[dict[str, Any]] = {
    "type": "string",
    "minLength": 1,
    "maxLength": 255,
    "pattern": "^[ -~]*[!-~][ -~]*$",
}


async def each_once(request: Request) -> None:
    """Refuse a query parameter given twice: which of the two was meant can't be known."""
    if not request.scope["query_string"]:
        return  # as of most: nothing is parsed for them
    times = Counter(name for name, _ in request.query_params.multi_items())
    if twice := [name for name, count in times.items() if count > 1]:
        found = [{"field": name[:200] or "query", "reason": "given twice"} for name in twice[:20]]
        detail = "; ".join(f"{row['field']}: {row['reason']}" for row in found)
        raise InvalidRequest(detail, errors=found)


async def idempotency_key(
    request: Request,
    idempotency_key: Annotated[
        str | None, WithJsonSchema(_KEY), Header(alias="Idempotency-Key", max_length=255)
    ] = None,
) -> str | None:
    """Return the request's Idempotency-Key, if it has one."""
    given = request.headers.getlist("idempotency-key")
    if len(given) > 1 or not all(k.isascii() and k.isprintable() and k.strip() for k in given):
        raise InvalidRequest("Idempotency-Key: once, 1 to 255 printable ASCII characters")
    return idempotency_key


Key = Annotated[str | None, Depends(idempotency_key)]
Limit = Annotated[int, Query(ge=1, le=500)]
Word = Annotated[str, Query(max_length=320)]
Cursor = Annotated[str, Query(pattern=rf"^([0-9]{{1,15}}\|(tsk|grt)_{shapes.RANDOM})?$")]
OfTask = Annotated[str, Query(pattern=f"^({'|'.join(TaskState)})?$")]
OfGrant = Annotated[str, Query(pattern=f"^({'|'.join(GrantState)})?$")]
# Another text than an id is not found, like an id of nothing: the pattern is for the document.
TaskId = Annotated[str, Path(json_schema_extra={"pattern": shapes.TASK_ID})]
GrantId = Annotated[str, Path(json_schema_extra={"pattern": shapes.GRANT_ID})]


def accepted(error: ApprovalRequired) -> Response:
    """Answer a request that a human has to approve first (RFC 9110 section 15.3.3).

    Raises:
        ApprovalRequired: nobody was asked, so nothing is waited for.
    """
    if "approval_id" not in error.extra:
        raise error
    headers = {
        **NO_STORE,
        "Location": f"/v1/approvals/{error.extra['approval_id']}",
        "Retry-After": str(error.retry_after),
    }
    return JSONResponse({"advice": [], **error.extra, "detail": error.detail}, 202, headers)


def delivered(issued: Issued, status: int) -> Response:
    """Answer with a credential, which no cache keeps."""
    minted = issued.minted
    body = delivery_json(issued.grant, minted.type, minted.fields, issued.notes)
    return JSONResponse(body, status, NO_STORE)


ISSUED: Final = answers(
    201,
    shapes.IssuedGrant,
    *(400, 403, 404, 409, 422, 429),
    links={"grant_id": ("show_grant", "revoke_grant")},
) | answers(202, approval_shapes.Waiting)
"""What is answered where a credential is issued, or may have to be approved first."""

_TASK_CALLS = ("show_task", "heartbeat", "request_grant", "complete")


@router.post(
    "/tasks",
    status_code=201,
    responses=answers(
        201, shapes.Task, 400, 403, 404, 409, 422, 429, links={"task_id": _TASK_CALLS}
    ),
)
async def open_task(broker: The, caller: By, key: Key, ask: OpenTask) -> dict[str, Any]:
    """Open a task for an agent; an agent opens a child of its own task."""
    task, notes = await broker.open_task(caller, ask, key)
    return task_json(task, notes)


@router.get("/tasks", responses=answers(200, shapes.TaskPage, 400))
async def list_tasks(  # noqa: PLR0913  what tasks are looked for by
    broker: The,
    caller: By,
    *,
    state: OfTask = "",
    agent: Word = "",
    owner: Word = "",
    capability: Word = "",
    text: Word = "",
    limit: Limit = 50,
    cursor: Cursor = "",
) -> dict[str, Any]:
    """List the tasks that concern the caller, newest first.

    `text` is looked for in their purpose, names and ids.
    """
    return await broker.tasks(
        caller,
        state=state,
        agent=agent,
        owner=owner,
        capability=capability,
        text=text,
        limit=limit,
        cursor=cursor,
    )


@router.get("/tasks/{task_id}", responses=answers(200, shapes.Task, 404))
async def show_task(broker: The, caller: By, task_id: TaskId) -> dict[str, Any]:
    """Show a task."""
    return task_json(await broker.task(caller, task_id))


@router.post("/tasks/{task_id}/heartbeat", responses=answers(200, shapes.Task, 403, 404, 409))
async def heartbeat(broker: The, caller: By, task_id: TaskId) -> dict[str, Any]:
    """Say that the task is alive."""
    return task_json(await broker.heartbeat(caller, task_id))


@router.post("/tasks/{task_id}/complete", responses=answers(200, shapes.Ended, 400, 403, 404, 409))
async def complete(broker: The, caller: By, task_id: TaskId, ask: CompleteTask) -> dict[str, Any]:
    """End a task; everything it held is revoked and, as far as it goes in time, confirmed dead."""
    state, outcome = await broker.complete(caller, task_id, ask)
    return {"state": state, "grants": outcome.as_json()}


@router.post("/tasks/{task_id}/grants", status_code=201, responses=ISSUED)
async def request_grant(
    broker: The, caller: By, key: Key, task_id: TaskId, ask: RequestGrant
) -> Response:
    """Issue a credential under a task. This answer is its only delivery."""
    try:
        issued = await broker.request_grant(caller, task_id, ask, key)
    except ApprovalRequired as error:
        return accepted(error)
    return delivered(issued, 201)


@router.get("/grants", responses=answers(200, shapes.GrantPage, 400, 404))
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


@router.get("/grants/{grant_id}", responses=answers(200, shapes.Grant, 404))
async def show_grant(broker: The, caller: By, grant_id: GrantId) -> dict[str, Any]:
    """Show a grant; never its secret."""
    return grant_json(await broker.grant(caller, grant_id))


@router.delete("/grants/{grant_id}", responses=answers(200, shapes.Grant, 403, 404))
async def revoke_grant(broker: The, caller: By, grant_id: GrantId) -> dict[str, Any]:
    """Revoke a grant now."""
    return grant_json(await broker.revoke_grant(caller, grant_id))


@router.get("/grants/{grant_id}/receipt", responses=answers(200, shapes.Receipt, 404, 409))
async def show_receipt(broker: The, caller: By, grant_id: GrantId) -> dict[str, Any]:
    """Show the signed receipt of a grant that has ended: when, by which evidence, or by whose word.

    It is signed anew each time, by the key that signs then.
    """
    return await broker.receipt(caller, grant_id)


@router.post("/grants/{grant_id}/retry", responses=answers(200, shapes.Grant, 400, 403, 404, 409))
async def retry_grant(
    broker: The, caller: By, grant_id: GrantId, ask: RetryGrant
) -> dict[str, Any]:
    """Have the next attempt to revoke a grant made now, whether it is stuck or only waits."""
    return grant_json(
        await broker.operators.retry(caller, await broker.grant(caller, grant_id), ask)
    )


@router.post("/grants/{grant_id}/abandon", responses=answers(200, shapes.Grant, 400, 403, 404, 409))
async def abandon_grant(
    broker: The, caller: By, grant_id: GrantId, ask: AbandonGrant
) -> dict[str, Any]:
    """State that no more is done to revoke a grant, which may live on. It goes on record."""
    grant = await broker.grant(caller, grant_id)
    return grant_json(await broker.operators.abandon(caller, grant, ask))


@router.post("/revocations", responses=answers(200, shapes.Revocation, 400, 403, 404))
async def revoke_selected(broker: The, caller: By, ask: Revoke) -> dict[str, Any]:
    """Revoke all that a selector matches, and with freeze stop more from being issued."""
    revocation_id, outcome = await broker.operators.revoke(caller, ask)
    return {"revocation_id": revocation_id, "matched": outcome.matched, **outcome.as_json()}


@router.get("/freezes", responses=answers(200, shapes.FreezePage, 403))
async def list_freezes(broker: The, caller: By) -> dict[str, Any]:
    """List what is frozen."""
    return await broker.operators.freezes(caller)


@router.post("/freezes", status_code=201, responses=answers(201, shapes.FreezeOutcome, 400, 403))
async def freeze(broker: The, caller: By, ask: Freeze) -> dict[str, Any]:
    """Stop issuing for a selector; what is live stays so."""
    await broker.operators.freeze(caller, ask)
    return {"selector": ask.selector.field, "frozen": True}


@router.delete("/freezes", responses=answers(200, shapes.FreezeOutcome, 400, 403, 404))
async def thaw(broker: The, caller: By, ask: Freeze) -> dict[str, Any]:
    """Allow issuing for a selector again."""
    await broker.operators.thaw(caller, ask)
    return {"selector": ask.selector.field, "frozen": False}
