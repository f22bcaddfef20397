"""One line of the audit log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Event:
    """One audit event. ``id`` sorts by time; ``at`` is epoch milliseconds.

    ``chain`` is the root task's id, ``decision`` that of the decision that it came of, ``trace``
    the W3C traceparent of the request.
    """

    id: str
    at: int
    type: str
    task_id: str
    grant_id: str
    principal: str
    data: dict[str, Any]
    chain: str = ""
    decision: str = ""
    trace: str = ""
