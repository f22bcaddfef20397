"""A backend that somebody else wrote, with what the pipeline counts on made sure of.

Whatever isn't an error of ours, a call that takes too long, and an answer that is none count as
``BackendUnavailable``: nobody knows what it did. Of an error only its type is told.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, TypeVar, cast

from broker.backends.protocol import Backend, Minted, Prepared
from broker.errors import (
    AccessDenied,
    BackendRefused,
    BackendUnavailable,
    BrokerError,
    RequestError,
    Unavailable,
)
from broker.logs import get_logger
from broker.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Sequence
    from types import UnionType

    from broker.catalog import Capability
    from broker.clock import Clock
    from broker.grants import Grant
    from broker.tasks import Task

T = TypeVar("T")

log = get_logger("backends")
_MINTING: Final = 3
"""Time-outs from a grant's row to its mint's last trace: until it is asked, has to answer, and what
it left under way has ended."""
_TO_CALLERS: Final = (Unavailable, RequestError, AccessDenied)
"""What callers may be told when they ask for a credential."""


class GuardedBackend(Backend):
    """Passes every call on, for ``timeout_s`` at most.

    What a mint makes whose answer nobody heard may turn up after it was revoked. So nothing that is
    seen of a grant without an answer counts as its death until its mint must be over, whichever
    replica began it; and then it is revoked once more.
    """

    def __init__(self, inner: Backend, clock: Clock, *, timeout_s: float, origin: str = "") -> None:
        """``inner`` is called by nobody else; ``origin`` is the package it is of."""
        self.origin = origin
        self.name = inner.name
        self._inner = inner
        self._clock = clock
        self._timeout_s = timeout_s

    def check(self, capability: Capability, parameters: Mapping[str, Any]) -> None:
        """Refuse what it refuses."""
        try:
            self._inner.check(capability, parameters)
        except _TO_CALLERS:
            raise
        except (Exception, SystemExit) as error:
            raise self._unknown("check", type(error).__name__) from error

    async def prepare(
        self, task: Task, capability: Capability, elevation: str = "", until_ms: int = 0
    ) -> Prepared:
        """Prepare; a handle is good for nothing to a backend that can't end one."""
        prepared = await self._bounded(
            "prepare",
            lambda: self._inner.prepare(task, capability, elevation, until_ms),
            _TO_CALLERS,
        )
        if not _is_prepared(prepared):
            raise self._unknown("prepare", "no Prepared")
        kind = type(self._inner)
        if prepared.handle and (
            kind.revoke_handle is Backend.revoke_handle
            or kind.handle_is_live is Backend.handle_is_live
        ):
            raise BackendRefused(f"backend {self.name!r} has handles, and doesn't say how they end")
        return prepared

    async def mint(self, grant: Grant, task: Task, capability: Capability) -> Minted:
        """Mint, and see that it can be recorded and delivered."""
        minted = await self._bounded(
            "mint", lambda: self._inner.mint(grant, task, capability), _TO_CALLERS
        )
        if not _is_minted(minted):
            raise self._unknown("mint", "no Minted")
        if minted.lease != (grant.lease or minted.lease):
            # Nobody else knows of it.
            log.error("minted under another lease", grant=grant.id, lease=minted.lease)
            await self.revoke(replace(grant, lease=minted.lease))
            raise self._unknown("mint", "another lease than was prepared")
        return minted

    async def revoke(self, grant: Grant) -> None:
        """Revoke."""
        await self._bounded("revoke", lambda: self._inner.revoke(grant))

    async def is_live(self, grant: Grant) -> bool:
        """Look it up. Only a plain no is one."""
        live = await self._bounded("is_live", lambda: self._inner.is_live(grant))
        if self._plain("is_live", live):
            return True
        if self._may_turn_up(grant):
            # Not for want of an answer: others of its capability are revoked meanwhile.
            raise BackendRefused(f"backend {self.name!r}: what it was making may turn up yet")
        return False

    def evidence(self, grant: Grant) -> str:
        """Say by what it knows: a word, as it goes into the log and into receipts."""
        with contextlib.suppress(Exception, SystemExit):
            said = cast("object", self._inner.evidence(grant))
            if isinstance(said, str) and re.fullmatch(r"[a-z][a-z0-9_]{0,63}", said):
                return said
        return super().evidence(grant)

    async def rotate(self, capability: Capability) -> bool:
        """Rotate."""
        done = await self._bounded("rotate", lambda: self._inner.rotate(capability))
        return self._plain("rotate", done)

    async def revoke_handle(self, task: Task, handle: str) -> None:
        """End what hangs from a handle."""
        await self._bounded("revoke_handle", lambda: self._inner.revoke_handle(task, handle))

    async def handle_is_live(self, task: Task, handle: str, lost: Sequence[Grant]) -> bool:
        """Look a handle up. Only a plain no is one."""
        live = await self._bounded(
            "handle_is_live", lambda: self._inner.handle_is_live(task, handle, lost)
        )
        return self._plain("handle_is_live", live) or any(map(self._may_turn_up, lost))

    def outlives(self, grant: Grant) -> int | None:
        """Say how long it may live without its handle."""
        try:
            left_ms = self._inner.outlives(grant)
        except (Exception, SystemExit) as error:
            raise self._unknown("outlives", type(error).__name__) from error
        if left_ms is not None and type(left_ms) is not int:
            raise self._unknown("outlives", f"{type(left_ms).__name__} for milliseconds")
        return left_ms

    def forget(self, task_id: str) -> None:
        """Drop what is kept in memory."""
        try:
            self._inner.forget(task_id)
        except (Exception, SystemExit) as error:
            log.warning("backend failed", backend=self.name, call="forget", exc_info=error)

    async def health(self) -> str:
        """Say how it is, or that it doesn't say."""
        try:
            return str(await self._bounded("health", self._inner.health))
        except BrokerError as error:
            return error.detail

    async def close(self) -> None:
        """Close connections; whatever goes wrong, the others' are closed too."""
        try:
            await self._bounded("close", self._inner.close)
        except Unavailable as error:
            log.warning("backend failed", backend=self.name, call="close", error=error.detail)

    async def _bounded(
        self,
        call: str,
        work: Callable[[], Awaitable[T]],
        ours: tuple[type[BrokerError], ...] = (Unavailable,),
    ) -> T:
        """Wait for a call, but not for one that doesn't heed that it was given up.

        Raises:
            BackendUnavailable: it failed by no error of ``ours``, or took too long.
        """

        async def run() -> T:
            try:
                return await work()
            except SystemExit as error:  # asyncio would end the broker by it
                raise self._unknown(call, type(error).__name__) from error

        job = asyncio.ensure_future(run())
        job.add_done_callback(_heard)
        try:
            done, _ = await asyncio.wait([job], timeout=self._timeout_s)
        finally:
            job.cancel()  # does nothing to what is done
        if not done:
            raise self._unknown(call, f"no answer in {self._timeout_s:g} s")
        if job.cancelled():
            raise self._unknown(call, "cancelled")
        error = job.exception()
        if isinstance(error, ours):
            raise error
        if error is not None:
            raise self._unknown(call, type(error).__name__) from error
        return job.result()

    def _unknown(self, call: str, what: str) -> BackendUnavailable:
        return BackendUnavailable(f"backend {self.name!r}, {call}: {what}")

    def _plain(self, call: str, answer: object) -> bool:
        """Take a yes or a no, and nothing that only looks like one."""
        if not isinstance(answer, bool):
            raise self._unknown(call, f"{type(answer).__name__} for a yes or no")
        return answer

    def _may_turn_up(self, grant: Grant) -> bool:
        """Whether a mint that was never heard of may be under way; the ledger knows of the rest."""
        age_s = self._clock.now() - grant.created_at / 1000
        return not grant.lives_until and age_s < _MINTING * self._timeout_s


def _heard(job: asyncio.Future[Any]) -> None:
    """Take note of what came of a call that was given up, or asyncio would log all of it."""
    if not job.cancelled():
        job.exception()


def _is_prepared(answer: object) -> bool:
    """Whether an answer is what its type says; nobody has checked the types of its maker."""
    return isinstance(answer, Prepared) and _are((answer.handle, answer.lease), str)


def _is_minted(answer: object) -> bool:
    """Whether an answer can be recorded and delivered: one with a lease, all of its types."""
    return (
        isinstance(answer, Minted)
        and _are((answer.lease, answer.type, answer.account, answer.withheld), str)
        and bool(answer.lease)
        and type(answer.lifetime_ms) is int
        and answer.lifetime_ms >= 0
        and isinstance(cast("object", answer.fields), Mapping)
        and _are(answer.fields, str)
        and _are(answer.fields.values(), str | Secret)
    )


def _are(values: Iterable[object], kind: type | UnionType) -> bool:
    return all(isinstance(value, kind) for value in values)
