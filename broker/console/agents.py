"""*Agents*: who there is, what they can do and do, and who answers for them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated, Any, Final

from fastapi import Query
from starlette.responses import Response

from broker.catalog import PrincipalState
from broker.console.forms import read_as
from broker.console.rights import Right
from broker.console.routing import Here, Pages
from broker.identity.models import Role
from broker.reach import power_json
from broker.reviews import DAY_MS
from broker.wire_principals import Because, Review

if TYPE_CHECKING:
    from collections.abc import Mapping

pages = Pages()
_WATCHED_MS: Final = 30 * DAY_MS
"""How far back it is looked for uses."""
_PAGE: Final = 50
_WEIGHED: Final = 1000
"""Live grants that are read to say in one list what agents can do; each has a page for the rest."""
_NOTICES: Final = {
    "suspended": "Suspended. Nothing more is issued to it, and what it had is being revoked.",
    "resumed": "It may work again. What was revoked stays so.",
    "retired": "Retired, for good.",
    "reviewed": "The review is noted.",
}

Name = Annotated[str, Query(pattern="^([a-z0-9][a-z0-9._-]{0,63})?$")]


@pages.get("/agents", Right.READ)
async def agents(
    visit: Here,
    role: Annotated[str, Query(pattern=f"^({'|'.join(Role)}|any)?$")] = "agent",
    state: Annotated[str, Query(pattern=f"^({'|'.join(PrincipalState)})?$")] = "",
    owner: Annotated[str, Query(max_length=320)] = "",
    due: Annotated[str, Query(pattern="^(yes)?$")] = "",
    cursor: Name = "",
) -> Response:
    """List principals by name."""
    console = visit.console
    page = await console.principals.principals(
        visit.caller,
        role="" if role == "any" else role,
        state=state,
        owner=owner,
        due_only=bool(due),
        limit=_PAGE,
        cursor=cursor,
    )
    uses = await _uses(visit, cursor)
    working = _weighed(page["items"])
    reach = console.oversight.reach
    powers = await asyncio.gather(*(reach.of_agent(name) for name in working))
    return visit.page(
        "agents.html",
        title="Agents",
        found=page["items"],
        next=page["next"],
        uses=uses,
        powers={n: power_json(p) for n, p in zip(working, powers, strict=True)},
        asked={"role": role, "state": state, "owner": owner, "due": due},
        roles=list(Role),
        states=list(PrincipalState),
        now=await visit.now(),
    )


def _weighed(found: list[dict[str, Any]]) -> list[str]:
    """Return whose power the list says: all that an agent holds is read for it, so not of most."""
    names, left = list[str](), _WEIGHED
    for row in found:
        if row["role"] == Role.AGENT and 0 < row["live_grants"] <= left:
            names.append(row["name"])
            left -= row["live_grants"]
    return names


async def _uses(visit: Here, cursor: str, only: str = "") -> dict[str, dict[str, Any]]:
    """Return by name what agents are allowed against what they used; of none that is retired."""
    report = await visit.console.oversight.reports.unused_power(
        visit.caller, since_ms=_WATCHED_MS, everybody=True, limit=1 << 30, cursor=cursor
    )
    return {row["agent"]: row for row in report["items"] if only in ("", row["agent"])}


@pages.get("/agents/{name}", Right.READ)
async def agent(visit: Here, name: str, done: str = "") -> Response:
    """Show one of them, and what may be done about it."""
    found = await visit.console.principals.principal(visit.caller, name)
    uses = await _uses(visit, "", name)
    return visit.page(
        "agent.html",
        title=found["name"],
        p=found,
        use=uses.get(name),
        used_at={use["capability"]: use["last_used_at"] for use in found["used"]},
        notice=_NOTICES.get(done, ""),
        now=await visit.now(),
    )


@pages.post("/agents/{name}/suspend", Right.OPERATE)
async def suspend(visit: Here, name: str) -> Response:
    """Stop it."""
    await visit.console.principals.suspend(visit.caller, name, _because(visit))
    return visit.go(f"/agents/{name}", "suspended")


@pages.post("/agents/{name}/resume", Right.OPERATE)
async def resume(visit: Here, name: str) -> Response:
    """Let it work again."""
    await visit.console.principals.resume(visit.caller, name, _because(visit))
    return visit.go(f"/agents/{name}", "resumed")


@pages.post("/agents/{name}/retire", Right.OPERATE)
async def retire(visit: Here, name: str) -> Response:
    """Stop it for good; whoever does that has written its name."""
    visit.must_repeat(name)
    await visit.console.principals.retire(visit.caller, name, _because(visit))
    return visit.go(f"/agents/{name}", "retired")


@pages.post("/agents/{name}/review", Right.OPERATE)
async def review(visit: Here, name: str) -> Response:
    """Note that somebody looked, and when to look again."""
    said: dict[str, Any] = {"next": visit.field("next", 20)}
    if note := visit.field("note"):
        said["note"] = note
    await visit.console.principals.review(visit.caller, name, read_as(Review, said))
    return visit.go(f"/agents/{name}", "reviewed")


def _because(visit: Here) -> Because:
    said: Mapping[str, Any] = {"reason": visit.field("reason")}
    return read_as(Because, said)
