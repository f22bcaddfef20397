"""From a JSON object to a model, and back: strict about what is known, open to what is new."""

from __future__ import annotations

from dataclasses import MISSING, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from broker.client.approvals import Approval, ApprovalNeed, Elevation, Vote
from broker.client.credential import Credential
from broker.client.errors import UnexpectedAnswer
from broker.client.models import Freeze, Grant, GrantCounts
from broker.client.policy import Candidate, Policy, PolicySet
from broker.client.power import AgentPower, CapabilityUse, ChainPower, Power, PowerRange, TrailPower
from broker.client.reconciling import Disagreement, Quarantine
from broker.client.tree import ChainDone, PowerLevel, TreeNode

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import DataclassInstance

    M = TypeVar("M", bound=DataclassInstance)

_NESTED: Final = (
    *(GrantCounts, Power, TrailPower, ChainPower, CapabilityUse, PowerRange, AgentPower),
    *(Policy, PolicySet, Candidate),
    *(ApprovalNeed, Vote, Disagreement, Quarantine),
    *(Freeze, Grant, Elevation, Approval, PowerLevel, ChainDone, TreeNode),
)
"""Models that are members of others."""


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("text")
    return value


def _count(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError("a whole number")
    return value


def _flag(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError("true or false")
    return value


def _time(value: object) -> datetime:
    if isinstance(value, int):  # a freeze's time is the ledger's: epoch milliseconds
        return datetime.fromtimestamp(value / 1000, UTC)
    try:
        return datetime.fromisoformat(_text(value)).astimezone(UTC)
    except ValueError:
        raise TypeError("an RFC 3339 time") from None


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise TypeError("a list of texts")
    return tuple(_text(item) for item in cast("list[object]", value))


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("an object")
    return cast("dict[str, Any]", value)


def _objects(value: object) -> tuple[dict[str, Any], ...]:
    if not isinstance(value, list):
        raise TypeError("a list of objects")
    return tuple(_object(item) for item in cast("list[object]", value))


def _selector(value: object) -> dict[str, Any]:
    if not isinstance(value, str):
        return _object(value)
    name, _, text = value.partition(":")
    return {name: text or True}


_READERS: Final[dict[str, Callable[[object], Any]]] = {
    "str": _text,
    "str | None": _text,
    "bool": _flag,
    "bool | None": _flag,
    "int": _count,
    "int | None": _count,
    "datetime | None": _time,
    "tuple[str, ...]": _texts,
    "tuple[str, ...] | None": _texts,
    "Mapping[str, Any]": _object,
    "tuple[Mapping[str, Any], ...]": _objects,
    "Mapping[str, Any] | None": _object,
    "Selector": _selector,
    "Credential": lambda value: Credential(_object(value)),
}
"""How a member is read, by the type its model declares."""


def _read_models(model: type[M]) -> dict[str, Callable[[object], Any]]:
    def one(value: object) -> M:
        return decode(model, value)

    def several(value: object) -> tuple[M, ...]:
        if not isinstance(value, list):
            raise TypeError("a list of objects")
        return tuple(one(item) for item in cast("list[object]", value))

    name = model.__name__
    return {name: one, f"{name} | None": one, f"tuple[{name}, ...]": several}


for _model in _NESTED:
    _READERS.update(_read_models(_model))


def decode(model: type[M], document: object) -> M:
    """Read a JSON object into a model. Null counts as absent.

    Raises:
        UnexpectedAnswer: a member is missing or has the wrong type; never shows its value.
    """
    kinds = {f.name: str(f.type) for f in fields(model) if f.name != "extra"}
    values: dict[str, Any] = {}
    extra: dict[str, Any] = {}
    try:
        for name, value in _object(document).items():
            if name not in kinds:
                extra[name] = value
            elif value is not None:
                values[name] = _READERS[kinds[name]](value)
    except TypeError as error:
        raise UnexpectedAnswer(f"The broker's {model.__name__} doesn't hold {error}") from None
    for f in fields(model):
        if f.name not in values and f.default is MISSING and f.default_factory is MISSING:
            raise UnexpectedAnswer(f"The broker's {model.__name__} has no {f.name!r}")
    return cast("Any", model)(**values, extra=extra)


def encode(instance: DataclassInstance, *, reveal: bool = False) -> dict[str, Any]:
    """Return a model as a JSON object; ``reveal`` shows a credential instead of redacting it."""
    document: dict[str, Any] = {}
    for f in fields(instance):
        value = getattr(instance, f.name)
        if isinstance(value, datetime):
            value = value.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        elif isinstance(value, Credential):
            value = value.reveal() if reveal else value.redacted()
        elif isinstance(value, _NESTED):
            value = encode(value)
        elif isinstance(value, tuple):
            items = cast("tuple[Any, ...]", value)
            value = tuple(encode(i) if isinstance(i, _NESTED) else i for i in items)
        document[f.name] = value
    extra = document.pop("extra")
    return {**document, **extra}
