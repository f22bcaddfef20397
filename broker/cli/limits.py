"""What limits a task: the options of ``broker task open``, and how it is shown."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final

from cyclopts import Parameter

from broker.cli.pairs import parse_pairs
from broker.cli.refusals import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.client import Task

_COUNTED: Final = ("grants", "calls")
_BUDGETED: Final = (*_COUNTED, "amount")


def _several(text: str, metavar: str, name: str) -> Parameter:
    return Parameter(help=text, metavar=metavar, name=name, negative="", show_default=False)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TaskLimits:
    """What is left out isn't limited, or inherited from the parent task."""

    data_class: Annotated[
        tuple[str, ...],
        _several("A class of data that it may use; repeat.", "NAME", "--data-class"),
    ] = ()
    effect: Annotated[
        tuple[str, ...],
        _several("An effect it may have, such as reads:orders; repeat.", "EFFECT", "--effect"),
    ] = ()
    parameter: Annotated[
        tuple[str, ...],
        _several(
            "A value that a parameter may have; repeat for more.",
            "CAPABILITY.NAME=VALUE",
            "--parameter",
        ),
    ] = ()
    delegate_to: Annotated[
        tuple[str, ...],
        _several("An agent that may run tasks below it; repeat.", "NAME", "--delegate-to"),
    ] = ()
    budget: Annotated[
        tuple[str, ...],
        _several(
            "How much it and all below it may use: grants=N, calls=N, amount=DECIMAL.",
            "KIND=MUCH",
            "--budget",
        ),
    ] = ()

    def document(self) -> dict[str, Any] | None:
        """Return the member ``limits`` of a request, or None without any.

        Raises:
            UsageError: an option can't be read.
        """
        found = {
            "data_classes": list(self.data_class),
            "effects": list(self.effect),
            "parameters": _parameters(self.parameter),
            "delegate_to": list(self.delegate_to),
            "budget": _budget(self.budget),
        }
        return {name: value for name, value in found.items() if value} or None


NONE: Final = TaskLimits()


def shown(task: Task) -> dict[str, str]:
    """Return a task's limits and what is left of its budget, as lines of a record."""
    limits = task.limits
    words = {
        name: ", ".join(map(str, limits[name])) or "none"
        for name in ("data_classes", "effects", "delegate_to")
        if limits.get(name) is not None
    }
    left = {
        kind: f"{row['left']} of {row['given']}"
        for kind, row in (task.budget or {}).items()
        if row is not None
    }
    return {
        "data classes": words.get("data_classes", ""),
        "effects": words.get("effects", ""),
        "parameters": "; ".join(f"{k} = {v}" for k, v in _flat(limits.get("parameters")).items()),
        "delegates to": words.get("delegate_to", ""),
        "budget left": ", ".join(f"{kind} {much}" for kind, much in sorted(left.items())),
    }


def _flat(parameters: Mapping[str, Mapping[str, Sequence[Any]]] | None) -> dict[str, str]:
    return {
        f"{capability}.{name}": " or ".join(map(json.dumps, values)) or "none"
        for capability, named in (parameters or {}).items()
        for name, values in named.items()
    }


def _parameters(texts: tuple[str, ...]) -> dict[str, dict[str, list[Any]]]:
    found: dict[str, dict[str, list[Any]]] = {}
    for text in texts:
        place, separator, value = text.partition("=")
        # A capability's name may have dots, a parameter's hasn't.
        capability, dot, name = place.rpartition(".")
        if not separator or not dot or not capability or not name:
            raise UsageError(f"--parameter takes CAPABILITY.NAME=VALUE, not {text!r}")
        found.setdefault(capability, {}).setdefault(name, []).append(_value(value))
    return found


def _value(text: str) -> str | int | float | bool:
    """Read a number, true or false as JSON has them; anything else is text, in quotes or not."""
    try:
        value: object = json.loads(text)
    except ValueError:
        return text
    return value if isinstance(value, str | int | float | bool) else text


def _budget(texts: tuple[str, ...]) -> dict[str, str | int]:
    found: dict[str, str | int] = {}
    for kind, much in parse_pairs(texts, "--budget").items():
        if kind not in _BUDGETED:
            raise UsageError(f"--budget is of {', '.join(_BUDGETED)}, not {kind!r}")
        if kind in _COUNTED and not (much.isascii() and much.isdigit()):
            raise UsageError(f"--budget {kind} takes a whole number, not {much!r}")
        found[kind] = int(much) if kind in _COUNTED else much
    return found
