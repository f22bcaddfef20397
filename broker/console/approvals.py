"""*Approvals*: what waits for a human, in its own words, and saying yes or no to exactly that.

Looking changes nothing: a yes is a form that was filled in on the page of what it is to.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode

from starlette.responses import Response

from broker.approvals import ApprovalState
from broker.clock import to_rfc3339
from broker.console.forms import read_as
from broker.console.rights import Right
from broker.console.routing import Here, Pages
from broker.http.approvals import OfApproval, Place
from broker.spelled import spelled
from broker.wire_approvals import Vote

if TYPE_CHECKING:
    from broker.console.routing import Visit

pages = Pages()
_PENDING: Final = str(ApprovalState.PENDING)
_WAITING: Final = 200
_ON_A_PAGE: Final = 50


@pages.get("/approvals", Right.READ)
async def approvals(visit: Here, *, state: OfApproval = "", cursor: Place = "") -> Response:
    """List what waits, and what was said lately."""
    desk = visit.console.broker.approvals

    async def listed(state: str, limit: int, cursor: str = "") -> dict[str, Any]:
        return await desk.listed(visit.caller, state=state, task_id="", limit=limit, cursor=cursor)

    waiting = await listed(_PENDING, _WAITING)
    others = await listed(state, _ON_A_PAGE, cursor)
    said = {"state": state} if state else {}
    following = urlencode({**said, "cursor": others["next"]}) if others["next"] else ""
    return visit.page(
        "approvals.html",
        title="Approvals",
        waiting=waiting["items"],
        more_wait=waiting["next"] is not None,
        others=[row for row in others["items"] if row["state"] != _PENDING],
        following=following,
        state=state,
        states=[str(one) for one in ApprovalState if one is not ApprovalState.PENDING],
        first=not cursor,
        now=await _now(visit),
    )


@pages.get("/approvals/{approval_id}", Right.READ)
async def approval(visit: Here, approval_id: str, done: str = "") -> Response:
    """Show all that somebody says yes to, and who may."""
    desk = visit.console.broker.approvals
    found = await desk.show(visit.caller, approval_id)
    why_not = ""
    if found["state"] == _PENDING:
        why_not = (
            await desk.why_not(visit.caller, approval_id)
            if visit.may(Right.APPROVE)
            else "You may look at approvals: saying yes or no is for approvers and operators."
        )
    return visit.page(
        "approval.html",
        title="Approval",
        approval=found,
        pending=found["state"] == _PENDING,
        members=list(spelled(found["request"] or {})),
        why_not=why_not,
        done=done,
        now=await _now(visit),
    )


@pages.post("/approvals/{approval_id}/approve", Right.APPROVE)
async def approve(visit: Here, approval_id: str) -> Response:
    """Say yes to exactly this request."""
    return await _vote(visit, approval_id, yes=True)


@pages.post("/approvals/{approval_id}/deny", Right.APPROVE)
async def deny(visit: Here, approval_id: str) -> Response:
    """Say no: one no is enough."""
    return await _vote(visit, approval_id, yes=False)


async def _vote(visit: Visit, approval_id: str, *, yes: bool) -> Response:
    ask = read_as(Vote, {"reason": visit.field("reason")})
    desk = visit.console.broker.approvals
    await desk.vote(visit.caller, approval_id, yes=yes, reason=ask.reason)
    return visit.go(f"/approvals/{approval_id}", notice="approved" if yes else "denied")


async def _now(visit: Visit) -> str:
    return to_rfc3339(await visit.console.broker.pipeline.queries.now())
