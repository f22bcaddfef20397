"""What ``broker approval watch`` sees from one look to the next."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.cli.approval_view import votes
from broker.client import ConnectionFailed, NotFound, RateLimited, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.client import Approval, BrokerClientError, Client

PASSING: Final = (ConnectionFailed, RateLimited, Unavailable)
"""Errors that the next look may not meet any more."""

_SOONEST_S: Final = 2.0
_LATEST_S: Final = 15.0
_LATEST_FAILED_S: Final = 60.0
_SLOWER: Final = 1.5


class Watch:
    """Remembers what is pending, and how long to leave until the next look."""

    def __init__(self) -> None:
        """Nothing is known, so the first look finds all that is pending."""
        self._pending: dict[str, str] = {}
        self.pause_s = _SOONEST_S

    def look(self, broker: Client) -> Iterator[Approval]:
        """Yield what is new among the pending, has another vote, or isn't pending any more.

        Raises:
            BrokerClientError: what was seen so far is kept for the next look.
        """
        changed = False
        found = {a.approval_id: a for a in broker.iter_approvals(state="pending")}
        for approval in reversed(found.values()):
            if self._pending.get(approval.approval_id) != votes(approval):
                self._pending[approval.approval_id] = votes(approval)
                changed = True
                yield approval
        for identifier in [known for known in self._pending if known not in found]:
            try:
                ended = broker.get_approval(identifier)
            except NotFound:  # its task is forgotten by now
                ended = None
            # Asked for again between the two, or on a page that has moved on meanwhile.
            if ended is None or ended.state != "pending":
                del self._pending[identifier]
            if ended is not None and ended.state != "pending":
                changed = True
                yield ended
        self.pause_s = _SOONEST_S if changed else min(self.pause_s * _SLOWER, _LATEST_S)

    def failed(self, error: BrokerClientError) -> None:
        """Leave longer until the next look, and at least as long as the broker says."""
        slower = min(self.pause_s * 2, _LATEST_FAILED_S)
        self.pause_s = max(slower, float(error.retry_after or 0))
