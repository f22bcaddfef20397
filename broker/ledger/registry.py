"""The register of principals in Redis: read whole, changed by one script, spread to every shard."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from broker.errors import BrokerError, Frozen, PrincipalSuspended, Quarantined
from broker.ledger import keys
from broker.ledger.models import Claimed
from broker.ledger.rows import grant_row, task_row
from broker.register import (
    MARKS,
    Entry,
    OwnerEntry,
    Register,
    read_entry,
    read_owner,
    written,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from broker.grants import Grant
    from broker.ledger.connection import Connection
    from broker.ledger.models import LedgerTimes
    from broker.register import Mark, Pair
    from broker.tasks import Task

BATCH: Final = 100
"""Tasks ended by one script: it holds up the shard for some milliseconds at most."""
_RETRY_S: Final = 60
"""In quarantine a person is waited for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What one write changes, and what the log says of it: pairs of a type and its data.

    ``todo`` names what must still reach every shard and task, as ``p|NAME`` or ``o|OWNER``.
    ``unused`` refuses the write if this principal got a token after that time (epoch ms).
    """

    entries: Sequence[Entry] = ()
    owners: Sequence[OwnerEntry] = ()
    todo: Sequence[str] = ()
    unused: tuple[str, int] | None = None
    events: Sequence[tuple[str, Mapping[str, Any]]] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """Whose tasks are to end: as agents, as those who opened them, by owner.

    ``keep`` are agents that tasks opened in an owner's name are spared for: another's by now.
    """

    agents: Collection[str] = ()
    orchestrators: Collection[str] = ()
    owners: Collection[str] = ()
    keep: Collection[str] = ()


class Registry:
    """Reads and writes the register."""

    def __init__(self, connection: Connection, times: LedgerTimes) -> None:
        """Go through the ledger's connection, with its times."""
        self._redis = connection
        self._times = times

    async def version(self) -> int:
        """Return how many changes there were."""
        return int(await self._redis.command("HGET", keys.register(), "version") or 0)

    async def load(self) -> Register:
        """Read all of it, as it is at one moment."""
        rows = await self._redis.command("HGETALL", keys.register())
        if not isinstance(rows, dict):  # RESP2 answers with one flat list
            rows = dict(zip(rows[::2], rows[1::2], strict=True))
        return _read({k.decode(): v for k, v in cast("dict[bytes, bytes]", rows).items()})

    async def write(
        self, register: Register, change: Change, marks: Sequence[Mark], *, actor: str
    ) -> str:
        """Make a change that was decided on ``register``, with its events, in one script.

        ``marks`` are set in the first shard at once; the others are for ``spread``. Returns ``ok``,
        or ``changed`` or ``used`` when nothing was written: load, and decide again.
        """
        rows = {f"p|{entry.name}": _text(entry) for entry in change.entries}
        rows |= {f"o|{owner.owner}": _text(owner) for owner in change.owners}
        args: dict[str, Any] = {
            "version": register.version,
            "rows": rows,
            "todo": change.todo,
            "marks": _listed(marks),
            "events": [{"type": kind, "data": data} for kind, data in change.events],
            "actor": actor,
        }
        if change.unused is not None:
            args["unused"] = {"name": change.unused[0], "since": change.unused[1]}
        answer = await self._redis.run("registry_write", 0, args, own_key=keys.register())
        return answer.decode()

    async def settle(self, item: str, version: int) -> None:
        """Say that what ``todo`` names has reached everything, as of a version."""
        args = {"item": item, "version": version}
        await self._redis.run("registry_settle", 0, args, own_key=keys.register())

    async def note(
        self,
        *,
        used: Collection[str] = (),
        seen: Collection[str] = (),
        uses: Collection[Pair] = (),
        allowed: Collection[Pair] = (),
        gone: Collection[Pair] = (),
    ) -> None:
        """Write down who got a token lately, and who is new in the configuration.

        And of pairs of an agent and a capability which were used, which are ``allowed`` now, and
        of which that is ``gone``.
        """
        args = {
            "used": list(used),
            "seen": list(seen),
            "uses": ["|".join(pair) for pair in uses],
            "allowed": ["|".join(pair) for pair in allowed],
            "gone": ["|".join(pair) for pair in gone],
        }
        await self._redis.run("registry_note", 0, args, own_key=keys.register())

    async def spread(self, marks: Sequence[Mark], version: int) -> None:
        """Set marks in every shard, unless a later version has spoken there."""
        if marks:
            args = {"marks": _listed(marks), "version": version}
            await self._redis.on_every_shard("set_marks", args)

    async def repair(self, wanted: Mapping[str, str], version: int) -> int:
        """Make every shard have these marks and no others; returns how many were wrong.

        What a late writer or a restored shard left behind is put right here.
        """
        pipe = self._redis.pipeline()
        for shard in range(self._redis.shards):
            pipe.hgetall(keys.table(shard, "frozen"))
        wrong = 0
        for shard, row in enumerate(await self._redis.execute(pipe)):
            held = {k.decode(): v.decode().partition("|")[2] for k, v in row.items()}
            held = {k: v for k, v in held.items() if k.partition(":")[0] in MARKS}
            marks: list[Mark] = [(k, v) for k, v in wanted.items() if held.get(k) != v]
            marks += [(k, None) for k in held if k not in wanted]
            wrong += len(marks)
            if marks:
                args = {"marks": _listed(marks), "version": version}
                await self._redis.on_every_shard("set_marks", args, [shard])
        return wrong

    async def end_tasks(self, stopped: Stopped, *, reason: str, actor: str) -> Claimed:
        """End every task of those who are stopped; what is left to revoke is claimed."""
        args: dict[str, Any] = {
            "agents": list(stopped.agents),
            "orchestrators": list(stopped.orchestrators),
            "owners": list(stopped.owners),
            "keep": list(stopped.keep),
            "reason": reason,
            "limit": BATCH,
            "claim_ms": self._times.claim_ms,
            "actor": actor,
        }
        tasks: list[Task] = []
        grants: list[Grant] = []
        shards = list(range(self._redis.shards))
        while shards:
            answers = await self._redis.on_every_shard("end_tasks", args, shards)
            ended = [int(answer[0]) for answer in answers]
            for count, answer in zip(ended, answers, strict=True):
                tasks += map(task_row, answer[1 : 1 + count])
                grants += map(grant_row, answer[1 + count :])
            shards = [s for s, count in zip(shards, ended, strict=True) if count >= BATCH]
        return Claimed(tuple(tasks), tuple(grants))

    async def census(self) -> dict[str, int]:
        """Count the live grants of every agent that has a task."""
        found: dict[str, int] = {}
        for answer in await self._redis.on_every_shard("census", {}):
            for agent, count in zip(answer[::2], answer[1::2], strict=True):
                name = agent.decode()
                found[name] = found.get(name, 0) + int(count)
        return found


