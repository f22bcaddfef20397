"""What whoever looks wants first: the overview, who they are, how to log in; and what would be.

``/v1/login`` is open: it says what a login page of any kind says.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from broker.catalog import Power, Revocability
from broker.dry_runs import DryRuns
from broker.errors import NotFound
from broker.http.callers import By, The
from broker.http.openapi import OPEN, answers
from broker.http.shapes import Answer, Count, Frozen, Grant, TaskId, Time, Words
from broker.overview import Overviews
from broker.wire_previews import DryRun, PreviewRevocation

router = APIRouter(prefix="/v1", default_response_class=JSONResponse)


class LivePart(Answer):
    """Live grants of one power at one backend."""

    backend: Words
    power: Power
    live: Annotated[int, Field(ge=1)]


class Live(Answer):
    """Grants that are not confirmed dead."""

    total: Count
    by_power: dict[Power, Count]
    by: list[LivePart]


class Unsettled(Answer):
    """Grants on their way, of all the live ones, and what a sweep is late with.

    `unknown` are of capabilities that the configuration doesn't have.
    """

    stuck: Count
    revoking: Count
    pending: Count
    overdue: Count
    unknown: Count


class TimesToDead(Answer):
    """How long the last deaths took that this replica confirmed, from asking for them."""

    last: Count
    p50_ms: Count | None
    p95_ms: Count | None
    max_ms: Count | None


class BackendHealth(Answer):
    """A backend: `stopped` where nothing is issued, `failing` where revoking doesn't work."""

    backend: Words
    state: Literal["ok", "failing", "stopped"]
    why: Words | None
    live: Count
    revoking: Count
    stuck: Count
    failing: Count
    shut_lanes: Count


class Overview(Answer):
    """What lives, what dies next, what doesn't die, and how the broker is.

    `next_to_die` and `not_dead` are the first of many; `checks` has a word on each part: `ok`,
    a warning, or what is wrong.
    """

    at: Time
    live: Live
    unsettled: Unsettled
    next_to_die: list[Grant]
    not_dead: list[Grant]
    time_to_dead: TimesToDead
    backends: list[BackendHealth]
    freezes: list[Frozen]
    approvals: Count
    reviews: Count
    checks: dict[str, Words]


class Login(Answer):
    """Where people log in by OpenID Connect, as which client, and for what."""

    issuer: Words
    client_id: Words
    scopes: list[Words]


class PreviewPart(Answer):
    """Grants of one capability; `revocability` says how it can end."""

    backend: Words
    capability: Words
    power: Power
    revocability: Revocability | None
    count: Annotated[int, Field(ge=1)]


class PreviewStates(Answer):
    """Grants by state; none of them is dead."""

    stuck: Count
    revoking: Count
    pending: Count
    active: Count


class Preview(Answer):
    """What revoking would end, or isn't dead of it; `grants` and `agents` are the first of many."""

    selector: Words
    matched: Count
    states: PreviewStates
    tasks: Count
    agents: list[Words]
    agents_in_all: Count
    by: list[PreviewPart]
    grants: list[Grant]


class DryRunAnswer(Answer):
    """What would be decided, and why; without a task its `explanation` is null."""

    task_id: TaskId | None
    agent: Words
    capability: Words
    effect: Literal["allow", "deny", "needs_approval"]
    reasons: list[Words]
    ttl: Words | None
    notes: list[Words]
    policies: list[Words]
    obligations: dict[str, Any]
    depends_on_arguments: list[Words]
    explanation: dict[str, Any] | None


async def overviews_of(request: Request) -> Overviews:
    """Return what puts the app's overview together."""
    overviews: Overviews = request.app.state.overview
    return overviews


async def dry_runs_of(request: Request) -> DryRuns:
    """Return the app's dry runs."""
    dry_runs: DryRuns = request.app.state.dry_runs
    return dry_runs


@router.get("/overview", responses=answers(200, Overview, 403))
async def show_overview(
    caller: By, overviews: Annotated[Overviews, Depends(overviews_of)]
) -> dict[str, Any]:
    """Show what lives, what dies next and what is wrong; put together once a second at most."""
    return await overviews.now(caller)


@router.get("/login", responses=answers(200, Login, 404), openapi_extra=OPEN)
async def show_login(request: Request) -> dict[str, Any]:
    """Show where people log in, if they can."""
    login: dict[str, Any] | None = request.app.state.login
    if login is None:
        raise NotFound("Nobody logs in at this broker: its configuration has no [login].")
    return login


@router.post("/revocations/preview", responses=answers(200, Preview, 400, 403, 404))
async def preview_revocation(broker: The, caller: By, ask: PreviewRevocation) -> dict[str, Any]:
    """Show what revoking by this selector would end now; asked again, what isn't dead of it."""
    return await broker.operators.preview(caller, ask.selector)


@router.post("/policy/dry-run", responses=answers(200, DryRunAnswer, 400, 403, 404))
async def dry_run(
    caller: By, ask: DryRun, dry_runs: Annotated[DryRuns, Depends(dry_runs_of)]
) -> dict[str, Any]:
    """Say what policy would decide of a request; nothing is issued, asked for or logged."""
    return await dry_runs.run(caller, ask)
