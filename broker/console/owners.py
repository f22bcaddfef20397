"""Owners: who answers for whom; and what becomes of that when somebody leaves."""

from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import urlencode

from fastapi import Query
from starlette.responses import RedirectResponse, Response

from broker.console.forms import read_as
from broker.console.rights import Right
from broker.console.routing import Here, Pages
from broker.errors import NotFound
from broker.wire_principals import ReinstateOwner, RetireOwner

pages = Pages()
_NOTICES: Final = {
    "handed-over": "Handed over. Nothing was revoked.",
    "left": "Noted. All of theirs stops, and what it had is being revoked.",
    "reinstated": "Back. What is still theirs may work again.",
}
_HERE: Final = "/agents"
"""Which entry of the navigation these pages belong to."""
Owner = Annotated[str, Query(max_length=320)]


@pages.get("/owners", Right.READ)
async def owners(visit: Here) -> Response:
    """List all there are and were."""
    found = await visit.console.owners.owners(visit.caller)
    return visit.page("owners.html", title="Owners", found=found["items"], here=_HERE)


@pages.get("/owners/one", Right.READ)
async def owner(visit: Here, owner: Owner = "", done: str = "") -> Response:
    """Show one: names are any text, so they are in the query."""
    found = await visit.console.owners.owners(visit.caller)
    known = {row["owner"]: row for row in found["items"]}
    if owner not in known:
        raise NotFound("Nothing here is, or was, this owner's.")
    others = [n for n, row in known.items() if n != owner and row["state"] == "active"]
    return visit.page(
        "owner.html",
        title=owner,
        o=known[owner],
        others=others,
        notice=_NOTICES.get(done, ""),
        here=_HERE,
        now=await visit.now(),
    )


@pages.post("/owners/hand-over", Right.OPERATE)
async def hand_over(visit: Here) -> Response:
    """All of theirs is another's from now on; nothing is revoked."""
    said = {**_said(visit), "hand_over_to": visit.field("hand_over_to", 320)}
    await visit.console.owners.retire(visit.caller, read_as(RetireOwner, said))
    return _back(visit, "handed-over")


@pages.post("/owners/retire", Right.OPERATE)
async def retire(visit: Here) -> Response:
    """They left, and take all of theirs along; whoever says so has written their name."""
    ask = read_as(RetireOwner, _said(visit))
    visit.must_repeat(ask.owner)
    await visit.console.owners.retire(visit.caller, ask)
    return _back(visit, "left")


@pages.post("/owners/reinstate", Right.OPERATE)
async def reinstate(visit: Here) -> Response:
    """They are back."""
    await visit.console.owners.reinstate(visit.caller, read_as(ReinstateOwner, _said(visit)))
    return _back(visit, "reinstated")


def _said(visit: Here) -> dict[str, Any]:
    return {"owner": visit.field("owner", 320), "reason": visit.field("reason")}


def _back(visit: Here, notice: str) -> RedirectResponse:
    query = urlencode({"owner": visit.field("owner", 320), "done": notice})
    return visit.go(f"/owners/one?{query}")
