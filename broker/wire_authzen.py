"""AuthZEN 1.0 as it is spoken here: what is asked at ``/access/v1``, read strictly.

A request that isn't of the standard's form is refused with 400; members that nobody knows are
ignored (Authorization API 1.0 sections 5 and 10.1). A tool call is the resource of type ``tool``;
its arguments, destination, effects and intent are properties of the resource, of the action, or
members of the context: wherever, but once. A member that is null is there, and of another type.
"""

from __future__ import annotations

import json
import math
import re
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args

from broker.errors import InvalidRequest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

Semantic = Literal["execute_all", "deny_on_first_deny", "permit_on_first_permit"]
MAX_BATCH: Final = 100
MAX_TEXT: Final = 1000
MAX_EFFECTS: Final = 20
MAX_DEPTH: Final = 32
"""Levels of nesting: every encoder must be able to write what was read."""
EFFECT: Final = "[a-z]{1,30}:[a-z0-9._-]{1,70}"
_EFFECT: Final = re.compile(EFFECT)
_SURROGATE: Final = re.compile(rb"\\u[dD][89a-fA-F]")
_OBJECTS: Final = ("subject", "action", "resource", "context")
_PROPERTIES: Final[Mapping[str, type]] = {
    "arguments": dict,
    "destination": str,
    "effects": list,
    "intent": str,
}
_KINDS: Final[Mapping[type, str]] = {dict: "an object", str: "a string", list: "an array"}


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One question: whether ``subject`` may do ``action`` to ``resource``."""

    subject: tuple[str, str]
    action: str
    resource: tuple[str, str]
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)
    destination: str | None = field(default=None, repr=False)
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
        InvalidRequest: it is no JSON in UTF-8, holds a name twice, a number or a text that is
            none, is nested too deeply, or isn't an object.
    """
    try:
        value = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_once,
            parse_constant=_no_number,
            parse_float=_finite,
        )
        if _SURROGATE.search(body):
            json.dumps(value, ensure_ascii=False).encode("utf-8")  # half of a pair can't be written
    except (ValueError, RecursionError):
        raise InvalidRequest("The body must be one JSON object, each name in it once.") from None
    if not isinstance(value, dict):
        raise InvalidRequest("The body must be a JSON object.")
    if body.count(b"[") + body.count(b"{") > MAX_DEPTH and _is_deep(cast("object", value)):
        raise InvalidRequest(f"The body must be nested at most {MAX_DEPTH} levels deep.")
    return cast("dict[str, Any]", value)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a name is given twice")
    return found


def _no_number(_: str) -> float:
    raise ValueError("not a number")


def _finite(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError("more than a number can be")
    return value


def _is_deep(value: object) -> bool:
    level = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _inside(outer)]
    return any(isinstance(inner, dict | list) for inner in level)


def _inside(value: object) -> Iterable[object]:
    match value:
        case dict():
            return cast("dict[str, object]", value).values()
        case list():
            return cast("list[object]", value)
        case _:
            return ()


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
    found = _properties(bags)
    task_id = about.get("task_id", "")
    if not isinstance(task_id, str):
        raise _wrong("subject.properties.task_id", "a string")
    return Evaluation(
        subject=(_text(subject, "type", "subject."), _text(subject, "id", "subject.")),
        action=_text(action, "name", "action."),
        resource=(_text(resource, "type", "resource."), _text(resource, "id", "resource.")),
        arguments=found.get("arguments", {}),
        destination=found.get("destination"),
        effects=_effects(found.get("effects", [])),
        intent=_intent(found.get("intent", "")),
        task_id=task_id,
    )


def read_batch(body: Mapping[str, Any]) -> Batch | None:
    """Read a batch (section 7.1), or None where the body is one question.

    Each item inherits whole objects of the body's, and keeps its place.

    Raises:
        InvalidRequest: the batch itself isn't of the form.
    """
    items = body.get("evaluations", [])
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
    if not given:
        return None
    defaults = {name: _object(body, name) for name in _OBJECTS if name in body}
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


def _properties(bags: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return each property from where it is; where it is twice, which is meant can't be known."""
    found: dict[str, Any] = {}
    for name, kind in _PROPERTIES.items():
        there = [where for where, bag in bags.items() if name in bag]
        if len(there) > 1:
            raise InvalidRequest(f"{name}: given in {' and in '.join(there)}", field=name)
        if there:
            value = bags[there[0]][name]
            if not isinstance(value, kind):
                raise _wrong(name, _KINDS[kind])
            found[name] = value
    return found


def _intent(value: str) -> str:
    if len(value) > MAX_TEXT or any(
        unicodedata.category(c) == "Cc" and c not in "\n\t" for c in value
    ):
        raise _wrong("intent", f"at most {MAX_TEXT} characters of text, none to control a screen")
    return value


def _effects(value: list[object]) -> frozenset[str]:
    words = [item for item in value if isinstance(item, str) and _EFFECT.fullmatch(item)]
    if len(words) != len(value) or len(words) > MAX_EFFECTS:
        raise _wrong("effects", f'an array of at most {MAX_EFFECTS} such as "egress:internet"')
    return frozenset(words)


def _wrong(name: str, what: str) -> InvalidRequest:
    return InvalidRequest(f"{name}: must be {what}", field=name)
