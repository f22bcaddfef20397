"""Cedar's expressions, taken apart and written out."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from typing import TYPE_CHECKING, Any, Final

from cedarpy import pst

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    Expr = pst.Expr

_INFIX: Final[Mapping[str, str]] = {
    "eq": "==",
    "not_eq": "!=",
    "less": "<",
    "less_eq": "<=",
    "greater": ">",
    "greater_eq": ">=",
    "and": "&&",
    "or": "||",
    "add": "+",
    "sub": "-",
    "mul": "*",
    "in": "in",
}
_METHODS: Final[Mapping[str, str]] = {
    "contains": "contains",
    "contains_all": "containsAll",
    "contains_any": "containsAny",
    "get_tag": "getTag",
    "has_tag": "hasTag",
    "is_in_range": "isInRange",
    "offset": "offset",
    "duration_since": "durationSince",
    "decimal_less_than": "lessThan",
    "decimal_less_eq": "lessThanOrEqual",
    "decimal_greater": "greaterThan",
    "decimal_greater_eq": "greaterThanOrEqual",
    "is_empty": "isEmpty",
    "is_ipv4": "isIpv4",
    "is_ipv6": "isIpv6",
    "is_loopback": "isLoopback",
    "is_multicast": "isMulticast",
    "to_date": "toDate",
    "to_time": "toTime",
    "to_milliseconds": "toMilliseconds",
    "to_seconds": "toSeconds",
    "to_minutes": "toMinutes",
    "to_hours": "toHours",
    "to_days": "toDays",
}
_MAKERS: Final = ("datetime", "decimal", "duration", "ip")
_RESERVED: Final = frozenset(("true", "false", "if", "then", "else", "in", "is", "like", "has"))
ARGUMENTS: Final = pst.GetAttr(pst.Var("context"), "arguments")


def conditions(policy: pst.Template) -> tuple[Expr, ...]:
    """Return what must all hold for a policy to apply, beside its scope."""
    found: list[Expr] = []
    for clause in policy.clauses:
        holds = isinstance(clause, pst.When)
        found += conjuncts(clause.expr if holds else negated(clause.expr))
    return tuple(found)


def conjuncts(expr: Expr) -> tuple[Expr, ...]:
    """Return what must all hold for an expression to hold."""
    match expr:
        case pst.BinaryOp("and", left, right):
            return conjuncts(left) + conjuncts(right)
        case pst.UnaryOp("not", pst.BinaryOp("or", left, right)):
            return conjuncts(negated(left)) + conjuncts(negated(right))
        case pst.UnaryOp("not", pst.UnaryOp("not", inner)):
            return conjuncts(inner)
        case _:
            return (expr,)


def negated(expr: Expr) -> Expr:
    """Return what holds where an expression doesn't."""
    match expr:
        case pst.UnaryOp("not", inner):
            return inner
        case pst.BoolLit(value):
            return pst.BoolLit(not value)
        case _:
            return pst.UnaryOp("not", expr)


def nodes(node: object) -> Iterator[Any]:
    """Yield a node of an expression or a policy, and every one below it."""
    yield node
    if isinstance(node, tuple):
        below: list[object] = list(node)  # pyright: ignore[reportUnknownArgumentType]  of nodes
    elif isinstance(node, dict):
        below = list(node.values())  # pyright: ignore[reportUnknownArgumentType]  of nodes
    elif is_dataclass(node) and not isinstance(node, type):
        below = [getattr(node, f.name) for f in fields(node)]
    else:
        below = []
    for inner in below:
        yield from nodes(inner)


def looks_at_arguments(policy: pst.Template) -> bool:
    """Say whether a policy depends on the arguments of a tool."""
    return any(node == ARGUMENTS for node in nodes(policy.clauses))


