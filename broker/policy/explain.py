"""Why a decision is what it is, what came near to another one, and what would change it.

All of it is found by asking the engine again: with single policies, single conditions, and single
changes of the request. What is said to change the answer does, by these policies.

The log doesn't keep a tool's arguments. A question from there is asked again without them: policies
that look at arguments are taken to answer as they did if they decided, and are left out if not.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

from cedarpy import pst

from broker.policy.changes import changes
from broker.policy.decision import Decision, Effect
from broker.policy.expressions import conditions, looks_at_arguments, written
from broker.policy.policies import conclude
from broker.policy.question import Action, Question
from broker.policy.schema import CALL

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from broker.policy.annotations import PolicyFacts
    from broker.policy.cedar import CedarPolicies

_RANK: Final = {Effect.DENY: 0, Effect.NEEDS_APPROVAL: 1, Effect.ALLOW: 2}
_NEAR: Final = 2
"""So many conditions may be missing from a permit that came near."""
_SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Near:
    """A permit about such requests. ``missing`` are the conditions that don't hold.

    Without any it does apply, in vain: something forbids.
    """

    name: str
    source: str
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Change:
    """A single change, and what the answer would be then."""

    code: str
    text: str
    effect: Effect


@dataclass(frozen=True, slots=True)
class Explanation:
    """``decided`` are the policies that made it so. ``left_out`` weren't asked again."""

    effect: Effect
    reasons: tuple[str, ...]
    decided: tuple[PolicyFacts, ...]
    near: tuple[Near, ...] = ()
    changes: tuple[Change, ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return it for programs."""
        return {
            "effect": self.effect,
            "reasons": list(self.reasons),
            "decided_by": [facts_json(fact) for fact in self.decided],
            "near": [
                {"policy": near.name, "file": near.source, "missing": list(near.missing)}
                for near in self.near
            ],
            "would_change_it": [
                {"change": change.code, "text": change.text, "effect": change.effect}
                for change in self.changes
            ],
            "left_out": list(self.left_out),
            "notes": list(self.notes),
        }


def facts_json(fact: PolicyFacts) -> dict[str, Any]:
    """Return what a policy is and asks for."""
    return {
        "policy": fact.name,
        "file": fact.source,
        "effect": "permit" if fact.permits else "forbid",
        "advice": fact.advice or None,
        "obligations": fact.obligations.as_json(),
    }


def explain(policies: CedarPolicies, question: Question, decision: Decision) -> Explanation:
    """Explain a decision that was made of a question; by other policies than these, say so."""
    named = {fact.name: fact for fact in policies.facts.values()}
    decided = tuple(named[name] for name in decision.policies if name in named)
    asked, asking, left_out = without_arguments(policies, question, frozenset(decision.policies))
    now = _answer(asking, asked)
    better = now.effect is not Effect.ALLOW
    return Explanation(
        effect=decision.effect,
        reasons=decision.reasons,
        decided=decided,
        near=tuple(_near(asking, asked))[:_SHOWN] if better else (),
        changes=tuple(_changes(asking, asked, now)) if better else (),
        left_out=left_out,
        notes=tuple(_notes(decision, now, [n for n in decision.policies if n not in named])),
    )


def without_arguments(
    policies: CedarPolicies, question: Question, decided: Collection[str] = ()
) -> tuple[Question, CedarPolicies, tuple[str, ...]]:
    """Return a question about a call that is asked without its arguments, and policies for it.

    Those that look at arguments apply within their scope if they are in ``decided``, and are left
    out else: their names come last. Whatever has its arguments, or none, stays as it is.
    """
    if not question.action.startswith(CALL) or "arguments" in question.context:
        return question, policies, ()
    nodes: dict[str, pst.Template] = {}
    left_out: list[str] = []
    for policy_id, node in policies.nodes.items():
        name = policies.facts[policy_id].name
        looks = looks_at_arguments(node)
        if looks and name not in decided:
            left_out.append(name)
            continue
        kept = replace(node, clauses=()) if looks else node
        nodes[policy_id] = _renamed(kept, question.action, Action.CALL_TOOL)
    asked = replace(question, action=str(Action.CALL_TOOL))
    return asked, policies.only(nodes), tuple(sorted(left_out))


def _renamed(node: Any, old: str, new: str) -> Any:  # noqa: ANN401  any part of a policy
    """Return a policy that says of one action what it says of another."""
    if isinstance(node, pst.EntityUid):
        return replace(node, id=new) if (str(node.type), node.id) == ("Action", old) else node
    if isinstance(node, tuple):
        return tuple(_renamed(part, old, new) for part in cast("tuple[Any, ...]", node))
    if is_dataclass(node) and not isinstance(node, type):
        parts = {f.name: getattr(node, f.name) for f in fields(node)}
        return replace(node, **{k: _renamed(part, old, new) for k, part in parts.items()})
    return node


def _answer(policies: CedarPolicies, question: Question) -> Decision:
    ttl_ms = question.context.get("ttl", 0) * 1000
    floor = Decision(Effect.ALLOW, ("catalogue",), ttl_ms)
    return conclude(question, floor, policies.ask(question))


def _changes(policies: CedarPolicies, question: Question, now: Decision) -> Iterator[Change]:
    for code, text, changed in changes(question):
        effect = _answer(policies, changed).effect
        if _RANK[effect] > _RANK[now.effect]:
            yield Change(code, text, effect)


def _near(policies: CedarPolicies, question: Question) -> Iterator[Near]:
    found: list[Near] = []
    for policy_id, node in policies.nodes.items():
        fact = policies.facts[policy_id]
        if not fact.permits or not _holds(policies, policy_id, node, (), question):
            continue
        missing = tuple(_missing(policies, policy_id, node, question))
        if len(missing) <= _NEAR:
            found.append(Near(fact.name, fact.source, missing))
    yield from sorted(found, key=lambda near: (len(near.missing), near.name))


def _missing(
    policies: CedarPolicies, policy_id: str, node: pst.Template, question: Question
) -> Iterator[str]:
    """Yield the conditions that don't hold; what may be absent is looked at behind its ``has``."""
    guards: list[pst.Expr] = []
    for expr in conditions(node):
        if not _holds(policies, policy_id, node, (*guards, expr), question):
            yield written(expr)
        elif isinstance(expr, pst.HasAttr):
            guards.append(expr)


def _holds(
    policies: CedarPolicies,
    policy_id: str,
    node: pst.Template,
    wanted: tuple[pst.Expr, ...],
    question: Question,
) -> bool:
    alone = replace(node, clauses=tuple(map(pst.When, wanted)))
    return policies.only({policy_id: alone}).ask(question).allowed


def _notes(decision: Decision, now: Decision, gone: list[str]) -> Iterator[str]:
    if gone:
        yield f"not in force any more: {', '.join(gone)}"
    if now.effect is not decision.effect:
        yield f"the policies in force now would say {now.effect}"
