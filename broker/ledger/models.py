"""What goes into the ledger's writes and comes back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker.errors import BrokerError, QuotaExceeded
from broker.grants import DEAD

if TYPE_CHECKING:
    from broker.grants import Grant
    from broker.tasks import Task

IDEMPOTENCY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class LedgerTimes:
    """Milliseconds the scripts are given."""

    claim_ms: int = 30_000
    pending_ms: int = 30_000
    retain_ms: int = 7 * 86_400_000
    audit_ms: int = 30 * 86_400_000


class Changed(BrokerError):
    """The chain, or what is reported of it, changed since it was decided on: decide again."""


class HandleRetired(BrokerError):
    """The task's token was retired since it was made; make another and ask again."""


@dataclass(frozen=True, slots=True)
class Idempotency:
    """A caller's idempotency key: within ``scope``, for the request with this ``digest``."""

    scope: str
    key: str
    digest: str


@dataclass(frozen=True, slots=True)
class Claimed:
    """What a sweep or an ended task left to do: ended tasks to close, grants to revoke.

    ``elevations`` have ended, and something follows: each the id of its task and its own.
    """

    tasks: tuple[Task, ...] = ()
    grants: tuple[Grant, ...] = ()
    elevations: tuple[tuple[str, str], ...] = ()


def budget_exhausted(kind: bytes | str) -> QuotaExceeded:
    """Say of what a task has too little left: ``grants``, ``calls`` or ``amount``."""
    word = kind.decode() if isinstance(kind, bytes) else kind
    msg = f"The budget of the task has too little left of {word}: a task above may have more."
    return QuotaExceeded(msg, reason="budget_exhausted")


def is_dead(grant: Grant) -> bool:
    """Say whether nothing more is to be done about a grant."""
    return grant.state in DEAD
