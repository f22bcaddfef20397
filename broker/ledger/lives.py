"""What becomes of a grant between its issue and its end: how it is delivered, renewed, replaced."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from broker.errors import AlreadyDelivered, Conflict, NotFound, NotRenewable
from broker.ids import shard_of
from broker.ledger.models import Changed, budget_exhausted
from broker.ledger.registry import stopped_by
from broker.ledger.rows import grant_row
from broker.ledger.writes import not_active, token_ended, tokens_in

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.approvals import Approval
    from broker.grants import Grant
    from broker.ledger.connection import Connection
    from broker.ledger.models import LedgerTimes
    from broker.trail import Step

_BROKER = "broker"


class Lives:
    """Writes of the ledger, one method a script; ``actor`` is in whose name a step is logged."""

    def __init__(self, connection: Connection, times: LedgerTimes) -> None:
        """Go through the ledger's connection."""
        self._redis = connection
        self._times = times

    async def wrapped(self, grant: Grant, *, digest: str, ends_at: int, share: str = "") -> Grant:
        """A grant's credential is in the wrapping token with this digest, until then (epoch ms).

        ``share`` is our part of that token where its carrier has but the other one.

        Raises:
            Conflict, TaskNotActive: it has ended meanwhile.
        """
        args = {"op": "made", "digest": digest, "ends_at": ends_at}
        if share:
            args["share"] = share
        return await self._wrapping(grant, args, _BROKER)

    async def opened(self, grant: Grant, *, actor: str) -> Grant:
        """The task's agent is about to open what was wrapped: nobody else does by us.

        Raises:
            AlreadyDelivered: it has been opened so before.
            Conflict, TaskNotActive, Frozen, PrincipalSuspended: it can't be had any more.
        """
        return await self._wrapping(grant, {"op": "opened"}, actor)

    async def lost(self, grant: Grant, *, how: str, ours: bool, actor: str) -> Grant:
        """What was wrapped isn't to be had any more; its grant is claimed for revoking.

        With ``how`` somebody else has it, and that is said as an alarm; without, its time is up.
        ``ours`` says that this call is the one that was to open it.

        Raises:
            AlreadyDelivered: the broker has opened it meanwhile.
        """
        args = {"op": "lost", **({"how": how} if how else {}), **({"ours": True} if ours else {})}
        return await self._wrapping(grant, args, actor)

    async def _wrapping(self, grant: Grant, args: Mapping[str, Any], actor: str) -> Grant:
        about = {**args, "id": grant.id, "actor": actor, "claim_ms": self._times.claim_ms}
        status, *rest = await self._redis.run("wrapping", _shard(grant), about)
        match status:
            case b"unknown":
                raise NotFound("There is no such grant.")
            case b"not_active":
                raise ended(grant_row(rest[0]).state)
            case b"task_not_active":
                raise not_active()
            case b"opened":
                raise already_opened(grant)
            case b"frozen":
                raise stopped_by(rest[0])
            case _:
                return grant_row(rest[0])

    async def renew(  # noqa: PLR0913  all that it was decided on
        self,
        grant: Grant,
        *,
        ttl_ms: int,
        longest_ms: int,
        lives_ms: int,
        decision: Mapping[str, Any],
        seen: str,
        step: Step,
        tokens: Sequence[str],
        actor: str,
        approval: Approval | None = None,
        approvals: Mapping[str, int] | None = None,
    ) -> Grant:
        """Let a grant live for ``ttl_ms`` from now, ``longest_ms`` from its issue at most.

        ``lives_ms`` is how long the backend lets it live from now, 0 if it wasn't asked. ``seen``
        is the version of the chain that was decided on, ``approval`` is used up, ``approvals`` are
        its yeses by group, ``tokens`` are the ids of the tokens it is asked with.

        Raises:
            Changed: the version is another by now, or the approval is used or over, or the
                elevation it was issued under.
            NotRenewable: it would live no longer than it does, or it was rotated.
            Conflict, TaskNotActive, InvalidToken, Frozen, PrincipalSuspended, QuotaExceeded: it
                can't be any more.
        """
        shard = _shard(grant)
        known = tokens_in(shard, tokens)
        args: dict[str, Any] = {
            "id": grant.id,
            "ttl_ms": ttl_ms,
            "longest_ms": longest_ms,
            **({"lives_ms": lives_ms} if lives_ms else {}),
            "decision": json.dumps(decision),
            "decision_id": decision["id"],
            "seen": seen,
            "step": step.row(),
            **({"approval": approval.id, "approved": approval.digest} if approval else {}),
            **({"approvals": dict(approvals)} if approvals else {}),
            "tokens": len(known),
            "actor": actor,
        }
        status, *rest = await self._redis.run("renew", shard, args, more_keys=known)
        match status:
            case b"ok":
                return grant_row(rest[0])
            case b"unknown":
                raise NotFound("There is no such grant.")
            case b"changed" | b"elevation_ended":
                raise Changed
            case b"not_active":
                raise ended(rest[0].decode())
            case b"replaced":
                raise rotated(rest[0].decode())
            case b"not_longer":
                raise NotRenewable("It would live no longer than it does: rotate it instead.")
            case b"frozen":
                raise stopped_by(rest[0])
            case b"token_ended":
                raise token_ended()
            case b"budget":
                raise budget_exhausted(rest[0])
            case _:
                raise not_active()

    async def supersede(self, grant_id: str, *, by: str, overlap_ms: int, actor: str) -> None:
        """A grant's successor is delivered: it ends after ``overlap_ms``, or as it would have."""
        args = {"id": grant_id, "by": by, "overlap_ms": overlap_ms, "actor": actor}
        shard = shard_of(grant_id, "grt")
        assert shard is not None  # noqa: S101  the ledger gave us this grant
        await self._redis.run("supersede", shard, args)


def ended(state: str) -> Conflict:
    """Say that a grant isn't active any more, or that its time is up."""
    word = "expired" if state == "active" else state
    return Conflict(f"The grant has ended: it is {word}.", state=word)


def rotated(by: str) -> NotRenewable:
    """Say that a grant has a successor."""
    return NotRenewable(f"It was rotated: {by} has taken its place.", grant_id=by)


def already_opened(grant: Grant) -> AlreadyDelivered:
    """Say that what was wrapped has been opened by the broker, for the task's own agent."""
    msg = (
        "The broker has opened this once, for the task's agent, and keeps no copy. If that answer "
        "was lost, revoke the grant and ask for another."
    )
    return AlreadyDelivered(msg, grant_id=grant.id, state=str(grant.state))


def _shard(grant: Grant) -> int:
    shard = shard_of(grant.id, "grt")
    if shard is None:
        raise NotFound("There is no such grant.")
    return shard
