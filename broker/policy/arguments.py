"""A tool's arguments: a closed world, in one form, before any policy looks at them.

What the catalogue doesn't name is refused, and so is a number that isn't finite, one that Cedar
can't hold exactly, or a text where a number is meant. Unknown is no.
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, cast

from broker.trail import AMOUNT_SCALE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from broker.catalog import Capability

MAX_TEXT: Final = 32_768
MAX_TEXTS: Final = 1_000
_MAX_LONG: Final = 2**63 - 1
_MAX_DECIMAL: Final = Decimal(922_337_203_685_477)
_STEP: Final = Decimal("0.0001")
_MAX_AMOUNT: Final = 10**9
_MAX_SUM: Final = 2**53
"""Up to here sums of amounts are exact in the ledger, in ten-thousandths."""


_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")

REASONS: Final = {
    "unknown_argument": "the tool has no such argument",
    "missing_argument": "it is needed",
    "not_a_string": f"it must be a text of at most {MAX_TEXT} characters",
    "not_unicode": "it must be text that can be written",
    "not_an_integer": "it must be a whole number of 64 bits",
    "not_a_number": "it must be a number with at most four decimals",
    "not_a_boolean": "it must be true or false",
    "not_a_list_of_strings": f"it must be a list of at most {MAX_TEXTS} texts",
    "amount_out_of_range": "the amount is negative, or too large by itself or with those before",
}
"""Everything that can be wrong with an argument, by a stable code."""


class BadArgument(ValueError):
    """An argument that can't be; ``reason`` is one of ``REASONS``, ``name`` which it is."""

    def __init__(self, reason: str, name: str) -> None:
        """Name the argument, never its value; and only if it is a name, not a value itself."""
        self.reason = reason
        self.name = name if _NAME.fullmatch(name) else "of another name"
        super().__init__(f"{self.name}: {reason}")


def canonical(tool: Capability, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments as Cedar's context takes them.

    Raises:
        BadArgument: one is unknown, missing, or not of its type.
    """
    for name in given:
        if name not in tool.arguments:
            raise BadArgument("unknown_argument", name)
    found: dict[str, Any] = {}
    for name, (kind, optional) in tool.arguments.items():
        if name in given:
            found[name] = _READERS[kind](name, given[name])
        elif not optional:
            raise BadArgument("missing_argument", name)
    return found


def amount_of(tool: Capability, given: Mapping[str, Any], *, so_far: int = 0) -> int:
    """Return what a call adds to the amounts of its chain, in ten-thousandths, as ``so_far`` is.

    Raises:
        BadArgument: it is negative, or too large to be summed up.
    """
    if not tool.amount or tool.amount not in given:
        return 0
    value = _decimal(tool.amount, given[tool.amount])
    amount = int(value * AMOUNT_SCALE)
    if not 0 <= value <= _MAX_AMOUNT or so_far + amount > _MAX_SUM:
        raise BadArgument("amount_out_of_range", tool.amount)
    return amount


def _string(name: str, value: object) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT:
        raise BadArgument("not_a_string", name)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:  # half of a surrogate pair
        raise BadArgument("not_unicode", name) from None
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
    # Of a float the shortest text that means it: 0.1 is 0.1, not what it is in binary.
    exact = Decimal(value) if isinstance(value, int) else Decimal(str(value))
    fits = exact.is_finite() and abs(exact) <= _MAX_DECIMAL
    if not fits or exact != exact.quantize(_STEP):
        raise BadArgument("not_a_number", name)
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
