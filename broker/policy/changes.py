"""Single changes of a request, to be put to the policies, for what would have to be otherwise.

Each is a code, words, and the question that results; None where it changes nothing. Nothing here
knows what any policy says.
"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from broker.catalog import Power
from broker.policy.question import Action, Question, trail_context
from broker.power import EGRESS
from broker.trail import AMOUNT_SCALE, Step, Trail

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHORT_TTL_S: Final = 300
_INTENT: Final = "a word about why"
_OTHER: Final = "somebody else"


def changes(question: Question) -> Iterator[tuple[str, str, Question]]:
    """Yield each change that makes another question: a code, words for it, and the question."""
    for code, words, change in _CHANGES:
        changed = change(question)
        if changed is not None and changed != question:
            yield code, words, changed


def _approved(count: int) -> Callable[[Question], Question | None]:
    def change(question: Question) -> Question | None:
        enough = question.context["approvals"] >= count
        return None if enough else question.approved(count)

    return change


def _bound(question: Question) -> Question:
    return question.with_context(proof={**question.context["proof"], "bound": True})


def _clean(question: Question) -> Question:
    return question.with_context(risk=0, verdict="clean")


def _short(question: Question) -> Question | None:
    ttl = question.context.get("ttl", 0)
    return question.with_context(ttl=SHORT_TTL_S) if ttl > SHORT_TTL_S else None


def _said(question: Question) -> Question | None:
    uses = "adds" in question.context and "intent" not in question.context
    return question.with_context(intent=_INTENT) if uses else None


def _durable(question: Question) -> Question | None:
    known = "ledger_durable" in question.context
    return question.with_context(ledger_durable=True) if known else None


def _nowhere(question: Question) -> Question | None:
    if "destination" not in question.context:
        return None
    context = {k: v for k, v in question.context.items() if k != "destination"}
    return replace(question, context=context)


def _inside(question: Question) -> Question | None:
    """Leave out what reaches the outside; the power of the whole stays what it was."""
    adds, chain = question.context.get("adds"), question.context.get("chain")
    if adds is None or chain is None or not adds["egress"]:
        return None
    effects = [effect for effect in adds["effects"] if not effect.startswith(EGRESS)]
    ways = [w for w in question.context["after"]["ways"] if w not in adds["effects"]]
    after = {
        **question.context["after"],
        "effects": sorted({*chain["effects"], *effects}),
        "ways": sorted({*chain["ways"], *ways}),
        "egress": chain["egress"],
        "way_out": chain["way_out"],
    }
    kept = [e for e in question.resource_attributes["effects"] if not e.startswith(EGRESS)]
    changed = question.with_context(adds={**adds, "effects": effects, "egress": False}, after=after)
    return replace(changed, resource_attributes={**question.resource_attributes, "effects": kept})


def _fresh(question: Question) -> Question | None:
    """Forget what the task and its chain have done so far."""
    adds = question.context.get("adds")
    if adds is None:
        return None
    step = Step(
        effects=frozenset(adds["effects"]),
        data_class=adds["data_class"],
        lasting=question.resource[0] == "Capability",
        rank=Power(question.resource_attributes["power"]).rank,
        amount=int(Decimal(adds["amount"]["__extn"]["arg"]) * AMOUNT_SCALE),
    )
    private = frozenset((step.data_class,)) if adds["private"] else frozenset[str]()
    nothing, after = (trail_context(t, private) for t in (Trail(), Trail().after(step)))
    return question.with_context(
        task={**question.context["task"], "trail": nothing},
        chain={**nothing, "tasks": 1},
        after=after,
        power=after["power"],
    )


def _reading(question: Question) -> Question | None:
    return _resource(question, "power", str(Power.READ))


def _instant(question: Question) -> Question | None:
    return _resource(question, "instant", value=True)


def _resource(question: Question, name: str, value: object) -> Question | None:
    attributes = question.resource_attributes
    if question.resource[0] not in ("Capability", "Tool") or attributes.get(name) == value:
        return None
    return replace(question, resource_attributes={**attributes, name: value})


def _allowed(question: Question) -> Question | None:
    """Put what is asked for on the allow-list of the agent and of the task."""
    if "task" not in question.context:
        return None
    name, who, task = question.resource[1], question.principal_attributes, question.context["task"]
    changed = question.with_context(
        task={**task, "capabilities": sorted({*task["capabilities"], name})}
    )
    allowed = {**who, "capabilities": sorted({*who["capabilities"], name})}
    return replace(changed, principal_attributes=allowed)


def _fewer(question: Question) -> Question | None:
    """Ask for no more than the agent and the task above may have."""
    if question.action not in (Action.OPEN_TASK, Action.DELEGATE):
        return None
    allowed = set(question.resource_attributes["capabilities"])
    parent: dict[str, Any] | None = question.context.get("parent")
    if parent is not None:
        allowed &= set(parent["capabilities"])
    return question.with_context(
        capabilities=sorted(allowed.intersection(question.context["capabilities"]))
    )


def _other(question: Question) -> Question | None:
    if question.action != Action.APPROVE:
        return None
    who = {**question.principal_attributes, "name": _OTHER, "owner": _OTHER}
    return replace(question, principal=_OTHER, principal_attributes=who)


def _operator(question: Question) -> Question | None:
    if question.action not in (Action.APPROVE, Action.OPERATE):
        return None
    who = {**question.principal_attributes, "role": "operator"}
    return replace(question, principal_attributes=who)


_CHANGES: Final[tuple[tuple[str, str, Callable[[Question], Question | None]], ...]] = (
    ("one_approval", "with the approval of one human", _approved(1)),
    ("two_approvals", "with the approvals of two humans", _approved(2)),
    ("bound_token", "with a token that is bound to a key", _bound),
    ("no_risk", "if nothing were reported of the task, its agent and its owner", _clean),
    ("short_ttl", "for five minutes at most", _short),
    ("intent", "with the intent said", _said),
    ("no_egress", "if it didn't reach the outside", _inside),
    ("no_destination", "without a destination", _nowhere),
    ("fresh_task", "in a new task, whose chain has done nothing yet", _fresh),
    ("read_power", "for something that only reads", _reading),
    ("instant", "for something that can be revoked at once", _instant),
    ("durable_ledger", "while the ledger can't lose writes", _durable),
    ("allow_list", "if the agent and the task might have it at all", _allowed),
    ("fewer_capabilities", "for those that the agent and the task above may have", _fewer),
    ("another_approver", "by somebody else", _other),
    ("operator", "by an operator", _operator),
)
