"""*Now*: what is alive, what dies next, what is wrong; live."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from starlette.responses import Response

from broker.access import Caller
from broker.catalog import Principal
from broker.console.live import stream
from broker.console.rights import Right
from broker.console.routing import Here, Pages
from broker.identity.models import Role

if TYPE_CHECKING:
    from broker.console.app import Console

pages = Pages()
_FEED: Final = Caller(principal=Principal(name="console", role=Role.AUDITOR, owner="console"))
"""In whose name the live part is read once for all: each of its readers may see everything."""


@pages.get("/", Right.READ)
async def now(visit: Here) -> Response:
    """Show what is so."""
    found = await visit.console.overview.now(visit.caller)
    return visit.page("now.html", title="Now", now=found, live=False)


@pages.get("/now/events", Right.READ)
async def events(visit: Here) -> Response:
    """Send the page's live part whenever it changes."""
    console = visit.console
    return stream(visit, console.feeds.of("now", partial(live_part, console)))


async def live_part(console: Console) -> str:
    """Return the part of the page that changes, as every stream gets it."""
    found = await console.overview.now(_FEED)
    return console.templates.render("now_live.html", {"now": found, "live": True})
