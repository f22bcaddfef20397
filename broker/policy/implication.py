"""What follows from what, as far as it is certain.

``worlds`` are the ways in which some expressions can all hold; ``Known.holds`` says whether another
one holds in such a world. Both only say what is certain: an unknown attribute may be anything, and
what isn't understood here (arithmetic, patterns, dates) is taken as a word without meaning, that is
equal to itself. So a policy may be found to say nothing new; that it does is never proved.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from itertools import product
from typing import TYPE_CHECKING, Final

from cedarpy import pst

from broker.policy.normal import LITERALS, all_literal, is_of, normal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Expr = pst.Expr
    Lit = pst.Lit
    Assumption = tuple[Expr, bool]

MAX_WORLDS: Final = 64
"""Beyond so many ways an expression is not taken apart any further."""
_SPAN: Final = 32
"""Fewer numbers than this are looked at one by one."""
_LEAST: Final = -(2**63)
_MOST: Final = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Values:
    """What a term may be: one of ``only``, none of ``never``, a number from ``low`` to ``high``."""

    only: frozenset[Lit] | None = None
    never: frozenset[Lit] = frozenset()
    low: int = _LEAST
    high: int = _MOST

    def __and__(self, other: Values) -> Values:
        """Return what satisfies both."""
        only = self.only if other.only is None else other.only
        if self.only is not None and other.only is not None:
            only = self.only & other.only
        return Values(
            only,
            self.never | other.never,
            max(self.low, other.low),
            min(self.high, other.high),
        )

    @property
    def possible(self) -> frozenset[Lit] | None:
        """All that it may be; None if that can't be listed."""
        if self.only is not None:
            return frozenset(filter(self.admits, self.only))
        if self.high - self.low >= (_SPAN if self.never else 1):
            return None
        numbers = map(pst.LongLit, range(self.low, self.high + 1))
        return frozenset(filter(self.admits, numbers))

    @property
    def none(self) -> bool:
        """Whether there is nothing that it may be."""
        possible = self.possible
        return self.low > self.high or (possible is not None and not possible)

    def admits(self, lit: Lit) -> bool:
        """Say whether it may be this one."""
        if isinstance(lit, pst.LongLit) and not self.low <= lit.value <= self.high:
            return False
        return lit not in self.never and (self.only is None or lit in self.only)


ANY: Final = Values()


@dataclass(frozen=True, slots=True)
class Setting:
    """What is known of every request of a kind: its action, and the type of its resource.

    ``values`` bounds a term of its own accord, ``groups`` are those that the action is in.
    """

    action: str
    resource: str
    groups: frozenset[str]
    values: Callable[[Expr], Values]


