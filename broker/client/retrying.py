"""When a request is sent again, and how long before: no I/O in here.

Sent again is what never left, what does no harm twice, and what the broker refused before it
looked at it. Waits grow, and are drawn at random from nothing to their length ("full jitter"), so
that many clients don't come back at once; ``Retry-After`` is waited for on top. All of it has a
limit.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

from broker.client.answers import text
from broker.client.building import new_key

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.client.errors import ConnectionFailed
    from broker.client.messages import Request, Response
    from broker.clock import Clock

_GATEWAYS: Final = frozenset({502, 504})
"""Answers of proxies: what became of the request is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often a request is sent again, and for how long.

    ``attempts`` is how often it is sent at most, ``total`` how many seconds all of a call may take,
    waits included: one that wouldn't end within it isn't begun. ``first`` and ``longest`` are
    the limits of the first and of any wait in seconds, ``jitter`` gives numbers from 0 to 1.
    """

    total: float = 60.0
    attempts: int = 4
    first: float = 0.2
    longest: float = 5.0
    jitter: Callable[[], float] = random.SystemRandom().random

    def wait(self, failures: int) -> float:
        """Return how long to wait after so many failures."""
        return self.jitter() * min(self.longest, self.first * 2**failures)


class Attempts:
    """The attempts of one call, those for its token included."""

    def __init__(self, retries: Retries, clock: Clock, request: Request) -> None:
        """The time runs from now; what ``request`` itself waits for isn't counted."""
        self._retries = retries
        self._clock = clock
        self._until = clock.monotonic() + retries.total + request.delay + request.patience
        self._failures = 0
        self._lost = False

    def limited(self, request: Request) -> Request:
        """Return the request with what is left of the time; never nothing."""
        left = self._until - self._clock.monotonic() - request.delay
        return replace(request, within=max(left, 0.001))

    def after_failure(self, request: Request, error: ConnectionFailed) -> Request | None:
        """Return the request to send after no answer came, or None: not again."""
        if error.sent and not request.repeatable:
            return None
        self._lost = self._lost or error.sent
        return self._later(request, 0)

    def after_answer(self, request: Request, response: Response) -> Request | None:
        """Return the request to send after an answer, or None: the answer is the call's."""
        wait = response.retry_after
        if response.status in _GATEWAYS and request.repeatable:
            self._lost = True
            return self._later(request, wait or 0)
        if wait is None:
            return None
        code = text(response.mapping(), "code")
        match response.status:
            case 429:  # refused before anything was done; a quota isn't free again by waiting
                return None if code == "quota_exceeded" else self._later(request, wait)
            case 503 if request.repeatable and code != "quarantined":
                return self._later(self._fresh(request), wait)
            case 409 if code == "request_in_progress":
                return self._later(request, wait)
            case _:
                return None

    def _fresh(self, request: Request) -> Request:
        """Give a refused request another key: with the old one it would be refused for good.

        Not if an answer was lost before: it may have had a credential in it, and there is to be
        one only.
        """
        if not request.own_key or self._lost:
            return request
        return request.with_headers(idempotency_key=new_key())

    def _later(self, request: Request, at_least: int) -> Request | None:
        wait = at_least + self._retries.wait(self._failures)
        self._failures += 1
        if self._failures >= self._retries.attempts:
            return None
        if self._clock.monotonic() + wait >= self._until:
            return None
        return replace(request, delay=wait)
