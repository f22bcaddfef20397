"""AuthZEN 1.0: ``/access/v1/evaluation``, ``/access/v1/evaluations`` and their metadata.

A denial is 200 with ``"decision": false``. What isn't of the standard's form is 400, whatever
FastAPI would make of it. ``X-Request-ID`` comes back with every answer (section 10.1), also with
those of whoever stands around the routes, as long as it can do no harm in a header.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from broker.clock import to_rfc3339
from broker.decisions import must_ask
from broker.errors import BrokerError, InvalidRequest
from broker.http.api import TaskId
from broker.http.authzen_shapes import (
    AccessDecision,
    AccessDecisions,
    AccessEvaluation,
    AccessEvaluations,
    Execution,
)
from broker.http.callers import By, The, authenticated
from broker.http.openapi import answers, body
from broker.http.problems import NO_STORE, status_of
from broker.identity.models import Role
from broker.policy.arguments import REASONS as ARGUMENT_REASONS
from broker.refusals import LIMITED, POLL_S, advised, refusal
from broker.wire import ReportExecution
from broker.wire_authzen import (
    Evaluation,
    Semantic,
    read_batch,
    read_evaluation,
    read_json,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from broker.access import Caller
    from broker.approvals import Approval
    from broker.decisions import DecisionPoint
    from broker.rulings import Ruling

router = APIRouter(default_response_class=JSONResponse)
reports = APIRouter(prefix="/v1", default_response_class=JSONResponse)
EVALUATION: Final = "/access/v1/evaluation"
EVALUATIONS: Final = "/access/v1/evaluations"
METADATA: Final = "/.well-known/authzen-configuration"
_REQUEST_ID: Final = re.compile(rb"[\x20-\x7e]{1,256}")
_JSON: Final = "application/json"
_STOPS: Final[dict[Semantic, bool | None]] = {
    "execute_all": None,
    "deny_on_first_deny": False,
    "permit_on_first_permit": True,
}


_SAID: Final = {
    "destination_not_plain": "The destination is refused: write a plain URL or host.",
    "too_many_effects": "The chain of this task has left too many different effects already.",
    "frozen": "An operator has stopped what this needs.",
    "principal_suspended": "Whoever this needs is suspended, or has no owner.",
    "task_not_active": "The task is not active: it has ended, or its time is up.",
}
"""Reasons that are told as they are, besides those of ``refusals.py``."""


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


class RequestIds:
    """Gives callers of the decision point their ``X-Request-ID`` back, whatever becomes of it."""

    def __init__(self, app: ASGIApp) -> None:
        """Wrap ``app``."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        given = _request_id(scope)
        if given is None:
            await self._app(scope, receive, send)
            return

        async def echo(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), (b"x-request-id", given)]
            await send(message)

        await self._app(scope, receive, echo)


def _request_id(scope: Scope) -> bytes | None:
    if scope["type"] != "http" or not scope["path"].endswith((EVALUATION, EVALUATIONS)):
        return None
    given = [value for name, value in scope["headers"] if name == b"x-request-id"]
    return given[0] if len(given) == 1 and _REQUEST_ID.fullmatch(given[0]) else None


async def _answer(
    request: Request,
    decide: Callable[[DecisionPoint, Caller, dict[str, Any]], Awaitable[dict[str, Any]]],
) -> Response:
    caller = await authenticated(request)
    must_ask(caller)
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != _JSON:
        raise InvalidRequest(f"Content-Type: must be {_JSON}")
    answered = await decide(_point(request), caller, read_json(await request.body()))
    text = json.dumps(answered, separators=(",", ":"))
    return Response(text, 200, NO_STORE, media_type=_JSON)


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
            found.append(_failed(item))
        else:
            try:
                found.append(await _one(point, caller, item))
            except BrokerError as error:
                if not found:
                    raise
                # What was allowed before this one counts, so its decisions have to be told.
                found.append(_failed(error))
        if found[-1]["decision"] is _STOPS[batch.semantic]:
            break
    return {"evaluations": found}


def _failed(error: BrokerError) -> dict[str, Any]:
    """Write an item that could not be decided (section 7.2.1)."""
    about = {"status": status_of(error), "message": error.detail}
    return {"decision": False, "context": {"error": about}}


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
        context["reason"], said = _reason(ruling)
        context["reason_user"] = {"en": said}
        if ruling.approval is not None:
            context["access_request"] = _access_request(ruling.approval)
    if insider:
        policies = ", ".join(decision.policies) or "the catalogue"
        words = ", ".join((*decision.reasons, *decision.notes))
        context["reason_admin"] = {"en": f"{words}: by {policies}"}
    return {"decision": decision.allowed, "context": context}


def _access_request(approval: Approval) -> dict[str, Any]:
    """Say where a denial can be turned into a yes: by asking again once it is approved.

    After draft-mcguinness-authzen-access-request; an approval is no access by itself.
    """
    return {
        "id": approval.id,
        "status": approval.state,
        "status_endpoint": f"/v1/approvals/{approval.id}",
        "completion": "reevaluate",
        "expires_at": to_rfc3339(approval.expires_at),
        "interval": POLL_S,
    }


def _reason(ruling: Ruling) -> tuple[str, str]:
    """Say why not to whoever asked: a code and words. What is wrong with the call is no secret.

    What policy or the catalogue think of it is one code: unknown and not allowed look the same.
    """
    decision = ruling.decision
    reason = decision.reasons[0]
    if reason in ARGUMENT_REASONS:
        return reason, f"The call is refused: {decision.notes[0]}: {ARGUMENT_REASONS[reason]}."
    if said := _SAID.get(reason) or LIMITED.get(reason):
        return reason, said
    error = refusal(ruling)
    return error.code, error.detail


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
    return await broker.executions.report(caller, task_id, ask)