def written(expr: Expr) -> str:  # noqa: PLR0911  one return a kind of node
    """Write an expression as Cedar has it."""
    match expr:
        case pst.Var(name):
            return name
        case pst.Slot(name):
            return f"?{name}"
        case pst.BoolLit(value):
            return str(value).lower()
        case pst.LongLit(value):
            return str(value)
        case pst.StringLit(value):
            return _quoted(value)
        case pst.EntityLit(uid):
            return entity(uid)
        case pst.Set(elements):
            return f"[{', '.join(map(written, elements))}]"
        case pst.Record(members):
            pairs = (f"{_quoted(name)}: {written(value)}" for name, value in members.items())
            return f"{{{', '.join(pairs)}}}"
        case _:
            return _compound(expr)


def _compound(expr: Expr) -> str:  # noqa: PLR0911  as above
    match expr:
        case pst.GetAttr(base, attr):
            name = f".{attr}" if _is_bare(attr) else f"[{_quoted(attr)}]"
            return f"{_inner(base)}{name}"
        case pst.HasAttr(base, attrs):
            bare = all(map(_is_bare, attrs))
            return f"{_inner(base)} has {'.'.join(attrs) if bare else _quoted(attrs[0])}"
        case pst.Like(base, pattern):
            return f"{_inner(base)} like {_pattern(pattern)}"
        case pst.Is(base, entity_type, within):
            more = "" if within is None else f" in {_inner(within)}"
            return f"{_inner(base)} is {entity_type}{more}"
        case pst.IfThenElse(condition, then, otherwise):
            return f"if {written(condition)} then {written(then)} else {written(otherwise)}"
        case pst.UnaryOp(op, arg) if op in _MAKERS:
            return f"{op}({written(arg)})"
        case pst.UnaryOp(op, arg):
            sign = {"not": "!", "neg": "-"}.get(op)
            return f"{sign}{_inner(arg)}" if sign else f"{_inner(arg)}.{_METHODS[op]}()"
        case pst.BinaryOp(op, left, right) if op in _INFIX:
            return f"{_side(left, op, left=True)} {_INFIX[op]} {_side(right, op)}"
        case pst.BinaryOp(op, left, right):
            return f"{_inner(left)}.{_METHODS[op]}({written(right)})"
        case _:
            raise TypeError(f"no expression: {type(expr).__name__}")


def entity(uid: pst.EntityUid) -> str:
    """Write the name of an entity as Cedar has it."""
    return f"{uid.type}::{_quoted(uid.id)}"


def _side(expr: Expr, op: str, *, left: bool = False) -> str:
    """Write one side of an operator; beside ``&&`` and ``||`` few things need brackets."""
    if op not in ("and", "or") or isinstance(expr, pst.IfThenElse):
        return _inner(expr)
    if isinstance(expr, pst.BinaryOp) and expr.op in ("and", "or"):
        return written(expr) if left and expr.op == op else _inner(expr)
    return written(expr)


def _inner(expr: Expr) -> str:
    """Write an expression that stands inside another: in brackets, if it could be misread."""
    open_ended = (pst.HasAttr, pst.Like, pst.Is, pst.IfThenElse)
    infix = isinstance(expr, pst.BinaryOp) and expr.op in _INFIX
    signed = isinstance(expr, pst.UnaryOp) and expr.op in ("not", "neg")
    below_zero = isinstance(expr, pst.LongLit) and expr.value < 0
    text = written(expr)
    return f"({text})" if infix or signed or below_zero or isinstance(expr, open_ended) else text


def _is_bare(name: str) -> bool:
    return name.isidentifier() and name.isascii() and name not in _RESERVED


def _pattern(elements: tuple[pst.PatternElem, ...]) -> str:
    parts = (
        "*" if isinstance(element, pst.Wildcard) else _escaped(element.value).replace("*", "\\*")
        for element in elements
    )
    return f'"{"".join(parts)}"'


def _quoted(text: str) -> str:
    return f'"{"".join(map(_escaped, text))}"'


def _escaped(char: str) -> str:
    if char in '\\"':
        return f"\\{char}"
    return char if char.isprintable() else f"\\u{{{ord(char):x}}}"
