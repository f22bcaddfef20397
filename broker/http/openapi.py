"""The OpenAPI document: made by FastAPI from the routes, then made true.

Each route states its answers in its decorator, and with that is done::

    @router.post("/tasks", status_code=201, responses=answers(201, shapes.Task, 400, 403, 404))

``answers(success, shape, *refusals)`` names the shape of the success (a model of ``shapes.py``, or
of the router's own file) and the statuses it may be refused with. Those that any call with a token
can meet, ``ALWAYS``, needn't be named. A refusal is a problem document whose codes are read from
the tree of ``errors.py``. More of it:

- ``oauth=True``: refusals have OAuth's form (RFC 6749 section 5.2); 413 is a problem all the same,
  for it comes before any route.
- ``also="application/jwt"``: the success may be text of this media type instead.
- ``links={"task_id": ("show_task", "heartbeat")}``: operations that take this member of the answer
  as their parameter of the same name.
- ``openapi_extra=form(TokenForm)``: the body is a form of this shape, read by the route.
- ``openapi_extra=OPEN``: no access token is needed, ``OPTIONAL``: there are other proofs. What says
  neither needs one. Both at once: ``openapi_extra=form(TokenForm) | OPEN``.

Names of operations are those of their functions, so these are distinct over all routers; the
first line of a docstring is the summary. ``python -m broker.http.openapi`` prints the document, and
``make openapi`` writes it to ``docs/openapi.json``, where a test compares it with what is served.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final, cast

from fastapi import FastAPI

from broker import errors
from broker.http.problems import STATUS
from broker.http.shapes import FieldError, OAuthProblem

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from fastapi.routing import APIRoute
    from pydantic import BaseModel

ALWAYS: Final = (401, 413, 503)
"""What every call with a token can be refused with: no token, too large a body, no ledger."""
OPEN: Final[dict[str, Any]] = {"security": []}
OPTIONAL: Final[dict[str, Any]] = {"security": [{"bearer": []}, {"dpop": []}, {}]}
_JSON: Final = "application/json"
_PROBLEM: Final = "application/problem+json"
_FORM: Final = "application/x-www-form-urlencoded"
_SCHEMAS: Final = "#/components/schemas/"
_BAD: Final = 400
_TOO_LARGE: Final = 413

_SECURITY: Final[dict[str, Any]] = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "at+jwt",
        "description": "An access token of POST /oauth/token (RFC 6750).",
    },
    "dpop": {
        "type": "http",
        "scheme": "DPoP",
        "description": "An access token bound to a key, and a proof of it in DPoP (RFC 9449).",
    },
}

_EXTRAS: Final[dict[str, Any]] = {
    "errors": {"type": "array", "items": {"$ref": f"{_SCHEMAS}FieldError"}, "minItems": 1},
    "field": {"type": "string"},
    "decision_id": {"type": "string"},
    "grant_id": {"type": "string"},
    "approval_id": {"type": "string"},
    "advice": {"type": "array", "items": {"type": "string"}},
    "elevation_id": {"type": "string"},
    "limit": {"type": "string"},
    "reason": {"type": "string"},
    "state": {"type": "string"},
}
"""Members that a problem may have beside the five that all have."""

_TITLES: Final = {STATUS[error]: error.title for error in reversed(STATUS)}
"""What a status means, by the widest class that has it."""

_RETRY: Final = {"schema": {"type": "string", "pattern": "^[0-9]+$"}, "description": "Seconds."}
_NONCE: Final = {
    "schema": {"type": "string"},
    "description": "What the next DPoP proof must hold (RFC 9449 section 8).",
}
_HEADERS: Final[dict[int, dict[str, Any]]] = {
    401: {
        "WWW-Authenticate": {"schema": {"type": "string"}, "required": True},
        "DPoP-Nonce": _NONCE,
    },
    429: {"Retry-After": {**_RETRY, "required": True}},
    503: {"Retry-After": _RETRY},
}


def answers(
    success: int,
    shape: type[BaseModel] | None,
    *refusals: int,
    oauth: bool = False,
    also: str = "",
    links: Mapping[str, Sequence[str]] | None = None,
) -> dict[int | str, dict[str, Any]]:
    """State what a route answers: ``responses=`` of its decorator; see the module.

    Without a ``shape`` the success has no body. With ``oauth`` nothing is added to ``refusals``
    but 413 and 503.
    """
    always = ALWAYS[1:] if oauth else ALWAYS
    stated: dict[int | str, dict[str, Any]] = {success: {"description": "Done."}}
    if shape is not None:
        said = (shape.__doc__ or shape.__name__).partition("\n")[0]
        stated[success] = {"model": shape, "description": said}
    if also:
        stated[success]["content"] = {also: {"schema": {"type": "string"}}}
    if links:
        stated[success]["links"] = {
            operation: {
                "operationId": operation,
                "parameters": {member: f"$response.body#/{member}"},
            }
            for member, operations in links.items()
            for operation in operations
        }
    for status in sorted({*refusals, *always}):
        stated[status] = _refusal(status, oauth=oauth and status != _TOO_LARGE)
    return stated


def form(shape: type[BaseModel]) -> dict[str, Any]:
    """State that a route reads a form of this shape: ``openapi_extra=`` of its decorator.

    A list is a field that may be repeated. The shape has no models inside it.
    """
    schema = shape.model_json_schema(mode="validation")
    return {"requestBody": {"required": True, "content": {_FORM: {"schema": schema}}}}


def body(shape: type[BaseModel]) -> dict[str, Any]:
    """State that a route reads JSON of this shape itself: ``openapi_extra=`` of its decorator.

    The shape has no models inside it.
    """
    schema = shape.model_json_schema(mode="validation")
    return {"requestBody": {"required": True, "content": {_JSON: {"schema": schema}}}}


def _refusal(status: int, *, oauth: bool) -> dict[str, Any]:
    name, kind = ("OAuthProblem", _JSON) if oauth else (f"Problem{status}", _PROBLEM)
    stated: dict[str, Any] = {
        "description": _TITLES[status],
        "content": {kind: {"schema": {"$ref": f"{_SCHEMAS}{name}"}}},
    }
    if status in _HEADERS:
        stated["headers"] = _HEADERS[status]
    elif oauth and status == _BAD:
        stated["headers"] = {"DPoP-Nonce": _NONCE}
    return stated


class DescribedApp(FastAPI):
    """A FastAPI application whose document says what it does."""

    def openapi(self) -> dict[str, Any]:
        """Return the document, made when first asked for."""
        made = self.openapi_schema is not None
        document = super().openapi()
        if not made:
            _correct(document)
        return document


def operation_name(route: APIRoute) -> str:
    """Name an operation as its function."""
    return route.name


def _correct(document: dict[str, Any]) -> None:
    """Change what FastAPI says into what is so."""
    components = document.setdefault("components", {})
    components["securitySchemes"] = _SECURITY
    document["security"] = [{name: []} for name in _SECURITY]
    schemas: dict[str, Any] = components.setdefault("schemas", {})
    for shape in (FieldError, OAuthProblem):
        schemas[shape.__name__] = shape.model_json_schema(mode="serialization")
    for path in document["paths"].values():
        for operation in path.values():
            _correct_operation(operation)
    for status in sorted(set(STATUS.values())):
        schemas[f"Problem{status}"] = _problem(status)
    # FastAPI's own form of a validation error, which problems.py replaces.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    _drop_unused(document, schemas)
    components["schemas"] = dict(sorted(schemas.items()))


def _correct_operation(operation: dict[str, Any]) -> None:
    summary, _, rest = operation.get("description", operation["summary"]).partition("\n")
    operation["summary"] = summary.removesuffix(".")
    if rest.strip():
        operation["description"] = rest.strip()
    else:
        operation.pop("description", None)
    stated: dict[str, Any] = operation["responses"]
    for status, answer in list(stated.items()):
        content: dict[str, Any] = answer.get("content", {}).get(_JSON, {})
        reference = content.get("schema", {}).get("$ref")
        if reference == f"{_SCHEMAS}HTTPValidationError":
            del stated[status]
        elif reference is not None:
            # FastAPI lays the shape over what it took from the function's annotation.
            content["schema"] = {"$ref": reference}
        elif "schema" in content:
            # Or makes one up where the route has named none.
            del answer["content"]


def _problem(status: int) -> dict[str, Any]:
    """Describe the problem documents of a status (RFC 9457 section 3.1), and their codes."""
    codes = sorted(
        {error.code for error in _below(errors.BrokerError) if _status(error) == status}
        - {errors.OAuthError.code}
    )
    members: dict[str, Any] = {
        "type": {"type": "string", "enum": [f"urn:broker:problem:{code}" for code in codes]},
        "title": {"type": "string", "minLength": 1},
        "status": {"type": "integer", "const": status},
        "code": {"type": "string", "enum": codes},
        "detail": {"type": "string", "minLength": 1},
    }
    return {
        "type": "object",
        "description": f"A problem document (RFC 9457) with status {status}.",
        "properties": members | _EXTRAS,
        "required": list(members),
    }


def _status(error: type[errors.BrokerError]) -> int:
    return next(STATUS[cls] for cls in error.__mro__ if cls in STATUS)


def _below(error: type[errors.BrokerError]) -> Iterator[type[errors.BrokerError]]:
    yield error
    for narrower in error.__subclasses__():
        yield from _below(narrower)


def _drop_unused(document: dict[str, Any], schemas: dict[str, Any]) -> None:
    """Leave out shapes that nothing refers to any more."""
    used: set[str] = set()
    queue = set(_references(document["paths"]))
    while queue:
        name = queue.pop()
        used.add(name)
        queue |= set(_references(schemas[name])) - used
    for name in set(schemas) - used:
        del schemas[name]


def _references(node: object) -> Iterator[str]:
    if isinstance(node, dict):
        inside = cast("dict[str, object]", node)
        reference = inside.get("$ref")
        if isinstance(reference, str):
            yield reference.removeprefix(_SCHEMAS)
        for value in inside.values():
            yield from _references(value)
    elif isinstance(node, list):
        for value in cast("list[object]", node):
            yield from _references(value)


def written(document: Mapping[str, Any]) -> str:
    """Return the document as ``docs/openapi.json`` has it."""
    return json.dumps(document, indent=1, ensure_ascii=False) + "\n"


def _main() -> None:
    from broker.http.app import routed  # noqa: PLC0415  which is made from this module

    # Below the root the paths of OAuth are as for most issuers.
    sys.stdout.write(written(routed("http://127.0.0.1:8700").openapi()))


if __name__ == "__main__":
    _main()
