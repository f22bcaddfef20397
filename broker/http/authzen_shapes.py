"""The shapes of the decision point's requests and answers, for the OpenAPI document alone.

Requests are read by ``wire_authzen.py``; what they are about may also be properties of the action,
or members of the context, which can't be said here without saying it twice.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

from broker.http import shapes
from broker.wire_authzen import EFFECT, MAX_BATCH, MAX_EFFECTS, MAX_TEXT, Semantic

_Schema = dict[str, Any]
DECISION_ID: Final = f"^dec_{shapes.RANDOM}$"
_OBJECT: Final[_Schema] = {"type": "object"}
_TEXT: Final[_Schema] = {"type": "string", "minLength": 1}


def _entity(required: list[str], properties: _Schema) -> _Schema:
    members = {**dict.fromkeys(required, _TEXT), "properties": _OBJECT | properties}
    return {"type": "object", "properties": members, "required": required}


_SUBJECT: Final = _entity(["type", "id"], {"properties": {"task_id": {"type": "string"}}})
_ACTION: Final = _entity(["name"], {})
_RESOURCE: Final = _entity(
    ["type", "id"],
    {
        "properties": {
            "arguments": _OBJECT,
            "destination": {"type": "string"},
            "effects": {
                "type": "array",
                "items": {"type": "string", "pattern": f"^{EFFECT}$"},
                "maxItems": MAX_EFFECTS,
            },
            "intent": {
                "type": "string",
                "maxLength": MAX_TEXT,
                "pattern": r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*$",
            },
        }
    },
)
_ONE: Final[_Schema] = {
    "required": ["subject", "action", "resource"],
    "properties": {
        "subject": _SUBJECT,
        "action": _ACTION,
        "resource": _RESOURCE,
        "evaluations": {"maxItems": 0},
    },
}
_SEVERAL: Final[_Schema] = {
    "required": ["evaluations"],
    "properties": {"evaluations": {"minItems": 1}},
}

_Object = Annotated[dict[str, Any], WithJsonSchema(_OBJECT)]
_Maybe = Annotated[_Object, Field(default_factory=dict)]


class AccessEvaluation(BaseModel):
    """A question (Authorization API 1.0 section 6.1)."""

    subject: Annotated[_Object, WithJsonSchema(_SUBJECT)]
    action: Annotated[_Object, WithJsonSchema(_ACTION)]
    resource: Annotated[_Object, WithJsonSchema(_RESOURCE)]
    context: _Maybe


class EvaluationOptions(BaseModel):
    """How a batch is gone through."""

    evaluations_semantic: Semantic = "execute_all"


_OPTIONS: Final = EvaluationOptions.model_json_schema()


def _several_or_one(schema: _Schema) -> None:
    """Say that without items the body is one question."""
    schema["anyOf"] = [_SEVERAL, _ONE]


class AccessEvaluations(BaseModel):
    """Several questions (section 7.1); each inherits what stands beside them."""

    model_config = ConfigDict(json_schema_extra=_several_or_one)

    subject: _Maybe
    action: _Maybe
    resource: _Maybe
    context: _Maybe
    options: Annotated[_Object, WithJsonSchema(_OPTIONS), Field(default_factory=dict)]
    evaluations: Annotated[list[Any], Field(default_factory=list, max_length=MAX_BATCH)]


class Reason(BaseModel):
    """A reason in words, by language."""

    en: shapes.Words


def _some_reason() -> Reason:
    return Reason(en="why")


class ItemError(BaseModel):
    """Why an item of a batch could not be decided."""

    status: Annotated[int, Field(ge=400, le=599)]
    message: shapes.Words


class DecisionContext(BaseModel):
    """What goes with a decision. `reason_admin` is for those who enforce or run the task."""

    decision_id: Annotated[str, Field(pattern=DECISION_ID, default_factory=str)]
    effect: Annotated[Literal["deny", "needs_approval"], Field(default_factory=lambda: "deny")]
    reason: Annotated[shapes.Words, Field(default_factory=str)]
    reason_user: Annotated[Reason, Field(default_factory=_some_reason)]
    reason_admin: Annotated[Reason, Field(default_factory=_some_reason)]
    advice: Annotated[list[shapes.Words], Field(default_factory=list)]
    obligations: Annotated[dict[str, Any], Field(default_factory=dict)]
    error: Annotated[ItemError, Field(default_factory=lambda: ItemError(status=400, message="x"))]


def _no_context() -> DecisionContext:
    return DecisionContext.model_validate({})


class AccessDecision(BaseModel):
    """The answer: whether, and what goes with it."""

    decision: bool
    context: DecisionContext


class AccessDecisions(BaseModel):
    """The answers, in the order of the questions; or one, where there was one question."""

    model_config = ConfigDict(
        json_schema_extra={"oneOf": [{"required": ["evaluations"]}, {"required": ["decision"]}]}
    )

    evaluations: Annotated[list[AccessDecision], Field(default_factory=list, min_length=1)]
    decision: Annotated[bool, Field(default_factory=bool)]
    context: Annotated[DecisionContext, Field(default_factory=_no_context)]


class Execution(BaseModel):
    """A decision that is closed."""

    task_id: shapes.TaskId
    decision_id: Annotated[str, Field(pattern=DECISION_ID)]
    outcome: Literal["succeeded", "failed", "not_executed"]
