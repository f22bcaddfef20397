"""What several of the ledger's writes have in common: idempotency keys, tokens, refusals."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from broker.errors import (
    BrokerError,
    Conflict,
    IdempotencyConflict,
    InvalidToken,
    QuotaExceeded,
    TaskNotActive,
)
from broker.ids import shard_of
from broker.ledger import keys
from broker.ledger.models import IDEMPOTENCY_MS, Changed, HandleRetired, budget_exhausted
from broker.ledger.registry import stopped_by

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from broker.grants import Grant
    from broker.ledger.models import Idempotency, LedgerTimes
    from broker.ledger.places import Place


def idempotency_args(idempotency: Idempotency | None, times: LedgerTimes) -> dict[str, Any]:
    """Return what a script is told of an idempotency key."""
    if idempotency is None:
        return {}
    # Never remembered for longer than the row it leads to is kept.
    remembered = min(IDEMPOTENCY_MS, times.retain_ms)
    return {"digest": idempotency.digest, "idem_ms": remembered}


def idempotency_key(shard: int, idempotency: Idempotency | None) -> str | None:
    """Return the key that remembers it."""
    if idempotency is None:
        return None
    return keys.idempotency(shard, idempotency.scope, idempotency.key)


def tokens_in(shard: int, tokens: Iterable[str]) -> list[str]:
    """Return the keys of those of some tokens that a script of this shard can look at."""
    return [keys.token(shard, jti) for jti in tokens if shard_of(jti, "jti") == shard]


def reused() -> BrokerError:
    """Say that an idempotency key was used for something else."""
    return IdempotencyConflict(
        "This Idempotency-Key was used for another request. Use a new key for a new request."
    )


def not_active() -> TaskNotActive:
    """Say that a task isn't active."""
    return TaskNotActive("The task is not active: it has ended, or it is not approved yet.")


def token_ended() -> InvalidToken:
    """Say that a token ended under the request."""
    return InvalidToken("The token was revoked while it was being used.")


def not_reserved(  # noqa: PLR0911  one for each answer
    status: bytes, about: Sequence[bytes], grant: Grant, place: Place | None
) -> BrokerError:
    """Say why a grant was not reserved: what the script answered, and what about."""
    match status:
        case b"task_not_active":
            return not_active()
        case b"frozen":
            return stopped_by(about[0])
        case b"quota":
            msg = (
                f"The task already holds {int(about[0])} live grants of {grant.capability!r}, "
                "the most allowed. Use one of them, or revoke one and ask again."
            )
            return QuotaExceeded(msg, retry_after=30, limit="max_live_per_task")
        case b"over_quota" if place is not None:
            return place.refusal()
        case b"budget":
            return budget_exhausted(about[0])
        case b"replaced":
            return _not_replaceable(grant.replaces, about[0].decode())
        case b"handle_retired":
            return HandleRetired()
        case b"changed" | b"elevation_ended":
            return Changed()
        case b"token_ended":
            return token_ended()
        case _:
            return reused()


def _not_replaceable(grant_id: str, state: str) -> Conflict:
    """Say that a grant can't be rotated: it is no longer active, or has a successor."""
    if state == "active":
        msg = f"Grant {grant_id} has its time up, or was rotated already: rotate its successor."
    else:
        msg = f"Grant {grant_id} is {state}: ask for a new credential."
    return Conflict(msg, state=state)
