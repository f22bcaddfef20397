"""How often each principal may ask: a bucket that fills at a steady rate, kept in this process.

Every replica counts for itself, so that asking costs no round trip: with n of them a principal has
at most n times its quota. What must be exact (live credentials, tasks) is counted in the ledger.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker.errors import RateLimited

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.clock import Clock

MAX_NAMES: Final = 10_000
POLICY: Final = "principal"


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is left of a quota of ``quota`` requests in ``window_s`` seconds.

    ``reset_s`` is after how many seconds all of it is there again.
    """

    quota: int
    window_s: int
    left: int
    reset_s: int

    def headers(self) -> Mapping[str, str]:
        """The header fields of draft-ietf-httpapi-ratelimit-headers."""
        return {
            "RateLimit-Policy": f'"{POLICY}";q={self.quota};w={self.window_s}',
            "RateLimit": f'"{POLICY}";r={self.left};t={self.reset_s}',
        }


class Rates:
    """Counts requests by name; GCRA: one number is kept for each."""

    def __init__(self, clock: Clock, *, quota: int, window_s: int) -> None:
        """``quota`` requests may come at once, and as many in each ``window_s`` seconds."""
        self._clock = clock
        self._quota = quota
        self._window_s = window_s
        self._interval = window_s / quota
        self._full_at: dict[str, float] = {}
        """When a name's bucket will be full again, by the monotonic clock."""

    def take(self, name: str) -> Allowance:
        """Count one request.

        Raises:
            RateLimited: there is nothing left; it says when to come again.
        """
        now = self._clock.monotonic()
        full_at = max(self._full_at.pop(name, now), now) + self._interval
        wait = full_at - now - self._window_s
        refused = wait > self._interval * 1e-6  # rounding
        if refused:
            full_at -= self._interval
        self._full_at[name] = full_at  # last in the order of the dictionary
        if len(self._full_at) > MAX_NAMES:
            self._full_at.pop(next(iter(self._full_at)))
        used = math.ceil(round((full_at - now) / self._interval, 6))
        left = Allowance(
            self._quota, self._window_s, max(self._quota - used, 0), math.ceil(full_at - now)
        )
        if refused:
            msg = f"More than {self._quota} requests in {self._window_s} seconds."
            raise RateLimited(msg, retry_after=max(1, math.ceil(wait)), headers=left.headers())
        return left
