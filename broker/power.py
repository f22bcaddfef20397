"""Effective power: what a task and its chain can do by now, taken together.

A request alone may be harmless and the whole not. Three things make an agent that somebody else
may steer: it has read private data, it has taken in content that nobody vouches for, and it has a
way out. Whoever has all three is as powerful as whoever may deploy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker.catalog import Power

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.catalog import Capability
    from broker.trail import Trail

PRIVATE: Final = frozenset(("confidential", "restricted", "secret"))
"""The data classes that are private, unless the configuration names others."""
INGESTS: Final = "ingests:"
EGRESS: Final = "egress:"


@dataclass(frozen=True, slots=True)
class Exposure:
    """What a chain has been exposed to. ``egress`` is a way out that is open or was used."""

    private: bool = False
    untrusted: bool = False
    egress: bool = False

    @property
    def lethal(self) -> bool:
        """All three together."""
        return self.private and self.untrusted and self.egress


def exposure(trail: Trail, private: frozenset[str] = PRIVATE) -> Exposure:
    """Return what a trail amounts to; ``private`` are the data classes that count as such."""
    return Exposure(
        private=bool(trail.data_classes & private),
        untrusted=_any(trail.effects, INGESTS),
        egress=_any(trail.effects, EGRESS),
    )


@dataclass(frozen=True, slots=True)
class EffectivePower:
    """A tier, and why it is that one, in words."""

    power: Power
    because: tuple[str, ...]


def effective_power(
    usable: Iterable[Capability], trail: Trail, private: frozenset[str] = PRIVATE
) -> EffectivePower:
    """Return the power of whoever can use some capabilities now and has left a trail.

    ``usable`` are the capabilities of live credentials and the tools that may be called, over the
    whole chain. What they could do counts, not only what was done.
    """
    able = list(usable)
    highest = max((c.power for c in able), key=lambda power: power.rank, default=Power.READ)
    because = [f"{c.name} is {c.power}" for c in able if c.power is highest]
    effects = trail.effects.union(*(c.effects for c in able))
    private_read = trail.data_classes | {c.data_class for c in able}
    reach = Exposure(
        private=bool(private_read & private),
        untrusted=_any(effects, INGESTS),
        egress=_any(effects, EGRESS),
    )
    if reach.lethal and highest is not Power.PRIVILEGED:
        highest = Power.PRIVILEGED
        because.append("private data, untrusted input and a way out, together")
    elif reach.untrusted and (reach.private or reach.egress) and highest is Power.READ:
        highest = Power.OPERATE
        other = "private data" if reach.private else "a way out"
        because.append(f"untrusted input and {other}, together")
    return EffectivePower(highest, tuple(dict.fromkeys(because)))


def least_set(
    allowed: Iterable[Capability], used: Iterable[str]
) -> tuple[frozenset[str], frozenset[str]]:
    """Return which of the allowed capabilities would have sufficed, and which were never used."""
    names = {c.name for c in allowed}
    enough = names & set(used)
    return frozenset(enough), frozenset(names - enough)


def _any(effects: Iterable[str], prefix: str) -> bool:
    return any(effect.startswith(prefix) for effect in effects)
