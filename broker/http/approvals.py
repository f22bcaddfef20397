"""``/v1``: approvals, elevations, break-glass and its reviews."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Response
from fastapi.responses import JSONResponse

from broker.approvals import ApprovalState
from broker.elevations import ReviewState
from broker.errors import ApprovalRequired
from broker.http import approval_shapes, shapes
from broker.http.api import Limit, TaskId, Word, accepted
from broker.http.callers import By, The
from broker.http.openapi import answers
from broker.http.problems import NO_STORE
from broker.wire_approvals import BreakGlass, CloseReview, Elevate, Vote

router = APIRouter(prefix="/v1", default_response_class=JSONResponse)
ApprovalId = Annotated[str, Path(json_schema_extra={"pattern": approval_shapes.APPROVAL_ID})]
ElevationId = Annotated[str, Path(json_schema_extra={"pattern": approval_shapes.ELEVATION_ID})]
OfApproval = Annotated[str, Query(pattern=f"^({'|'.join(ApprovalState)})?$")]
OfReview = Annotated[str, Query(pattern=f"^({'|'.join(ReviewState)})?$")]
Place = Annotated[str, Query(pattern=rf"^([0-9]{{13}}\|apr_{shapes.RANDOM})?$")]
ReviewPlace = Annotated[
    str, Query(pattern=rf"^([0-9]{{13}}\|tsk_{shapes.RANDOM}\|elv_{shapes.RANDOM})?$")
]


async def wait_for(
    wait: Annotated[str, Query(pattern="^([1-9]|[1-5][0-9]|60)s$")] = "",
) -> int:
    """Return how long to wait for an answer, in milliseconds; 0 for not at all."""
    return int(wait.removesuffix("s") or 0) * 1000


Wait = Annotated[int, Depends(wait_for)]


@router.get("/approvals", responses=answers(200, approval_shapes.ApprovalPage, 400, 404))
async def list_approvals(
    broker: The,
    caller: By,
    state: OfApproval = "",
    task_id: Word = "",
    limit: Limit = 50,
    cursor: Place = "",
) -> dict[str, Any]:
    """List what waits for a human yes, or did; agents and orchestrators see a task's."""
    return await broker.approvals.listed(
        caller, state=state, task_id=task_id, limit=limit, cursor=cursor
    )


@router.get("/approvals/{approval_id}", responses=answers(200, approval_shapes.Approval, 400, 404))
async def show_approval(
    broker: The, caller: By, approval_id: ApprovalId, wait: Wait
) -> dict[str, Any]:
    """Show an approval; with ``wait`` the answer comes once it is decided, or after that time."""
    return await broker.approvals.show(caller, approval_id, wait_ms=wait)


@router.post(
    "/approvals/{approval_id}/approve",
    responses=answers(200, approval_shapes.Approval, 400, 403, 404, 409),
)
async def approve(broker: The, caller: By, approval_id: ApprovalId, ask: Vote) -> dict[str, Any]:
    """Say yes to exactly this request."""
    return await broker.approvals.vote(caller, approval_id, yes=True, reason=ask.reason)


@router.post(
    "/approvals/{approval_id}/deny",
    responses=answers(200, approval_shapes.Approval, 400, 403, 404, 409),
)
async def deny(broker: The, caller: By, approval_id: ApprovalId, ask: Vote) -> dict[str, Any]:
    """Say no: one no is enough."""
    return await broker.approvals.vote(caller, approval_id, yes=False, reason=ask.reason)


@router.delete(
    "/approvals/{approval_id}", responses=answers(200, approval_shapes.Approval, 403, 404)
)
async def withdraw_approval(broker: The, caller: By, approval_id: ApprovalId) -> dict[str, Any]:
    """Take back what was asked for."""
    return await broker.approvals.withdraw(caller, approval_id)


@router.post(
    "/tasks/{task_id}/elevations",
    status_code=201,
    responses=answers(201, approval_shapes.Elevation, 400, 403, 404, 409, 429)
    | answers(202, approval_shapes.Waiting),
)
async def elevate(broker: The, caller: By, task_id: TaskId, ask: Elevate) -> Response:
    """Give a task a capability for a window of time; a human has to approve it as a rule."""
    try:
        started = await broker.elevations.elevate(caller, task_id, ask)
    except ApprovalRequired as error:
        return accepted(error)
    return JSONResponse(started, 201, NO_STORE)


@router.get(
    "/tasks/{task_id}/elevations", responses=answers(200, approval_shapes.ElevationPage, 404)
)
async def list_elevations(broker: The, caller: By, task_id: TaskId) -> dict[str, Any]:
    """List a task's elevations, newest first; all on one page."""
    return await broker.elevations.of_task(caller, task_id)


@router.delete(
    "/tasks/{task_id}/elevations/{elevation_id}",
    responses=answers(200, approval_shapes.Elevation, 403, 404),
)
async def end_elevation(
    broker: The, caller: By, task_id: TaskId, elevation_id: ElevationId
) -> dict[str, Any]:
    """End an elevation now; all that was issued under it is revoked."""
    return await broker.elevations.end(caller, task_id, elevation_id)


@router.post(
    "/tasks/{task_id}/break-glass",
    status_code=201,
    responses=answers(201, approval_shapes.Elevation, 400, 403, 404, 409),
)
async def break_glass(broker: The, caller: By, task_id: TaskId, ask: BreakGlass) -> dict[str, Any]:
    """Give a task a capability at once, where policy names who may; a review follows."""
    return await broker.elevations.break_glass(caller, task_id, ask)


@router.get("/reviews", responses=answers(200, approval_shapes.ElevationPage, 400, 403))
async def list_reviews(
    broker: The, caller: By, state: OfReview = "", limit: Limit = 50, cursor: ReviewPlace = ""
) -> dict[str, Any]:
    """List the break-glasses that somebody still has to look at, or those that were."""
    return await broker.elevations.glass.reviews(caller, state=state, limit=limit, cursor=cursor)


@router.post(
    "/reviews/{elevation_id}/close",
    responses=answers(200, approval_shapes.Elevation, 400, 403, 404, 409),
)
async def close_review(
    broker: The, caller: By, elevation_id: ElevationId, ask: CloseReview
) -> dict[str, Any]:
    """Close the review of a break-glass with what was found."""
    return await broker.elevations.glass.close_review(caller, elevation_id, ask.findings)
