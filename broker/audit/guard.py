"""Whether issuing may go on: it stops once events wait too long to be in the log.

They are safe where they wait, in the ledger; but what is only there can still be changed. Revoking
never stops for this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from broker.durations import format_duration
from broker.errors import AuditUnavailable

if TYPE_CHECKING:
    from broker.clock import Clock

_RETRY_S: Final = 5


class Waiting(Protocol):
    """The outbox, as far as it is asked here."""

    async def waiting(self) -> int:
        """Return for how long the oldest event that isn't in the log has waited, in ms."""
        ...


class Guard:
    """Knows how far the log lags behind; without a log it never refuses."""

    def __init__(self, outbox: Waiting | None, clock: Clock, *, max_lag_ms: int) -> None:
        """Refuse nothing before the first ``refresh``."""
        self._outbox = outbox
        self._clock = clock
        self._max_lag_ms = max_lag_ms
        self._seen: float | None = None
        self.lag_ms = 0
        """For how long the oldest event that isn't in the log had waited, at the last look."""
        self.problem = ""
        """Why this replica can't write the log, if it tried and failed."""

    @property
    def closed(self) -> bool:
        """Whether issuing is refused.

        What came since the last look counts as waiting: if nobody looks any more, it closes too.
        """
        if self._seen is None:
            return False
        since_ms = (self._clock.monotonic() - self._seen) * 1000
        return self.lag_ms + since_ms > self._max_lag_ms

    async def refresh(self) -> None:
        """Look again; every replica does, whoever writes.

        Raises:
            LedgerUnavailable: nobody knows. What was known goes on ageing.
        """
        if self._outbox is None:
            return
        if self._seen is None:
            self._seen = self._clock.monotonic()
        asked = self._clock.monotonic()
        self.lag_ms = await self._outbox.waiting()
        self._seen = asked

    def check(self) -> None:
        """Refuse to issue anything while the log lags too far behind.

        Raises:
            AuditUnavailable: it does.
        """
        if self.closed:
            raise AuditUnavailable(
                f"Events wait for more than {format_duration(self._max_lag_ms)} to be written to "
                "the audit log; nothing is issued until they are. Try again shortly.",
                retry_after=_RETRY_S,
            )

    def state(self) -> str:
        """Say in a word how the log is: ``ok``, a warning, or what is wrong."""
        if self.closed:
            why = f" ({self.problem})" if self.problem else ""
            return f"events wait too long to be in the audit log; nothing is issued{why}"
        return f"warning: {self.problem}" if self.problem else "ok"
