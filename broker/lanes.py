"""One lane per capability for revoking: bounded, and shut for a while when nothing gets through.

A backend that hangs holds up its own lane and no other; a lane that is shut is tried again by one
probe at a time, and the first that gets through opens it for all that wait.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from broker.clock import Clock

_FIRST_S: Final = 1.0


class Lane:
    """The way to one backend for one capability."""

    def __init__(self, clock: Clock, width: int, longest_s: float) -> None:
        """At most ``width`` calls at once; shut for ``longest_s`` seconds at most."""
        self.gate = asyncio.Semaphore(width)
        self._clock = clock
        self._longest_s = longest_s
        self._shut_s = 0.0
        self._opens_at = 0.0

    @property
    def shut_for(self) -> float:
        """Seconds until the next probe may go; 0 when the lane is open.

        Asking while the time is up admits the asker as the probe and shuts out the others.
        """
        if not self._shut_s:
            return 0.0
        left = self._opens_at - self._clock.monotonic()
        if left > 0:
            return left
        self._opens_at = self._clock.monotonic() + self._shut_s
        return 0.0

    @property
    def is_shut(self) -> bool:
        """Whether nothing got through lately; asking admits nobody."""
        return self._shut_s > 0

    def failed(self) -> None:
        """Nothing got through: shut the lane, longer each time."""
        self._shut_s = min(max(self._shut_s * 2, _FIRST_S), self._longest_s)
        self._opens_at = self._clock.monotonic() + self._shut_s

    def answered(self) -> bool:
        """Something got through: open the lane, and say whether it was shut."""
        was_shut = self.is_shut
        self._shut_s = 0.0
        return was_shut


class Lanes:
    """All lanes, made when first used."""

    def __init__(self, clock: Clock, *, width: int, longest_s: float) -> None:
        """``width`` and ``longest_s`` are each lane's."""
        self._clock = clock
        self._width = width
        self._longest_s = longest_s
        self._lanes: dict[tuple[str, str], Lane] = {}

    def of(self, backend: str, capability: str) -> Lane:
        """Return the lane of a capability."""
        key = (backend, capability)
        if key not in self._lanes:
            self._lanes[key] = Lane(self._clock, self._width, self._longest_s)
        return self._lanes[key]

    def shut(self, backend: str) -> int:
        """Count the lanes to a backend that are shut."""
        return sum(lane.is_shut for (name, _), lane in self._lanes.items() if name == backend)
