"""``/v1/policy`` and ``/v1/decisions``: policies in force, who could, and why not."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse
from pydantic import Field

from broker.http.callers import By
from broker.http.openapi import answers
from broker.http.shapes import RANDOM, Answer, Revocations, TaskId, Time, Words
from broker.policing import Policing

router = APIRouter(prefix="/v1", default_response_class=JSONResponse)
_DECISION: Final = f"^dec_{RANDOM}$"
_DIGEST: Final = "^[0-9a-f]{16}$"
Digest = Annotated[str, Field(pattern=_DIGEST)]


class PolicyAnswer(Answer):
    """One policy: its `@id`, its file, whether it permits or forbids, and what it asks for."""

    policy: Words
    file: Words
    effect: Literal["permit", "forbid"]
    advice: Words | None
    obligations: dict[str, Any]


class ObservedPolicies(Answer):
    """Policies that are only tried out."""

    set: Words
    policies: list[PolicyAnswer]


class PoliciesAnswer(Answer):
    """The policies in force; `problem` says why those in the folder aren't, if so."""

    digest: Digest
    problem: Words | None
    remote: Literal["besides", "instead"] | None
    policies: Annotated[list[PolicyAnswer], Field(min_length=1)]
    observed: list[ObservedPolicies]


class ReloadedPolicies(Answer):
    """Whether the policies had changed, and what became of the grants they don't allow any more."""

    changed: bool
    digest: Digest
    grants: Revocations


class WhoAnswer(Answer):
    """An agent, and what would be decided if it asked in a plain task."""

    agent: Words
    owner: Words
    effect: Literal["allow", "deny", "needs_approval"]
    reasons: list[Words]
    policies: list[Words]
    obligations: dict[str, Any]
    depends_on_arguments: list[Words]


class WhoCanAnswer(Answer):
    """All agents, those that can first."""

    capability: Words
    items: list[WhoAnswer]


class ExplainedDecision(Answer):
    """What was decided of which question; and why, and what would change it, by now."""

    decision_id: Annotated[str, Field(pattern=_DECISION)]
    time: Time
    task_id: TaskId | None
    principal: Words
    said: dict[str, Any]
    question: dict[str, Any] | None
    explanation: dict[str, Any] | None


async def policing_of(request: Request) -> Policing:
    """Return the app's operations on policies."""
    policing: Policing = request.app.state.policing
    return policing


With = Annotated[Policing, Depends(policing_of)]
DecisionId = Annotated[str, Path(json_schema_extra={"pattern": _DECISION})]
Capability = Annotated[str, Query(min_length=1, max_length=64)]


@router.get("/policy", responses=answers(200, PoliciesAnswer, 403))
async def show_policies(policing: With, caller: By) -> dict[str, Any]:
    """Show the policies in force, and those that are tried out."""
    return await policing.show(caller)


@router.post("/policy/reload", responses=answers(200, ReloadedPolicies, 403, 409))
async def reload_policies(policing: With, caller: By) -> dict[str, Any]:
    """Load the policies now, all or none; live grants are decided again by them."""
    return await policing.reload(caller)


@router.get("/policy/who-can", responses=answers(200, WhoCanAnswer, 400, 403, 404))
async def who_can(policing: With, caller: By, capability: Capability) -> dict[str, Any]:
    """Say which agents could have a capability, or call a tool, in a plain task."""
    return await policing.who_can(caller, capability)


@router.get("/decisions/{decision_id}", responses=answers(200, ExplainedDecision, 403, 404))
async def explain_decision(policing: With, caller: By, decision_id: DecisionId) -> dict[str, Any]:
    """Explain a decision: which policies, of which question, and what would change it."""
    return await policing.explain(caller, decision_id)
