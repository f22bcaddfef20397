"""A grant: what it is, how it ends, and ending it."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from broker.clock import to_rfc3339
from broker.console.forms import read_as
from broker.console.rights import Right
from broker.console.routing import Here, Pages
from broker.grants import WAITING, GrantState
from broker.wire import grant_json
from broker.wire_grants import RetryGrant

pages = Pages()
_OVER: Final = (GrantState.REVOKED, GrantState.FAILED, GrantState.ABANDONED)


@pages.get("/grants/{grant_id}", Right.READ)
async def grant(visit: Here, grant_id: str, done: str = "") -> Response:
    """Show a grant; never its secret."""
    found = await visit.console.broker.grant(visit.caller, grant_id)
    return visit.page(
        "grant.html",
        title=f"Grant of {found.capability}",
        grant=grant_json(found),
        live=found.state not in _OVER,
        waits=found.state in WAITING,
        done=done,
        now=to_rfc3339(await visit.console.broker.pipeline.queries.now()),
    )


@pages.post("/grants/{grant_id}/retry", Right.OPERATE)
async def retry(visit: Here, grant_id: str) -> Response:
    """Have the next attempt to revoke it made now."""
    broker = visit.console.broker
    ask = read_as(RetryGrant, {"reason": visit.field("reason") or None})
    await broker.operators.retry(visit.caller, await broker.grant(visit.caller, grant_id), ask)
    return visit.go(f"/grants/{grant_id}", notice="retried")
