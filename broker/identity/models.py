"""What a proof of identity yields."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from broker.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

WORKLOAD_ALGORITHMS: Final = frozenset(
    ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")
)
"""What an issuer may sign with: asymmetric only, so no verifier could also have signed."""

MAX_LEEWAY_S: Final = 300


class Role(StrEnum):
    """What part a principal plays; the first thing authorisation asks."""

    ORCHESTRATOR = "orchestrator"
    AGENT = "agent"
    OPERATOR = "operator"
    AUDITOR = "auditor"
    RESOURCE_SERVER = "resource_server"


@dataclass(frozen=True, slots=True)
class Identity:
    """A proved workload or person: keyed by issuer *and* subject, since subjects repeat.

    ``issuer_name`` is the configured name of the issuer, ``issuer`` its exact ``iss``,
    ``method`` how the proof was made, ``expires_at`` when it ends (epoch seconds).
    """

    issuer_name: str
    issuer: str
    subject: str
    method: str
    expires_at: int
    claims: Mapping[str, Any] = field(default_factory=dict[str, Any], repr=False)


@dataclass(frozen=True, slots=True)
class Transport:
    """What a request carries beside its body, by which a caller proves that it holds a key.

    ``url`` is the request's under the broker's public address, without query. ``dpop`` are the
    values of its DPoP headers. ``certificates`` is the client's chain in DER, its own first: TLS
    or a trusted proxy has proved that the caller holds the key, and nobody yet whose it is.
    """

    method: str
    url: str
    dpop: tuple[str, ...] = ()
    certificates: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerSettings:
    """An issuer of workload JWTs, and how far its tokens are trusted.

    Exactly one of ``jwks_url``, ``jwks_file`` and ``discovery`` says where its keys are.
    ``leeway_s`` is the clock skew forgiven, ``max_lifetime_s`` the longest a token may live.
    Keys are fetched again after ``refresh_s``; while that fails the old ones serve until they
    are ``max_stale_s`` old, and no longer. ``cooldown_s`` is the least time between two
    fetches caused by unknown key ids, and between two attempts at an endpoint that is down.
    """

    name: str
    issuer: str
    audience: str
    algorithms: tuple[str, ...]
    jwks_url: str | None = None
    jwks_file: Path | None = None
    discovery: bool = False
    leeway_s: int = 30
    max_lifetime_s: int = 86_400
    refresh_s: int = 300
    max_stale_s: int = 86_400
    cooldown_s: int = 10

    def __post_init__(self) -> None:
        """Refuse what could never be verified safely.

        Raises:
            ConfigError: names the issuer, the setting, and what to write instead.
        """
        if not (self.name and self.issuer and self.audience):
            raise self._error("name, issuer and audience must not be empty")
        if sum((self.jwks_url is not None, self.jwks_file is not None, self.discovery)) != 1:
            raise self._error("give exactly one of jwks_url, jwks_file, discovery = true")
        refused = sorted(set(self.algorithms) - WORKLOAD_ALGORITHMS)
        if refused or not self.algorithms:
            wrong = f"{', '.join(refused)} can't be used" if refused else "algorithms is empty"
            raise self._error(f"{wrong}: choose from {', '.join(sorted(WORKLOAD_ALGORITHMS))}")
        if not 0 <= self.leeway_s <= MAX_LEEWAY_S:
            raise self._error(f"leeway_s must be from 0 to {MAX_LEEWAY_S}")
        if min(self.max_lifetime_s, self.refresh_s, self.cooldown_s) <= 0:
            raise self._error("max_lifetime_s, refresh_s and cooldown_s must be more than 0")
        if self.max_stale_s < self.refresh_s:
            raise self._error("max_stale_s must be at least refresh_s")

    def _error(self, problem: str) -> ConfigError:
        return ConfigError(f"identity issuer {self.name!r}: {problem}")
