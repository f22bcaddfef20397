"""What happens in a round: all of it is drawn from the round's seed, and nothing else is.

When a fault meets which request is up to the machine: a seed gives the same faults at the same
moments against the same load, not the same run.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

BROKERS: Final = 3
NODES: Final = 3
LOAD_S: Final = 7.0
"""How long the client works while things break."""


class Kind(StrEnum):
    """What is done to a target. All but the last three are done to processes."""

    KILL = "kill"
    """SIGKILL (PostgreSQL: a crash), and a start once the fault is over."""
    STOP = "stop"
    """SIGSTOP, and SIGCONT: what was under way goes on as if nothing had happened."""
    RESTART = "restart"
    """SIGTERM, and a start."""
    CLOCK = "clock"
    """The wall clock is set ``amount`` seconds ahead, or back."""
    DISK = "disk"
    """No file can grow: brokers get an error, Valkey dies in the middle of its write."""
    SLOW = "slow"
    """The way there takes ``amount`` seconds longer, each way."""
    CUT = "cut"
    """Connections are reset, and refused."""
    HANG = "hang"
    """Connections stay, and nothing comes through."""


class Part(StrEnum):
    """What a fault is done to; brokers, nodes and the ways to them have numbers."""

    BROKER = "broker"
    VALKEY = "valkey"
    NODE = "openbao"
    POSTGRES = "postgresql"
    TO_VALKEY = "broker-valkey"
    TO_NODE = "broker-openbao"
    TO_POSTGRES = "openbao-postgresql"


@dataclass(frozen=True, slots=True)
class Fault:
    """Begins ``at`` seconds into the round, and is undone after ``lasts``."""

    at: float
    lasts: float
    kind: Kind
    part: Part
    number: int = 0
    amount: float = 0.0

    @property
    def name(self) -> str:
        """Such as ``kill broker-1`` or ``clock broker-0 +3600s``."""
        many = self.part in {Part.BROKER, Part.NODE, Part.TO_VALKEY, Part.TO_NODE}
        where = f"{self.part}-{self.number}" if many else str(self.part)
        amounts = {Kind.CLOCK: f" {self.amount:+.0f}s", Kind.SLOW: f" {self.amount:.2f}s"}
        return f"{self.kind} {where}{amounts.get(self.kind, '')}"


@dataclass(frozen=True, slots=True)
class Plan:
    """A round: its seed, its faults in their order, and the seed of its load."""

    seed: int
    faults: tuple[Fault, ...]
    load_seed: int
    load_s: float = LOAD_S

    @property
    def clocks_step(self) -> bool:
        """Whether a broker believes in another time: then what it issues may end early."""
        return any(fault.kind is Kind.CLOCK for fault in self.faults)


_WAYS: Final = (Kind.SLOW, Kind.CUT, Kind.HANG)
_MENU: Final[tuple[tuple[Part, tuple[Kind, ...], int], ...]] = (
    (Part.BROKER, (Kind.KILL, Kind.KILL, Kind.STOP, Kind.RESTART, Kind.CLOCK, Kind.DISK), BROKERS),
    (Part.BROKER, (Kind.KILL, Kind.STOP, Kind.CLOCK, Kind.CLOCK, Kind.DISK), BROKERS),
    (Part.VALKEY, (Kind.KILL, Kind.STOP, Kind.RESTART, Kind.DISK), 1),
    (Part.NODE, (Kind.KILL, Kind.KILL, Kind.STOP, Kind.RESTART), NODES),
    (Part.POSTGRES, (Kind.KILL, Kind.STOP, Kind.RESTART), 1),
    (Part.TO_VALKEY, _WAYS, BROKERS),
    (Part.TO_NODE, _WAYS, NODES),
    (Part.TO_POSTGRES, _WAYS, 1),
)
"""What can happen to what, and how many of it there are. Each row is as likely as another."""

_STEPS_S: Final = (-86_400.0, -3600.0, -30.0, -5.0, 5.0, 30.0, 3600.0, 86_400.0)
_LATENCY_S: Final = (0.02, 0.2, 0.6)


def plan(seed: int, *, load_s: float = LOAD_S) -> Plan:
    """Draw a round: two to five faults, no two at once on the same target."""
    draw = random.Random(seed)  # noqa: S311  it has to be the same again
    faults: list[Fault] = []
    for _ in range(draw.randint(2, 5)):
        part, kinds, count = draw.choice(_MENU)
        kind = draw.choice(kinds)
        fault = Fault(
            at=round(draw.uniform(0.5, load_s - 2.0), 2),
            lasts=round(draw.uniform(0.4, 4.0), 2),
            kind=kind,
            part=part,
            number=draw.randrange(count),
            amount=draw.choice({Kind.CLOCK: _STEPS_S, Kind.SLOW: _LATENCY_S}.get(kind, (0.0,))),
        )
        if not any(_overlap(fault, other) for other in faults):
            faults.append(fault)
    faults.sort(key=lambda fault: fault.at)
    return Plan(seed, tuple(faults), draw.getrandbits(32), load_s)


def _overlap(one: Fault, other: Fault) -> bool:
    same = (one.part, one.number) == (other.part, other.number)
    return same and one.at < other.at + other.lasts and other.at < one.at + one.lasts
