"""A tool's arguments: a closed world, in one form, before any policy looks at them.

What the catalogue doesn't name is refused, and so is a number that isn't finite, one that Cedar
can't hold exactly, or a text where a number is meant. Unknown is no.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final, cast

from broker.trail import AMOUNT_SCALE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from broker.catalog import Capability

MAX_TEXT: Final = 32_768
MAX_TEXTS: Final = 1_000
_MAX_LONG: Final = 2**63 - 1
_MAX_DECIMAL: Final = Decimal(922_337_203_685_477)
_MAX_AMOUNT: Final = 10**9
"""Sums of amounts stay exact in the ledger, which counts them in ten-thousandths."""


class BadArgument(ValueError):
    """An argument that can't be; ``reason`` is a stable code, ``name`` which it is."""

    def __init__(self, reason: str, name: str) -> None:
        """Name the argument, never its value."""
        super().__init__(f"{name}: {reason}")
        self.reason = reason
        self.name = name


def canonical(tool: Capability, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments as Cedar's context takes them.

    Raises:
        BadArgument: one is unknown, missing, or not of its type.
    """
    for name in given:
        if name not in tool.arguments:
            raise BadArgument("unknown_argument", name[:64])
    found: dict[str, Any] = {}
    for name, (kind, optional) in tool.arguments.items():
        if name in given:
            found[name] = _READERS[kind](name, given[name])
        elif not optional:
            raise BadArgument("missing_argument", name)
    return found


def amount_of(tool: Capability, given: Mapping[str, Any]) -> int:
    """Return what a call adds to the amounts of its chain, in ten-thousandths.

    Raises:
        BadArgument: it is negative, or too large to be summed up.
    """
    if not tool.amount or tool.amount not in given:
        return 0
    value = _decimal(tool.amount, given[tool.amount])
    if not 0 <= value <= _MAX_AMOUNT:
        raise BadArgument("amount_out_of_range", tool.amount)
    return int(value * AMOUNT_SCALE)


def _string(name: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise BadArgument("not_a_string", name)
    if any("\ud800" <= c <= "\udfff" for c in value):
        raise BadArgument("not_unicode", name)
    return value


def _integer(name: str, value: object) -> int:
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        value = int(value)  # JSON has one kind of number: 3.0 is 3
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _MAX_LONG:
        raise BadArgument("not_an_integer", name)
    return value


def _decimal(name: str, value: object) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadArgument("not_a_number", name)
    try:
        exact = Decimal(str(value))
        fits = exact.is_finite() and abs(exact) <= _MAX_DECIMAL
        if not fits or exact != exact.quantize(Decimal("0.0001")):
            raise BadArgument("not_a_number_with_four_decimals", name)
    except InvalidOperation:
        raise BadArgument("not_a_number", name) from None
    return exact


def _number(name: str, value: object) -> dict[str, Any]:
    return {"__extn": {"fn": "decimal", "arg": f"{_decimal(name, value):.4f}"}}


def _boolean(name: str, value: object) -> bool:
    if not isinstance(value, bool):
        raise BadArgument("not_a_boolean", name)
    return value


def _strings(name: str, value: object) -> list[str]:
    if not isinstance(value, list) or len(cast("list[object]", value)) > MAX_TEXTS:
        raise BadArgument("not_a_list_of_strings", name)
    return [_string(name, item) for item in cast("list[object]", value)]


_READERS: Final[dict[str, Callable[[str, object], Any]]] = {
    "string": _string,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "strings": _strings,
}
