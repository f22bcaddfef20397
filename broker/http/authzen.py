"""AuthZEN 1.0: ``/access/v1/evaluation``, ``/access/v1/evaluations`` and their metadata.

A denial is 200 with ``"decision": false``. What isn't of the standard's form is 400, whatever
FastAPI would make of it, and ``X-Request-ID`` comes back with every answer (sections 10.1, 10.2).
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Annotated, Any, Final, Literal

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field

from broker.errors import BrokerError, InvalidRequest
from broker.http import shapes
from broker.http.api import TaskId
from broker.http.callers import By, The, authenticated
from broker.http.openapi import answers, body
from broker.http.problems import NO_STORE, problem
from broker.identity.models import Role
from broker.policy.policies import APPROVAL
from broker.refusals import advised, refusal
from broker.wire import ReportExecution
from broker.wire_authzen import (
    MAX_BATCH,
    Evaluation,
    Semantic,
    read_batch,
    read_evaluation,
    read_json,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from broker.access import Caller
    from broker.decisions import DecisionPoint
    from broker.judge import Ruling

router = APIRouter(default_response_class=JSONResponse)
reports = APIRouter(prefix="/v1", default_response_class=JSONResponse)
EVALUATION: Final = "/access/v1/evaluation"
EVALUATIONS: Final = "/access/v1/evaluations"
METADATA: Final = "/.well-known/authzen-configuration"
_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]{1,128}")
_JSON: Final = "application/json"
_STOPS: Final[dict[Semantic, bool | None]] = {
    "execute_all": None,
    "deny_on_first_deny": False,
    "permit_on_first_permit": True,
}


_Object = dict[str, Any]
_Members = Annotated[dict[str, Any], Field(default_factory=dict)]


class AccessEvaluation(shapes.Answer):
    """A question (Authorization API 1.0 section 6.1)."""

    subject: _Object
    action: _Object
    resource: _Object
    context: _Members


class AccessEvaluations(shapes.Answer):
    """Several questions (section 7.1); each inherits what stands beside them."""

    subject: _Members
    action: _Members
    resource: _Members
    context: _Members
    options: _Members
    evaluations: Annotated[list[_Object], Field(max_length=MAX_BATCH)]


class AccessDecision(shapes.Answer):
    """The answer: whether, and in its context the decision's id and reasons."""

    decision: bool
    context: dict[str, Any]


class AccessDecisions(shapes.Answer):
    """The answers, in the order of the questions; or one, where there was one question."""

    evaluations: Annotated[list[AccessDecision], Field(default_factory=list)]
    decision: bool | None = None
    context: _Members


class Execution(shapes.Answer):
    """A decision that is closed."""

    task_id: shapes.TaskId
    decision_id: Annotated[str, Field(pattern=f"^dec_{shapes.RANDOM}$")]
    outcome: Literal["succeeded", "failed", "not_executed"]


def metadata(issuer: str) -> dict[str, str]:
    """Describe the decision point (section 9)."""
    return {
        "policy_decision_point": issuer,
        "access_evaluation_endpoint": f"{issuer}{EVALUATION}",
        "access_evaluations_endpoint": f"{issuer}{EVALUATIONS}",
    }


def _point(request: Request) -> DecisionPoint:
    point: DecisionPoint = request.app.state.decisions
    return point


async def _answer(
    request: Request,
    decide: Callable[[DecisionPoint, Caller, dict[str, Any]], Awaitable[dict[str, Any]]],
) -> Response:
    given = request.headers.get("x-request-id", "")
    echoed = {"X-Request-ID": given} if _REQUEST_ID.fullmatch(given) else {}
    try:
        caller = await authenticated(request)
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != _JSON:
            raise InvalidRequest(f"Content-Type: must be {_JSON}")
        answered = await decide(_point(request), caller, read_json(await request.body()))
    except BrokerError as error:
        answer: Response = problem(error, request.app.state.resource_metadata)
        answer.headers.update(echoed)
        return answer
    text = json.dumps(answered, separators=(",", ":"))
    return Response(text, 200, {**NO_STORE, **echoed}, media_type=_JSON)


async def _one(point: DecisionPoint, caller: Caller, ask: Evaluation) -> dict[str, Any]:
    ruling = await point.evaluate(caller, ask)
    return _decision(ruling, insider=caller.principal.role is not Role.AGENT)


async def _single(point: DecisionPoint, caller: Caller, body: dict[str, Any]) -> dict[str, Any]:
    return await _one(point, caller, read_evaluation(body))


async def _several(point: DecisionPoint, caller: Caller, body: dict[str, Any]) -> dict[str, Any]:
    batch = read_batch(body)
    if batch is None:
        return await _single(point, caller, body)
    found: list[dict[str, Any]] = []
    for item in batch.items:
        if isinstance(item, InvalidRequest):
            about = {"error": {"status": 400, "message": item.detail}}
            found.append({"decision": False, "context": about})
        else:
            found.append(await _one(point, caller, item))
        if found[-1]["decision"] is _STOPS[batch.semantic]:
            break
    return {"evaluations": found}


def _decision(ruling: Ruling, *, insider: bool) -> dict[str, Any]:
    """Write an answer (section 6.2). Agents are told what policies say in public, insiders which.

    ``insider`` is whoever enforces or runs the task rather than being steered by it.
    """
    decision = ruling.decision
    context: dict[str, Any] = {"decision_id": ruling.id, **advised(decision)}
    if decision.allowed:
        if asked := decision.obligations.as_json():
            context["obligations"] = asked
    else:
        context["effect"] = decision.effect
        context["reason_user"] = {"en": _reason(ruling)}
    if insider:
        policies = ", ".join(decision.policies) or "the catalogue"
        words = ", ".join((*decision.reasons, *decision.notes))
        context["reason_admin"] = {"en": f"{words}: by {policies}"}
    return {"decision": decision.allowed, "context": context}


def _reason(ruling: Ruling) -> str:
    """Say why not to whoever asked: what is wrong with the call itself is no secret."""
    reason, notes = ruling.decision.reasons[0], ruling.decision.notes
    if notes and reason != APPROVAL:
        return f"The call is refused: {notes[0]}: {reason.replace('_', ' ')}."
    if reason == "destination_not_plain":
        return "The destination is refused: write a plain URL or host, without user information."
    return refusal(ruling.decision, ruling.id).detail


@router.post(
    EVALUATION,
    responses=answers(200, AccessDecision, 400, 403),
    openapi_extra=body(AccessEvaluation),
)
async def evaluate_access(request: Request) -> Response:
    """Decide one tool call, before it is made; what is allowed is to be reported."""
    return await _answer(request, _single)


@router.post(
    EVALUATIONS,
    responses=answers(200, AccessDecisions, 400, 403),
    openapi_extra=body(AccessEvaluations),
)
async def evaluate_accesses(request: Request) -> Response:
    """Decide several calls in their order; each sees the effects of those before it."""
    return await _answer(request, _several)


@reports.post(
    "/tasks/{task_id}/executions",
    responses=answers(200, Execution, 400, 403, 404, 409),
)
async def report_execution(
    broker: The, caller: By, task_id: TaskId, ask: ReportExecution
) -> dict[str, Any]:
    """Say what became of a call that was allowed: it closes the decision."""
    return await broker.decisions.report(caller, task_id, ask)
