"""``/v1/reconciliations``: what is really alive; operators act, auditors read too."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from broker.http.callers import By
from broker.http.openapi import answers
from broker.http.shapes import Answer, Count, GrantId, TaskId, Time, Words
from broker.oversight import Oversight
from broker.reconcile.desk import ReconcileDesk
from broker.reconcile.findings import Action, Kind, Outcome
from broker.wire_reconcile import Reconcile

router = APIRouter(prefix="/v1", default_response_class=JSONResponse)


class FoundDisagreement(Answer):
    """One thing that ledger, backends and targets disagree on, and what is done about it."""

    kind: Kind
    place: Words
    subject: Words
    evidence: Words
    action: Action
    outcome: Outcome
    task_id: TaskId | None
    grant_id: GrantId | None


class Quarantined(Answer):
    """Since when nothing is issued, and why."""

    since: Time
    why: Words


class Reconciliation(Answer):
    """What a run found, and what became of it; `omitted` more are for the next run.

    `problems` are sides that could not be looked at: nothing is concluded from their silence.
    """

    at: Time
    applied: bool
    backend: Words | None
    agreement: bool
    findings: list[FoundDisagreement]
    found: dict[str, Count]
    outcomes: dict[str, Count]
    omitted: Count
    problems: list[Words]
    quarantine: Quarantined | None


def desk_of(request: Request) -> ReconcileDesk:
    """Return the app's operations on reconciling."""
    oversight: Oversight = request.app.state.oversight
    return oversight.reconcile


The = Annotated[ReconcileDesk, Depends(desk_of)]


@router.post("/reconciliations", responses=answers(200, Reconciliation, 400, 403, 409))
async def reconcile(desk: The, caller: By, ask: Reconcile) -> dict[str, Any]:
    """Compare ledger, backends and targets, and end what nobody has.

    Without `apply` nothing is changed. With it, what a run has shown lately is ended. A ledger in
    quarantine issues again once that finds nothing, or with `release`.
    """
    return await desk.reconcile(caller, ask)


@router.get("/reconciliations", responses=answers(200, Reconciliation, 403, 404))
async def last_reconciliation(desk: The, caller: By) -> dict[str, Any]:
    """Show what the last run found."""
    return await desk.last(caller)
