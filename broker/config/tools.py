"""What the entry of a tool says of its arguments."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated, Final, cast

from pydantic import BeforeValidator

from broker.config.problems import Fault, did_you_mean, shown
from broker.policy.schema import ARGUMENT_TYPES

if TYPE_CHECKING:
    from collections.abc import Mapping

MAX_ARGUMENTS: Final = 64
NUMBERS: Final = ("integer", "number")
_SUCH_AS: Final = 'such as { to = "string", copies = "integer?" }'
# Cedar's JSON gives names that begin with two underscores a meaning of its own.
_NAME: Final = re.compile(r"(?!__)[A-Za-z_][A-Za-z0-9_]{0,63}")


def _argument(name: str, written: object) -> tuple[str, bool]:
    if not _NAME.fullmatch(name):
        raise Fault(
            f"{shown(name)} is not the name of an argument",
            "use 1 to 64 letters, digits and underscores, not beginning with a digit or __",
        )
    kind = written.removesuffix("?") if isinstance(written, str) else ""
    if kind not in ARGUMENT_TYPES:
        raise Fault(
            f"{name}: is not a type of an argument",
            did_you_mean(kind, ARGUMENT_TYPES, "one of")
            + ', with "?" at its end if it is optional',
        )
    return kind, written != kind


def _arguments(value: object) -> Mapping[str, tuple[str, bool]] | None:
    if value is None:
        return None
    table = cast("dict[str, object]", value) if isinstance(value, dict) else {}
    if not isinstance(value, dict) or len(table) > MAX_ARGUMENTS:
        raise Fault(f"is not a table of at most {MAX_ARGUMENTS} arguments", _SUCH_AS)
    return {name: _argument(name, written) for name, written in table.items()}


Arguments = Annotated[dict[str, tuple[str, bool]], BeforeValidator(_arguments)]
"""The arguments of a tool by name: the type of each, and whether it may be left out."""
