"""Approvals in the ledger: asked for, voted on, ended. One method a script, typed."""

from __future__ import annotations

import asyncio
import json
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any, Final

from broker.approvals import Approval, ApprovalState, Vote
from broker.errors import NotFound, QuotaExceeded, TaskNotActive
from broker.ids import shard_of
from broker.ledger import keys
from broker.ledger.models import Changed
from broker.ledger.rows import grant_row
from broker.ledger.writes import idempotency_args, idempotency_key, reused

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.grants import Grant
    from broker.ids import Kind
    from broker.ledger.connection import Connection
    from broker.ledger.models import Idempotency, LedgerTimes

_FIELDS: Final = frozenset(f.name for f in fields(Approval))
_YES: Final = "approve"
_NO: Final = "deny"


def approval_row(text: str | bytes, identifier: str = "") -> Approval:
    """Read an approval; the table's own rows don't repeat their id. Newer fields are left alone."""
    row: dict[str, Any] = {k: v for k, v in json.loads(text).items() if k in _FIELDS}
    row["state"] = ApprovalState(row["state"])
    votes = row.get("votes") or ()
    row["votes"] = tuple(
        Vote(v["by"], int(v["at"]), v["reason"], v.get("says") != _NO) for v in votes
    )
    row["ladder"] = tuple((int(after), group) for after, group in row.get("ladder") or ())
    for name in ("escalated", "channels", "policies"):
        row[name] = tuple(row.get(name) or ())
    defaults: dict[str, Any] = {"id": identifier}
    return Approval(**(defaults | row))


def asked(approval: Approval, wait_ms: int) -> dict[str, Any]:
    """Write an approval as the scripts are given one that is to be opened."""
    row = {k: v for k, v in asdict(approval).items() if v not in ("", 0, (), {}, None, False)}
    return {**row, "wait_ms": wait_ms}


