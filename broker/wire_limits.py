"""A task's limits and budget over the wire: what is asked for, and how they are shown."""

from __future__ import annotations

import json
import math
from decimal import Decimal
from typing import TYPE_CHECKING, Annotated, Any, Final

from pydantic import AfterValidator, BeforeValidator, Field

from broker.trail import AMOUNT_SCALE
from broker.wire_parts import EffectLabel, Name, Request

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from broker.tasks import Task

MAX_LIMITS: Final = 8192
_MOST: Final = 10**9
_MAX_LONG: Final = 2**63 - 1
BUDGETED: Final = ("grants", "calls", "amount")


def _plain_number(value: float) -> float:
    if not math.isfinite(value):
        msg = "must be a finite number"
        raise ValueError(msg)
    return value


def _whole(value: object) -> object:
    """JSON has one kind of number: 3.0 is 3."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _writable(value: str) -> str:
    if any("\ud800" <= c <= "\udfff" for c in value):
        msg = "must be text that can be written as UTF-8"
        raise ValueError(msg)
    return value


def _small(value: AskLimits) -> AskLimits:
    if len(json.dumps(value.rows())) > MAX_LIMITS:
        msg = f"must be at most {MAX_LIMITS} characters of JSON"
        raise ValueError(msg)
    return value


Scalar = (
    bool
    | Annotated[int, Field(ge=-_MAX_LONG, le=_MAX_LONG)]
    | Annotated[float, Field(ge=-_MAX_LONG, le=_MAX_LONG), AfterValidator(_plain_number)]
    | Annotated[str, Field(max_length=1024), AfterValidator(_writable)]
)
"""A value that a parameter may have."""
Values = Annotated[list[Scalar], Field(max_length=100)]
Parameter = Annotated[str, Field(pattern="^[A-Za-z_][A-Za-z0-9_.-]{0,63}$")]
Much = Annotated[int, Field(ge=0, le=_MOST), BeforeValidator(_whole)]
Amount = Annotated[
    str,
    Field(
        pattern=r"^(0|[1-9][0-9]{0,8})(\.[0-9]{1,4})?$",
        description='A decimal, such as "250.00": of the argument that a tool sums up.',
    ),
]


class AskBudget(Request):
    """How much a task and all below it may use: credentials, tool calls, and their amounts."""

    grants: Much | None = None
    calls: Much | None = None
    amount: Amount | None = None

    def rows(self) -> dict[str, dict[str, str]]:
        """Return it as the ledger holds it, in whole numbers; ``amount`` in ten-thousandths."""
        given = {"grants": self.grants, "calls": self.calls, "amount": _counted(self.amount)}
        return {kind: {"given": str(much)} for kind, much in given.items() if much is not None}


class AskLimits(Request):
    """What a task is limited to besides its capabilities; what is left open is inherited, or any.

    A parameter that is named here has to be given, with one of these values.
    """

    data_classes: Annotated[list[Name], Field(max_length=50)] | None = None
    effects: Annotated[list[EffectLabel], Field(max_length=100)] | None = None
    parameters: (
        Annotated[
            dict[Name, Annotated[dict[Parameter, Values], Field(min_length=1, max_length=50)]],
            Field(min_length=1, max_length=50),
        ]
        | None
    ) = None
    delegate_to: Annotated[list[Name], Field(max_length=100)] | None = None
    budget: AskBudget | None = None

    def rows(self) -> dict[str, Any]:
        """Return the limits that are there, without the budget."""
        return self.model_dump(exclude={"budget"}, exclude_none=True)

    def unknown(self, capabilities: Collection[str]) -> str:
        """Return a capability with bounded parameters that isn't one of these, or nothing."""
        return next((name for name in self.parameters or {} if name not in capabilities), "")


Limits = Annotated[AskLimits, AfterValidator(_small)]


def limits_json(task: Task) -> dict[str, Any]:
    """What a task is limited to; null for any."""
    known: dict[str, Any] = json.loads(task.limits) if task.limits else {}
    names = ("data_classes", "effects", "parameters", "delegate_to")
    given = {kind: _given(kind, task.budget.get(kind)) for kind in BUDGETED}
    return {
        **{name: known.get(name) for name in names},
        "budget": given if task.budget else None,
    }


def budget_json(task: Task) -> dict[str, Any] | None:
    """What has become of a task's own budget; ``reserved`` is what its children were given."""
    if not task.budget:
        return None
    return {kind: _standing(kind, task.budget.get(kind)) for kind in BUDGETED}


def _given(kind: str, row: Mapping[str, str] | None) -> int | str | None:
    return None if row is None else _shown(kind, int(row["given"]))


def _standing(kind: str, row: Mapping[str, str] | None) -> dict[str, Any] | None:
    if row is None:
        return None
    given, spent, reserved = (int(row.get(name, 0)) for name in ("given", "spent", "reserved"))
    counts = {"given": given, "spent": spent, "reserved": reserved}
    counts["left"] = given - spent - reserved
    return {name: _shown(kind, much) for name, much in counts.items()}


def _shown(kind: str, much: int) -> int | str:
    return amount_text(much) if kind == "amount" else much


def amount_text(much: int) -> str:
    """Write an amount as a decimal; ``much`` is in ten-thousandths."""
    return f"{Decimal(much) / AMOUNT_SCALE:.4f}"


def _counted(amount: str | None) -> int | None:
    return None if amount is None else int(Decimal(amount) * AMOUNT_SCALE)
