"""``/v1/principals`` and ``/v1/owners``: for operators; auditors may read."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from broker.catalog import Power, PrincipalState
from broker.http.callers import By
from broker.http.openapi import answers
from broker.http.power import Powerful
from broker.http.shapes import Answer, Count, Revocations, Time, Words
from broker.identity.models import Role
from broker.owners import Owners
from broker.principals import Principals
from broker.steps import Outcome
from broker.wire_principals import AddPrincipal, Because, ReinstateOwner, RetireOwner, Review

router = APIRouter(prefix="/v1", default_response_class=JSONResponse)
_NAME = "^[a-z0-9][a-z0-9._-]{0,63}$"


class PrincipalAnswer(Answer):
    """A principal: its `state` is its own; `owner_left` stops it all the same."""

    name: Annotated[str, Field(pattern=_NAME)]
    role: Role
    state: PrincipalState
    state_reason: Words | None
    state_changed_at: Time | None
    state_changed_by: Words | None
    owner: Words
    owner_left: bool
    purpose: Words | None
    identity: dict[str, Any] | None
    capabilities: list[Words]
    resource: Words | None
    max_ttl: Words | None
    delegates_to: list[Words] | None
    registered: bool
    since: Time | None
    added_by: Words | None
    review_by: Time | None
    reviewed_at: Time | None
    reviewed_by: Words | None
    review_note: Words | None
    last_used_at: Time | None
    due: list[Literal["unused", "review"]]
    overdue_at: Time | None
    live_grants: Count


class GrantedCapability(Answer):
    """A capability that an agent may be granted, and its power."""

    capability: Words
    power: Power


class LastUse(Answer):
    """A capability that an agent has used, and when last."""

    capability: Words
    last_used_at: Time


class ShownPrincipal(PrincipalAnswer):
    """A principal, with what it can do now if it is an agent, and what it has used."""

    effective_power: Powerful | None
    granted: list[GrantedCapability]
    used: list[LastUse]


class PrincipalPage(Answer):
    """Principals by name."""

    items: list[PrincipalAnswer]
    next: Annotated[str, Field(pattern=_NAME)] | None


class MovedPrincipal(PrincipalAnswer):
    """A principal in its new state, and what became of its grants."""

    grants: Revocations


class OwnerAnswer(Answer):
    """An owner, and the names of those who are theirs."""

    owner: Words
    state: Literal["active", "left"]
    changed_at: Time | None
    changed_by: Words | None
    reason: Words | None
    handed_over_to: Words | None
    principals: list[Words]
    live_grants: Count


class OwnerPage(Answer):
    """All owners, by name; always one page."""

    items: list[OwnerAnswer]
    next: None


class MovedOwner(OwnerAnswer):
    """An owner who left, and what became of the grants of those who were theirs."""

    grants: Revocations


def principals_of(request: Request) -> Principals:
    """Return the app's operations on principals."""
    principals: Principals = request.app.state.principals
    return principals


def owners_of(request: Request) -> Owners:
    """Return the app's operations on owners."""
    owners: Owners = request.app.state.owners
    return owners


The = Annotated[Principals, Depends(principals_of)]
Their = Annotated[Owners, Depends(owners_of)]
# Another text than a name is not found, like a name of nobody: the pattern is for the document.
Name = Annotated[str, Path(json_schema_extra={"pattern": _NAME})]
OfRole = Annotated[str, Query(pattern=f"^({'|'.join(Role)})?$")]
OfState = Annotated[str, Query(pattern=f"^({'|'.join(PrincipalState)})?$")]
OfOwner = Annotated[str, Query(max_length=320)]
After = Annotated[str, Query(pattern="^([a-z0-9][a-z0-9._-]{0,63})?$")]
Limit = Annotated[int, Query(ge=1, le=500)]

_CALLS = (
    "show_principal",
    "suspend_principal",
    "resume_principal",
    "retire_principal",
    "review_principal",
)


@router.get("/principals", responses=answers(200, PrincipalPage, 400, 403))
async def list_principals(
    principals: The,
    caller: By,
    role: OfRole = "",
    owner: OfOwner = "",
    state: OfState = "",
    due: bool = False,  # noqa: FBT001, FBT002  a parameter of the query
    limit: Limit = 50,
    cursor: After = "",
) -> dict[str, Any]:
    """List principals by name; with `due` those that it is time to review."""
    return await principals.principals(
        caller, role=role, owner=owner, state=state, due_only=due, limit=limit, cursor=cursor
    )


@router.post(
    "/principals",
    status_code=201,
    responses=answers(201, PrincipalAnswer, 400, 403, 409, links={"name": _CALLS}),
)
async def add_principal(principals: The, caller: By, ask: AddPrincipal) -> dict[str, Any]:
    """Register an agent, an orchestrator or a resource server.

    The same request again answers with the same principal.
    """
    return await principals.add(caller, ask)


@router.get("/principals/{name}", responses=answers(200, ShownPrincipal, 403, 404))
async def show_principal(principals: The, caller: By, name: Name) -> dict[str, Any]:
    """Show a principal; of an agent also its effective power, and what it has used."""
    return await principals.principal(caller, name)


_MOVED = answers(200, MovedPrincipal, 400, 403, 404, 409)


@router.post("/principals/{name}/suspend", responses=_MOVED)
async def suspend_principal(
    principals: The, caller: By, name: Name, ask: Because
) -> dict[str, Any]:
    """Stop a principal: all it has is revoked, and nothing more is issued to it."""
    return _moved(*await principals.suspend(caller, name, ask))


@router.post("/principals/{name}/resume", responses=_MOVED)
async def resume_principal(principals: The, caller: By, name: Name, ask: Because) -> dict[str, Any]:
    """Let a suspended principal work again; what was revoked stays so."""
    return _moved(*await principals.resume(caller, name, ask))


@router.post("/principals/{name}/retire", responses=_MOVED)
async def retire_principal(principals: The, caller: By, name: Name, ask: Because) -> dict[str, Any]:
    """As suspending, for good: the name is never anybody else's."""
    return _moved(*await principals.retire(caller, name, ask))


@router.post(
    "/principals/{name}/review", responses=answers(200, PrincipalAnswer, 400, 403, 404, 409)
)
async def review_principal(principals: The, caller: By, name: Name, ask: Review) -> dict[str, Any]:
    """Note that somebody looked at a principal, and when to look again."""
    return await principals.review(caller, name, ask)


@router.get("/owners", responses=answers(200, OwnerPage, 403))
async def list_owners(owners: Their, caller: By) -> dict[str, Any]:
    """List owners, and what is theirs."""
    return await owners.owners(caller)


@router.post("/owners/retire", responses=answers(200, MovedOwner, 400, 403, 404, 409))
async def retire_owner(owners: Their, caller: By, ask: RetireOwner) -> dict[str, Any]:
    """Note that an owner left: all of theirs stops and is revoked, or is another's from now on."""
    return _moved(*await owners.retire(caller, ask))


@router.post("/owners/reinstate", responses=answers(200, OwnerAnswer, 400, 403, 404))
async def reinstate_owner(owners: Their, caller: By, ask: ReinstateOwner) -> dict[str, Any]:
    """Note that an owner is back: what is still theirs may work again."""
    return await owners.reinstate(caller, ask)


def _moved(shown: dict[str, Any], outcome: Outcome) -> dict[str, Any]:
    return {**shown, "grants": outcome.as_json()}
