"""Which principals somebody must look at again, and which nobody did: no I/O.

A principal is due when it was not used for ``unused_after_ms``, or when its review date is past. It
is overdue ``grace_ms`` later, and then it may be suspended. Operators and auditors never are: who
would resume them?

What counts as a sign of life: a token, a review, being resumed, its owner's return, and for one
that has none of these its registration, or for one of the configuration the first time that any
broker of this ledger saw it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker.catalog import PrincipalState
from broker.durations import format_duration
from broker.identity.models import Role

if TYPE_CHECKING:
    from broker.catalog import Principal
    from broker.register import Register

DAY_MS: Final = 86_400_000
UNUSED: Final = "unused"
REVIEW: Final = "review"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewRules:
    """``[review]`` of the configuration; times in milliseconds."""

    unused_after_ms: int = 90 * DAY_MS
    grace_ms: int = 14 * DAY_MS
    suspend: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Due:
    """Why a principal is due (``unused``, ``review``), and when it is overdue (epoch ms)."""

    reasons: tuple[str, ...]
    overdue_at: int


def due(principal: Principal, register: Register, rules: ReviewRules, now_ms: int) -> Due | None:
    """Return why a principal is due at a time, or None."""
    reviewed = principal.role not in (Role.OPERATOR, Role.AUDITOR)
    if not reviewed or principal.state is not PrincipalState.ACTIVE:
        return None
    times: dict[str, int] = {}
    idle_since = alive_at(principal, register)
    if idle_since and idle_since + rules.unused_after_ms <= now_ms:
        times[UNUSED] = idle_since + rules.unused_after_ms
    if principal.review_at and principal.review_at <= now_ms:
        # Resumed although its date is past: whoever did that has the time of grace for a review.
        times[REVIEW] = max(principal.review_at, register.entry(principal.name).back_at)
    if not times:
        return None
    return Due(reasons=tuple(times), overdue_at=min(times.values()) + rules.grace_ms)


def alive_at(principal: Principal, register: Register) -> int:
    """Return when a principal last gave a sign of life (epoch ms); 0 if it was never met."""
    name = principal.name
    entry = register.entry(name)
    owner = register.owners.get(principal.owner)
    return max(
        register.used.get(name, 0),
        entry.added_at or register.seen.get(name, 0),
        entry.reviewed_at,
        entry.back_at,
        owner.at if owner is not None else 0,
    )


def why(found: Due, rules: ReviewRules) -> str:
    """Name the rule by which an overdue principal is suspended."""
    said = {
        UNUSED: f"not used for {format_duration(rules.unused_after_ms)}",
        REVIEW: "past its review date",
    }
    reasons = " and ".join(said[reason] for reason in found.reasons)
    return f"{reasons}, and nobody reviewed it within {format_duration(rules.grace_ms)}"
