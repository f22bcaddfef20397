"""What tasks do: what policy is to know of it, calls it allowed, what became of them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from broker.errors import NotFound
from broker.ids import shard_of
from broker.ledger import keys
from broker.ledger.models import Changed, budget_exhausted
from broker.ledger.registry import stopped_by
from broker.ledger.rows import task_row
from broker.ledger.writes import not_active, token_ended, tokens_in
from broker.trail import Signals, State, Survey, Trail

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.ledger.connection import Connection
    from broker.tasks import Task
    from broker.trail import Step


class Actions:
    """Reads and writes the trails of chains, and what was reported of anybody."""

    def __init__(self, connection: Connection) -> None:
        """Go through the ledger's connection."""
        self._redis = connection

    async def survey(self, task_id: str) -> tuple[Task, Survey]:
        """Return a task as it is now, and what policy is to know of it and its chain.

        Raises:
            NotFound: there is no such task.
        """
        text, *rest = await self._redis.run("survey", _shard(task_id), {"id": task_id, "names": []})
        if not text:
            raise NotFound("There is no such task.")
        return task_row(text), _survey(json.loads(text), *rest)

    async def survey_below(self, shard: int, parent_id: str, names: Sequence[str]) -> Survey:
        """Return what policy is to know before a task is opened, below ``parent_id`` if given.

        ``names`` are the selectors of whom the task will hang from, such as ``agent:NAME``.
        """
        args = {"names": list(names), **({"id": parent_id} if parent_id else {})}
        text, *rest = await self._redis.run("survey", shard, args)
        return _survey(json.loads(text) if text else {}, *rest)

    async def call(  # noqa: PLR0913  all that an allowed call leaves behind
        self,
        task: Task,
        *,
        capability: str,
        decision: Mapping[str, Any],
        seen: str,
        step: Step,
        report_ms: int,
        tokens: Sequence[str],
        actor: str,
        approval: tuple[str, str] | None = None,
        elevation: str = "",
    ) -> State:
        """Write an allowed tool call: its decision, its effects, and that a report is due.

        ``seen`` is the version or the growth that was decided on, ``tokens`` are the ids of the
        tokens it was asked with. ``approval`` is used up: its id, and the digest that it must be
        for. ``elevation`` is that under which it is allowed. Returns what the chain is with it.

        Raises:
            Changed: what was seen is another by now, or the approval or the elevation is over;
                nothing was written.
            TaskNotActive, InvalidToken, Frozen, PrincipalSuspended, QuotaExceeded: it can't be
                any more.
        """
        shard = _shard(task.id)
        known = tokens_in(shard, tokens)
        args = {
            "task_id": task.id,
            "capability": capability,
            "decision_id": decision["id"],
            "decision": json.dumps(decision),
            "seen": seen,
            "step": step.row(),
            "report_ms": report_ms,
            "tokens": len(known),
            "actor": actor,
            **({"approval": approval[0], "approved": approval[1]} if approval else {}),
            **({"elevation": elevation} if elevation else {}),
        }
        status, *rest = await self._redis.run("call", shard, args, more_keys=known)
        match status:
            case b"ok":
                return State(*(text.decode() for text in rest))
            case b"changed":
                raise Changed
            case b"budget":
                raise budget_exhausted(rest[0])
            case b"token_ended":
                raise token_ended()
            case b"frozen":
                raise stopped_by(rest[0])
            case _:
                raise not_active()

    async def report(
        self,
        task_id: str,
        decision_id: str,
        report: Mapping[str, Any],
        *,
        step: Step | None,
        only_own: bool = False,
        actor: str,
    ) -> bool:
        """Close an allowed call with what became of it; False if it isn't open, or not any more.

        ``only_own`` is for who may report what was asked for by itself, and nothing else.

        Raises:
            NotFound: it was asked for by another.
        """
        args: dict[str, Any] = {
            "task_id": task_id,
            "decision_id": decision_id,
            "report": json.dumps(report),
            "actor": actor,
        }
        if step is not None:
            args["step"] = step.row()
        if only_own:
            args["only"] = True
        answer = await self._redis.run("report", _shard(task_id), args)
        if answer == b"unknown":
            raise NotFound("There is no such decision of this task.")
        return answer == b"ok"

    async def in_force(self, digest: str, *, for_ms: int) -> bool:
        """Say whether all live grants were decided by these policies, so long ago at least."""
        held, at = await self._in_force()
        return held == digest and await self._now() - at >= for_ms

    async def put_in_force(self, digest: str) -> None:
        """Note that all live grants have been decided by these policies."""
        if (await self._in_force())[0] != digest:
            text = f"{digest}|{await self._now()}"
            await self._redis.command("HSET", keys.table(0, "frozen"), keys.IN_FORCE, text)

    async def _in_force(self) -> tuple[str, int]:
        text = await self._redis.command("HGET", keys.table(0, "frozen"), keys.IN_FORCE)
        digest, _, at = text.decode().partition("|") if text else ("", "", "0")
        return digest, int(at)

    async def _now(self) -> int:
        seconds, micros = await self._redis.command("TIME")
        return int(seconds) * 1000 + int(micros) // 1000


def _survey(
    row: Mapping[str, Any], chain: bytes, growth: bytes, signals: bytes, left: bytes
) -> Survey:
    known: dict[str, Any] = json.loads(chain) if chain else {}
    reported: dict[str, Any] = json.loads(signals)
    budgets: dict[str, str] = json.loads(left) if left else {}
    return Survey(
        growth=growth.decode(),
        task=Trail.read(row.get("trail", {})),
        chain=Trail.read(known.get("trail", {})),
        tasks=int(known.get("tasks", 0)),
        signals=Signals(
            int(reported["risk"]), reported["verdict"], tuple(reported["sources"] or ())
        ),
        left={kind: int(much) for kind, much in budgets.items()},
    )


def _shard(task_id: str) -> int:
    shard = shard_of(task_id, "tsk")
    if shard is None:
        raise NotFound("There is no such task.")
    return shard
