"""Ways to a backend: shut for a while when nothing gets through, and then tried by one at a time.

For revoking there is one lane per capability, of bounded width, and one for what tasks' credentials
hang from. A backend that hangs holds up its own lane and no other; a lane that is shut is tried
again by one probe at a time, and the first that gets through opens it for all that wait. Who shut
it is the next probe: it is due again just when the lane takes one, while the others wait longer
each time.

For issuing there is a circuit per capability, and one for the backend as a whole: whoever asks is
refused at once where nobody gets an answer. The whole is shut only by what says that the backend
itself can't be reached: a database behind it that hangs is its own capabilities' trouble.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from broker.errors import BackendDown, BackendRefused, BackendUnavailable
from broker.turns import Turns

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from broker.clock import Clock

LONGEST_S: Final = 5.0
"""How long a way is shut at most: soon after a backend is back, that is noticed."""
_FIRST_S: Final = 1.0
_WHOLE: Final = ""


class Way:
    """Open, or shut until the next probe may go."""

    def __init__(self, clock: Clock, longest_s: float) -> None:
        """Shut for ``longest_s`` seconds at most."""
        self.failures: int = 0
        self._clock = clock
        self._longest_s = longest_s
        self._shut_s = 0.0
        self._opens_at = 0.0

    @property
    def left(self) -> float:
        """Seconds until the next probe may go, 0 when it is open; asking admits nobody."""
        return max(0.0, self._opens_at - self._clock.monotonic()) if self._shut_s else 0.0

    @property
    def shut_for(self) -> float:
        """The same; but asking while the time is up admits the asker as the probe, and no other."""
        left = self.left
        if self._shut_s and not left:
            self._opens_at = self._clock.monotonic() + self._shut_s
        return left

    @property
    def is_shut(self) -> bool:
        """Whether nothing got through lately; asking admits nobody."""
        return self._shut_s > 0

    def failed(self, before: int | None = None) -> bool:
        """Nothing got through: shut it, longer each time; whether that said anything new.

        ``before`` is how many ``failures`` there were when the call began. Of calls that went side
        by side, the first to fail shuts it.
        """
        if before is not None and before != self.failures:
            return False
        self.failures += 1
        self._shut_s = min(max(self._shut_s * 2, _FIRST_S), self._longest_s)
        self._opens_at = self._clock.monotonic() + self._shut_s
        return True

    def answered(self) -> bool:
        """Something got through: open it, and say whether it was shut."""
        was_shut = self.is_shut
        self._shut_s = 0.0
        return was_shut

    def probe_now(self) -> None:
        """Let the next asker through as the probe."""
        self._opens_at = 0.0


class Lane(Way):
    """The way to one backend for revoking what was issued of one capability."""

    def __init__(self, clock: Clock, width: int, longest_s: float) -> None:
        """At most ``width`` calls at once, those of different tasks by turns."""
        super().__init__(clock, longest_s)
        self.turns = Turns(width)


class Lanes:
    """All lanes, made when first used."""

    def __init__(self, clock: Clock, *, width: int, longest_s: float) -> None:
        """``width`` and ``longest_s`` are each lane's."""
        self._clock = clock
        self._width = width
        self._longest_s = longest_s
        self._lanes: dict[tuple[str, str], Lane] = {}

    def of(self, backend: str, capability: str = "") -> Lane:
        """Return the lane of a capability, or the one of handles, which has no capability."""
        key = (backend, capability)
        if key not in self._lanes:
            self._lanes[key] = Lane(self._clock, self._width, self._longest_s)
        return self._lanes[key]

    def reopen(self, backend: str) -> list[str]:
        """Let the shut lanes to a backend be probed at once; returns their capabilities."""
        shut = {c: lane for (name, c), lane in self._lanes.items() if name == backend}
        shut = {c: lane for c, lane in shut.items() if lane.is_shut}
        for lane in shut.values():
            lane.probe_now()
        return list(shut)

    def shut(self, backend: str) -> int:
        """Count the lanes to a backend that are shut."""
        return sum(lane.is_shut for (name, _), lane in self._lanes.items() if name == backend)


class Circuits:
    """Whether it is worth asking a backend to issue."""

    def __init__(
        self, clock: Clock, *, longest_s: float, back: Callable[[str], None] = lambda _: None
    ) -> None:
        """A shut one takes a probe after ``longest_s`` seconds at most.

        ``back`` is told of each backend that is reached again.
        """
        self._clock = clock
        self._longest_s = longest_s
        self._back = back
        self._ways: dict[tuple[str, str], Way] = {}

    def _of(self, backend: str, capability: str) -> Way:
        key = (backend, capability)
        if key not in self._ways:
            self._ways[key] = Way(self._clock, self._longest_s)
        return self._ways[key]

    def shut_for(self, backend: str, capability: str) -> float:
        """Seconds until the next probe may go; 0 lets the asker through, perhaps as the probe."""
        ways = self._of(backend, _WHOLE), self._of(backend, capability)
        return max(way.left for way in ways) or max(way.shut_for for way in ways)

    def is_down(self, backend: str) -> bool:
        """Whether the backend as a whole couldn't be reached when it was last tried."""
        return self._of(backend, _WHOLE).is_shut

    def down(self, backend: str) -> None:
        """Take note that a backend couldn't be reached for something else than issuing."""
        if not self.is_down(backend):
            self._of(backend, _WHOLE).failed()

    def reached(self, backend: str, capability: str = _WHOLE) -> None:
        """Take note that a backend did something, for a capability or anything else."""
        if capability:
            self._of(backend, capability).answered()
        if self._of(backend, _WHOLE).answered():
            self._back(backend)

    @contextlib.contextmanager
    def watch(self, backend: str, capability: str, *, answers: bool = True) -> Generator[None]:
        """Learn from how a call ends. With ``answers`` a good end means that the backend did."""
        whole, own = self._of(backend, _WHOLE), self._of(backend, capability)
        before = whole.failures, own.failures
        try:
            yield
        except BackendDown:
            whole.failed(before[0])
            raise
        except BackendUnavailable:
            own.failed(before[1])
            raise
        except BackendRefused:
            self.reached(backend)
            raise
        if answers:
            self.reached(backend, capability)
