"""Vault and OpenBao: dynamic secrets, each leased under a token that belongs to one task.

For a task this replica makes one service token through the token role: orphan, not renewable, dead
at the task's deadline by Vault's own clock, able to read that task's capabilities and nothing else.
Its accessor is in the ledger before the token is used, and that it *may* exist is in the ledger
before Vault is asked for it. The token stays in this process's memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from broker.backends.protocol import Minted, Prepared
from broker.backends.vault_api import VaultForbidden, VaultGone
from broker.errors import BackendRefused, BackendUnavailable, InvalidRequest, TaskNotActive
from broker.secret import Secret

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping, Sequence

    from broker.backends.protocol import HandleStore
    from broker.backends.vault_api import VaultApi
    from broker.catalog import Capability
    from broker.clock import Clock
    from broker.grants import Grant
    from broker.tasks import Task

NAME: Final = "vault"
_ACTOR: Final = "broker"
_LOOKUPS: Final = 16
_CROWDED: Final = 1024
SETTLE_S: Final = 10.0
"""How long Vault may take to mark the leases of a token whose end somebody else asked for."""


class VaultBackend:
    """Mints with task tokens; revokes leases synchronously; confirms by looking them up."""

    name = NAME

    def __init__(
        self,
        api: VaultApi,
        handles: HandleStore,
        capabilities: Iterable[Capability],
        clock: Clock,
        *,
        broker_id: str,
        token_role: str = "broker-task",
        policy_prefix: str = "broker-cap-",
    ) -> None:
        """``broker_id`` marks our tokens in Vault, so that they can be told from others'."""
        self._api = api
        self._handles = handles
        self._policies = {
            c.name: f"{policy_prefix}{c.name}" for c in capabilities if c.backend == NAME
        }
        self._clock = clock
        self._broker_id = broker_id
        self._role = token_role
        # Which handle new grants of a task are to hang from, and each handle's token. A token is
        # kept for the grants reserved with it when the task has moved on to another.
        self._current: dict[str, asyncio.Future[str]] = {}
        self._tokens: dict[str, tuple[int, Secret]] = {}
        self._crowded = _CROWDED
        # Tokens being ended now; and, of those ended, when what is seen of their leases counts.
        self._ending: dict[str, asyncio.Future[None]] = {}
        self._ended: dict[str, float] = {}

    def check(self, capability: Capability, parameters: Mapping[str, Any]) -> None:
        """There are no parameters."""
        if parameters:
            names = ", ".join(sorted(parameters))
            msg = f"Capability {capability.name!r} takes no parameters (given: {names})."
            raise InvalidRequest(msg, field="parameters")

    async def prepare(self, task: Task, capability: Capability) -> Prepared:  # noqa: ARG002
        """Have a token for the task, made now or ahead; one per task and replica."""
        return Prepared(handle=await self._handle_for(task))

    async def mint(self, grant: Grant, task: Task, capability: Capability) -> Minted:
        """Read the secret with the token the grant was reserved with: one call to Vault."""
        _, token = self._tokens.get(grant.handle, (0, None))
        if token is None:
            raise BackendRefused("The task's token was given up meanwhile.", retry_after=1)
        try:
            answer = await self._api.as_task(token, "get", capability.path, lane=capability.name)
        except VaultForbidden as error:
            # The token is dead or was never allowed this; another may be made next time.
            self.forget(task.id)
            msg = f"Vault doesn't let this task read {capability.path!r}; run `broker doctor`."
            raise BackendRefused(msg) from error
        except VaultGone as error:
            msg = f"Vault has nothing at {capability.path!r}; check the capability's path."
            raise BackendRefused(msg) from error
        except BackendUnavailable:
            # It may have been minted. Nothing more is hung from this token, so that it can go.
            self.forget(task.id)
            raise
        if not answer.get("lease_id"):
            # Nothing was made for us, and nothing could be revoked: it is not delivered.
            msg = f"What is at {capability.path!r} has no lease, so it could never be revoked."
            raise BackendRefused(msg)
        return Minted(
            lease=answer["lease_id"],
            lifetime_ms=int(answer.get("lease_duration") or 0) * 1000,
            type=capability.path.partition("/")[0],
            fields=_fields(answer.get("data") or {}, capability),
        )

    async def revoke(self, grant: Grant) -> None:
        """Revoke the lease and wait until Vault has run its revocation statements."""
        body = {"lease_id": grant.lease, "sync": True}
        with contextlib.suppress(VaultGone):
            await self._api.as_broker("put", "sys/leases/revoke", body, revoking=True)

    async def is_live(self, grant: Grant) -> bool:
        """Look the lease up."""
        return await self._lease(grant.lease) is not None

    async def revoke_handle(self, task: Task, handle: str) -> None:
        """Revoke a task token by its accessor; everything minted with it dies too."""
        running = self._ending.get(handle)
        if running is None:
            running = asyncio.ensure_future(self._end_token(task, handle))
            self._ending[handle] = running
            running.add_done_callback(lambda _: self._ending.pop(handle, None))
        await asyncio.shield(running)

    async def _end_token(self, task: Task, handle: str) -> None:
        for accessor in await self._accessors(task, handle):
            body = {"accessor": accessor}
            path = "auth/token/revoke-accessor"
            try:
                answer = await self._api.as_broker("post", path, body, revoking=True)
            except VaultGone:
                answer = {"warnings": ["gone"]}
            if len(self._ended) >= _CROWDED:
                self._ended.clear()  # whoever asks again waits once more
            if answer.get("warnings"):
                # Gone before us, or just going by another's hand: its leases may not even be
                # marked yet.
                self._ended.setdefault(handle, self._clock.monotonic() + SETTLE_S)
            else:
                self._ended[handle] = 0.0
        self._tokens.pop(handle, None)

    async def handle_is_live(self, task: Task, handle: str, lost: Sequence[Grant]) -> bool:
        """Whether the token, or anything that was minted with it and never recorded, is there yet.

        Vault answers an accessor revoke before the leases below it are gone. Once it has answered
        us, a lease it is still working on is listed with its time over: those are waited for. A
        token that was gone when we came may be going just now, its leases not marked yet, so
        then the look is only good a while later.
        """
        for accessor in await self._accessors(task, handle):
            if await self._token(accessor) is not None:
                return True
        now = self._clock.monotonic()
        if lost and self._ended.setdefault(handle, now + SETTLE_S) > now:
            return True
        return any([await self._dying_below(path) for path in {grant.path for grant in lost}])

    def forget(self, task_id: str) -> None:
        """Hang no further grant from the task's token."""
        self._current.pop(task_id, None)

    async def _handle_for(self, task: Task) -> str:
        """Make the task's token once, however many grants ask for it at the same time."""
        held = self._current.get(task.id)
        if held is None:
            self._drop_expired()
            held = asyncio.ensure_future(self._make_token(task))
            self._current[task.id] = held
        try:
            return await asyncio.shield(held)
        except Exception:
            if self._current.get(task.id) is held:
                self.forget(task.id)
            raise

    def _drop_expired(self) -> None:
        """Tokens of tasks that another replica closed are dead weight; drop them now and then."""
        if len(self._tokens) >= self._crowded:
            now = self._clock.now() * 1000
            self._tokens = {k: held for k, held in self._tokens.items() if held[0] > now}
            live = set(self._tokens)
            self._current = {
                k: held
                for k, held in self._current.items()
                if not held.done() or (not held.exception() and held.result() in live)
            }
            self._crowded = max(_CROWDED, 2 * len(self._tokens))

    async def _make_token(self, task: Task) -> str:
        handle = secrets.token_hex(6)
        seconds = math.ceil(task.expires_at / 1000 - self._clock.now())
        if seconds <= 0 or await self._write("expect", task, handle) == "task_not_active":
            raise TaskNotActive("The task is not active: it has ended, or its time is up.")
        body = {
            "policies": [self._policies[c] for c in task.capabilities if c in self._policies],
            "explicit_max_ttl": f"{seconds}s",
            "ttl": f"{seconds}s",
            "renewable": False,
            "no_default_policy": True,
            "display_name": "broker",
            "meta": {"broker": self._broker_id, "task": task.id, "handle": handle},
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
        state = await self._write("record", task, handle, auth["accessor"])
        if state != "active":
            # Recorded, it goes with the ended task; if the task was closed already, we end it here.
            body = {"accessor": auth["accessor"]}
            await self._api.as_broker("post", "auth/token/revoke-accessor", body, revoking=True)
            raise TaskNotActive("The task ended while its credential was being prepared.")
        self._tokens[handle] = (task.expires_at, Secret(auth["client_token"]))
        return handle

    async def _write(self, op: str, task: Task, handle: str, value: str = "") -> str:
        return await self._handles.handle(
            task.id, op, handle, backend=NAME, actor=_ACTOR, value=value
        )

    async def _accessors(self, task: Task, handle: str) -> list[str]:
        """Return the handle's accessor; if its answer was lost, search Vault by our metadata."""
        value = str(task.handles.get(handle, {}).get("value", ""))
        if value:
            return [value]
        return [a async for a, meta in self.task_tokens() if meta.get("handle") == handle]

    async def task_tokens(self) -> AsyncIterator[tuple[str, Mapping[str, str]]]:
        """Yield (accessor, metadata) of every token this broker made that Vault still knows."""
        for accessor in await self._listed("auth/token/accessors"):
            row = await self._token(accessor)
            meta: Mapping[str, str] = (row or {}).get("meta") or {}
            if meta.get("broker") == self._broker_id:
                yield accessor, meta

    async def _token(self, accessor: str) -> Mapping[str, Any] | None:
        """Look a token up by its accessor; None when it is gone."""
        path, body = "auth/token/lookup-accessor", {"accessor": accessor}
        try:
            answer = await self._api.as_broker("post", path, body, revoking=True)
        except VaultGone:
            return None
        except VaultForbidden:
            # Also the answer for an accessor whose token is gone and which is not cleared away
            # yet. A right that we lack looks the same: our own accessor tells the two apart.
            own = await self._api.as_broker("get", "auth/token/lookup-self", revoking=True)
            mine = {"accessor": own["data"]["accessor"]}
            await self._api.as_broker("post", path, mine, revoking=True)
            return None
        return answer["data"]

    async def _lease(self, lease: str) -> Mapping[str, Any] | None:
        try:
            answer = await self._api.as_broker(
                "put", "sys/leases/lookup", {"lease_id": lease}, revoking=True
            )
        except VaultGone:
            return None
        return answer["data"]

    async def _dying_below(self, path: str) -> bool:
        leases = [f"{path}/{name}" for name in await self._listed(f"sys/leases/lookup/{path}")]
        gate = asyncio.Semaphore(_LOOKUPS)

        async def dying(lease: str) -> bool:
            async with gate:
                row = await self._lease(lease)
            return row is not None and (row.get("ttl") or 0) <= 0

        return any(await asyncio.gather(*map(dying, leases)))

    async def _listed(self, path: str) -> list[str]:
        try:
            answer = await self._api.as_broker("list", path, revoking=True)
        except VaultGone:
            return []
        return [str(key) for key in answer["data"].get("keys") or ()]


_PLAIN: Final = frozenset({"username", "ttl", "serial_number", "expiration"})


def _fields(data: Mapping[str, Any], capability: Capability) -> dict[str, str | Secret]:
    """Wrap all that Vault returned but what is known to be public, and add the DSN."""
    fields: dict[str, str | Secret] = {
        key: str(value) if key in _PLAIN else Secret(str(value)) for key, value in data.items()
    }
    if capability.dsn and {"username", "password"} <= data.keys():
        plain = {key: quote(str(value), safe="") for key, value in data.items()}
        fields["dsn"] = Secret(capability.dsn.format_map(plain))
    return fields
