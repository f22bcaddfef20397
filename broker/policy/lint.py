"""What is doubtful about policies that can be used: nothing here changes a decision.

Two things are looked for. What a policy says in vain: it can never apply, something else has said
it already, or a ``forbid`` takes all of it away. And what it may say by mistake: too much, or a
name that isn't there. It is only said to be in vain where that is certain (``implication.py``).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from cedarpy import pst

from broker.errors import ConfigError
from broker.policy.cedar import CedarPolicies, Schema
from broker.policy.expressions import conditions, nodes, written
from broker.policy.folder import SHIPPED
from broker.policy.implication import Known, Setting, worlds
from broker.policy.normal import normal
from broker.policy.question import Action
from broker.policy.vocabulary import Vocabulary, names_in
from broker.policy.width import too_wide

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

    from broker.catalog import Catalog
    from broker.policy.annotations import PolicyFacts
    from broker.policy.cedar import Source

    Expr = pst.Expr


class Level(StrEnum):
    """An error keeps policies from being used; a warning is for somebody to look at."""

    ERROR = "error"
    WARNING = "warning"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about a policy, and what to do. ``code`` is stable."""

    level: Level
    code: str
    policy: str
    file: str
    text: str
    remedy: str = ""

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "level": self.level,
            "code": self.code,
            "policy": self.policy,
            "file": self.file,
            "text": self.text,
            "remedy": self.remedy,
        }


def lint(
    sources: Sequence[Source],
    catalog: Catalog | None = None,
    channels: Collection[str] | None = None,
) -> tuple[Finding, ...]:
    """Look at policies, with what the configuration can grant, and whom it tells, if that is known.

    If they can't be used at all, that is all that is said.
    """
    tools = list(catalog.tools.values()) if catalog else []
    try:
        policies = CedarPolicies(sources, Schema(tools))
    except ConfigError as error:
        return tuple(map(_invalid, error.detail.split("\n")))
    vocabulary, shared = Vocabulary(catalog), dict["Expr", "Expr"]()
    looked_at = [
        Looked(policies.facts[name], node, vocabulary, shared)
        for name, node in sorted(policies.nodes.items(), key=_number)
    ]
    return tuple(
        finding
        for policy in looked_at
        for finding in (*_findings(policy, looked_at), *_unknown_channels(policy, channels))
    )


def _invalid(line: str) -> Finding:
    file, _, rest = line.partition(": ")
    if twice := re.match(r"@id\('([^']*)'\) is also", rest):
        remedy = "give one of them another name"
        return Finding(Level.ERROR, "duplicate-id", twice[1], file, rest, remedy)
    name, separator, text = rest.partition(": ")
    known = bool(separator) and " " not in name
    return Finding(Level.ERROR, "invalid", name if known else "", file, text if known else rest)


def _number(item: tuple[str, object]) -> int:
    return int(item[0].removeprefix("policy"))


@dataclass(frozen=True, slots=True)
class Way:
    """One way in which a policy can apply, and the actions it is about."""

    world: Known
    actions: frozenset[str]
    _seen: dict[int, bool | None] = field(default_factory=dict[int, "bool | None"])

    def holds(self, expr: Expr) -> bool | None:
        """Say whether an expression holds in it; the same object is looked at once."""
        if id(expr) not in self._seen:
            self._seen[id(expr)] = self.world.holds(expr)
        return self._seen[id(expr)]


