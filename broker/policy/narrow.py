"""What policies ask about: only that has to be handed to Cedar.

Read off the parsed policies, so nothing is guessed: an attribute that is left out is one that no
policy names. What is used as a whole is kept with everything below it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from cedarpy import pst

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    Tree = dict[str, Any]
    """Attributes by name, each with what is needed below it; empty: all of it."""


_COUNTS: Final = dict.fromkeys(("grants", "calls", "amount"), 0)
_COUNTED: Final = {"chain": _COUNTS, "after": _COUNTS, "task": {"trail": _COUNTS}}
"""What of the context says how often or how much, and not what: see ``question.trail_context``."""


@dataclass(frozen=True, slots=True)
class Needs:
    """The attributes of the context, and of principals and resources, that policies name.

    Never empty trees, which would mean all: what nobody asks about is named ``-``.
    """

    context: Mapping[str, Any]
    entity: Mapping[str, Any]

    @property
    def counts(self) -> bool:
        """Whether it depends on how often something was done, or how much it came to so far."""
        return _leaves(project(_COUNTED, self.context))


def needs_of(policies: Iterable[pst.Template]) -> Needs:
    """Return what some policies ask about."""
    context: Tree | None = {"-": {}}
    entity: Tree = {"-": {}}
    for policy in policies:
        for root, path in _paths(policy.clauses):
            if root == "context":
                context = _with(context, path)
            elif path:
                _with(entity, path)
    return Needs(context or {}, entity)


def project(value: Mapping[str, Any], needed: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record with what is needed of it."""
    found: dict[str, Any] = {}
    for name, below in needed.items():
        if name in value:
            inner = value[name]
            deeper = below and isinstance(inner, dict)
            found[name] = project(cast("dict[str, Any]", inner), below) if deeper else inner
    return found if needed else dict(value)


def _leaves(value: object) -> bool:
    """Say whether a record has anything in it but records."""
    if not isinstance(value, dict):
        return True
    return any(map(_leaves, cast("dict[str, object]", value).values()))


def _with(tree: Tree | None, path: tuple[str, ...]) -> Tree | None:
    """Add a path; an empty tree, or None for the root's, holds everything already."""
    if tree is None or not path:
        return None
    at = tree
    for name in path[:-1]:
        if name in at and not at[name]:
            return tree
        at = cast("Tree", at.setdefault(name, {}))
    at[path[-1]] = {}
    return tree


def _paths(node: object) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield each chain of attributes as its variable and the names, the longest of each."""
    read = _path(node)
    if read is not None:
        yield from read
        return
    if isinstance(node, tuple):
        for item in cast("tuple[object, ...]", node):
            yield from _paths(item)
    elif isinstance(node, dict):
        for item in cast("dict[str, object]", node).values():
            yield from _paths(item)
    elif dataclasses.is_dataclass(node):
        for field in dataclasses.fields(node):
            yield from _paths(getattr(node, field.name))


def _path(node: object) -> list[tuple[str, tuple[str, ...]]] | None:
    names: list[str] = []
    if isinstance(node, pst.HasAttr):
        names[:0] = node.attrs
        node = node.base
    while isinstance(node, pst.GetAttr):
        names.insert(0, node.attr)
        node = node.base
    return [(node.name, tuple(names))] if isinstance(node, pst.Var) else None
