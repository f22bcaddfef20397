"""Rotation: the next key is published, then signs; the last one goes when nothing it signed lives.

Any number of replicas on one folder do this at once: the folder's lock makes it one at a time, and
each looks again once it has the lock. The event of a change is written before the change.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Protocol

from broker.errors import Conflict, Unavailable
from broker.keys.key import Algorithm, generate, signing_key
from broker.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.clock import Clock
    from broker.keys.key import SigningKey
    from broker.keys.ring import KeyRing

log = get_logger("keys")
ACTOR: Final = "broker"
MAX_SKEW_S: Final = 60
"""How far apart the clocks of two replicas may be without a token outliving its key."""
_PATIENCE_S: Final = 5.0
_RETRY_S: Final = 0.05


class KeyState(StrEnum):
    """What a key is doing now. All of them verify."""

    NEXT = "next"
    SIGNING = "signing"
    RETIRING = "retiring"


@dataclass(frozen=True, slots=True)
class KeyStatus:
    """A key as its operators see it. Times are epoch seconds.

    ``retires_at`` is when its file goes, known once there is a key after it.
    """

    kid: str
    algorithm: Algorithm
    state: KeyState
    created_at: int
    signs_from: int
    retires_at: int | None


@dataclass(frozen=True, slots=True)
class Rotated:
    """What a rotation did: the new key, and the ids of those that are dead now."""

    key: KeyStatus
    removed: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationTimes:
    """In seconds. ``every_s`` is None when keys are only rotated by hand.

    ``publish_s`` is how long a key is published before it signs, ``keep_s`` how long the longest
    token lives that a key can have signed.
    """

    every_s: int | None
    publish_s: int
    keep_s: int


class EventLog(Protocol):
    """Where rotations are written down (the ledger)."""

    async def record(self, kind: str, *, shard: int, actor: str, data: Mapping[str, Any]) -> None:
        """Write an event."""
        ...


class KeyRotation:
    """Changes the keys of a ring, by the scheduler's wish or an operator's."""

    def __init__(
        self,
        ring: KeyRing,
        events: EventLog,
        clock: Clock,
        *,
        times: RotationTimes,
        algorithm: Algorithm = Algorithm.ES256,
        shards: int = 1,
    ) -> None:
        """``algorithm`` is what new keys are of; ``shards`` are the ledger's."""
        self.ring = ring
        self._events = events
        self._clock = clock
        self._times = times
        self._algorithm = algorithm
        self._shards = shards
        self._complaint = ""

    def status(self) -> list[KeyStatus]:
        """Return every key, the newest first."""
        return [self._status(key) for key in reversed(self.ring.keys)]

    async def tend(self) -> None:
        """Take over what others changed, rotate if it is time, remove what has retired.

        Raises:
            LedgerUnavailable: the change couldn't be logged, so it wasn't made.
        """
        # In a thread: the folder may be on a network.
        if not await asyncio.to_thread(self.ring.reload) or not self._has_work():
            return
        try:
            with self.ring.folder.locked(wait=False) as mine:
                # Another replica may be at it, or may have done it.
                if mine and self.ring.reload():
                    await self._work()
        except OSError as error:
            problem = f"{self.ring.folder.path}: {error.strerror}"
            if problem != self._complaint:
                log.warning("signing keys can't be rotated", problem=problem)
                self._complaint = problem
        else:
            self._complaint = ""

    async def rotate(self, *, actor: str, reason: str, at_once: bool = False) -> Rotated:
        """Make the next key now. With ``at_once`` it signs at once and every other key is dead.

        Raises:
            Conflict: the next key is published already and hasn't begun to sign.
            Unavailable: the folder can't be written, or another replica is at it for too long.
        """
        deadline = self._clock.monotonic() + _PATIENCE_S
        try:
            while True:
                with self.ring.folder.locked(wait=False) as mine:
                    if mine:
                        return await self._rotate(actor, reason, at_once=at_once)
                if self._clock.monotonic() > deadline:
                    raise Unavailable("Another replica is rotating the keys: try again.")
                await asyncio.sleep(_RETRY_S)
        except OSError as error:
            raise Unavailable("The folder of the signing keys can't be written.") from error

    async def _rotate(self, actor: str, reason: str, *, at_once: bool) -> Rotated:
        if not self.ring.reload() and not at_once:
            raise Unavailable("The folder of the signing keys is not in order: see the log.")
        if not at_once and (key := self._pending()):
            raise Conflict(f"The next key, {key.kid}, is published and hasn't begun to sign yet.")
        before = {key.kid for key in self.ring.keys}
        kid = await self._add(actor, reason, at_once=at_once)
        if at_once:
            # From the new file on they are dead everywhere; this only tidies up.
            self._tidy()
        key = next((key for key in self.ring.keys if key.kid == kid), None)
        if key is None:
            raise Unavailable("The new key is in its folder, but could not be read: see the log.")
        removed = before - {other.kid for other in self.ring.keys}
        return Rotated(self._status(key), tuple(sorted(removed)))

    def _tidy(self) -> None:
        try:
            self.ring.folder.remove_before(self.ring.keys[0].number)
        except OSError as error:
            log.warning("a dead key's file is still there", problem=error.strerror)
        self.ring.reload()

    async def _work(self) -> None:
        if reason := self._due():
            await self._add(ACTOR, reason, at_once=False)
        if retired := self._retired():
            stay = self.ring.keys[len(retired)]
            for key in retired:
                data = {"kid": key.kid, "algorithm": key.algorithm.value}
                await self._record("key.retired", ACTOR, data)
            self.ring.folder.remove_before(stay.number)
            self.ring.reload()
        elif self._leftover():
            self._tidy()

    async def _add(self, actor: str, reason: str, *, at_once: bool) -> str:
        """Make a key; the lock is held. The key counts from the renaming of its file on."""
        now = self._clock.now()
        private_key = await asyncio.to_thread(generate, self._algorithm)
        listing = self.ring.folder.listing()
        key = signing_key(
            private_key,
            number=max(number for number, *_ in listing) + 1 if listing else 1,
            created=int(now),
            signs_from=int(now) if at_once else math.ceil(now + self._times.publish_s),
            replaces_all=at_once,
        )
        data: dict[str, Any] = {
            "kid": key.kid,
            "algorithm": key.algorithm.value,
            "reason": reason,
            "signs_from": key.signs_from,
        }
        if at_once:
            data["removed"] = [old.kid for old in self.ring.keys]
        try:
            await self._record("key.rotated", actor, data)
        except Unavailable:
            if not at_once:
                raise
            # Killing what a stolen key signed is revoking: it goes ahead all the same.
            log.warning("a rotation at once could not be logged", **data)
        self.ring.folder.write(key)
        self.ring.reload()
        return key.kid

    async def _record(self, kind: str, actor: str, data: Mapping[str, Any]) -> None:
        shard = secrets.randbelow(self._shards)
        await self._events.record(kind, shard=shard, actor=actor, data=data)

    def _has_work(self) -> bool:
        return bool(self._due() or self._retired() or self._leftover())

    def _due(self) -> str:
        """Say why a next key is needed now; empty if it isn't."""
        signer = self.ring.signer
        if self._pending():
            return ""
        every = self._times.every_s
        if every is not None and self._clock.now() - signer.began >= every:
            return "scheduled"
        return "algorithm" if signer.algorithm is not self._algorithm else ""

    def _pending(self) -> SigningKey | None:
        """Return the key that is published and will sign soon.

        Not one that a clock far ahead has put off for longer: that would stop rotation.
        """
        now = self._clock.now()
        soon = now + self._times.publish_s + MAX_SKEW_S
        return next((key for key in self.ring.keys if now < key.signs_from <= soon), None)

    def _retired(self) -> tuple[SigningKey, ...]:
        """Return the keys whose last token is dead; these are always the lowest numbers."""
        now = self._clock.now()
        ends = ((key, self._retires_at(key)) for key in self.ring.keys)
        return tuple(key for key, end in ends if end is not None and end <= now)

    def _retires_at(self, key: SigningKey) -> int | None:
        """Return when nothing that a key signed can live: it signs until another begins to."""
        later = [other.began for other in self.ring.keys if other.number > key.number]
        return min(later) + self._times.keep_s + MAX_SKEW_S if later else None

    def _leftover(self) -> bool:
        """Say whether files of dead keys are still there, left by a crash."""
        return self.ring.lowest_file < self.ring.keys[0].number

    def _status(self, key: SigningKey) -> KeyStatus:
        signer = self.ring.signer
        state = KeyState.SIGNING
        if key.number != signer.number:
            state = KeyState.NEXT if key.number > signer.number else KeyState.RETIRING
        return KeyStatus(
            kid=key.kid,
            algorithm=key.algorithm,
            state=state,
            created_at=key.created,
            signs_from=key.began,
            retires_at=self._retires_at(key),
        )