class Looked:
    """A policy, and all the ways in which it can apply."""

    def __init__(
        self,
        facts: PolicyFacts,
        node: pst.Template,
        vocabulary: Vocabulary,
        shared: dict[Expr, Expr],
    ) -> None:
        """``facts`` and ``node`` are of the same policy; ``shared`` holds each condition once."""
        self.facts = facts
        self.node = node
        self.vocabulary = vocabulary
        self.kinds = vocabulary.settings(node)
        self.wanted = (*_scope(node.principal, "principal"), *_scope(node.resource, "resource"))
        self.wanted += conditions(node)
        self._shared = shared
        self._normal: dict[str, list[Expr]] = {}

    def normal(self, resource: str) -> list[Expr]:
        """Return all that must hold, for a type of resource."""
        if resource not in self._normal:
            found = [normal(expr, resource) for expr in self.wanted]
            self._normal[resource] = [self._shared.setdefault(expr, expr) for expr in found]
        return self._normal[resource]

    @cached_property
    def reach(self) -> list[Way]:
        """The ways in which it can apply."""
        return [
            Way(world, actions)
            for setting, actions in self.kinds
            for world in _reachable(setting, self.wanted, self.vocabulary)
        ]

    @cached_property
    def actions(self) -> frozenset[str]:
        """All actions in its scope."""
        return frozenset(action for _, actions in self.kinds for action in actions)

    def covers(self, way: Way) -> bool:
        """Say whether this policy certainly applies as well."""
        return way.actions <= self.actions and all(
            map(way.holds, self.normal(way.world.setting.resource))
        )

    def about(self, level: Level, code: str, text: str, remedy: str) -> Finding:
        """Return a finding about this policy."""
        return Finding(level, code, self.facts.name, self.facts.source, text, remedy)


def _reachable(setting: Setting, wanted: Iterable[Expr], vocabulary: Vocabulary) -> list[Known]:
    """Return the ways in which all can hold; what is named is what it is in the catalogue."""
    found: list[Known] = []
    for world in worlds(Known(setting), wanted):
        named = world.terms.get(pst.Var("resource"))
        names = named.possible if named else None
        if names is None:
            found.append(world)
            continue
        for lit in names:
            assert isinstance(lit, pst.EntityLit)  # noqa: S101  a resource is compared with nothing else
            one = pst.BinaryOp("eq", pst.Var("resource"), lit)
            found += worlds(world, [one, *vocabulary.facts(lit.value)])
    return found


def _scope(constraint: pst.PrincipalOrResourceConstraint, name: pst.VarName) -> tuple[Expr, ...]:
    var = pst.Var(name)
    match constraint:
        case pst.ScopeEq(pst.EntityUid() as uid):
            return (pst.BinaryOp("eq", var, pst.EntityLit(uid)),)
        case pst.ScopeIn(pst.EntityUid() as uid):
            return (pst.BinaryOp("in", var, pst.EntityLit(uid)),)
        case pst.ScopeIs(kind):
            return (pst.Is(var, kind, None),)
        case pst.ScopeIsIn(kind, pst.EntityUid() as uid):
            return (pst.Is(var, kind, pst.EntityLit(uid)),)
        case _:
            return ()


# ── what is looked for ───────────────────────────────────────────────────────────────────────────


def _findings(policy: Looked, all_of_them: Sequence[Looked]) -> Iterator[Finding]:
    if "id" not in policy.node.annotations:
        yield policy.about(
            Level.WARNING,
            "unnamed",
            "has no name of its own: the log names it by its place, which changes",
            'write @id("…") before it',
        )
    yield from _unknown_names(policy)
    unreachable = list(_unreachable(policy))
    yield from unreachable
    if unreachable:
        return
    yield from _in_vain(policy, all_of_them)
    reach = [(way.world, way.actions) for way in policy.reach]
    for code, text, remedy in too_wide(policy.facts, policy.node, reach):
        yield policy.about(Level.WARNING, code, text, remedy)


def _unknown_names(policy: Looked) -> Iterator[Finding]:
    about = frozenset(setting.resource for setting, _ in policy.kinds)
    looked_for = names_in(nodes(policy.node), about=about)
    for unknown in policy.vocabulary.unknown(dict.fromkeys(looked_for)):
        listed = ", ".join(unknown.known[:_MANY]) + (", …" if len(unknown.known) > _MANY else "")
        later = " (one may be added at run time)" if unknown.what in ("principal", "owner") else ""
        yield policy.about(
            Level.WARNING,
            "unknown-name",
            f'looks for the {unknown.what} "{unknown.name}", which the configuration '
            f"doesn't have{later}",
            f"there are: {listed or 'none'}",
        )