class ApprovalTable:
    """Reads and writes them."""

    def __init__(self, connection: Connection, times: LedgerTimes) -> None:
        """Go through the ledger's connection."""
        self._redis = connection
        self._times = times

    async def ask(
        self,
        approval: Approval,
        *,
        wait_ms: int,
        max_pending: int,
        max_asked: int,
        decision: Mapping[str, Any],
        actor: str,
        idempotency: Idempotency | None = None,
    ) -> Approval | Grant | None:
        """Ask for an approval; returns the live one there is for exactly this request.

        With an idempotency key that has led to a grant it returns that, or None if it is gone.

        Raises:
            QuotaExceeded: the task waits for too many, or has asked for too many in all.
            TaskNotActive, IdempotencyConflict: it can't be asked for.
        """
        shard = _shard(approval.id)
        args = {
            "approval": asked(approval, wait_ms),
            "decision": json.dumps(decision),
            "max_pending": max_pending,
            "max_asked": max_asked,
            "actor": actor,
            **idempotency_args(idempotency, self._times),
        }
        own = idempotency_key(shard, idempotency)
        status, *rest = await self._redis.run("ask_approval", shard, args, own_key=own)
        match status:
            case b"ok" | b"known":
                return approval_row(rest[0])
            case b"replay":
                return grant_row(rest[0]) if rest[0] else None
            case b"too_many":
                msg = (
                    f"The task already waits for {int(rest[0])} approvals, the most allowed. Wait "
                    "for those, or withdraw one that isn't needed any more."
                )
                raise QuotaExceeded(msg, retry_after=30)
            case b"asked_enough":
                raise QuotaExceeded("The task has asked for too many approvals already.")
            case b"task_not_active":
                raise TaskNotActive("The task is not active: it has ended, or its time is up.")
            case _:
                raise reused()

    async def get(self, approval_id: str) -> Approval | None:
        """Return an approval, or None."""
        return (await self.rows([approval_id]))[0]

    async def rows(self, ids: Sequence[str]) -> list[Approval | None]:
        """Return some approvals, in the order of their ids, in one trip."""
        places = [(shard_of(i, "apr"), i) for i in ids]
        known = [(s, i) for s, i in places if s is not None and s < self._redis.shards]
        texts = await self._redis.rows("approvals", known) if known else []
        found = {i: text for (_, i), text in zip(known, texts, strict=True)}
        return [approval_row(text, i) if (text := found.get(i)) else None for i in ids]

    async def live(self, task_id: str, digest: str) -> Approval | None:
        """Return the approval that answers an exact request of a task now, if there is one."""
        shard = _shard(task_id, "tsk")
        prefix = f"aq|{task_id}|{digest}|"
        low, high = f"[{prefix}", f"({prefix}".encode() + b"\xff"
        index = keys.table(shard, "index")
        found, (seconds, micros) = await asyncio.gather(
            self._redis.command("ZREVRANGEBYLEX", index, high, low), self._redis.command("TIME")
        )
        ids = [member.rpartition(b"|")[2].decode() for member in found]
        newest = (await self.rows(ids))[0] if ids else None
        # One that nobody has swept yet answers nothing any more.
        over = newest is None or newest.expires_at <= int(seconds) * 1000 + int(micros) // 1000
        return None if over else newest

    async def listed(
        self, state: ApprovalState | None, limit: int, cursor: str = ""
    ) -> tuple[list[Approval], str | None]:
        """Return a page of approvals, newest first, of one state or all, and where to go on."""
        states = [state] if state is not None else list(ApprovalState)
        prefixes = [(shard, f"as|{s}|") for shard in range(self._redis.shards) for s in states]
        answers = await self._redis.ranges(
            [(shard, prefix, cursor, limit + 1) for shard, prefix in prefixes]
        )
        places = sorted(
            (
                member.decode().removeprefix(prefix)
                for (_, prefix), members in zip(prefixes, answers, strict=True)
                for member in members
            ),
            reverse=True,
        )
        shown = places[:limit]
        rows = await self.rows([place.rpartition("|")[2] for place in shown])
        more = shown[-1] if len(places) > limit else None
        return [row for row in rows if row is not None], more

    async def of_task(self, task_id: str, *, live: bool = False) -> list[Approval]:
        """Return the approvals of a task, newest first; with ``live`` those that aren't over."""
        shard = _shard(task_id, "tsk")
        prefix = f"aq|{task_id}|" if live else f"at|{task_id}|"
        low, high = f"[{prefix}", f"({prefix}".encode() + b"\xff"
        found = await self._redis.command("ZRANGEBYLEX", keys.table(shard, "index"), low, high)
        rows = await self.rows([member.rpartition(b"|")[2].decode() for member in found])
        there = [row for row in rows if row is not None]
        return sorted(there, key=lambda a: (a.created_at, a.id), reverse=True)

    async def vote(
        self,
        approval: Approval,
        *,
        yes: bool,
        reason: str,
        outcome: ApprovalState | None,
        have: Mapping[str, int],
        actor: str,
    ) -> tuple[bool, Approval]:
        """Write what an operator says of an approval as it was read.

        ``outcome`` is what follows from it, ``have`` the yeses there are then. Returns whether it
        was still to be decided, and the approval as it is now.

        Raises:
            Changed: another has voted meanwhile; nothing was written.
            NotFound: it is gone.
        """
        args = {
            "id": approval.id,
            "says": _YES if yes else _NO,
            "reason": reason,
            "version": approval.version,
            "have": dict(have),
            "actor": actor,
            **({"outcome": str(outcome)} if outcome else {}),
        }
        status, *rest = await self._redis.run("vote", _shard(approval.id), args)
        match status:
            case b"ok" | b"decided":
                return status == b"ok", approval_row(rest[0])
            case b"changed":
                raise Changed
            case _:
                raise NotFound("There is no such approval.")

    async def cancel(self, approval_id: str, *, reason: str, actor: str) -> Approval:
        """Take an approval back; one that is over stays as it is."""
        args = {"id": approval_id, "reason": reason, "actor": actor}
        status, *rest = await self._redis.run("cancel_approval", _shard(approval_id), args)
        if status == b"unknown":
            raise NotFound("There is no such approval.")
        return approval_row(rest[0])


def _shard(identifier: str, kind: Kind = "apr") -> int:
    shard = shard_of(identifier, kind)
    if shard is None:
        raise NotFound("There is no such approval.")
    return shard
