"""Vault and OpenBao: dynamic secrets, each leased under a token that belongs to one task.

The tokens are made and kept by ``vault_tokens.py``. Everything minted hangs from one of them, so
that it can be ended although its lease was never learnt.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import TYPE_CHECKING, Any, Final

from broker.backends.protocol import Backend, Prepared
from broker.backends.vault_answers import UNLEASED, engine_at, minted
from broker.backends.vault_api import VaultDeclined, VaultForbidden, VaultGone
from broker.backends.vault_certificates import Certificates
from broker.backends.vault_look import VaultLook
from broker.backends.vault_tokens import NAME, Reach, TaskTokens
from broker.catalog import Revocability
from broker.engines import GENERIC
from broker.errors import (
    BackendRefused,
    BackendUnavailable,
    InvalidRequest,
    NotRenewable,
    ParametersRefused,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from broker.backends.protocol import HandleStore, Minted
    from broker.backends.vault_api import VaultApi
    from broker.catalog import Capability
    from broker.clock import Clock
    from broker.grants import Grant
    from broker.tasks import Task

_CROWDED: Final = 1024
SETTLE_S: Final = 10.0
"""How long Vault may take to mark the leases of a token whose end somebody else asked for."""


class VaultBackend(Backend):
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
        ours = [c for c in capabilities if c.backend == NAME]
        self._policies = {c.name: f"{policy_prefix}{c.name}" for c in ours}
        self._revocability = {c.name: c.revocability for c in ours}
        self._certificates = Certificates(api, ours, clock)
        self._clock = clock
        self.look = VaultLook(api, broker_id)
        self._tokens = TaskTokens(api, handles, clock, broker_id=broker_id, role=token_role)
        # Tokens being ended now; and, of those ended, when what is seen of their leases counts.
        self._ending: dict[str, asyncio.Future[None]] = {}
        self._ended: dict[str, float] = {}

    def check(self, capability: Capability, parameters: Mapping[str, Any]) -> None:
        """Accept what the kind of credential takes: ``engines.py`` says what that is."""
        for name, why in engine_at(capability.path, capability.engine).faults(
            capability, parameters
        ):
            msg = f"Capability {capability.name!r}: the parameter {name!r} {why}."
            raise InvalidRequest(msg, field=f"parameters.{name}")

    async def prepare(
        self, task: Task, capability: Capability, elevation: str = "", until_ms: int = 0
    ) -> Prepared:
        """Have a token for the task or for its elevation, made now or ahead; one per replica."""
        if elevation:
            # Never the task's own, although it might do: this one ends with the window.
            policies = (self._policies[capability.name],)
            reach = Reach(policies, min(until_ms, task.expires_at), elevation)
        else:
            own = (self._policies[c] for c in task.capabilities if c in self._policies)
            reach = Reach(tuple(own), task.expires_at)
        return Prepared(handle=await self._tokens.handle_for(task, reach))

    async def mint(self, grant: Grant, task: Task, capability: Capability) -> Minted:
        """Ask for the secret with the token the grant was reserved with: one call to Vault."""
        engine = engine_at(capability.path, capability.engine)
        token = self._tokens.token(grant.handle)
        if token is None:
            raise BackendRefused("The task's token was given up meanwhile.", retry_after=1)
        await self._certificates.ready(capability)
        try:
            answer = await self._api.as_task(
                token,
                "post" if engine.writes else "get",
                capability.path,
                engine.body(capability, grant.parameters, self._seconds_of(grant)),
                lane=capability.name,
            )
        except VaultForbidden as error:
            # The token is dead or was never allowed this; another may be made next time.
            self._tokens.leave(task.id, grant.handle)
            msg = f"Vault doesn't let this task read {capability.path!r}; run `broker doctor`."
            raise BackendRefused(msg) from error
        except VaultGone as error:
            msg = f"Vault has nothing at {capability.path!r}; check the capability's path."
            raise BackendRefused(msg) from error
        except VaultDeclined as error:
            if not grant.parameters:
                raise
            msg = f"What stands behind capability {capability.name!r} doesn't allow the parameters."
            raise ParametersRefused(msg) from error
        except BackendUnavailable:
            # It may have been minted. Nothing more is hung from this token, so that it can go.
            self._tokens.leave(task.id, grant.handle)
            raise
        return minted(engine, capability, grant, answer, now_s=self._clock.now())

    def _seconds_of(self, grant: Grant) -> int:
        """What is left of a grant's time: whole seconds, which it never outlives."""
        return max(1, math.floor(grant.expires_at / 1000 - self._clock.now()))

    async def revoke(self, grant: Grant) -> None:
        """Revoke the lease and wait until Vault has run its revocation statements."""
        if UNLEASED in grant.lease:  # there is nothing in Vault to end
            await self._certificates.revoke(grant)
            return
        body = {"lease_id": grant.lease, "sync": True}
        with contextlib.suppress(VaultGone):
            await self._api.as_broker("put", "sys/leases/revoke", body, revoking=True)

    async def renew(self, grant: Grant, lifetime_ms: int) -> int:
        """Renew the lease; Vault gives no more than its mount and role allow."""
        body = {"lease_id": grant.lease, "increment": math.ceil(lifetime_ms / 1000)}
        try:
            answer = await self._api.as_broker("put", "sys/leases/renew", body)
        except VaultForbidden as error:
            msg = "The broker may not renew this lease; run `broker vault bootstrap`."
            raise BackendRefused(msg) from error
        except VaultGone as error:
            raise NotRenewable("Vault doesn't know its lease any more.") from error
        except BackendRefused as error:
            if error.retry_after:  # it wasn't asked
                raise
            raise NotRenewable("Vault doesn't renew its lease: rotate it instead.") from error
        return int(answer.get("lease_duration") or 0) * 1000

    async def is_live(self, grant: Grant) -> bool:
        """Look the lease up, and what certificates are on besides."""
        if UNLEASED not in grant.lease and await self.look.lease(grant.lease) is not None:
            return True
        return await self._certificates.is_live(grant)

    def evidence(self, grant: Grant) -> str:
        """Leases are looked up; certificates are on a list."""
        return self._certificates.evidence(grant)

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
        self._tokens.drop(task.id, handle)

    async def handle_is_live(self, task: Task, handle: str, lost: Sequence[Grant]) -> bool:
        """Whether the token, or anything that was minted with it and never recorded, is there yet.

        Vault answers an accessor revoke before the leases below it are gone. Once it has answered
        us, a lease it is still working on is listed with its time over: those are waited for. A
        token that was gone when we came may be going just now, its leases not marked yet, so
        then the look is only good a while later.
        """
        for accessor in await self._accessors(task, handle):
            if await self.look.token(accessor) is not None:
                return True
        now = self._clock.monotonic()
        if lost and self._ended.setdefault(handle, now + SETTLE_S) > now:
            return True
        return any([await self._dying_below(path) for path in {grant.path for grant in lost}])

    def outlives(self, grant: Grant) -> int | None:
        """Until its own end, if it hangs from no token, or revoking does nothing at its target."""
        engine = self._certificates.engine(grant) or GENERIC
        said = self._revocability.get(grant.capability)
        if (said or engine.revocability) is Revocability.NEVER:
            return None
        # Of a capability that has gone nobody knows what was said: it isn't taken for revocable.
        if engine.leased and said is Revocability.INSTANT:
            return 0
        # Asked for until the grant's end, or for the least that there is; in whole seconds.
        ends_at = grant.expires_at + (engine.least_s + 1) * 1000
        return max(0, math.ceil(ends_at - self._clock.now() * 1000))

    def forget(self, task_id: str) -> None:
        """Hang no further grant from the task's tokens."""
        self._tokens.forget(task_id)

    async def rotate(self, capability: Capability) -> bool:
        """Have Vault change the password that it uses itself where the capability's accounts are.

        Whoever broke the glass may have seen it there. Nobody is told the new one.
        """
        if not capability.rotate:
            return False
        try:
            await self._api.as_broker("post", capability.rotate)
        except VaultForbidden as error:
            msg = f"The broker may not rotate {capability.rotate!r}; run `broker vault bootstrap`."
            raise BackendRefused(msg) from error
        except VaultGone as error:
            msg = f"Vault has nothing to rotate at {capability.rotate!r}; check the capability."
            raise BackendRefused(msg) from error
        return True

    async def close(self) -> None:
        """Close connections and threads."""
        self._api.close()

    async def _accessors(self, task: Task, handle: str) -> list[str]:
        """Return the handle's accessor; if its answer was lost, search Vault by our metadata."""
        value = str(task.handles.get(handle, {}).get("value", ""))
        if value:
            return [value]
        return [t.accessor async for t in self.look.task_tokens() if t.handle == handle]

    async def _dying_below(self, path: str) -> bool:
        leases = await self.look.leases(await self.look.lease_ids(path))
        return any(lease.ttl_s <= 0 for lease in leases.values())