_MANY: Final = 12


def _unknown_channels(policy: Looked, channels: Collection[str] | None) -> Iterator[Finding]:
    """Find who would be told and can't be; the package's policies tell whoever there may be."""
    if channels is None or policy.facts.source.startswith(SHIPPED):
        return
    for name in sorted(policy.facts.obligations.notify.difference(channels)):
        yield policy.about(
            Level.WARNING,
            "unknown-channel",
            f'tells the channel "{name}", which the configuration doesn\'t have',
            f"there are: {', '.join(channels) or 'none'}; add it as [[channels]]",
        )


def _unreachable(policy: Looked) -> Iterator[Finding]:
    if policy.node.action == pst.ActionEq(_action(Action.CALL_TOOL)):
        yield policy.about(
            Level.WARNING,
            "unreachable",
            'never applies: each tool is an action of its own, in the group Action::"call_tool"',
            'write action in Action::"call_tool"',
        )
    elif not policy.reach:
        yield policy.about(
            Level.WARNING,
            "unreachable",
            f"never applies: {_why(policy)}",
            "remove it, or correct what it says",
        )


def _why(policy: Looked) -> str:
    """Name one or two conditions that can't hold, if that is enough."""
    wanted = policy.wanted

    def never(*some: Expr) -> bool:
        return not any(_reachable(kind, some, policy.vocabulary) for kind, _ in policy.kinds)

    for expr in wanted:
        if never(expr):
            return f"{written(expr)} can't be"
    for i, first in enumerate(wanted):
        for second in wanted[i + 1 :]:
            if never(first, second):
                return f"{written(first)} and {written(second)} can't both be"
    return "its conditions contradict each other"


def _in_vain(policy: Looked, all_of_them: Sequence[Looked]) -> Iterator[Finding]:
    others = [other for other in all_of_them if other is not policy and other.reach]
    place = all_of_them.index(policy)
    forbids = [other for other in others if not other.facts.permits]
    if policy.facts.permits and (by := _covering(policy, forbids)):
        yield policy.about(
            Level.WARNING,
            "shadowed",
            f"permits nothing: all of it is forbidden by {_listed(by)}",
            "remove it, or narrow what forbids it",
        )
        return
    for other in others:
        same_kind = other.facts.permits is policy.facts.permits
        if same_kind and _covers(other, policy) and _adds_nothing(policy, other):
            mutual = _covers(policy, other) and _adds_nothing(other, policy)
            if mutual and place < all_of_them.index(other):
                continue  # said of the later one
            yield policy.about(
                Level.WARNING,
                "redundant",
                f"says nothing that {other.facts.name} ({other.facts.source}) doesn't say",
                "remove one of them",
            )
            return


def _covering(policy: Looked, forbids: Sequence[Looked]) -> list[str]:
    """Return which of some policies forbid all that one permits; none if any of it is left."""
    found: dict[str, None] = {}
    for way in policy.reach:
        by = next((forbid for forbid in forbids if forbid.covers(way)), None)
        if by is None:
            return []
        found[by.facts.name] = None
    return list(found)


def _covers(wide: Looked, narrow: Looked) -> bool:
    return all(map(wide.covers, narrow.reach))


def _adds_nothing(policy: Looked, other: Looked) -> bool:
    """Say whether a policy asks for nothing, and tells nothing, that another doesn't."""
    wanted = other.facts.obligations
    return (
        policy.facts.obligations | wanted == wanted
        and policy.facts.advice in ("", other.facts.advice)
    )  # fmt: skip


def _listed(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))


def _action(name: str) -> pst.EntityUid:
    return pst.EntityUid(pst.EntityType("Action"), name)
