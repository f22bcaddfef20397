"""``/v1/audit``: events, and what the signed log can be checked with."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, PlainTextResponse

from broker.audit_log import AuditLog
from broker.errors import NotFound
from broker.http import shapes
from broker.http.api import Limit, Word
from broker.http.callers import By, The
from broker.http.openapi import answers
from broker.http.problems import NO_STORE
from broker.visibility import must_see_all

router = APIRouter(prefix="/v1/audit", default_response_class=JSONResponse)

EventId = Annotated[str, Query(pattern=r"^([0-9]{1,15}-[0-9a-f]{2}-[0-9]{1,15})?$")]
_TEXT = answers(200, None, 403, 404, also="text/plain")


@router.get("/events", responses=answers(200, shapes.EventPage, 400, 403))
async def list_events(
    broker: The,
    caller: By,
    task_id: Word = "",
    after: EventId = "",
    limit: Limit = 100,
    kind: Annotated[str, Query(alias="type", pattern=r"^([a-z_]+(\.[a-z_]+)?)?$")] = "",
    principal: Word = "",
    text: Word = "",
) -> dict[str, Any]:
    """List audit events, oldest first, after the event with this id.

    `type` may be the first word of many, such as `grant`; `text` is looked for in all they say.
    Where few of them match a page may be short, or empty, and still have a `next`.
    """
    return await broker.operators.events(
        caller,
        task_id=task_id,
        after=after,
        limit=limit,
        kind=kind,
        principal=principal,
        text=text,
    )


@router.get("/events/{event_id}", responses=answers(200, shapes.Event, 400, 403, 404))
async def show_event(
    broker: The, caller: By, event_id: Annotated[str, Path(pattern=shapes.EVENT_ID)]
) -> dict[str, Any]:
    """Show one audit event."""
    return await broker.operators.event(caller, event_id)


@router.get("/checkpoint", response_class=PlainTextResponse, responses=_TEXT)
async def show_checkpoint(request: Request, caller: By) -> PlainTextResponse:
    """Show the newest signed checkpoint of the log. Kept elsewhere, it shows what was removed."""
    must_see_all(caller)
    return PlainTextResponse(await _log(request).checkpoint(), headers=NO_STORE)


@router.get("/key", response_class=PlainTextResponse, responses=_TEXT)
async def show_log_key(request: Request, caller: By) -> PlainTextResponse:
    """Show the public key of the log, in the form that verifiers take: `name+id+key`."""
    must_see_all(caller)
    return PlainTextResponse(f"{_log(request).key}\n", headers=NO_STORE)


def _log(request: Request) -> AuditLog:
    log: AuditLog | None = request.app.state.audit
    if log is None:
        raise NotFound("This broker keeps no signed log: [audit] enabled is false.")
    return log
