"""What the words of policies can mean: which actions there are, and what their attributes may be.

The schema says that ``resource.power`` is a text; here it is said which texts it is ever. Whether a
principal is in the configuration is no more than a hint, as principals are added at run time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from cedarpy import pst

from broker.catalog import Power, Revocability
from broker.identity.models import Role
from broker.policy.expressions import written
from broker.policy.implication import ANY, Setting, Values
from broker.policy.question import Action
from broker.policy.schema import CALL

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from broker.catalog import Catalog

    Expr = pst.Expr

RESOURCES: Final[Mapping[str, str]] = {
    Action.OPEN_TASK: "Principal",
    Action.DELEGATE: "Principal",
    Action.ISSUE_GRANT: "Capability",
    Action.ELEVATE: "Capability",
    Action.BREAK_GLASS: "Capability",
    Action.CALL_TOOL: "Tool",
    Action.APPROVE: "Approval",
    Action.OPERATE: "Operation",
}
"""The type of what each action is done to."""

_GRANTABLE: Final = ("Capability", "Tool")


def _words(*words: str) -> Values:
    return Values(only=frozenset(map(pst.StringLit, words)))


_POWERS: Final = _words(*Power)
_COUNT: Final = Values(low=0)
_TRAILS: Final = ("context.chain", "context.after", "context.task.trail")
_RANGES: Final[Mapping[str, Values]] = {
    "principal.role": _words(*Role),
    "context.verdict": _words("clean", "suspicious", "compromised"),
    "context.power": _POWERS,
    "context.risk": Values(low=0, high=100),
    "context.time.hour": Values(low=0, high=23),
    "context.time.minute": Values(low=0, high=59),
    "context.time.weekday": Values(low=1, high=7),
    "context.destination.port": Values(low=0, high=65_535),
    **dict.fromkeys(
        (
            *("context.approvals", "context.ttl", "context.depth", "context.chain.tasks"),
            *("context.task.age", "context.task.left", "context.task.depth"),
            "context.parent.left",
        ),
        _COUNT,
    ),
    **{f"{trail}.power": _POWERS for trail in _TRAILS},
    **{f"{trail}.{count}": _COUNT for trail in _TRAILS for count in ("grants", "calls")},
}


def _path(text: str) -> Expr:
    first, *rest = text.split(".")
    found: Expr = pst.Var("principal" if first == "principal" else "context")
    for name in rest:
        found = pst.GetAttr(found, name)
    return found


_ALWAYS: Final = {_path(text): values for text, values in _RANGES.items()}
"""What attributes may be, whatever the request."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """A name that a policy looks for and the configuration doesn't have."""

    what: str
    name: str
    known: tuple[str, ...]


