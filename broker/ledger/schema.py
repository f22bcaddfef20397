"""Which layout the ledger's tables have: kept in every shard, together with the tables themselves.

A release knows one layout. It brings an older ledger up to it, and refuses a newer one. A step is
one script that does a shard's work and writes the shard's new version, so it is done once however
many replicas try, and a shard that comes back from a replica or a backup is brought up again.

While releases are mixed the older replicas go on revoking what there is and issue nothing. So a
step must leave what the release before can read and end; what that can't is for the release after.
"""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from broker.errors import ConfigError, LedgerNewer, LedgerUnavailable
from broker.ledger import keys, scripts
from broker.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.ledger.connection import Connection

log = get_logger("ledger")
FIRST: Final = 1
"""The layout of ledgers that were written before versions were."""


class Step(NamedTuple):
    """A step to version ``to``: its name, and the Lua that changes one shard (see ``scripts.py``).

    The Lua runs after ``prelude.lua``. Redis undoes nothing of a script that fails: what a step has
    changed already it must leave alone when it is tried again.
    """

    to: int
    name: str
    lua: str


STEPS: Final[tuple[Step, ...]] = ()
_RETRY_S: Final = 2


class Schema:
    """The layout this release knows, and what is known of the ledger's."""

    def __init__(self, connection: Connection, steps: Sequence[Step] = STEPS) -> None:
        """Refuse nothing before ``begin`` or ``look``."""
        self._redis = connection
        self._steps = steps
        self.version = max((step.to for step in steps), default=FIRST)
        self._newer: int | None = None
        self._unseen = False

    async def begin(self) -> None:
        """Bring the ledger up to this release's layout, before anything else is done with it.

        Raises:
            LedgerNewer: a newer release has been there.
            ConfigError: the ledger has another number of shards.
            LedgerUnavailable: nobody knows. Nothing is issued until ``look`` has seen to it.
        """
        self._unseen = True
        await self._bring_up()
        self._unseen = False

    async def start(self) -> None:
        """Begin; while the ledger doesn't answer that is left to ``look``.

        Raises:
            LedgerNewer: a newer release has been there.
            ConfigError: the ledger has another number of shards.
        """
        try:
            await self.begin()
        except LedgerUnavailable:
            pass
        except LedgerNewer as error:
            raise LedgerNewer(error.detail) from None  # waiting doesn't help whoever starts it

    async def look(self) -> None:
        """See whether a newer release has begun to change the ledger, or it was emptied: a job.

        Raises:
            BrokerError: as ``begin``.
        """
        found = await self.held()
        if self._unseen or found is None or found[0] < self.version:
            await self.begin()
            self._newer = None
        elif found[0] > self.version:
            self._refuse(found[0])
        else:
            self._newer = None

    async def held(self) -> tuple[int, int] | None:
        """Return the first shard's version, and how many shards there are; None without any."""
        key = keys.table(0, keys.SCHEMA)
        version, shards = await self._redis.command("HMGET", key, "version", "shards")
        return (int(version), int(shards)) if version else None

    def check(self) -> None:
        """Refuse to issue anything on a ledger that this release doesn't know.

        Raises:
            LedgerNewer: a newer release is at work on it.
            LedgerUnavailable: it hasn't been seen yet.
        """
        if self._newer is not None:
            raise self._too_new(self._newer)
        if self._unseen:
            raise LedgerUnavailable(
                "The ledger hasn't answered since this replica was started; nothing is issued. "
                "Try again shortly.",
                retry_after=_RETRY_S,
            )

    def problem(self, held: tuple[int, int] | None) -> str:
        """Say what is wrong with what a ledger says of itself, or nothing."""
        if held is None:
            return ""
        version, shards = held
        if version > self.version:
            return self._too_new(version).detail
        if shards != self._redis.shards:
            return self._other_shards(shards).detail
        return ""

    async def _bring_up(self) -> None:
        args = {"version": self.version, "first": FIRST, "shards": self._redis.shards}
        rows = await self._redis.on_every_shard("schema", args, own_key=keys.SCHEMA)
        versions = [int(version) for version, _ in rows]
        for shards in {int(shards) for _, shards in rows} - {self._redis.shards}:
            raise self._other_shards(shards)
        if max(versions) > self.version:
            self._refuse(max(versions))
        for step in self._steps:
            behind = [s for s, version in enumerate(versions) if version == step.to - 1]
            if behind:
                log.info("the ledger is brought up", to=step.to, step=step.name, shards=len(behind))
                await asyncio.gather(*(self._take(step, shard) for shard in behind))
                versions = [max(v, step.to) if s in behind else v for s, v in enumerate(versions)]

    async def _take(self, step: Step, shard: int) -> None:
        declared = [*keys.tables(shard), keys.table(shard, keys.SCHEMA)]
        args: dict[str, Any] = {"from": step.to - 1, "to": step.to, "actor": "broker"}
        text = scripts.step(step.lua)
        await self._redis.command("EVAL", text, len(declared), *declared, json.dumps(args))

    def _refuse(self, version: int) -> None:
        self._newer = version
        raise self._too_new(version)

    def _too_new(self, version: int) -> LedgerNewer:
        return LedgerNewer(
            f"The ledger has layout {version}, and this release knows {self.version} at most: "
            "it issues nothing. Run the newer release everywhere.",
            retry_after=_RETRY_S,
        )

    def _other_shards(self, shards: int) -> ConfigError:
        return ConfigError(
            f"The ledger has {shards} shards, and [redis] shards says {self._redis.shards}: "
            f"set it to {shards}. It can't be changed once there is a ledger."
        )
