"""State changes of the ledger: one method a script, typed."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from broker.catalog import Revocability
from broker.errors import NotFound, QuotaExceeded, TaskNotActive
from broker.ledger import keys
from broker.ledger.endings import Endings
from broker.ledger.endings import shard_in as _shard
from broker.ledger.models import (
    Changed,
    Claimed,
    budget_exhausted,
)
from broker.ledger.registry import stopped_by
from broker.ledger.rows import compact, grant_row, read_claimed, read_due, task_row
from broker.ledger.writes import (
    idempotency_args,
    idempotency_key,
    not_active,
    not_reserved,
    reused,
    token_ended,
    tokens_in,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from broker.grants import Grant
    from broker.ledger.models import Idempotency
    from broker.ledger.places import Place
    from broker.tasks import Task, TaskState
    from broker.trail import Step


class RedisLedger(Endings):
    """Writes of the ledger. ``actor`` is the principal in whose name a step is logged."""

    async def open_task(
        self,
        task: Task,
        *,
        ttl_ms: int,
        max_children: int,
        decision: Mapping[str, Any],
        actor: str,
        seen: str = "",
        idempotency: Idempotency | None = None,
    ) -> tuple[Task, bool]:
        """Write a task, active from now until ``ttl_ms`` or its parent's end.

        Returns the task and whether it is new; with an idempotency key seen before, the old one.
        ``seen`` is the version of the chain that was decided on.

        Raises:
            Changed: it is another by now.
        """
        shard = _shard(task.id, "tsk")
        args = {
            "task": {**compact(task), "id": task.id},
            "ttl_ms": ttl_ms,
            "max_children": max_children,
            "decision": json.dumps(decision),
            "decision_id": decision.get("id", ""),
            **({"seen": seen} if seen else {}),
            "actor": actor,
            **idempotency_args(idempotency, self.times),
        }
        own = idempotency_key(shard, idempotency)
        tokens = [keys.token(shard, jti) for jti in task.via]
        status, *rest = await self._redis.run(
            "open_task", shard, {**args, "tokens": len(tokens)}, own_key=own, more_keys=tokens
        )
        match status:
            case b"ok":
                return task_row(rest[0]), True
            case b"replay" if rest[0]:
                return task_row(rest[0]), False
            case b"frozen":
                raise stopped_by(rest[0])
            case b"token_ended":
                raise token_ended()
            case b"changed":
                raise Changed
            case b"parent_ended":
                raise TaskNotActive("The parent task has ended: nothing can be opened below it.")
            case b"budget":
                raise budget_exhausted(rest[0])
            case b"too_many_children":
                raise QuotaExceeded(
                    f"The parent task has {max_children} children, the most allowed."
                )
            case _:
                raise reused()

    async def reserve(  # noqa: PLR0913  all that a credential leaves behind before there is one
        self,
        grant: Grant,
        *,
        ttl_ms: int,
        max_live: int,
        decision: Mapping[str, Any],
        actor: str,
        seen: str = "",
        step: Step | None = None,
        approved: str = "",
        place: Place | None = None,
        idempotency: Idempotency | None = None,
    ) -> Grant:
        """Step 4: write the grant as pending. Raises when the task, a freeze or a quota forbids it.

        With an idempotency key seen before it returns the earlier grant: compare the ids.
        ``seen`` is the version of the chain that was decided on, ``step`` what the grant adds to
        its trail, ``approved`` the digest that the grant's approval must be for: it is used up.
        ``place`` is what it took under the quotas of many, or which of them is over.

        Raises:
            Changed: the chain's version is another by now, its approval is used or over, or its
                elevation; nothing was written.
        """
        shard = _shard(grant.id, "grt")
        args = {
            "grant": {**compact(grant), "id": grant.id},
            "ttl_ms": ttl_ms,
            "max_live": max_live,
            "pending_ms": self.times.pending_ms,
            "decision": json.dumps(decision),
            "actor": actor,
            **({"seen": seen} if seen else {}),
            **({"step": step.row()} if step else {}),
            **({"approved": approved} if approved else {}),
            **(place.args() if place else {}),
            **idempotency_args(idempotency, self.times),
        }
        own = idempotency_key(shard, idempotency)
        # Of the tokens it is asked with, those of the task's own shard can be looked at in there.
        tokens = tokens_in(shard, grant.via)
        status, *rest = await self._redis.run(
            "reserve", shard, {**args, "tokens": len(tokens)}, own_key=own, more_keys=tokens
        )
        if status == b"ok" or (status == b"replay" and rest[0]):
            return grant_row(rest[0])
        raise not_reserved(status, rest, grant, place)

    async def activate(
        self,
        grant: Grant,
        *,
        lease: str,
        lifetime_ms: int,
        actor: str,
        account: str = "",
        lives_ms: int = 0,
        revocability: Revocability = Revocability.INSTANT,
    ) -> Grant:
        """Step 6: record the lease. The answer is active, or what the grant became meanwhile.

        It is issued for ``lifetime_ms``, and the backend lets it live for ``lives_ms``: what can be
        revoked by time alone dies then, and not before.
        """
        args = {
            "id": grant.id,
            "lease": lease,
            "lifetime_ms": lifetime_ms,
            "actor": actor,
            "revocability": revocability,
            **({"account": account} if account else {}),
            **({"lives_ms": lives_ms} if lives_ms else {}),
            **({"dies_in_ms": lives_ms} if revocability is Revocability.TTL_ONLY else {}),
        }
        return await self._grant("activate", grant.id, args)

    async def fail(self, grant: Grant, *, error: str, actor: str) -> Grant:
        """The backend said no, so nothing was issued."""
        return await self._grant("fail", grant.id, {"id": grant.id, "error": error, "actor": actor})

    async def begin_revoke(
        self, grant_ids: Iterable[str], *, reason: str, actor: str
    ) -> tuple[Grant, ...]:
        """Step 9 begins: mark grants unwanted and claim them. Those already dead are left out."""
        by_shard: dict[int, list[str]] = {}
        for grant_id in grant_ids:
            by_shard.setdefault(_shard(grant_id, "grt"), []).append(grant_id)
        out: list[Grant] = []
        for shard, ids in by_shard.items():
            args = {"ids": ids, "reason": reason, "actor": actor}
            out += map(grant_row, await self._redis.run("begin_revoke", shard, self._timed(args)))
        return tuple(out)

    async def end_task(
        self, task_id: str, state: TaskState, *, reason: str, actor: str, summary: str = ""
    ) -> tuple[str, Claimed]:
        """End a task and all below it at once; an ended one stays as it is.

        Returns the state it is in now, and what is left to do, claimed for the caller.
        """
        args = {"id": task_id, "state": state, "reason": reason, "actor": actor}
        if summary:
            args["summary"] = summary
        answer = await self._redis.run("end_task", _shard(task_id, "tsk"), self._timed(args))
        if answer[0] == b"unknown":
            raise NotFound
        return answer[0].decode(), read_claimed(answer[1:])

    async def claim_due(
        self, shards: Sequence[int], *, limit: int, horizon_ms: int | None = None
    ) -> Claimed:
        """Claim what is due in some shards, or would be at ``horizon_ms`` (epoch)."""
        args: dict[str, Any] = {"limit": limit, "actor": "reaper"}
        if horizon_ms is not None:
            args["horizon"] = horizon_ms
        tasks: list[Task] = []
        grants: list[Grant] = []
        elevations: list[tuple[str, str]] = []
        # A server that doesn't answer mustn't keep what others have claimed from being revoked.
        answers = await self._redis.on_every_shard(
            "claim_due", self._timed(args), shards, partly=True
        )
        for answer in answers:
            claimed = read_due(answer)
            tasks += claimed.tasks
            grants += claimed.grants
            elevations += claimed.elevations
        return Claimed(tuple(tasks), tuple(grants), tuple(elevations))

    async def close_task(self, task_id: str, *, actor: str) -> str:
        """Close an ended task once nothing lives under it: ``closed`` or ``draining``."""
        args = self._timed({"id": task_id, "actor": actor})
        return (await self._redis.run("close_task", _shard(task_id, "tsk"), args)).decode()

    async def postpone_task(self, task_id: str, *, delay_ms: int) -> None:
        """Look at an ended task again later."""
        args = {"id": task_id, "delay_ms": delay_ms}
        await self._redis.run("postpone_task", _shard(task_id, "tsk"), args)

    async def heartbeat(self, task_id: str) -> Task:
        """The task is alive; raises ``TaskNotActive`` when its silence has already ended it."""
        status, *rest = await self._redis.run("heartbeat", _shard(task_id, "tsk"), {"id": task_id})
        if status != b"ok":
            raise not_active()
        return task_row(rest[0])

    async def handle(
        self,
        task_id: str,
        op: str,
        handle: str,
        *,
        backend: str,
        actor: str,
        value: str = "",
        refused: bool = False,
        elevation: str = "",
    ) -> str:
        """Change one of a task's handles: ``expect``, ``record``, ``retire`` or ``drop``.

        ``refused`` drops one that the backend refused to make. ``elevation`` is the one that it
        ends with. Returns the task's state, or ``unknown``, ``task_not_active``,
        ``elevation_ended``, ``in_use`` or ``too_early``.
        """
        args = {
            "id": task_id,
            "op": op,
            "handle": handle,
            "backend": backend,
            "value": value,
            "refused": refused,
            "grace_ms": self.times.pending_ms,
            "actor": actor,
            **({"elevation": elevation} if elevation else {}),
        }
        answer = await self._redis.run("handle", _shard(task_id, "tsk"), args)
        return answer[0].decode()

    async def freeze(
        self,
        selector: str,
        *,
        record: Mapping[str, Any] | None,
        actor: str,
        event_shard: int,
        reason: str = "",
    ) -> None:
        """Freeze a selector in every shard, or thaw it when ``record`` is None."""
        args: dict[str, Any] = {"field": selector, "on": record is not None, "actor": actor}
        if record is not None:
            args["record"] = json.dumps(record)
        rest = [shard for shard in range(self._redis.shards) if shard != event_shard]
        # The event's shard goes first: a freeze that is not logged is not made.
        event = {"selector": selector, **(record or {"reason": reason})}
        await self._redis.run("freeze", event_shard, {**args, "event": event})
        await self._redis.on_every_shard("freeze", args, rest)

    async def record(
        self,
        kind: str,
        *,
        shard: int,
        actor: str,
        data: Mapping[str, Any],
        task_id: str = "",
        grant_id: str = "",
        decision_id: str = "",
    ) -> None:
        """Log an event that changes no state, such as a refusal."""
        args = {
            "type": kind,
            "task_id": task_id,
            "grant_id": grant_id,
            "data": json.dumps(data),
            "decision_id": decision_id,
            "actor": actor,
        }
        await self._redis.run(
            "record_revocation" if kind == "revocation" else "record", shard, args
        )

    async def hasten(self, backend: str, capability: str) -> int:
        """A backend answers again: the capability's waiting revocations are due now.

        Without a capability: those of grants whose leases were never learnt.
        """
        args = {"backend": backend, "capability": capability, "actor": "reaper"}
        return sum(await self._redis.on_every_shard("hasten", args))

    async def prune(self, *, limit: int = 1000, drained: Sequence[str] | None = None) -> int:
        """Forget what ended longer ago than is kept; returns how many rows went.

        ``drained`` says for each shard which event is the last in the log: later ones stay.
        """
        args: dict[str, Any] = {"limit": limit, "audit_ms": self.times.audit_ms}
        if drained is not None:
            args["drained"] = drained
        return sum(await self._redis.on_every_shard("prune", args))
