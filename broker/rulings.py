"""A decision with what it was made on: what the pipeline acts by."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

from broker.errors import Unavailable
from broker.trail import Step

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.approvals import Approval, Yeses
    from broker.catalog import Capability
    from broker.elevations import Elevation
    from broker.policy.decision import Decision
    from broker.policy.question import Question
    from broker.trail import Survey

TRIES: Final = 20
"""How often a request is decided again because others change its chain at the same time."""


@dataclass(frozen=True, slots=True)
class Ruling:
    """A decision with its id, and what it was made on. ``about`` is the data of its event.

    ``approval`` is the human yes it uses, or the one it waits for; ``yeses`` are those that count.
    ``elevation`` is that under which it is allowed.
    """

    id: str
    decision: Decision
    about: Mapping[str, Any]
    survey: Survey
    step: Step
    question: Question | None = None
    approval: Approval | None = None
    yeses: Yeses | None = None
    elevation: Elevation | None = None

    def by(self, approval: Approval, yeses: Yeses | None = None) -> Ruling:
        """Return it with the approval that it uses or waits for."""
        about = {**self.about, "approval": approval.id}
        return replace(self, about=about, approval=approval, yeses=yeses)

    def denied(self, reason: str) -> Ruling:
        """Return it as a denial, for a reason of its own."""
        decision = self.decision.denied(reason)
        about = {**self.about, "effect": decision.effect, "reasons": reason}
        return replace(self, decision=decision, about=about)


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """What the broker knows of itself when it decides to issue.

    ``backlog`` is how many credentials of the capability could not be revoked within their budget;
    or of its whole backend at all so far, where those are too many.
    """

    durable: bool = True
    backlog: int = 0
    backlog_limit: int = 1


def step_of(
    capability: Capability, *, effects: frozenset[str] = frozenset(), amount: int = 0
) -> Step:
    """Return what using a capability adds to a trail; ``effects`` come on top of its own."""
    return Step(
        effects=capability.effects | effects,
        data_class=capability.data_class,
        lasting=not capability.is_tool,
        rank=capability.power.rank,
        amount=amount,
    )


def too_busy() -> Unavailable:
    """Say that a chain changes faster than this request can be decided."""
    msg = "The task's chain is changed by others all the time; nothing was done. Try again."
    return Unavailable(msg, retry_after=1)


def consent(yeses: Yeses, elevation: Elevation | None) -> Yeses:
    """Return the yeses that count under an elevation: where the glass is broken nobody is asked."""
    broken = elevation is not None and elevation.break_glass
    return replace(yeses, waived=True) if broken else yeses


def marked(elevation: Elevation | None) -> dict[str, Any]:
    """Return how the log marks what is done under an elevation."""
    if elevation is None:
        return {}
    glass = {"break_glass": True} if elevation.break_glass else {}
    return {"elevation": elevation.id, **glass}
