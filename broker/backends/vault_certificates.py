"""How certificates end: what Vault's lease can't say, lists of the revoked do.

An X.509 certificate ends with its lease, and verifiers learn of it from the CA's CRL, which Vault
writes. An OpenSSH certificate has no lease: servers learn of it from a KRL, which the broker
writes where a capability says so (``krl_file``). Either is dead when its own time is up.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.backends.krl_file import KrlFile
from broker.backends.vault_answers import UNLEASED
from broker.backends.vault_api import VaultGone
from broker.catalog import Revocability
from broker.certificates import is_on_list
from broker.engines import ENGINES, GENERIC, Proof, engine_of, mount_of
from broker.errors import BackendRefused, BackendUnavailable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from broker.backends.vault_api import VaultApi
    from broker.catalog import Capability
    from broker.clock import Clock
    from broker.engines import Engine
    from broker.grants import Grant

EXPIRED: Final = "expired"


class Certificates:
    """The lists that certificates are on once they are revoked."""

    def __init__(self, api: VaultApi, capabilities: Iterable[Capability], clock: Clock) -> None:
        """Capabilities that name the same file share it."""
        self._api = api
        self._clock = clock
        self._capabilities = {c.name: c for c in capabilities}
        self._files = {
            path: KrlFile(path, clock)
            for path in {c.krl_file for c in self._capabilities.values()}
            if path is not None
        }

    def _file(self, capability: str) -> KrlFile | None:
        found = self._capabilities.get(capability)
        return self._files[found.krl_file] if found and found.krl_file else None

    def proof(self, grant: Grant) -> Proof:
        """Say by what it is known that a grant's credential is dead."""
        engine = self.engine(grant)
        return engine.proof if engine else Proof.LEASE

    def engine(self, grant: Grant) -> Engine | None:
        """Return the row of what a grant is.

        Its capability may have gone since, or be another: what has the serial number of an X.509
        certificate, from a path that gives them, is one whatever the configuration says now.
        """
        found = self._capabilities.get(grant.capability)
        engine = engine_of(grant.path, found.engine if found else "")
        if engine in (None, GENERIC) and ":" in grant.account:
            rows = (row for row in ENGINES if row.proof is Proof.CRL)
            return next((row for row in rows if mount_of(grant.path, row)), engine)
        return engine

    async def ready(self, capability: Capability) -> None:
        """See that what is about to be signed could be revoked.

        Raises:
            BackendRefused: it couldn't: nothing is signed.
        """
        if file := self._file(capability.name):
            await file.ready()

    async def revoke(self, grant: Grant) -> None:
        """Put a certificate without a lease on its KRL, if it has one and isn't over already."""
        file = self._file(grant.capability)
        if file is not None and not self._is_over(grant):
            await file.add(_serial(grant), (grant.lives_until or grant.expires_at) / 1000)

    async def is_live(self, grant: Grant) -> bool:
        """Whether servers would take it, for all that is known; its lease is gone, if it had one.

        What has no list and can't be revoked is none of ours: its grant waits for its end.
        """
        if self._is_over(grant):
            return False
        if UNLEASED not in grant.lease:
            return (
                self.proof(grant) is Proof.CRL
                and bool(grant.account)
                and not (await self._is_on_crl(grant))
            )
        if file := self._file(grant.capability):
            return not await file.has(_serial(grant))
        if grant.revocability == Revocability.INSTANT:
            msg = f"Capability {grant.capability!r} names no krl_file any more to revoke it with."
            raise BackendRefused(msg)
        return False

    def evidence(self, grant: Grant) -> str:
        """Say by what ``is_live`` knows."""
        proof = self.proof(grant)
        if proof is Proof.LEASE or not grant.account:
            return Proof.LEASE
        return EXPIRED if self._is_over(grant) else proof

    def _is_over(self, grant: Grant) -> bool:
        return 0 < grant.lives_until <= self._clock.now() * 1000

    async def _is_on_crl(self, grant: Grant) -> bool:
        """Whether the issuer's list has it. Vault gives certificates and lists to anybody."""
        engine = self.engine(grant)
        mount = mount_of(grant.path, engine) if engine else ""
        row = await self._read(f"{mount}/cert/{grant.account}")
        if not row.get("revocation_time"):
            return False
        # A mount may have several issuers, each with a list of its own.
        issuer = row.get("issuer_id")
        path = f"{mount}/issuer/{issuer}/crl" if issuer else f"{mount}/cert/crl"
        found = await self._read(path)
        try:
            return is_on_list(str(found.get("crl") or found.get("certificate")), grant.account)
        except ValueError as error:
            raise BackendUnavailable(f"Vault {path}: no CRL that can be read") from error

    async def _read(self, path: str) -> Mapping[str, Any]:
        try:
            answer = await self._api.as_broker("get", path, revoking=True)
        except VaultGone:
            return {}
        return answer.get("data") or {}


def _serial(grant: Grant) -> int:
    """Return the serial number in a handle: 64 bits in hex."""
    return int(grant.lease.rpartition(UNLEASED)[2], 16)
