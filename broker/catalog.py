"""What can be granted, and who there is: capabilities, powers, principals."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from broker.identity.models import Identity, Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from broker.identity.rules import IdentityRule


class Power(StrEnum):
    """What a holder can do, from least to most."""

    READ = "read"
    OPERATE = "operate"
    PRIVILEGED = "privileged"

    @property
    def rank(self) -> int:
        """0 for read, 1 for operate, 2 for privileged."""
        return _RANKS[self]


TOOL: Final = "tool"
"""The backend of what is called, not handed out: nothing is issued for it."""

_RANKS: Final[Mapping[Power, int]] = {power: rank for rank, power in enumerate(Power)}


class Revocability(StrEnum):
    """Whether a credential can be ended before its time."""

    INSTANT = "instant"
    TTL_ONLY = "ttl_only"
    NEVER = "never"
    """A static secret: it has no time of its own either."""


@dataclass(frozen=True, slots=True)
class Rate:
    """``count`` in each ``window_ms`` milliseconds, and as many at once."""

    count: int
    window_ms: int


@dataclass(frozen=True, slots=True)
class Capability:
    """A catalogue entry. TTLs are milliseconds.

    ``path`` is where a Vault credential is asked for, of the secrets engine ``engine`` (empty: the
    one that the mount is named after), with ``parameters`` that nobody can ask to be others;
    ``rotate`` is written to after break-glass, to change the password that Vault itself uses there.
    With ``exclusive`` nobody but the broker reads the path, so a lease there that the ledger
    doesn't know is an orphan.
    SSH certificates that are revoked are put on the OpenSSH revocation list in ``krl_file``.
    ``resources`` and ``scope`` are the audience and scope of a ``token`` credential. ``max_live``
    bounds the live grants of one task, ``max_live_total`` those of all (0: any number), and
    ``issue_rate`` how often one is issued. ``renewable_ms`` is how long one lives at most if it is
    renewed, counted from its issue: 0 for ``max_ttl_ms``. ``require_binding`` wants the caller's
    token to be bound to a key (RFC 9449, RFC 8705). With ``model_may_see`` a sealed token gets its
    credentials in plain.

    A tool is a capability too: ``tool`` is what its callers call it, ``arguments`` are its
    arguments by name, each with its type and whether it may be left out, and ``amount`` is the one
    whose numbers are summed up. Its ``resources`` are the resource servers that may ask about it.
    """

    name: str
    power: Power
    backend: str
    ttl_ms: int
    max_ttl_ms: int
    path: str = ""
    engine: str = ""
    parameters: Mapping[str, str] = field(default_factory=dict[str, str])
    rotate: str = ""
    exclusive: bool = False
    krl_file: Path | None = None
    resources: tuple[str, ...] = ()
    scope: str = ""
    require_binding: bool = False
    model_may_see: bool = False
    data_class: str = "internal"
    effects: frozenset[str] = frozenset()
    revocability: Revocability = Revocability.INSTANT
    max_live: int = 100
    max_live_total: int = 0
    issue_rate: Rate | None = None
    renewable_ms: int = 0
    dsn: str = ""
    tool: str = ""
    arguments: Mapping[str, tuple[str, bool]] = field(default_factory=dict[str, tuple[str, bool]])
    amount: str = ""

    @property
    def is_tool(self) -> bool:
        """Whether it is called and nothing is issued for it."""
        return self.backend == TOOL

    @property
    def scopes(self) -> frozenset[str]:
        """The words of ``scope``."""
        return frozenset(self.scope.split())


class PrincipalState(StrEnum):
    """Whether a principal may do anything: only an active one."""

    ACTIVE = "active"
    SUSPENDED = "suspended"
    RETIRED = "retired"


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """A registered workload or person. Times are epoch milliseconds, 0 for none.

    It proves itself by an identity that ``identity`` matches, or as an OAuth client by a key of
    its own: of the JWK Set in ``jwks_file``, or of ``jwks`` itself.

    ``purpose`` is what it is there for, ``review_at`` when somebody must look at it again.
    ``resource`` is the URI a resource server answers for; ``max_ttl_ms`` bounds every credential
    of an agent (0: no bound of its own), and ``delegates_to`` whom it may open tasks for (None:
    anybody). ``registered`` tells those added at run time from those
    of the configuration.
    """

    name: str
    role: Role
    owner: str
    identity: IdentityRule | None = None
    jwks_file: Path | None = None
    jwks: str = ""
    purpose: str = ""
    review_at: int = 0
    capabilities: frozenset[str] = frozenset()
    resource: str = ""
    max_ttl_ms: int = 0
    delegates_to: frozenset[str] | None = None
    state: PrincipalState = PrincipalState.ACTIVE
    registered: bool = False


class Catalog:
    """Look-ups over the principals and capabilities there are now."""

    def __init__(self, principals: Iterable[Principal], capabilities: Iterable[Capability]) -> None:
        """Names are unique; the configuration has checked that."""
        self.capabilities = {c.name: c for c in capabilities}
        self.tools = {c.tool or c.name: c for c in self.capabilities.values() if c.is_tool}
        self.principals: Mapping[str, Principal] = {}
        self._by_subject: Mapping[tuple[str, str], list[Principal]] = {}
        self._by_rule: list[Principal] = []
        self.replace(principals)

    def replace(self, principals: Iterable[Principal]) -> None:
        """Take other principals in place of those there are, all at once."""
        by_name = {p.name: p for p in principals}
        by_subject: dict[tuple[str, str], list[Principal]] = {}
        by_rule: list[Principal] = []
        for principal in by_name.values():
            rule = principal.identity
            if rule is None:
                continue
            if rule.subject is None or rule.subject.pattern is not None:
                by_rule.append(principal)
                continue
            for subject in rule.subject.values:
                by_subject.setdefault((rule.issuer_name, str(subject)), []).append(principal)
        self.principals, self._by_subject, self._by_rule = by_name, by_subject, by_rule

    def principal_of(self, identity: Identity) -> Principal | None:
        """Return the one principal a proved identity belongs to.

        By issuer and subject together, since subjects repeat (RFC 7519 section 4.1.2). An identity
        that is two principals' is nobody's: which of them is meant can't be guessed. But who is in
        the configuration loses nothing to whoever is added at run time, by a pattern too wide.
        """
        named = self._by_subject.get((identity.issuer_name, identity.subject), ())
        found = [
            principal
            for principal in (*named, *self._by_rule)
            if principal.identity is not None and principal.identity.matches(identity)
        ]
        found = [principal for principal in found if not principal.registered] or found
        return found[0] if len(found) == 1 else None

    def resource_server(self, resource: str) -> Principal | None:
        """Return the resource server that answers for a URI."""
        for principal in self.principals.values():
            if principal.role is Role.RESOURCE_SERVER and principal.resource == resource:
                return principal
        return None
