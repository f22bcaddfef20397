"""Effective power: what a task and its chain can do by now, taken together.

A request alone may be harmless and the whole not. Three things make an agent that somebody else
may steer: it has read private data, it has taken in content that nobody vouches for, and it has a
way out. Whoever has all three is as powerful as whoever may deploy.

One rule (``tier``) says so of a trail. A decision asks it of what was done; who looks on asks it of
what can be done (``effective_power``), which is a trail as well: that of one who has used it all.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
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
_POWERS: Final = tuple(Power)


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

    @property
    def raised(self) -> bool:
        """Two of them, one being what may steer it."""
        return self.untrusted and (self.private or self.egress)


def exposure(trail: Trail, private: frozenset[str] = PRIVATE) -> Exposure:
    """Return what a trail amounts to; ``private`` are the data classes that count as such."""
    return Exposure(
        private=bool(trail.data_classes & private),
        untrusted=bool(_with(trail.effects, INGESTS)),
        egress=bool(_with(trail.effects, EGRESS)),
    )


def tier(trail: Trail, private: frozenset[str] = PRIVATE) -> Power:
    """Return the power of a trail: of the highest in it, and of it all together."""
    exposed = exposure(trail, private)
    if exposed.lethal:
        return Power.PRIVILEGED
    return _POWERS[max(trail.rank, Power.OPERATE.rank if exposed.raised else 0)]


@dataclass(frozen=True, slots=True)
class EffectivePower:
    """A tier, why it is that one, in words, and what it is exposed to."""

    power: Power
    because: tuple[str, ...]
    exposure: Exposure


def effective_power(
    usable: Iterable[Capability], trail: Trail, private: frozenset[str] = PRIVATE
) -> EffectivePower:
    """Return the power of whoever can use some capabilities now and has left a trail.

    ``usable`` are the capabilities of live credentials and the tools that may be called, over the
    whole chain. What they could do counts, not only what was done. A credential that is dead counts
    no more, but what was read or taken in with it does.
    """
    able = sorted({c.name: c for c in usable}.values(), key=lambda c: c.name)
    rank = max((c.power.rank for c in able), default=0)
    reach = replace(
        trail,
        effects=trail.effects.union(*(c.effects for c in able)),
        data_classes=trail.data_classes.union(c.data_class for c in able),
        rank=rank,
    )
    named = [f"{c.name} is {c.power}" for c in able if c.power.rank == rank]
    return _explained(reach, named or ["nothing can be used"], private)


def power_of_trail(trail: Trail, private: frozenset[str] = PRIVATE) -> EffectivePower:
    """Return the power that decisions see: of all that was done."""
    done = trail.grants or trail.calls
    power = _POWERS[trail.rank]
    return _explained(trail, [f"{power} power was used" if done else "nothing was used"], private)


def _explained(trail: Trail, highest: Iterable[str], private: frozenset[str]) -> EffectivePower:
    """Say why a trail's tier is what it is; ``highest`` names what its rank comes from."""
    power, exposed = tier(trail, private), exposure(trail, private)
    because = list(highest) if power.rank == trail.rank else []
    if exposed.lethal or (exposed.raised and power is Power.OPERATE):
        parts = [
            _part("private data", trail.data_classes & private),
            _part("untrusted input", _with(trail.effects, INGESTS)),
            _part("a way out", _with(trail.effects, EGRESS)),
        ]
        found = [part for part in parts if part]
        because.append(f"{', '.join(found[:-1])} and {found[-1]}, together")
    return EffectivePower(power, tuple(because), exposed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """A capability that an agent is allowed, and what is known of its use (epoch ms, 0 for never).

    ``since`` is from when on its use would have been seen.
    """

    capability: Capability
    since: int = 0
    used_at: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Provision:
    """What an agent was allowed against what it used since a time.

    ``used`` would have been enough. ``unused`` was not used since; of those in ``too_new`` that
    says nothing, since it was not allowed, or not watched, for so long.
    """

    used: tuple[Allowed, ...]
    unused: tuple[Allowed, ...]
    too_new: frozenset[str]

    @property
    def highest_allowed(self) -> Power | None:
        """The highest power of all."""
        return _highest((*self.used, *self.unused))

    @property
    def highest_used(self) -> Power | None:
        """The highest power that was used, None if nothing was."""
        return _highest(self.used)


def provision(allowed: Iterable[Allowed], start_ms: int) -> Provision:
    """Say which of the allowed capabilities were used since a time, and which weren't."""
    rows = sorted(allowed, key=lambda row: row.capability.name)
    unused = tuple(row for row in rows if row.used_at < start_ms or not row.used_at)
    return Provision(
        used=tuple(row for row in rows if row not in unused),
        unused=unused,
        too_new=frozenset(r.capability.name for r in unused if not 0 < r.since <= start_ms),
    )


def _highest(rows: Iterable[Allowed]) -> Power | None:
    ranks = [row.capability.power.rank for row in rows]
    return _POWERS[max(ranks)] if ranks else None


def _with(effects: Iterable[str], prefix: str) -> list[str]:
    return sorted(effect for effect in effects if effect.startswith(prefix))


def _part(what: str, labels: Iterable[str]) -> str:
    found = sorted(labels)
    return f"{what} ({', '.join(found)})" if found else ""