@dataclass(slots=True)
class Known:
    """Assumptions about one request that all hold; ``impossible`` once they can't."""

    setting: Setting
    terms: dict[Expr, Values] = field(default_factory=dict["Expr", "Values"])
    truths: dict[Expr, bool] = field(default_factory=dict["Expr", "bool"])
    impossible: bool = False

    def copy(self) -> Known:
        """Return another one that assumes the same."""
        return replace(self, terms=dict(self.terms), truths=dict(self.truths))

    def values(self, term: Expr) -> Values:
        """Return what a term may be."""
        return self.setting.values(term) & self.terms.get(term, ANY)

    def assume(self, expr: Expr, truth: bool) -> None:  # noqa: FBT001  a pair, as in Assumption
        """Assume one more thing; ``expr`` is normal, and neither ``&&`` nor ``||``."""
        known = self.holds(expr)
        if known is not None and known is not truth:
            self.impossible = True
            return
        # What is known already is learnt all the same: it was said.
        match expr:
            case pst.UnaryOp("not", inner):
                self.assume(inner, not truth)
            case pst.BinaryOp("eq", term, pst.BoolLit(value)):
                self.assume(term, truth is value)
            case pst.BinaryOp("eq", term, lit) if isinstance(lit, LITERALS):
                self._learn(term, frozenset((lit,)), truth=truth)
            case pst.BinaryOp("contains", pst.Set(elements), term) if all_literal(elements):
                self._learn(term, frozenset(elements), truth=truth)  # pyright: ignore[reportArgumentType]  literals
            case pst.BinaryOp("less", term, pst.LongLit(bound)):
                self._bound(term, Values(high=bound - 1) if truth else Values(low=bound))
            case pst.BinaryOp("less", pst.LongLit(bound), term):
                self._bound(term, Values(low=bound + 1) if truth else Values(high=bound))
            case _:
                self.truths[expr] = truth

    def _learn(self, term: Expr, lits: frozenset[Lit], *, truth: bool) -> None:
        self._bound(term, Values(only=lits) if truth else Values(never=lits))

    def _bound(self, term: Expr, values: Values) -> None:
        self.terms[term] = self.terms.get(term, ANY) & values
        self.impossible |= self.values(term).none

    def holds(self, expr: Expr) -> bool | None:  # noqa: PLR0911  one return a kind of node
        """Say whether a normal expression holds; None if that isn't known."""
        if expr in self.truths:
            return self.truths[expr]
        match expr:
            case pst.BoolLit(value):
                return value
            case pst.UnaryOp("not", inner):
                known = self.holds(inner)
                return None if known is None else not known
            case pst.BinaryOp("and", left, right):
                return _both(self.holds(left), self.holds(right))
            case pst.BinaryOp("or", left, right):
                return _either(self.holds(left), self.holds(right))
            case pst.Is(pst.Var("principal"), kind, None):
                return str(kind) == "Principal"
            case pst.Is(pst.Var("resource"), kind, None):
                return str(kind) == self.setting.resource
            case pst.BinaryOp("in", pst.Var("action"), pst.EntityLit(uid)):
                return uid.id == self.setting.action or uid.id in self.setting.groups
            case pst.BinaryOp(op, left, right):
                return self._compare(op, left, right)
            case _:
                return None

    def _compare(self, op: str, left: Expr, right: Expr) -> bool | None:  # noqa: PLR0911  as above
        match op, left, right:
            case "eq", a, b if isinstance(a, LITERALS) and isinstance(b, LITERALS):
                return a == b
            case "eq", term, pst.BoolLit(value):
                known = self.holds(term)
                return None if known is None else known is value
            case "eq", term, lit if isinstance(lit, LITERALS):
                return self._among(term, frozenset((lit,)))
            case "eq", a, b if a == b:
                return True
            case "contains", pst.Set(elements), term if all_literal(elements):
                return self._among(term, frozenset(elements))  # pyright: ignore[reportArgumentType]  literals
            case "less", pst.LongLit(a), pst.LongLit(b):
                return a < b
            case "less", term, pst.LongLit(bound):
                values = self.values(term)
                return True if values.high < bound else False if values.low >= bound else None
            case "less", pst.LongLit(bound), term:
                values = self.values(term)
                return True if values.low > bound else False if values.high <= bound else None
            case _:
                return None

    def _among(self, term: Expr, lits: frozenset[Lit]) -> bool | None:
        if isinstance(term, LITERALS):
            return term in lits
        kind = {"principal": "Principal", "resource": self.setting.resource}
        if isinstance(term, pst.Var) and term.name in kind:
            # What is of another type is never the same.
            lits = frozenset(lit for lit in lits if is_of(lit, kind[term.name]))
        values = self.values(term)
        possible = values.possible
        if possible is not None and possible <= lits:
            return True
        return None if any(map(values.admits, lits)) else False


def worlds(known: Known, expressions: Iterable[Expr]) -> list[Known]:
    """Return each way in which all of some expressions can hold, beside what is known."""
    found: list[Known] = []
    wanted = [alternatives(normal(expr, known.setting.resource)) for expr in expressions]
    for chosen in _chosen(wanted):
        world = known.copy()
        for expr, truth in chosen:
            world.assume(expr, truth)
        if not world.impossible:
            found.append(world)
    return found


def _chosen(wanted: Sequence[list[tuple[Assumption, ...]]]) -> Iterable[tuple[Assumption, ...]]:
    """Combine the alternatives, leaving out those that would be too many to look at."""
    taken: list[list[tuple[Assumption, ...]]] = []
    count = 1
    for ways in sorted(wanted, key=len):
        count *= len(ways)
        if count > MAX_WORLDS:
            break
        taken.append(ways)
    return (sum(combination, ()) for combination in product(*taken))


def alternatives(expr: Expr, *, truth: bool = True) -> list[tuple[Assumption, ...]]:
    """Return the ways in which an expression can hold, or not hold."""
    match expr:
        case pst.UnaryOp("not", inner):
            return alternatives(inner, truth=not truth)
        case pst.BinaryOp("and" | "or" as op, left, right):
            ways = alternatives(left, truth=truth), alternatives(right, truth=truth)
            if (op == "and") is not truth:
                found = ways[0] + ways[1]
            else:
                found = [a + b for a, b in product(*ways)] if _few(*ways) else []
            return found if 0 < len(found) <= MAX_WORLDS else [((expr, truth),)]
        case _:
            return [((expr, truth),)]


def _few(*ways: Sequence[object]) -> bool:
    count = 1
    for way in ways:
        count *= len(way)
    return count <= MAX_WORLDS


def _both(left: bool | None, right: bool | None) -> bool | None:  # noqa: FBT001  three values
    if left is False or right is False:
        return False
    return True if left and right else None


def _either(left: bool | None, right: bool | None) -> bool | None:  # noqa: FBT001  as above
    if left or right:
        return True
    return False if left is False and right is False else None
