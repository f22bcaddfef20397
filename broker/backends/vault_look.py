"""What Vault has: tokens by their accessor, leases by their id, and lists of both."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from broker.backends.vault_api import VaultForbidden, VaultGone

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable, Mapping

    from broker.backends.vault_api import VaultApi

_LOOKUPS: Final = 16
_THROUGH_A_ROLE: Final = "auth/token/create/"
"""Where all of our tokens were made. Whoever may make tokens of their own can write into metadata
what they like; they make them elsewhere."""


@dataclass(frozen=True, slots=True)
class TaskToken:
    """A token that was made for a task. Times are epoch milliseconds by Vault's clock."""

    accessor: str = field(repr=False)
    task: str
    handle: str
    created_at: int


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease as Vault has it; one whose time is over (``ttl_s`` 0) is being ended."""

    id: str
    issued_at: int
    ttl_s: int


class VaultLook:
    """Looks, and changes nothing."""

    def __init__(self, api: VaultApi, broker_id: str) -> None:
        """``broker_id`` tells our tokens from others'."""
        self._api = api
        self._broker_id = broker_id

    async def task_tokens(self) -> AsyncIterator[TaskToken]:
        """Yield every token this broker made that Vault still knows."""
        accessors = await self.listed("auth/token/accessors")
        for first in range(0, len(accessors), _LOOKUPS):
            some = accessors[first : first + _LOOKUPS]
            rows = await asyncio.gather(*map(self.token, some))
            for accessor, row in zip(some, rows, strict=True):
                meta: Mapping[str, str] = (row or {}).get("meta") or {}
                if row is None or not str(row.get("path", "")).startswith(_THROUGH_A_ROLE):
                    continue
                if meta.get("broker") == self._broker_id:
                    yield TaskToken(
                        accessor,
                        str(meta.get("task", "")),
                        str(meta.get("handle", "")),
                        int(row.get("creation_time") or 0) * 1000,
                    )

    async def token(self, accessor: str) -> Mapping[str, Any] | None:
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

    async def lease(self, lease: str) -> Lease | None:
        """Look a lease up; None when it is gone."""
        try:
            answer = await self._api.as_broker(
                "put", "sys/leases/lookup", {"lease_id": lease}, revoking=True
            )
        except VaultGone:
            return None
        data = answer["data"]
        return Lease(lease, _epoch_ms(data.get("issue_time")), int(data.get("ttl") or 0))

    async def leases(self, ids: Iterable[str]) -> dict[str, Lease]:
        """Look leases up, a few at a time; those that are gone are left out."""
        gate = asyncio.Semaphore(_LOOKUPS)

        async def one(lease: str) -> Lease | None:
            async with gate:
                return await self.lease(lease)

        found = await asyncio.gather(*map(one, ids))
        return {lease.id: lease for lease in found if lease is not None}

    async def lease_ids(self, path: str) -> list[str]:
        """Return the ids of the leases of a path."""
        return [f"{path}/{name}" for name in await self.listed(f"sys/leases/lookup/{path}")]

    async def listed(self, path: str) -> list[str]:
        """Return what a LIST of a path has; nothing where there is nothing."""
        try:
            answer = await self._api.as_broker("list", path, revoking=True)
        except VaultGone:
            return []
        return [str(key) for key in answer["data"].get("keys") or ()]

    # And the two ends that reconciling puts to what nothing else knows.

    async def end_token(self, accessor: str) -> bool:
        """Revoke a token and all that was made with it; whether it is gone."""
        try:
            body = {"accessor": accessor}
            await self._api.as_broker("post", "auth/token/revoke-accessor", body, revoking=True)
        except VaultGone:
            return True
        return await self.token(accessor) is None

    async def end_lease(self, lease: str) -> bool:
        """Revoke a lease, by its revocation statements; whether it is gone."""
        body = {"lease_id": lease, "sync": True}
        try:
            await self._api.as_broker("put", "sys/leases/revoke", body, revoking=True)
        except VaultGone:
            return True
        return await self.lease(lease) is None


def _epoch_ms(text: object) -> int:
    return int(datetime.fromisoformat(str(text)).timestamp() * 1000) if text else 0