class Vocabulary:
    """The words that a configuration gives a meaning to; without one those that all have."""

    def __init__(self, catalog: Catalog | None = None) -> None:
        """``catalog`` is what can be granted, and to whom."""
        self._catalog = catalog
        tools = catalog.tools.values() if catalog else ()
        self.calls: Final = frozenset(f"{CALL}{tool.name}" for tool in tools)
        """The actions that are the calls of tools."""

    def settings(self, policy: pst.Template) -> list[tuple[Setting, frozenset[str]]]:
        """Return the kinds of requests that a policy's scope is about, each with its actions."""
        group = frozenset((str(Action.CALL_TOOL), *self.calls))
        match policy.action:
            case pst.ActionEq(uid):
                named, all_calls = {uid.id}, False
            case pst.ActionIn(uids):
                named = {uid.id for uid in uids}
                all_calls = Action.CALL_TOOL in named
            case _:
                named, all_calls = set(map(str, Action)), True
        if all_calls:
            named -= group
        found = [(self._setting(name), frozenset((name,))) for name in sorted(named)]
        return [*found, (self._setting(Action.CALL_TOOL), group)] if all_calls else found

    def _setting(self, action: str) -> Setting:
        is_call = action.startswith(CALL)
        resource = "Tool" if is_call else RESOURCES.get(action, "")

        def values(term: Expr) -> Values:
            return self._values(term, action, resource)

        return Setting(
            action,
            resource,
            frozenset((str(Action.CALL_TOOL),)) if is_call else frozenset(),
            values,
        )

    def _values(self, term: Expr, action: str, resource: str) -> Values:
        match term:
            case pst.Var("action") if action != Action.CALL_TOOL:
                return Values(only=frozenset((_entity("Action", action),)))
            case pst.Var("resource") if action.startswith(CALL):
                return Values(only=frozenset((_entity("Tool", action.removeprefix(CALL)),)))
            case pst.Var("resource") if resource in _GRANTABLE and self._catalog:
                names = self._names(resource)
                return Values(only=frozenset(_entity(resource, name) for name in names))
            case pst.GetAttr(pst.Var("resource"), "power") if resource in _GRANTABLE:
                return _POWERS
            case pst.GetAttr(pst.Var("resource"), "role") if resource == "Principal":
                return _RANGES["principal.role"]
            case _:
                return _ALWAYS.get(term, ANY)

    def _names(self, kind: str) -> list[str]:
        catalog = self._catalog
        tools = kind == "Tool"
        return (
            [c.name for c in catalog.capabilities.values() if c.is_tool is tools] if catalog else []
        )

    def facts(self, uid: pst.EntityUid) -> list[Expr]:
        """Return what is always true of something that a policy names."""
        known = self._catalog.capabilities if self._catalog else {}
        capability = known.get(uid.id)
        if capability is None or str(uid.type) not in _GRANTABLE:
            return []
        said = {
            "power": str(capability.power),
            "backend": capability.backend,
            "data_class": capability.data_class,
        }
        instant: Expr = _attribute("instant")
        if capability.revocability is not Revocability.INSTANT:
            instant = pst.UnaryOp("not", instant)
        return [
            *(pst.BinaryOp("eq", _attribute(k), pst.StringLit(v)) for k, v in said.items()),
            instant,
        ]

    def unknown(self, looked_for: Iterable[tuple[str, str]]) -> Iterator[Unknown]:
        """Yield what isn't there, of pairs of a kind of name (see ``names_in``) and a name."""
        if self._catalog is None:
            return
        capabilities = list(self._catalog.capabilities.values())
        known: dict[str, list[str]] = {
            "capability": sorted(c.name for c in capabilities if not c.is_tool),
            "tool": sorted(c.name for c in capabilities if c.is_tool),
            "capability or tool": sorted(self._catalog.capabilities),
            "effect": sorted({effect for c in capabilities for effect in c.effects}),
            "data class": sorted({c.data_class for c in capabilities}),
            "backend": sorted({c.backend for c in capabilities}),
            "principal": sorted(self._catalog.principals),
            "owner": sorted({p.owner for p in self._catalog.principals.values()}),
        }
        for what, name in looked_for:
            if name not in known[what]:
                yield Unknown(what, name, tuple(known[what]))


_SETS: Final[Mapping[str, str]] = {
    "effects": "effect",
    "ways": "effect",
    "data_classes": "data class",
    "capabilities": "capability or tool",
    "agents": "principal",
}
"""What is in the sets that questions have, by the last word of their path."""
_TEXTS: Final[Mapping[str, str]] = {
    "resource.name": "capability or tool",
    "resource.data_class": "data class",
    "context.adds.data_class": "data class",
    "resource.backend": "backend",
    "principal.name": "principal",
    "principal.owner": "owner",
    "context.parent.agent": "principal",
}
_ENTITIES: Final[Mapping[str, str]] = {
    "Capability": "capability",
    "Tool": "tool",
    "Principal": "principal",
    "Team": "owner",
}


def names_in(all_nodes: Iterable[object], *, about: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Yield each name that a policy looks for, and what it would be the name of.

    ``about`` are the types of resources that the policy is about.
    """
    for node in all_nodes:
        match node:
            case pst.EntityUid(kind, name) if str(kind) in _ENTITIES:
                yield _ENTITIES[str(kind)], name
            case pst.BinaryOp("contains", base, pst.StringLit(name)) if _set(base):
                yield _set(base), name
            case pst.BinaryOp("contains_all" | "contains_any", base, pst.Set(elements)) if _set(
                base
            ):
                yield from ((_set(base), e.value) for e in elements if isinstance(e, pst.StringLit))
            case pst.BinaryOp("contains", pst.Set(elements), term):
                for element in elements:
                    yield from _text(term, element, about)
            case pst.BinaryOp("eq" | "not_eq", left, right):
                yield from _text(left, right, about)
                yield from _text(right, left, about)
            case _:
                pass


def _set(base: Expr) -> str:
    return _SETS.get(base.attr, "") if isinstance(base, pst.GetAttr) else ""


def _text(term: Expr, lit: Expr, about: frozenset[str]) -> Iterator[tuple[str, str]]:
    if not isinstance(lit, pst.StringLit) or not isinstance(term, pst.GetAttr):
        return
    path = written(term)
    if path == "resource.name" and "Principal" in about:
        if len(about) == 1:
            yield "principal", lit.value
    elif path in _TEXTS:
        yield _TEXTS[path], lit.value


def _attribute(name: str) -> pst.GetAttr:
    return pst.GetAttr(pst.Var("resource"), name)


def _entity(kind: str, name: str) -> pst.EntityLit:
    return pst.EntityLit(pst.EntityUid(pst.EntityType(kind), name))
