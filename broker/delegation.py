"""Delegation only ever shrinks: a child never has more than its parent.

What a task may have is a ``Scope``, and scopes are a meet-semilattice: ``attenuate`` is the meet,
of everything the part that both have. So along a chain it doesn't matter in which order or grouping
scopes are met, meeting twice is meeting once, and no meet is wider than what went into it. Unknown
is no: what is bounded and not named is refused.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.catalog import Capability
    from broker.tasks import Task

    Values = frozenset[str]
    Parameters = Mapping[str, Mapping[str, Values]]

OUTSIDE = ("data_class_outside_limits", "effect_outside_limits", "parameter_outside_limits")
"""Why something that a task's capabilities would give is outside its limits."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a task may do: capability names, until when (epoch milliseconds), and within what.

    ``data_classes`` and ``effects`` bound the capabilities that may be used; ``parameters`` are the
    values that may be asked for, by capability and name, each as ``scalar`` writes it; ``may_act``
    are the agents that may run tasks below. None, and a parameter that isn't there, is any.
    """

    capabilities: frozenset[str]
    expires_at: int
    data_classes: frozenset[str] | None = None
    effects: frozenset[str] | None = None
    parameters: Parameters = field(default_factory=dict[str, "Mapping[str, Values]"])
    may_act: frozenset[str] | None = None

    @classmethod
    def read(
        cls, capabilities: frozenset[str], expires_at: int, limits: Mapping[str, Any]
    ) -> Scope:
        """Read a scope from ``limits`` as a request and ``Task.limits`` have them."""
        return cls(
            capabilities,
            expires_at,
            _words(limits.get("data_classes")),
            _words(limits.get("effects")),
            {
                capability: {
                    name: frozenset(text for v in values if (text := scalar(v)) is not None)
                    for name, values in named.items()
                }
                for capability, named in limits.get("parameters", {}).items()
            },
            _words(limits.get("delegate_to")),
        )

    @classmethod
    def of(cls, task: Task) -> Scope:
        """Return what a task may have."""
        return replace(
            _limited(task.limits),
            capabilities=frozenset(task.capabilities),
            expires_at=task.expires_at,
        )

    def limits(self) -> str:
        """Return its limits as ``Task.limits`` holds them; empty where there are none."""
        row: dict[str, Any] = {
            "data_classes": _sorted(self.data_classes),
            "effects": _sorted(self.effects),
            "parameters": {
                capability: {name: [json.loads(v) for v in sorted(named[name])] for name in named}
                for capability, named in self.parameters.items()
            }
            or None,
            "delegate_to": _sorted(self.may_act),
        }
        row = {name: value for name, value in row.items() if value is not None}
        return json.dumps(row, sort_keys=True) if row else ""


def attenuate(parent: Scope, ask: Scope) -> Scope:
    """Return what a child gets when it asks for ``ask`` below ``parent``.

    Never wider than the parent in anything, and associative along a chain.
    """
    return Scope(
        parent.capabilities & ask.capabilities,
        min(parent.expires_at, ask.expires_at),
        _meet(parent.data_classes, ask.data_classes),
        _meet(parent.effects, ask.effects),
        {
            capability: _meet_named(
                parent.parameters.get(capability, {}), ask.parameters.get(capability, {})
            )
            for capability in sorted(parent.parameters.keys() | ask.parameters.keys())
        },
        _meet(parent.may_act, ask.may_act),
    )


def widens(parent: Scope, ask: Scope) -> str:
    """Return the part in which a child asks for more than its parent has, or an empty text.

    What is left open isn't asked for: the child inherits it. Lifetimes are clamped, not refused.
    """
    if not ask.capabilities <= parent.capabilities:
        return "capabilities"
    pairs = {
        "data_classes": (parent.data_classes, ask.data_classes),
        "effects": (parent.effects, ask.effects),
        "delegate_to": (parent.may_act, ask.may_act),
    }
    for capability, named in ask.parameters.items():
        above = parent.parameters.get(capability, {})
        pairs |= {f"parameters.{capability}.{n}": (above.get(n), named[n]) for n in named}
    for part, (most, wanted) in pairs.items():
        if most is not None and wanted is not None and not wanted <= most:
            return part
    return ""


def outside(
    scope: Scope, capability: Capability, effects: frozenset[str], given: Mapping[str, Any]
) -> str:
    """Return which of ``OUTSIDE`` a use of a capability is, or an empty text.

    ``effects`` are those that the request itself adds, ``given`` its parameters or arguments. A
    list is within its values if all it has are, and it has some.
    """
    if scope.data_classes is not None and capability.data_class not in scope.data_classes:
        return "data_class_outside_limits"
    if scope.effects is not None and not capability.effects | effects <= scope.effects:
        return "effect_outside_limits"
    for name, allowed in scope.parameters.get(capability.name, {}).items():
        value = given.get(name)
        items = cast("list[object]", value) if isinstance(value, list) else [value]
        if not items or not all(scalar(item) in allowed for item in items):
            return "parameter_outside_limits"
    return ""


def scalar(value: object) -> str | None:
    """Write a JSON scalar in the one way that all its spellings share; None if it is none.

    JSON has one kind of number, so 3.0 is 3, and ``true`` is no 1.
    """
    match value:
        case bool() | str():
            return json.dumps(value)
        case float() if math.isfinite(value):
            return json.dumps(int(value) if value.is_integer() else value)
        case int():
            return json.dumps(value)
        case _:
            return None


@lru_cache(maxsize=2000)
def _limited(limits: str) -> Scope:
    return Scope.read(frozenset(), 0, json.loads(limits) if limits else {})


def _words(value: list[str] | None) -> frozenset[str] | None:
    return None if value is None else frozenset(value)


def _sorted(words: frozenset[str] | None) -> list[str] | None:
    return None if words is None else sorted(words)


def _meet(one: frozenset[str] | None, other: frozenset[str] | None) -> frozenset[str] | None:
    if one is None or other is None:
        return other if one is None else one
    return one & other


def _meet_named(one: Mapping[str, Values], other: Mapping[str, Values]) -> Mapping[str, Values]:
    names = sorted(one.keys() | other.keys())
    met = {name: _meet(one.get(name), other.get(name)) for name in names}
    return {name: values for name, values in met.items() if values is not None}
