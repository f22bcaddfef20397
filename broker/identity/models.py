"""What a proof of identity yields."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

from broker.errors import ConfigError
from broker.identity.spiffe_id import is_trust_domain

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from broker.identity.rules import Rule

WORKLOAD_ALGORITHMS: Final = frozenset(
    (
        *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
        *("ES256", "ES384", "ES512", "EdDSA", "Ed25519"),
    )
)
"""What an issuer may sign with: asymmetric only, so no verifier could also have signed."""

SVID_ALGORITHMS: Final = WORKLOAD_ALGORITHMS - {"EdDSA", "Ed25519"}
"""What a JWT-SVID may be signed with (JWT-SVID section 2.1)."""

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
    dpop: tuple[str, ...] = field(default=(), repr=False)
    certificates: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Trust:
    """How far somebody's proofs are trusted: what all kinds of issuers have in their settings.

    ``name`` is what the configuration calls the issuer, ``audience`` whom its tokens must be meant
    for. ``leeway_s`` is the clock skew forgiven, ``max_lifetime_s`` the longest a token may live.
    Keys are fetched again after ``refresh_s``; while that fails the old ones serve until they
    are ``max_stale_s`` old, and no longer. ``cooldown_s`` is the least time between two
    fetches caused by unknown key ids, and between two attempts at an endpoint that is down.
    """

    name: str
    audience: str
    leeway_s: int = 30
    max_lifetime_s: int = 86_400
    refresh_s: int = 300
    max_stale_s: int = 86_400
    cooldown_s: int = 10

    def check_times(self) -> None:
        """Refuse times that contradict each other.

        Raises:
            ConfigError: names the issuer, and what to write instead.
        """
        if not 0 <= self.leeway_s <= MAX_LEEWAY_S:
            raise self.error(f"leeway_s must be from 0 to {MAX_LEEWAY_S}")
        if min(self.max_lifetime_s, self.refresh_s, self.cooldown_s) <= 0:
            raise self.error("max_lifetime_s, refresh_s and cooldown_s must be more than 0")
        if self.max_stale_s < self.refresh_s:
            raise self.error("max_stale_s must be at least refresh_s")

    def error(self, problem: str) -> ConfigError:
        """Say what is wrong with the settings, and with whose."""
        return ConfigError(f"identity issuer {self.name!r}: {problem}")


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerSettings(Trust):
    """An issuer of workload JWTs, and how far its tokens are trusted.

    Exactly one of ``jwks_url``, ``jwks_file`` and ``discovery`` says where its keys are, or
    ``token_review`` which Kubernetes API server verifies its tokens. ``ca_file`` is trusted there
    in place of the system's CAs, the bearer token in ``token_file`` presented, and discovery may
    lead to ``jwks_hosts`` (host, or host:port) beside the issuer's own. ``claims`` are rules that
    every token must meet.
    """

    issuer: str
    algorithms: tuple[str, ...]
    jwks_url: str | None = None
    jwks_file: Path | None = None
    discovery: bool = False
    token_review: str | None = None
    ca_file: Path | None = None
    token_file: Path | None = None
    jwks_hosts: tuple[str, ...] = ()
    claims: Mapping[str, Rule] = field(default_factory=dict[str, "Rule"])

    def __post_init__(self) -> None:
        """Refuse what could never be verified safely.

        Raises:
            ConfigError: names the issuer, the setting, and what to write instead.
        """
        if not (self.name and self.issuer and self.audience):
            raise self.error("name, issuer and audience must not be empty")
        ways = (self.jwks_url, self.jwks_file, self.discovery or None, self.token_review)
        if sum(way is not None for way in ways) != 1:
            raise self.error(
                "give exactly one of jwks_url, jwks_file, discovery = true, token_review"
            )
        if self.token_review is not None and self.token_file is None:
            raise self.error("token_review needs token_file: the API server asks who is asking")
        refused = sorted(set(self.algorithms) - WORKLOAD_ALGORITHMS)
        if refused or not self.algorithms:
            wrong = f"{', '.join(refused)} can't be used" if refused else "algorithms is empty"
            raise self.error(f"{wrong}: choose from {', '.join(sorted(WORKLOAD_ALGORITHMS))}")
        self.check_times()


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustDomainSettings(Trust):
    """A SPIFFE trust domain, and how far its SVIDs are trusted.

    Exactly one of ``bundle_file``, ``bundle_url`` and ``workload_api`` (``unix:///path``) says
    where its bundle is; ``ca_file`` is trusted for ``bundle_url`` in place of the system's CAs.
    A bundle may ask to be refreshed sooner.
    """

    trust_domain: str
    bundle_file: Path | None = None
    bundle_url: str | None = None
    workload_api: str | None = None
    ca_file: Path | None = None

    @property
    def issuer(self) -> str:
        """The SPIFFE ID of the trust domain itself."""
        return f"spiffe://{self.trust_domain}"

    def __post_init__(self) -> None:
        """Refuse what could never be verified safely.

        Raises:
            ConfigError: names the trust domain, the setting, and what to write instead.
        """
        if not (self.name and self.audience):
            raise self.error("name and audience must not be empty")
        if not is_trust_domain(self.trust_domain):
            raise self.error("trust_domain must be a name such as prod.example.com, in lower case")
        ways = (self.bundle_file, self.bundle_url, self.workload_api)
        if sum(way is not None for way in ways) != 1:
            raise self.error("give exactly one of bundle_file, bundle_url, workload_api")
        self.check_times()

    def error(self, problem: str) -> ConfigError:
        """Say what is wrong with the settings, and with whose."""
        return ConfigError(f"trust domain {self.name!r}: {problem}")
