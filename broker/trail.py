"""What a task, and its whole chain, has done so far: what policy looks back on."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

AMOUNT_SCALE: Final = 10_000
"""Amounts are counted in ten-thousandths, the finest that Cedar's decimal has."""

MAX_EFFECTS: Final = 200
"""Different effects a chain can leave: they are looked at with each of its decisions."""


@dataclass(frozen=True, slots=True)
class Trail:
    """Effects left and counts so far. The sets only grow, the counts too.

    ``data_classes`` are those touched, ``ways`` the effects that came with a credential: what its
    holder can do at any moment, not only what it did. ``rank`` is that of the highest power used
    (``catalog.Power.rank``), ``amount`` is in ten-thousandths.
    """

    effects: frozenset[str] = frozenset()
    data_classes: frozenset[str] = frozenset()
    ways: frozenset[str] = frozenset()
    grants: int = 0
    calls: int = 0
    amount: int = 0
    rank: int = 0

    @property
    def counts(self) -> str:
        """The counts alone, as the ledger's scripts write them."""
        return f"{self.grants}.{self.calls}.{self.amount}"

    def counted(self, counts: str) -> Trail:
        """Return it with these counts."""
        grants, calls, amount = map(int, counts.split("."))
        return replace(self, grants=grants, calls=calls, amount=amount)

    def after(self, step: Step) -> Trail:
        """Return the trail as it is once ``step`` was taken."""
        return Trail(
            self.effects | step.effects,
            self.data_classes.union([step.data_class] if step.data_class else []),
            self.ways | step.effects if step.lasting else self.ways,
            self.grants + step.lasting,
            self.calls + (not step.lasting and not step.reported),
            self.amount + step.amount,
            max(self.rank, step.rank),
        )

    @classmethod
    def read(cls, row: Mapping[str, Any]) -> Trail:
        """Read a trail of the ledger's; what is missing there is empty."""
        return cls(
            effects=_words(row.get("effects")),
            data_classes=_words(row.get("data_classes")),
            ways=_words(row.get("ways")),
            grants=int(row.get("grants", 0)),
            calls=int(row.get("calls", 0)),
            amount=int(row.get("amount", 0)),
            rank=int(row.get("rank", 0)),
        )


@dataclass(frozen=True, slots=True)
class Step:
    """What one action adds to a trail: a credential (``lasting``), a tool call, or its report."""

    effects: frozenset[str]
    data_class: str = ""
    lasting: bool = False
    reported: bool = False
    rank: int = 0
    amount: int = 0

    def row(self) -> dict[str, Any]:
        """Return what the ledger's scripts are given."""
        effects = sorted(self.effects)
        return {
            "effects": effects,
            "data_classes": [self.data_class] if self.data_class else [],
            "ways": effects if self.lasting else [],
            "grants": int(self.lasting),
            "calls": int(not self.lasting and not self.reported),
            "rank": self.rank,
            "amount": self.amount,
        }


@dataclass(frozen=True, slots=True)
class Signals:
    """What was reported about a task and whom it hangs from: the worst of it.

    ``risk`` is 0 to 100. ``verdict`` is ``clean``, ``suspicious`` or ``compromised``. ``sources``
    are the selectors that say so.
    """

    risk: int = 0
    verdict: str = "clean"
    sources: tuple[str, ...] = ()


class State(NamedTuple):
    """What a write has made of a chain: its growth, and the counts of the chain and of the task."""

    growth: str
    chain: str
    task: str


@dataclass(frozen=True, slots=True)
class Survey:
    """What the ledger knows of a task and its chain at one moment, for one decision.

    A write names what it was decided on, and is refused once that has changed: ``version``, which
    is all that is here, or ``growth``, which is all but the counts. ``tasks`` is how many the chain
    has. ``left`` is what is left of the budgets that the task draws on: ``grants``, ``calls``,
    ``amount``.
    """

    growth: str
    task: Trail = field(default_factory=Trail)
    chain: Trail = field(default_factory=Trail)
    tasks: int = 0
    signals: Signals = field(default_factory=Signals)
    left: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def version(self) -> str:
        """Growth and counts. Never that of another state, also where the counts are out of date."""
        return f"{self.growth}.{self.chain.counts}.{self.task.counts}"

    def short_of(self, step: Step) -> str:
        """Return the kind of budget that has too little left for a step, or an empty text."""
        wants = step.row()
        return next((kind for kind, much in self.left.items() if wants[kind] > much), "")

    def after(self, step: Step, now: State) -> Survey:
        """Return what is known once ``step`` was taken, which others' may have been before it."""
        wants = step.row()
        return replace(
            self,
            growth=now.growth,
            task=self.task.after(step).counted(now.task),
            chain=self.chain.after(step).counted(now.chain),
            left={kind: much - wants[kind] for kind, much in self.left.items()},
        )


def _words(value: Iterable[str] | None) -> frozenset[str]:
    # Lua writes an empty list as an object.
    return frozenset(value or ())
