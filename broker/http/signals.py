"""``/v1/signals``: what detectors and operators report; operators and auditors read."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from broker.http.callers import By
from broker.http.openapi import answers
from broker.http.shapes import Answer, Revocations, Time, Words
from broker.oversight import Oversight
from broker.signals import Detections
from broker.wire_signals import MAX_RISK, ReportSignal, TakeBackSignal, Verdict

router = APIRouter(prefix="/v1", default_response_class=JSONResponse)
_SELECTOR = "^(task|agent|owner):.+"
Risk = Annotated[int, Field(ge=0, le=MAX_RISK)]
Selector = Annotated[str, Field(pattern=_SELECTOR)]


class SignalAnswer(Answer):
    """What is reported of a selector, written `agent:NAME`: by whom, why, since and until when."""

    selector: Selector
    risk: Risk
    verdict: Verdict
    by: Words
    reason: Words
    at: Time
    expires_at: Time | None


class ReportedSignal(SignalAnswer):
    """What is reported now, and what became of the grants that policy doesn't allow any more."""

    reviewed: Revocations


class SignalPage(Answer):
    """What is reported, by selector; `next` is the cursor of the page after it."""

    items: list[SignalAnswer]
    next: Selector | None


class ClearedSignal(Answer):
    """A selector of which nothing is reported any more."""

    selector: Selector
    cleared: bool


def detections_of(request: Request) -> Detections:
    """Return the app's operations on signals."""
    oversight: Oversight = request.app.state.oversight
    return oversight.detections


The = Annotated[Detections, Depends(detections_of)]
Limit = Annotated[int, Query(ge=1, le=500)]
After = Annotated[str, Query(max_length=400, pattern=f"({_SELECTOR})|^$")]


@router.get("/signals", responses=answers(200, SignalPage, 400, 403))
async def list_signals(
    detections: The, caller: By, limit: Limit = 100, cursor: After = ""
) -> dict[str, Any]:
    """List what is reported and counts now, by selector."""
    return await detections.listed(caller, limit=limit, cursor=cursor)


@router.post("/signals", responses=answers(200, ReportedSignal, 400, 403, 404))
async def report_signal(detections: The, caller: By, ask: ReportSignal) -> dict[str, Any]:
    """Report a risk or a verdict of a task, an agent or an owner.

    It takes the place of what was reported of them before, and counts from now on for all their
    tasks. Live grants that policy doesn't allow any more are revoked at once.
    """
    signal, outcome = await detections.report(caller, ask)
    return {**signal, "reviewed": outcome.as_json()}


@router.delete("/signals", responses=answers(200, ClearedSignal, 400, 403, 404))
async def clear_signal(detections: The, caller: By, ask: TakeBackSignal) -> dict[str, Any]:
    """Take back what is reported; what was revoked stays so."""
    await detections.take_back(caller, ask)
    return {"selector": ask.selector.field, "cleared": True}
