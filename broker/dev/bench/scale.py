"""How much is measured: all of it, or as much as three minutes allow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """How many rounds, and of how many; ``word`` says it in what is printed."""

    word: str
    rounds: int
    requests: int
    """Of a turn of exchanges, or of decisions."""
    paced: int
    """Credentials asked for at a steady rate, in a turn."""
    flood: int
    """Credentials asked for as fast as they come, in a turn."""
    ends: int
    """Credentials that are ended one by one, in a round."""
    fifties: int
    """Rounds of tasks with fifty grants."""
    expiries: int
    """Rounds of grants that expire together …"""
    expiring: int
    """… and how many do."""
    remembered: int
    """Live grants, and live token leases, whose memory is measured."""
    crowd: int
    """Live grants that others are measured beside."""
    starts: int
    """Rounds of starts, and of issuing beside the crowd."""
    crowded: int
    """Credentials asked for beside the crowd, in a turn."""


FULL = Scale(
    word="full",
    rounds=5,
    requests=2000,
    paced=100,
    flood=300,
    ends=20,
    fifties=7,
    expiries=2,
    expiring=1000,
    remembered=2000,
    crowd=100_000,
    starts=4,
    crowded=600,
)
QUICK = Scale(
    word="quick",
    rounds=3,
    requests=500,
    paced=40,
    flood=100,
    ends=6,
    fifties=2,
    expiries=1,
    expiring=200,
    remembered=400,
    crowd=10_000,
    starts=2,
    crowded=120,
)