def stopped_by(field: bytes) -> BrokerError:
    """Say that a mark, an operator's freeze or a quarantine forbids issuing."""
    kind, _, name = field.decode().partition(":")
    match kind:
        case keys.QUARANTINE:
            return Quarantined(
                "The ledger was set back: nothing is issued until an operator has reconciled it.",
                retry_after=_RETRY_S,
            )
        case "suspended":
            return PrincipalSuspended(f"Principal {name!r} is suspended or retired.")
        case "left":
            msg = f"The owner {name!r} has left: nothing is issued for anybody they own."
            return PrincipalSuspended(msg)
        case _:
            what = field.decode()
            msg = f"An operator froze {what!r}: nothing is issued for it until it is thawed."
            return Frozen(msg)


def _read(rows: Mapping[str, bytes]) -> Register:
    register: dict[str, dict[Any, Any]] = {kind: {} for kind in "poutsca"}
    for field, text in rows.items():
        kind, _, name = field.partition("|")
        match kind:
            case "p":
                register["p"][name] = read_entry(name, json.loads(text))
            case "o":
                register["o"][name] = read_owner(name, json.loads(text))
            case "u" | "s":
                register[kind][name] = int(text)
            case "c" | "a":
                agent, _, capability = name.partition("|")
                register[kind][agent, capability] = int(text)
            case "t":
                version, _, at = text.partition(b"|")
                register["t"][name] = (int(version), int(at))
            case _:
                pass
    return Register(
        version=int(rows.get("version", 0)),
        entries=register["p"],
        owners=register["o"],
        used=register["u"],
        seen=register["s"],
        todo=register["t"],
        uses=register["c"],
        allowed=register["a"],
        recorded_since=int(rows.get("recorded", 0)),
    )


def _text(entry: Entry | OwnerEntry) -> str:
    return json.dumps(written(entry))


def _listed(marks: Sequence[Mark]) -> list[list[str | bool]]:
    return [[name, False if said is None else said] for name, said in marks]
