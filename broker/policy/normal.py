"""One way of writing what Cedar has many for, so that the same can be seen to be the same."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cedarpy import pst

from broker.policy.expressions import written

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Expr = pst.Expr
    Lit = pst.Lit

LITERALS: Final = (pst.BoolLit, pst.LongLit, pst.StringLit, pst.EntityLit)
_PLAIN: Final = frozenset(("Principal", "Capability", "Tool", "Operation", "Approval"))
"""Entities that nothing is in but themselves."""


def normal(expr: Expr, resource: str) -> Expr:  # noqa: C901, PLR0911  one case a kind of node
    """Return an expression that means the same, in fewer kinds of nodes.

    ``resource`` is the type of the resource. A principal and what can be granted are named by their
    ids, so that comparing ``name`` is comparing the entity.
    """

    def again(part: Expr) -> Expr:
        return normal(part, resource)

    match expr:
        case pst.UnaryOp("not", inner):
            return denied(again(inner))
        case pst.BinaryOp("and" | "or" as op, left, right):
            return pst.BinaryOp(op, again(left), again(right))
        case pst.IfThenElse(condition, then, otherwise):
            yes = pst.BinaryOp("and", again(condition), again(then))
            no = pst.BinaryOp("and", denied(again(condition)), again(otherwise))
            return pst.BinaryOp("or", yes, no)
        case pst.Is(base, kind, within) if within is not None:
            inside = again(pst.BinaryOp("in", base, within))
            return pst.BinaryOp("and", pst.Is(base, kind, None), inside)
        case pst.BinaryOp("not_eq", left, right):
            return denied(again(pst.BinaryOp("eq", left, right)))
        case pst.BinaryOp("eq", left, right):
            first, last = sorted((left, right), key=_order)
            if isinstance(last, pst.BoolLit) and not isinstance(first, LITERALS):
                return again(first) if last.value else denied(again(first))
            return _equal(first, last, resource)
        case pst.BinaryOp(op, left, right) if op in _ORDERS:
            name, swapped, inverted = _ORDERS[op]
            pair = pst.BinaryOp(name, right, left) if swapped else pst.BinaryOp(name, left, right)
            return denied(pair) if inverted else pair
        case pst.BinaryOp():
            return _membership(expr, resource)
        case _:
            return expr


def _membership(expr: pst.BinaryOp, resource: str) -> Expr:
    match expr:
        case pst.BinaryOp("contains_all", base, pst.Set(elements)):
            return _joined("and", [pst.BinaryOp("contains", base, part) for part in elements])
        case pst.BinaryOp("contains_any", base, pst.Set(elements)):
            return _joined("or", [pst.BinaryOp("contains", base, part) for part in elements])
        case pst.BinaryOp("contains", pst.Set(elements), term) if all_literal(elements):
            return _one_of(elements, term, resource)
        case pst.BinaryOp("in", base, pst.Set(elements)):
            inside = [pst.BinaryOp("in", base, part) for part in elements]
            return _joined("or", [normal(part, resource) for part in inside])
        case pst.BinaryOp("in", base, pst.EntityLit(uid)) if str(uid.type) in _PLAIN:
            return normal(pst.BinaryOp("eq", base, pst.EntityLit(uid)), resource)
        case _:
            return expr


_ORDERS: Final[Mapping[str, tuple[pst.BinaryOpName, bool, bool]]] = {
    "greater": ("less", True, False),
    "greater_eq": ("less", False, True),
    "less_eq": ("less", True, True),
    "decimal_greater": ("decimal_less_than", True, False),
    "decimal_greater_eq": ("decimal_less_than", False, True),
    "decimal_less_eq": ("decimal_less_than", True, True),
}
"""Each order as one of two, whether its sides change places, and whether it is denied."""


def _equal(left: Expr, right: Expr, resource: str) -> pst.BinaryOp:
    match left, right:
        case pst.GetAttr(pst.Var("principal"), "name"), pst.StringLit(name):
            return pst.BinaryOp("eq", pst.Var("principal"), _entity("Principal", name))
        case pst.GetAttr(pst.Var("resource"), "name"), pst.StringLit(name):
            return pst.BinaryOp("eq", pst.Var("resource"), _entity(resource, name))
        case _:
            return pst.BinaryOp("eq", left, right)


def _one_of(literals: Sequence[Expr], term: Expr, resource: str) -> Expr:
    """Say that a term is one of some literals; ``name`` becomes the entity as in ``_equal``."""
    equal = [_equal(term, lit, resource) for lit in literals]
    if len(equal) == 1:
        return equal[0]
    sides = [(part.left, part.right) for part in equal]
    return pst.BinaryOp(
        "contains",
        pst.Set(tuple(sorted({right for _, right in sides}, key=written))),
        sides[0][0] if sides else term,
    )


def _entity(kind: str, name: str) -> pst.EntityLit:
    return pst.EntityLit(pst.EntityUid(pst.EntityType(kind), name))


def _order(expr: Expr) -> tuple[bool, str]:
    """Put literals last, and otherwise always in the same order."""
    return isinstance(expr, LITERALS), written(expr)


def _joined(op: pst.BinaryOpName, parts: Sequence[Expr]) -> Expr:
    if not parts:
        return pst.BoolLit(value=op == "and")
    joined = parts[0]
    for part in parts[1:]:
        joined = pst.BinaryOp(op, joined, part)
    return joined


def denied(expr: Expr) -> Expr:
    """Return what holds where a normal expression doesn't."""
    match expr:
        case pst.UnaryOp("not", inner):
            return inner
        case pst.BoolLit(value):
            return pst.BoolLit(not value)
        case _:
            return pst.UnaryOp("not", expr)


def is_of(lit: Lit, kind: str) -> bool:
    """Say whether a literal is an entity of a type."""
    return isinstance(lit, pst.EntityLit) and str(lit.value.type) == kind


def all_literal(elements: Iterable[Expr]) -> bool:
    """Say whether all of these are literals."""
    return all(isinstance(element, LITERALS) for element in elements)
