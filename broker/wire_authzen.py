"""AuthZEN 1.0 as it is spoken here: what is asked at ``/access/v1``, read strictly.

A request that isn't of the standard's form is refused with 400; members that nobody knows are
ignored (Authorization API 1.0 sections 5 and 10.1). A tool call is the resource of type ``tool``;
its arguments, destination, effects and intent are properties of the resource, of the action, or
members of the context: wherever, but once.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args

from broker.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Mapping

Semantic = Literal["execute_all", "deny_on_first_deny", "permit_on_first_permit"]
MAX_BATCH: Final = 100
MAX_TEXT: Final = 1000
_MAX_EFFECTS: Final = 20
_EFFECT: Final = re.compile(r"[a-z]{1,30}:[a-z0-9._-]{1,70}")
_OBJECTS: Final = ("subject", "action", "resource", "context")
_PROPERTIES: Final = ("arguments", "destination", "effects", "intent")


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One question: whether ``subject`` may do ``action`` to ``resource``."""

    subject: tuple[str, str]
    action: str
    resource: tuple[str, str]
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    destination: str = ""
    effects: frozenset[str] = frozenset()
    intent: str = ""
    task_id: str = ""


@dataclass(frozen=True, slots=True)
class Batch:
    """Several questions, in their order; one that isn't of the form is its own error."""

    items: tuple[Evaluation | InvalidRequest, ...]
    semantic: Semantic


def read_json(body: bytes) -> dict[str, Any]:
    """Read a body that is one JSON object, of which every reader would see the same.

    Raises:
        InvalidRequest: it is no JSON, holds a name twice or a number that is none, or isn't an
            object.
    """
    try:
        value = json.loads(body, object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise InvalidRequest("The body must be one JSON object, each name in it once.") from None
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be a JSON object.")
    return cast("dict[str, Any]", value)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is given twice")
    return found


def _no_number(_: str) -> float:
    raise ValueError("not a number")


def read_evaluation(body: Mapping[str, Any]) -> Evaluation:
    """Read one question (Authorization API 1.0 section 6.1).

    Raises:
        InvalidRequest: a member is missing or of another type; ``field`` says which.
    """
    subject = _object(body, "subject")
    action = _object(body, "action")
    resource = _object(body, "resource")
    context = _object(body, "context", optional=True)
    bags = {
        "action.properties": _object(action, "properties", "action.", optional=True),
        "resource.properties": _object(resource, "properties", "resource.", optional=True),
        "context": context,
    }
    about = _object(subject, "properties", "subject.", optional=True)
    found = {name: _one_of(bags, name) for name in _PROPERTIES}
    return Evaluation(
        subject=(_text(subject, "type", "subject."), _text(subject, "id", "subject.")),
        action=_text(action, "name", "action."),
        resource=(_text(resource, "type", "resource."), _text(resource, "id", "resource.")),
        arguments=_typed(found["arguments"], dict, "arguments", "an object") or {},
        destination=_typed(found["destination"], str, "destination", "a string") or "",
        effects=_words(found["effects"]),
        intent=(_typed(found["intent"], str, "intent", "a string") or "")[:MAX_TEXT],
        task_id=_typed(about.get("task_id"), str, "subject.properties.task_id", "a string") or "",
    )


def read_batch(body: Mapping[str, Any]) -> Batch | None:
    """Read a batch (section 7.1), or None where the body is one question.

    Each item inherits whole objects of the body's, and keeps its place.

    Raises:
        InvalidRequest: the batch itself isn't of the form.
    """
    items = body.get("evaluations")
    if items is None or items == []:
        return None
    if not isinstance(items, list):
        raise _wrong("evaluations", "an array")
    given = cast("list[object]", items)
    if len(given) > MAX_BATCH:
        raise InvalidRequest(f"evaluations: at most {MAX_BATCH}", field="evaluations")
    options = _object(body, "options", optional=True)
    semantic = options.get("evaluations_semantic", "execute_all")
    if semantic not in get_args(Semantic):
        known = ", ".join(get_args(Semantic))
        raise InvalidRequest(f"options.evaluations_semantic: one of {known}")
    defaults = {name: body[name] for name in _OBJECTS if name in body}
    return Batch(tuple(_item(defaults, item) for item in given), semantic)


def _item(defaults: Mapping[str, Any], item: object) -> Evaluation | InvalidRequest:
    if not isinstance(item, dict):
        return _wrong("evaluations", "an array of objects")
    try:
        return read_evaluation({**defaults, **cast("dict[str, Any]", item)})
    except InvalidRequest as error:
        return error


def _object(
    body: Mapping[str, Any], name: str, where: str = "", *, optional: bool = False
) -> dict[str, Any]:
    value = body.get(name)
    if name not in body and optional:
        return {}
    if not isinstance(value, dict):
        raise _wrong(f"{where}{name}", "an object")
    return cast("dict[str, Any]", value)


def _text(body: Mapping[str, Any], name: str, where: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not value:
        raise _wrong(f"{where}{name}", "a string that isn't empty")
    return value


def _typed(value: object, kind: type, name: str, what: str) -> Any:  # noqa: ANN401  as asked for
    if value is not None and not isinstance(value, kind):
        raise _wrong(name, what)
    return value


def _one_of(bags: Mapping[str, Mapping[str, Any]], name: str) -> object:
    """Return a property from where it is; where it is twice, which one is meant can't be known."""
    there = [where for where, bag in bags.items() if name in bag]
    if len(there) > 1:
        raise InvalidRequest(f"{name}: given in {' and in '.join(there)}", field=name)
    return bags[there[0]][name] if there else None


def _words(value: object) -> frozenset[str]:
    items = cast("list[object]", value) if isinstance(value, list) else None
    fits = value is None or (
        items is not None
        and len(items) <= _MAX_EFFECTS
        and all(isinstance(i, str) and _EFFECT.fullmatch(i) for i in items)
    )
    if not fits:
        raise _wrong("effects", f'an array of at most {_MAX_EFFECTS} such as "egress:internet"')
    return frozenset(str(item) for item in items or ())


def _wrong(name: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"{name}: must be {what}", field=name)
