"""Waiting until humans have decided: long polls, one after the other. No I/O in here."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from broker.client.approval_calls import get_approval
from broker.client.building import seconds
from broker.client.errors import ConnectionFailed, RateLimited, Unavailable
from broker.client.messages import Call, Conversation, Response

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.client.approvals import Approval
    from broker.client.building import Duration
    from broker.client.messages import Flow
    from broker.client.session import Session

_AT_A_TIME_S: Final = 30
"""Proxies cut what is silent for a minute."""
_APART_S: Final = 5.0
"""From one look to the next, even where the broker answers at once instead of waiting."""
_FIRST_DELAY_S: Final = 1.0
_LAST_DELAY_S: Final = 30.0
_PASSING: Final = (ConnectionFailed, RateLimited, Unavailable)


def wait_for_approval(
    approval_id: str,
    timeout: Duration = "1h",
    *,
    on_pending: Callable[[Approval], object] | None = None,
) -> Conversation[Approval]:
    """Wait until an approval isn't ``pending`` any more, or time is up; return it as it is then.

    Look at its ``state``: once it is ``approved``, ask again for what needed it. A lost connection,
    or a broker that is down for a while, doesn't end the waiting. ``on_pending`` is called with
    the approval whenever it was looked at and is still pending: every half a minute or so.
    """
    limit = seconds(timeout)
    return Conversation(lambda session: _wait(session, approval_id, limit, on_pending))


def _wait(
    session: Session,
    approval_id: str,
    limit: float,
    on_pending: Callable[[Approval], object] | None,
) -> Flow[Approval]:
    """Look until it is decided.

    1. Ask, and let the broker hold the answer back; when time is up, for a last time, at once.
    2. Leave as long until the next look as the broker says, and longer each time while there is
       no answer, or it can't give one.
    """
    end = session.clock.monotonic() + limit
    delay, failures = 0.0, 0
    while True:
        asked = session.clock.monotonic() + delay
        left = end - asked
        try:
            approval, after = yield from session.run(_look(approval_id, left, delay))
        except _PASSING as error:
            if left <= 0:
                raise
            growing = min(_FIRST_DELAY_S * 2**failures, _LAST_DELAY_S)
            delay = max(growing, error.retry_after or 0)
            failures += 1
        else:
            if approval.state != "pending" or left <= 0:
                return approval
            if on_pending is not None:
                on_pending(approval)
            early = _APART_S - (session.clock.monotonic() - asked)
            delay, failures = max(early, after or 0, 0.0), 0
        delay = min(delay, max(end - session.clock.monotonic(), 0.0))


def _look(approval_id: str, left: float, delay: float) -> Call[tuple[Approval, int | None]]:
    held = min(int(left), _AT_A_TIME_S)
    call = get_approval(approval_id, wait=f"{held}s" if held > 0 else None)

    def read(response: Response) -> tuple[Approval, int | None]:
        return call.read(response), response.retry_after

    return Call(replace(call.request, delay=delay), read)
