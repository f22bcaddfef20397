"""A clock that stands still until told otherwise, and one that is wrong."""

from __future__ import annotations

from broker.clock import SystemClock


class Fast(SystemClock):
    """The clock of a replica that is a day ahead."""

    def now(self) -> float:
        """Wall-clock seconds since the epoch, and a day."""
        return super().now() + 86_400


class ManualClock:
    """Implements ``broker.clock.Clock``; both of its times advance together."""

    def __init__(self, now: float = 1_800_000_000.0) -> None:
        """``now`` is the wall-clock time to start at, in epoch seconds."""
        self._now = now
        self._monotonic = 1000.0

    def now(self) -> float:
        """Wall-clock seconds since the epoch."""
        return self._now

    def monotonic(self) -> float:
        """Seconds that never go backwards."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        if seconds < 0:
            raise ValueError("time only goes forward: make another clock")
        self._now += seconds
        self._monotonic += seconds
