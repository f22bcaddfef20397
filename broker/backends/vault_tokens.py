"""The tokens credentials are read with: one for a task and replica, one more for each elevation.

Each is a service token made through the token role: orphan, not renewable, dead at the end of its
task or window by Vault's own clock, with the policies of what it is for and nothing else. Its
accessor is in the ledger before the token is used, and that it *may* exist is in the ledger before
Vault is asked for it. The token stays in this process's memory.
"""

from __future__ import annotations

import asyncio
import math
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker.errors import BackendRefused, TaskNotActive
from broker.secret import Secret

if TYPE_CHECKING:
    from broker.backends.protocol import HandleStore
    from broker.backends.vault_api import VaultApi
    from broker.clock import Clock
    from broker.tasks import Task

NAME: Final = "vault"
_ACTOR: Final = "broker"
_CROWDED: Final = 1024


@dataclass(frozen=True, slots=True)
class Reach:
    """What a token is for: these policies, until then (epoch ms), under an elevation or none."""

    policies: tuple[str, ...]
    until_ms: int
    elevation: str = ""


class TaskTokens:
    """Makes each token once, however many grants ask for it at the same time, and keeps it."""

    def __init__(
        self, api: VaultApi, handles: HandleStore, clock: Clock, *, broker_id: str, role: str
    ) -> None:
        """``broker_id`` marks our tokens in Vault; ``role`` is the token role's name."""
        self._api = api
        self._handles = handles
        self._clock = clock
        self._broker_id = broker_id
        self._role = role
        # Which handle new grants of a task are to hang from, by elevation, and each handle's token.
        # A token is kept for the grants reserved with it when the task has moved on to another.
        self._current: dict[str, dict[str, asyncio.Future[str]]] = {}
        self._tokens: dict[str, tuple[int, Secret]] = {}
        self._crowded = _CROWDED

    async def handle_for(self, task: Task, reach: Reach) -> str:
        """Return the handle that new grants are to hang from, made now or ahead.

        Raises:
            TaskNotActive: the task or the elevation is over.
            BackendRefused, BackendUnavailable: as ``Backend`` says.
        """
        held = self._current.get(task.id, {}).get(reach.elevation)
        if held is None:
            self._drop_expired()
            held = asyncio.ensure_future(self._make(task, reach))
            self._current.setdefault(task.id, {})[reach.elevation] = held
        try:
            return await asyncio.shield(held)
        except Exception:
            if self._current.get(task.id, {}).get(reach.elevation) is held:
                del self._current[task.id][reach.elevation]
            raise

    def token(self, handle: str) -> Secret | None:
        """Return the token of a handle, if this process has it."""
        held = self._tokens.get(handle)
        return held[1] if held else None

    def forget(self, task_id: str) -> None:
        """Hang no further grant from any token of a task."""
        self._current.pop(task_id, None)

    def leave(self, task_id: str, handle: str) -> None:
        """Hang no further grant from one token."""
        held = self._current.get(task_id, {})
        for elevation in [e for e, made in held.items() if _made(made) == handle]:
            del held[elevation]

    def drop(self, task_id: str, handle: str) -> None:
        """Give up a token that was ended."""
        self.leave(task_id, handle)
        self._tokens.pop(handle, None)

    def _drop_expired(self) -> None:
        """Tokens of tasks that another replica closed are dead weight; drop them now and then."""
        if len(self._tokens) < self._crowded:
            return
        now = self._clock.now() * 1000
        self._tokens = {k: held for k, held in self._tokens.items() if held[0] > now}
        live = {
            task_id: {
                elevation: made
                for elevation, made in held.items()
                if not made.done() or _made(made) in self._tokens
            }
            for task_id, held in self._current.items()
        }
        self._current = {task_id: held for task_id, held in live.items() if held}
        self._crowded = max(_CROWDED, 2 * len(self._tokens))

    async def _make(self, task: Task, reach: Reach) -> str:
        handle = secrets.token_hex(6)
        left_s = reach.until_ms / 1000 - self._clock.now()
        # The end of a window is a limit; that of a task is when its last grant may still be used.
        seconds = math.floor(left_s) if reach.elevation else math.ceil(left_s)
        if seconds <= 0 or await self._write("expect", task, handle, reach) != "active":
            raise _over(reach)
        meta = {"broker": self._broker_id, "task": task.id, "handle": handle}
        body = {
            "policies": list(reach.policies),
            "explicit_max_ttl": f"{seconds}s",
            "ttl": f"{seconds}s",
            "renewable": False,
            "no_default_policy": True,
            "display_name": "broker",
            "meta": {**meta, "elevation": reach.elevation} if reach.elevation else meta,
        }
        try:
            answer = await self._api.as_broker("post", f"auth/token/create/{self._role}", body)
        except BackendRefused:
            await self._handles.handle(
                task.id, "drop", handle, backend=NAME, actor=_ACTOR, refused=True
            )
            raise
        auth = answer["auth"]
        # Only once the accessor is in the ledger may the token be used.
        if await self._write("record", task, handle, reach, auth["accessor"]) != "active":
            # Recorded, it goes with what has ended; if that was closed already, we end it here.
            body = {"accessor": auth["accessor"]}
            await self._api.as_broker("post", "auth/token/revoke-accessor", body, revoking=True)
            raise _over(reach)
        self._tokens[handle] = (reach.until_ms, Secret(auth["client_token"]))
        return handle

    async def _write(
        self, op: str, task: Task, handle: str, reach: Reach, accessor: str = ""
    ) -> str:
        return await self._handles.handle(
            task.id,
            op,
            handle,
            backend=NAME,
            actor=_ACTOR,
            value=accessor,
            elevation=reach.elevation,
        )


def _made(held: asyncio.Future[str]) -> str:
    """Return the handle that was made, or nothing while there is none."""
    ended = held.done() and not held.cancelled() and held.exception() is None
    return held.result() if ended else ""


def _over(reach: Reach) -> TaskNotActive:
    if reach.elevation:
        return TaskNotActive("The elevation is over, or its task has ended.")
    return TaskNotActive("The task is not active: it has ended, or its time is up.")
