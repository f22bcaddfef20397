"""*Now*: what is alive, what dies next, what is wrong; live."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.responses import Response

from broker.catalog import Power
from broker.console.live import stream
from broker.console.rights import Right
from broker.console.routing import Here, Pages

if TYPE_CHECKING:
    from broker.console.app import Console

pages = Pages()


@pages.get("/", Right.READ)
async def now(visit: Here) -> Response:
    """Show what is so."""
    found = await visit.console.overview.read(visit.caller)
    return visit.page("now.html", title="Now", now=found, powers=list(Power), live=False)


@pages.get("/now/events", Right.READ)
async def events(visit: Here) -> Response:
    """Send the page's live part whenever it changes."""
    return stream(visit, visit.console.now_feed)


async def live_part(console: Console) -> str:
    """Return the part of the page that changes, as every stream gets it."""
    found = await console.overview.latest()
    values = {"now": found, "powers": list(Power), "live": True}
    return console.templates.render("now_live.html", values)
