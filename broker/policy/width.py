"""Permits that may say more than was meant."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from cedarpy import pst

from broker.catalog import Power
from broker.policy.expressions import nodes
from broker.policy.implication import Known, worlds
from broker.policy.question import Action

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from broker.policy.annotations import PolicyFacts

    Expr = pst.Expr
    Reach = Sequence[tuple[Known, frozenset[str]]]

TOO_WIDE: Final = "too-wide"
_PRINCIPAL: Final = pst.Var("principal")
_WHO: Final = ("name", "owner")
_PRIVILEGED: Final = pst.BinaryOp(
    "eq", pst.GetAttr(pst.Var("resource"), "power"), pst.StringLit(Power.PRIVILEGED)
)

_ELEVATED: Final = pst.GetAttr(pst.Var("context"), "elevated")


def too_wide(
    facts: PolicyFacts, node: pst.Template, reach: Reach
) -> Iterator[tuple[str, str, str]]:
    """Yield what is wide about a permit: a code, words, and what to write instead."""
    if not facts.permits:
        return
    open_scope = isinstance(node.principal, pst.ScopeAny) and isinstance(
        node.resource, pst.ScopeAny
    )
    if open_scope and isinstance(node.action, pst.ScopeAny) and not node.clauses:
        yield TOO_WIDE, "permits everything to everybody", "say who may do what to what"
        return
    if isinstance(node.action, pst.ScopeAny):
        yield (
            TOO_WIDE,
            "permits all actions, those that operators take among them",
            'name them: action in [Action::"issue_grant", Action::"call_tool"]',
        )
    actions = {action for _, of in reach for action in of}
    if Action.BREAK_GLASS in actions and not _names(node, _WHO):
        yield (
            TOO_WIDE,
            "lets anybody break the glass, and so go without approval",
            'name who may: principal == Principal::"…", or principal in Team::"…"',
        )
    if Action.APPROVE in actions and not _names(node, (*_WHO, "role")):
        yield (
            TOO_WIDE,
            "lets anybody approve",
            'say who may: principal in Team::"…", or principal.role == "operator"',
        )
    if facts.obligations.approvals == 0 and not _names(node, _WHO) and _gives_privileged(reach):
        yield (
            TOO_WIDE,
            "permits what is privileged to every agent, without asking for an approval",
            'name who may, add @require_approval("1"), or leave out what is privileged',
        )


def _names(node: pst.Template, attributes: Sequence[str]) -> bool:
    """Say whether a policy looks at who asks, by name or by one of some attributes."""
    if isinstance(node.principal, pst.ScopeEq | pst.ScopeIn | pst.ScopeIsIn):
        return True
    for part in nodes(node.clauses):
        match part:
            case pst.GetAttr(base, attr) if base == _PRINCIPAL and attr in attributes:
                return True
            case pst.BinaryOp("eq" | "in", left, right) if _PRINCIPAL in (left, right):
                return True
            case pst.BinaryOp("contains", _, right) if right == _PRINCIPAL:
                return True
            case pst.Is(base, _, within) if base == _PRINCIPAL and within is not None:
                return True
            case _:
                pass
    return False


def _gives_privileged(reach: Reach) -> bool:
    """Say whether something privileged may be given out; not where another tool is named."""
    for world, actions in reach:
        given = actions & {Action.ISSUE_GRANT, Action.CALL_TOOL} or any(
            action.startswith("call:") for action in actions
        )
        if world.holds(_ELEVATED):
            continue  # somebody has approved the window
        named = world.terms.get(pst.Var("resource"))
        known: Expr = _PRIVILEGED
        certain = world.holds(known)
        unsaid = certain is None and (named is None or named.possible is None)
        if given and (certain or (unsaid and worlds(world, [known]))):
            return True
    return False
