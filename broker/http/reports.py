"""``/v1/reports``: for operators and auditors."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import JSONResponse
from pydantic import Field, WithJsonSchema

from broker.catalog import Power, PrincipalState
from broker.durations import parse_duration
from broker.errors import InvalidRequest
from broker.http.callers import By
from broker.http.openapi import answers
from broker.http.shapes import Answer, Time, Words
from broker.oversight import Oversight
from broker.reports import Reports
from broker.wire import DURATION

router = APIRouter(prefix="/v1", default_response_class=JSONResponse)
_NAME = "^[a-z0-9][a-z0-9._-]{0,63}$"


class AllowedCapability(Answer):
    """What an agent is allowed; a use of it would have been seen since `watched_since`."""

    capability: Words
    power: Power
    watched_since: Time | None


class UsedCapability(Answer):
    """A capability, and when it was last used."""

    capability: Words
    power: Power
    last_used_at: Time | None


class UnusedCapability(UsedCapability):
    """One that wasn't used; with `too_new` it wasn't watched for so long, so that says nothing."""

    too_new: bool


class PowerRange(Answer):
    """The highest power that is allowed, and the highest that was used."""

    allowed: Power | None
    used: Power | None


class AgentPower(Answer):
    """What an agent is allowed against what it used; `least` would have been enough."""

    agent: Annotated[str, Field(pattern=_NAME)]
    owner: Words
    state: PrincipalState
    allowed: list[AllowedCapability]
    used: list[UsedCapability]
    unused: list[UnusedCapability]
    least: list[Words]
    power: PowerRange


class UnusedPower(Answer):
    """Agents by name, and from when on uses count and are known."""

    since: Time
    recorded_since: Time | None
    items: list[AgentPower]
    next: Annotated[str, Field(pattern=_NAME)] | None


def reports_of(request: Request) -> Reports:
    """Return the app's reports."""
    oversight: Oversight = request.app.state.oversight
    return oversight.reports


async def looking_back(
    since: Annotated[str, WithJsonSchema(DURATION), Query(max_length=64)] = "30d",
) -> int:
    """Return how far back a report looks, in milliseconds."""
    try:
        return parse_duration(since)
    except ValueError:
        pass  # its message repeats the value
    why = 'must be a duration string such as "30d"'
    errors = [{"field": "since", "reason": why}]
    raise InvalidRequest(f"since: {why}", errors=errors)


@router.get("/reports/unused-power", responses=answers(200, UnusedPower, 400, 403))
async def unused_power(
    reports: Annotated[Reports, Depends(reports_of)],
    caller: By,
    since: Annotated[int, Depends(looking_back)],
    all: Annotated[bool, Query()] = False,  # noqa: A002, FBT002  its name in the query
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
    cursor: Annotated[str, Query(pattern="^([a-z0-9][a-z0-9._-]{0,63})?$")] = "",
) -> dict[str, Any]:
    """List agents that are allowed what they didn't use, and what would have been enough."""
    return await reports.unused_power(
        caller, since_ms=since, everybody=all, limit=limit, cursor=cursor
    )
