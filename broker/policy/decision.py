"""What policy answers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from broker.approvals import needed

if TYPE_CHECKING:
    from collections.abc import Mapping


class Effect(StrEnum):
    """What policy said."""

    ALLOW = "allow"
    DENY = "deny"
    NEEDS_APPROVAL = "needs_approval"


@dataclass(frozen=True, slots=True)
class Obligations:
    """What must hold, or be done, if the request is allowed: what the policies that allow say.

    ``approvals`` is how many human yeses are needed, ``approvers`` how many of them by group,
    ``max_ttl_ms`` the longest life, 0 for no bound. ``log_arguments`` writes a tool's arguments
    into the log, which otherwise holds their fingerprints. ``keep_budget`` is for a task that is
    opened below another: what is left of its budget at its end doesn't go back.
    """

    approvals: int = 0
    approvers: tuple[tuple[str, int], ...] = ()
    max_ttl_ms: int = 0
    notify: frozenset[str] = frozenset()
    require_binding: bool = False
    require_instant: bool = False
    log_arguments: bool = False
    keep_budget: bool = False

    def __or__(self, other: Obligations) -> Obligations:
        """Return what satisfies both: of everything the strictest, whichever comes first."""
        bounds = [ttl for ttl in (self.max_ttl_ms, other.max_ttl_ms) if ttl]
        return Obligations(
            approvals=max(self.approvals, other.approvals),
            approvers=_most(self.approvers + other.approvers),
            max_ttl_ms=min(bounds, default=0),
            notify=self.notify | other.notify,
            require_binding=self.require_binding or other.require_binding,
            require_instant=self.require_instant or other.require_instant,
            log_arguments=self.log_arguments or other.log_arguments,
            keep_budget=self.keep_budget or other.keep_budget,
        )

    @property
    def needs(self) -> Mapping[str, int]:
        """How many have to say yes, by group; see ``approvals.needed``."""
        return needed(self.approvals, self.approvers)

    def as_json(self) -> dict[str, Any]:
        """Return those that ask for something."""
        found: dict[str, Any] = {
            "approvals": self.approvals,
            "approvers": dict(self.approvers),
            "max_ttl_ms": self.max_ttl_ms,
            "notify": sorted(self.notify),
            "require_binding": self.require_binding,
            "require_instant": self.require_instant,
            "log_arguments": self.log_arguments,
            "keep_budget": self.keep_budget,
        }
        return {name: value for name, value in found.items() if value}


def _most(counts: tuple[tuple[str, int], ...]) -> tuple[tuple[str, int], ...]:
    """Return the highest count of each group."""
    return tuple(sorted(dict(sorted(counts)).items()))  # of each group the last, the highest


NONE = Obligations()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one engine said of a question.

    ``policies`` are the ids of those that made it so, ``advice`` what they say in public of how to
    get another answer. An engine that met an error has not allowed.
    """

    allowed: bool
    policies: tuple[str, ...] = ()
    obligations: Obligations = NONE
    advice: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Observed:
    """What a set of policies that is only being tried out would have changed."""

    set_name: str
    effect: Effect
    policies: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Decision:
    """An answer and why. ``ttl_ms`` is the longest life policy allows, 0 unless allowed.

    ``reasons`` are stable codes; ``notes`` say what was changed about the request; ``policies``
    are those that made it so, ``advice`` what they say in public. ``generation`` is that of the
    policies it was made by.
    """

    effect: Effect
    reasons: tuple[str, ...]
    ttl_ms: int = 0
    notes: tuple[str, ...] = ()
    policies: tuple[str, ...] = ()
    obligations: Obligations = NONE
    advice: tuple[str, ...] = ()
    observed: tuple[Observed, ...] = ()
    generation: int = 0

    @property
    def allowed(self) -> bool:
        """Whether it may go ahead."""
        return self.effect is Effect.ALLOW

    def denied(self, reason: str) -> Decision:
        """Return the same as a denial, for a reason of its own."""
        return replace(self, effect=Effect.DENY, reasons=(reason,), ttl_ms=0)

    def for_audit(self, **about: object) -> dict[str, Any]:
        """Return the decision as the data of an audit event."""
        more: dict[str, Any] = {
            "policies": list(self.policies),
            "obligations": self.obligations.as_json(),
            "observed": [
                {"set": o.set_name, "effect": o.effect, "policies": list(o.policies)}
                for o in self.observed
            ],
        }
        return {
            "effect": self.effect,
            "reasons": ",".join(self.reasons),
            **{name: value for name, value in more.items() if value},
            **about,
        }


def deny(reason: str) -> Decision:
    """Return a plain denial."""
    return Decision(Effect.DENY, (reason,))
