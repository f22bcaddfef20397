"""Chains read whole: many tasks and what is below them in a few trips, however many they are."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from broker.ids import shard_of
from broker.ledger import keys
from broker.ledger.approvals import approval_row
from broker.ledger.rows import grant_row, task_row
from broker.trail import Trail

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from broker.approvals import Approval
    from broker.grants import Grant
    from broker.ledger.connection import Connection
    from broker.tasks import Task

_TOGETHER: Final = 1000
"""Reads in one trip, so that their answers don't hold up what else this process does."""


@dataclass(frozen=True, slots=True)
class Member:
    """A task with what it has done; of a root also what its chain has, and how many that are."""

    task: Task
    trail: Trail
    chain: Trail
    tasks: int


class Chains:
    """Reads them."""

    def __init__(self, connection: Connection) -> None:
        """Go through the ledger's connection."""
        self._redis = connection

    async def of(self, kind: str, name: str) -> list[str]:
        """Return the ids of tasks not closed yet: an ``agent``'s, an ``owner``'s, or one ``task``.

        An agent's are those it runs, and those that it opened the chain of.
        """
        match kind:
            case "task":
                return [name]
            case "owner":
                return await self.live_under(f"to|{name}|")
            case _:
                return [
                    *await self.live_under(f"ta|{name}|"),
                    *await self._opened_by(name),
                ]

    async def run_by(self, agent: str) -> list[str]:
        """Return the ids of an agent's tasks that aren't closed yet."""
        return await self.live_under(f"ta|{agent}|")

    async def _opened_by(self, orchestrator: str) -> list[str]:
        # The index by orchestrator holds closed ones too, for weeks; that by agent doesn't.
        ids = await self.live_under("ta|")
        return [m.task.id for m in await self.members(ids) if m.task.orchestrator == orchestrator]

    async def below(self, ids: Iterable[str], *, most: int | None = None) -> list[Member]:
        """Return some tasks and all below them, each once, level by level; no unknown ones.

        ``most`` bounds what is read: one more than that says that there are more.
        """
        seen: set[str] = set()
        found: list[Member] = []
        level = list(dict.fromkeys(ids))
        while level:
            if most is not None:
                level = level[: most + 1 - len(found)]
            seen.update(level)
            found += await self.members(level)
            children = await self._ids_below([(i, f"tc|{i}|") for i in level], most)
            level = [i for i in dict.fromkeys(children) if i not in seen]
        return found

    async def grants(self, ids: Iterable[str], *, most: int | None = None) -> list[Grant]:
        """Return what some tasks hold that isn't confirmed dead, at most one more than ``most``."""
        return await self.grant_rows(await self._ids_below([(i, f"gt|{i}|") for i in ids], most))

    async def approvals(self, ids: Iterable[str], *, most: int | None = None) -> list[Approval]:
        """Return the approvals of some tasks that aren't over, at most one more than ``most``."""
        found = await self._ids_below([(i, f"aq|{i}|") for i in ids], most)
        wanted = [(shard, i) for i in found if (shard := shard_of(i, "apr")) is not None]
        return [approval_row(text, i) for i, text in await self._rows("approvals", wanted)]

    async def grant_rows(self, ids: Iterable[str]) -> list[Grant]:
        """Return the grants of these ids; unknown ones are left out."""
        wanted = [(shard, i) for i in ids if (shard := shard_of(i, "grt")) is not None]
        return [grant_row(text, i) for i, text in await self._rows("grants", wanted)]

    async def members(self, ids: Iterable[str]) -> list[Member]:
        """Return the tasks of these ids; unknown ones are left out."""
        wanted = [(shard, i) for i in ids if (shard := self._shard(i)) is not None]
        return [_member(text, i) for i, text in await self._rows("tasks", wanted)]

    async def _rows(self, table: str, wanted: Sequence[tuple[int, str]]) -> list[tuple[str, bytes]]:
        found: list[tuple[str, bytes]] = []
        for some in _cut(wanted):
            rows = await self._redis.rows(table, some)
            found += [(i, row) for (_, i), row in zip(some, rows, strict=True) if row]
        return found

    async def live_under(self, prefix: str) -> list[str]:
        """Return every id an index holds below a prefix, such as ``ta|report-writer|``."""
        return await self._ids(list(range(self._redis.shards)), [prefix] * self._redis.shards)

    async def _ids_below(
        self, wanted: Iterable[tuple[str, str]], most: int | None = None
    ) -> list[str]:
        """Return what the index holds below prefixes, each in the shard of a task."""
        found = [(shard, prefix) for i, prefix in wanted if (shard := self._shard(i)) is not None]
        return await self._ids([shard for shard, _ in found], [prefix for _, prefix in found], most)

    async def _ids(
        self, shards: Sequence[int], prefixes: Sequence[str], most: int | None = None
    ) -> list[str]:
        found: list[str] = []
        cut = {} if most is None else {"start": 0, "num": most + 1}
        for some in _cut(list(zip(shards, prefixes, strict=True))):
            pipe: Any = self._redis.client.pipeline(transaction=False)
            for shard, prefix in some:
                end = f"({prefix}".encode() + b"\xff"
                pipe.zrangebylex(keys.table(shard, "index"), f"[{prefix}", end, **cut)
            for members in await self._redis.execute(pipe, "chains"):
                found += [member.rpartition(b"|")[2].decode() for member in members]
        return found if most is None else found[: most + 1]

    def _shard(self, task_id: str) -> int | None:
        shard = shard_of(task_id, "tsk")
        return shard if shard is not None and shard < self._redis.shards else None


def _member(text: bytes, task_id: str) -> Member:
    row = json.loads(text)
    chain = row.get("chain", {})
    return Member(
        task_row(text, task_id),
        Trail.read(row.get("trail", {})),
        Trail.read(chain.get("trail", {})),
        int(chain.get("tasks", 1)),
    )


def _cut(wanted: Sequence[tuple[int, str]]) -> Iterator[Sequence[tuple[int, str]]]:
    for start in range(0, len(wanted), _TOGETHER):
        yield wanted[start : start + _TOGETHER]
