"""What can be granted, and who there is: capabilities, powers, principals."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from broker.identity.models import Identity, Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Power(StrEnum):
    """What a holder can do, from least to most."""

    READ = "read"
    OPERATE = "operate"
    PRIVILEGED = "privileged"

    @property
    def rank(self) -> int:
        """0 for read, 1 for operate, 2 for privileged."""
        return _RANKS[self]


_RANKS: Final[Mapping[Power, int]] = {power: rank for rank, power in enumerate(Power)}


class Revocability(StrEnum):
    """Whether a credential can be ended before its time."""

    INSTANT = "instant"
    TTL_ONLY = "ttl_only"


@dataclass(frozen=True, slots=True)
class Capability:
    """A catalogue entry. TTLs are milliseconds.

    ``path`` is where a Vault credential is read; ``resource`` and ``scope`` are the audience and
    scope of a ``token`` credential. ``max_live`` bounds the live grants of one task.
    """

    name: str
    power: Power
    backend: str
    ttl_ms: int
    max_ttl_ms: int
    path: str = ""
    resource: str = ""
    scope: str = ""
    data_class: str = "internal"
    effects: frozenset[str] = frozenset()
    revocability: Revocability = Revocability.INSTANT
    max_live: int = 100
    dsn: str = ""


@dataclass(frozen=True, slots=True)
class Principal:
    """A registered workload or person.

    ``resource`` is the URI a resource server answers for; ``max_ttl_ms`` bounds every credential
    of an agent (0: no bound of its own).
    """

    name: str
    role: Role
    owner: str
    issuer_name: str
    subject: str
    capabilities: frozenset[str] = frozenset()
    resource: str = ""
    max_ttl_ms: int = 0


class Catalog:
    """Look-ups over the configured principals and capabilities."""

    def __init__(self, principals: Iterable[Principal], capabilities: Iterable[Capability]) -> None:
        """Names are unique; the configuration has checked that."""
        self.principals = {p.name: p for p in principals}
        self.capabilities = {c.name: c for c in capabilities}
        self._by_identity = {(p.issuer_name, p.subject): p for p in self.principals.values()}

    def principal_of(self, identity: Identity) -> Principal | None:
        """Return the principal a proved identity belongs to, by issuer and subject together."""
        return self._by_identity.get((identity.issuer_name, identity.subject))

    def resource_server(self, resource: str) -> Principal | None:
        """Return the resource server that answers for a URI."""
        for principal in self.principals.values():
            if principal.role is Role.RESOURCE_SERVER and principal.resource == resource:
                return principal
        return None
