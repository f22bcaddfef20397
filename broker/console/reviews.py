"""*Reviews*: what was done with the glass broken, and whom it is time to look at."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Final

from fastapi import Query
from starlette.responses import Response

from broker.console.audit import summarised
from broker.console.forms import read_as
from broker.console.rights import Right
from broker.console.routing import Here, Pages
from broker.elevations import ReviewState
from broker.http.shapes import RANDOM
from broker.wire_approvals import CloseReview

pages = Pages()
_OPEN: Final = 100
"""Open reviews on the page: more than that is a problem of its own."""
_CLOSED: Final = 25
_EVENTS: Final = 100
_NOTICES: Final = {"closed": "The review is closed."}
Place = Annotated[
    str, Query(pattern=rf"^([0-9]{{13}}\|tsk_{RANDOM}\|elv_{RANDOM})?$", max_length=200)
]


@pages.get("/reviews", Right.AUDIT)
async def reviews(visit: Here, cursor: Place = "") -> Response:
    """List what is to be looked at, and what somebody has looked at."""
    glass, caller = visit.console.broker.elevations.glass, visit.caller
    waiting = await glass.reviews(caller, state=ReviewState.OPEN, limit=_OPEN, cursor="")
    closed = await glass.reviews(caller, state=ReviewState.CLOSED, limit=_CLOSED, cursor=cursor)
    due = await visit.console.principals.principals(caller, due_only=True, limit=_OPEN)
    return visit.page(
        "reviews.html",
        title="Reviews",
        waiting=waiting,
        closed=closed,
        due=due,
        first=not cursor,
        now=await visit.now(),
    )


@pages.get("/reviews/{elevation_id}", Right.AUDIT)
async def review(visit: Here, elevation_id: str, done: str = "") -> Response:
    """Show a break-glass, and what its task did from then on."""
    found = await visit.console.broker.elevations.glass.review(visit.caller, elevation_id)
    started = int(datetime.fromisoformat(found["started_at"]).timestamp() * 1000)
    events = await visit.console.broker.operators.events(
        visit.caller, task_id=found["task_id"], after=f"{started - 1}-00-0", limit=_EVENTS
    )
    return visit.page(
        "review.html",
        title="Break-glass",
        r=found,
        events=summarised(events["items"]),
        more=events["next"],
        begin=found["started_at"],
        notice=_NOTICES.get(done, ""),
        now=await visit.now(),
    )


@pages.get("/reviews/{elevation_id}/close", Right.OPERATE, fresh=True)
async def closing(visit: Here, elevation_id: str) -> Response:
    """Ask for what was found."""
    found = await visit.console.broker.elevations.glass.review(visit.caller, elevation_id)
    return visit.page("review_close.html", title="Close a review", r=found, now=await visit.now())


@pages.post("/reviews/{elevation_id}/close", Right.OPERATE, fresh=True)
async def close(visit: Here, elevation_id: str) -> Response:
    """Close it with that."""
    said = {"findings": visit.field("findings", 4000)}
    ask = read_as(CloseReview, said)
    glass = visit.console.broker.elevations.glass
    await glass.close_review(visit.caller, elevation_id, ask.findings)
    return visit.go(f"/reviews/{elevation_id}", "closed")
