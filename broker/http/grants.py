"""``/v1/grants/{id}``: opening what was delivered wrapped, renewing, rotating."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from broker.errors import ApprovalRequired
from broker.http import approval_shapes, shapes
from broker.http.api import ISSUED, GrantId, Key, accepted, delivered
from broker.http.callers import By, The
from broker.http.openapi import answers
from broker.http.shapes import Words
from broker.wire import grant_json
from broker.wire_grants import RenewGrant, RotateGrant, UnwrapGrant

router = APIRouter(prefix="/v1", default_response_class=JSONResponse)


class RenewedGrant(shapes.Grant):
    """A grant that lives longer now, and what was shortened."""

    notes: list[Words]


@router.post(
    "/grants/{grant_id}/unwrap", responses=answers(200, shapes.IssuedGrant, 400, 403, 404, 409)
)
async def unwrap_grant(broker: The, caller: By, grant_id: GrantId, ask: UnwrapGrant) -> Response:
    """Open what was delivered wrapped, for the task's own agent. This answer comes once."""
    return delivered(await broker.unwrap(caller, grant_id, ask), 200)


@router.post(
    "/grants/{grant_id}/renew",
    responses=answers(200, RenewedGrant, 400, 403, 404, 409, 422, 429)
    | answers(202, approval_shapes.Waiting),
)
async def renew_grant(broker: The, caller: By, grant_id: GrantId, ask: RenewGrant) -> Response:
    """Let a credential live longer, within its task's life and its own longest."""
    try:
        grant, notes = await broker.renew(caller, grant_id, ask)
    except ApprovalRequired as error:
        return accepted(error)
    return JSONResponse({**grant_json(grant), "notes": list(notes)})


@router.post("/grants/{grant_id}/rotate", status_code=201, responses=ISSUED)
async def rotate_grant(
    broker: The, caller: By, key: Key, grant_id: GrantId, ask: RotateGrant
) -> Response:
    """Issue another credential in this one's place, which ends once the overlap is over."""
    try:
        return delivered(await broker.rotate(caller, grant_id, ask, key), 201)
    except ApprovalRequired as error:
        return accepted(error)
