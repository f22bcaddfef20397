"""Who is believed, who may call, and what can be granted: the arrays of tables."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Final, Self, cast

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from broker.catalog import Capability, Power, Principal, Revocability
from broker.config.addresses import (
    IssuerUrl,
    KeysUrl,
    OtherIssuerUrl,
    Resources,
    ResourceUri,
    is_safe_url,
)
from broker.config.backends import BACKEND_KEYS, known_backend
from broker.config.fields import (
    ClaimRule,
    ClaimRules,
    Count,
    Day,
    DsnTemplate,
    DurationMs,
    Effect,
    ExistingFile,
    Host,
    Many,
    Name,
    RotationPath,
    StateFile,
    Text,
    ToolName,
    WholeSeconds,
    at_most,
    credential_path,
    end_of_day,
    member_of,
    one_line,
    one_of,
)
from broker.config.problems import Fault, did_you_mean, how_to_write, shown
from broker.config.quotas import IssueRate  # noqa: TC001  as below
from broker.config.table import Keys, Table, written
from broker.config.tools import NUMBERS, Arguments
from broker.config.trust import TrustDomainEntry  # noqa: TC001  pydantic reads the annotations
from broker.durations import format_duration
from broker.engines import NAMES as ENGINE_NAMES
from broker.engines import engine_of, revocability_of
from broker.identity.models import WORKLOAD_ALGORITHMS, IssuerSettings, Role
from broker.identity.rules import IdentityRule

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_ROLE_KEYS: Final[Mapping[str, Keys]] = {
    **{role: {} for role in Role},
    Role.AGENT: {"capabilities": False, "delegates_to": False},
    Role.RESOURCE_SERVER: {"resource": True},
}
_ALGORITHMS: Final = tuple(sorted(WORKLOAD_ALGORITHMS))

_SOURCE_KEYS: Final[Mapping[str, Keys]] = {
    "jwks_url": {"ca_file": False, "token_file": False},
    "jwks_file": {},
    "token_review": {"ca_file": False, "token_file": True},
    "discovery": {"ca_file": False, "token_file": False, "jwks_hosts": False},
}
"""The ways to verify an issuer's tokens, and the keys that go with each."""


class IssuerEntry(Table):
    """``[[identity.issuers]]``: somebody whose workload tokens are believed, and its keys."""

    name: Name = Field(examples=['"ci"'])
    issuer: OtherIssuerUrl = Field(examples=['"https://issuer.example"'])
    audience: Text = Field(examples=['"broker"'])
    algorithms: Many[Annotated[str, one_of(_ALGORITHMS)]] = ("ES256", "RS256")
    jwks_url: KeysUrl | None = None
    jwks_file: ExistingFile | None = None
    token_review: IssuerUrl | None = Field(
        None, examples=['"https://kubernetes.default.svc.cluster.local"']
    )
    discovery: bool = False
    ca_file: ExistingFile | None = None
    token_file: ExistingFile | None = Field(
        None, examples=['"/var/run/secrets/kubernetes.io/serviceaccount/token"']
    )
    jwks_hosts: Many[Host] = ()
    claims: ClaimRules | None = None
    leeway: Annotated[WholeSeconds, at_most("5m")] = written("30s")
    max_lifetime: WholeSeconds = written("24h")
    max_stale: WholeSeconds = written("24h")
    refresh: WholeSeconds = written("5m")

    @field_validator("algorithms")
    @classmethod
    def _some_algorithm(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value:
            raise Fault("names no algorithm", f"name some of: {', '.join(_ALGORITHMS)}")
        return value

    @field_validator("discovery")
    @classmethod
    def _one_source_of_keys(cls, value: bool, info: ValidationInfo) -> bool:  # noqa: FBT001
        sources = {**info.data, "discovery": value}
        if (
            set(_SOURCE_KEYS) <= set(sources)
            and sum(map(bool, map(sources.get, _SOURCE_KEYS))) != 1
        ):
            raise Fault(
                "needs exactly one of jwks_url, jwks_file, discovery = true and token_review, "
                "to verify its tokens"
            )
        if value and "issuer" in info.data and not is_safe_url(info.data["issuer"]):
            raise Fault(
                "would fetch keys from an http URL, where anyone on the way could change them",
                "use an https issuer, or give jwks_file instead",
            )
        return value

    @field_validator("ca_file", "token_file", "jwks_hosts")
    @classmethod
    def _goes_with_source(cls, value: object, info: ValidationInfo) -> object:
        given = [key for key in _SOURCE_KEYS if info.data.get(key)]
        if len(given) != 1:  # refused itself
            return value
        source, key = given[0], info.field_name or ""
        if value and key not in _SOURCE_KEYS[source]:
            users = [name for name, keys in _SOURCE_KEYS.items() if key in keys]
            raise Fault(
                f"has no use with {source}", f"remove it: it goes with {' or '.join(users)}"
            )
        if not value and _SOURCE_KEYS[source].get(key):
            raise Fault(f"is needed with {source}", how_to_write(cls, key))
        return value

    @field_validator("refresh")
    @classmethod
    def _refreshed_before_stale(cls, value: int, info: ValidationInfo) -> int:
        return cls._check_order(value, info, "max_stale")

    def settings(self) -> IssuerSettings:
        """Return what ``identity`` works with."""
        return IssuerSettings(
            name=self.name,
            issuer=self.issuer,
            audience=self.audience,
            algorithms=self.algorithms,
            jwks_url=self.jwks_url,
            jwks_file=self.jwks_file,
            discovery=self.discovery,
            token_review=self.token_review,
            ca_file=self.ca_file,
            token_file=self.token_file,
            jwks_hosts=self.jwks_hosts,
            claims=self.claims or {},
            leeway_s=self.leeway // 1000,
            max_lifetime_s=self.max_lifetime // 1000,
            refresh_s=self.refresh // 1000,
            max_stale_s=self.max_stale // 1000,
        )


class IdentitySection(Table):
    """``[identity]``: who is believed about who is calling."""

    issuers: Many[IssuerEntry] = ()
    trust_domains: Many[TrustDomainEntry] = ()


class PrincipalIdentity(Table):
    """``identity = { issuer, subject, claims }`` of a principal; the issuer by its name here.

    ``subject`` and ``claims`` are rules, and at least one of them is there. A principal with a key
    of its own has ``jwks_file`` instead, and no issuer.
    """

    jwks_file: ExistingFile | None = None
    issuer: Name | None = Field(None, examples=['"ci"'])
    claims: ClaimRules | None = None
    subject: ClaimRule | None = Field(None, examples=['"agent/report-writer"'])

    @field_validator("issuer", "claims", "subject")
    @classmethod
    def _one_kind_of_proof(cls, value: object, info: ValidationInfo) -> object:
        if "jwks_file" not in info.data:  # refused itself
            return value
        if info.data["jwks_file"]:
            if value:
                raise Fault("has no use with jwks_file", "keep one way of proving who this is")
            return value
        key = info.field_name or ""
        # A rule over claims will do in place of one over the subject.
        if not value and key != "claims" and not (key == "subject" and info.data.get("claims")):
            raise Fault("is missing", how_to_write(cls, key))
        return value

    def rule(self) -> IdentityRule | None:
        """Return what the catalogue matches identities with."""
        if self.issuer is None:
            return None
        return IdentityRule(self.issuer, self.subject, dict(self.claims or {}))


class PrincipalEntry(Table):
    """``[[principals]]``: a workload or person that may call."""

    name: Name = Field(examples=['"report-writer"'])
    role: Annotated[Role, member_of(Role)] = Field(examples=['"agent"'])
    owner: str = ""
    identity: PrincipalIdentity = Field(
        examples=['{ issuer = "ci", subject = "agent/report-writer" }']
    )
    purpose: Text | None = Field(None, examples=['"writes the weekly sales report"'])
    review_by: Day | None = Field(None, examples=["2027-01-31"])
    capabilities: Many[Name] = ()
    resource: ResourceUri | None = Field(None, examples=['"https://orders.example.com"'])
    max_ttl: DurationMs | None = None
    delegates_to: Many[Name] | None = None

    def review_at(self) -> int:
        """Return the end of the review date in UTC, in epoch milliseconds; 0 without one."""
        return 0 if self.review_by is None else end_of_day(self.review_by)

    @field_validator("owner")
    @classmethod
    def _owned(cls, value: str) -> str:
        if "|" in value:
            raise Fault("has a '|', which separates names in the ledger", "write it without")
        if not value.strip() or not value.isprintable():
            raise Fault(
                "names nobody: no owner, no issuance",
                'add owner = "team@example.com": who answers for this principal',
            )
        return value

    @field_validator("capabilities", "resource", "delegates_to")
    @classmethod
    def _goes_with_role(cls, value: object, info: ValidationInfo) -> object:
        cls._check_key(value, info, "role", _ROLE_KEYS)
        return value

    def entry(self) -> Principal:
        """Return what the catalogue holds."""
        return Principal(
            name=self.name,
            role=self.role,
            owner=self.owner,
            identity=self.identity.rule(),
            jwks_file=self.identity.jwks_file,
            purpose=self.purpose or "",
            review_at=self.review_at(),
            capabilities=frozenset(self.capabilities),
            resource=self.resource or "",
            max_ttl_ms=self.max_ttl or 0,
            delegates_to=None if self.delegates_to is None else frozenset(self.delegates_to),
        )


class CapabilityEntry(Table):
    """``[[capabilities]]``: something that can be granted, or with ``tool`` called."""

    name: Name = Field(examples=['"orders-read"'])
    power: Annotated[Power, member_of(Power)] = Field(examples=['"read"'])
    backend: Annotated[str, BeforeValidator(known_backend)] = Field(examples=['"vault"'])
    path: str | None = Field(None, examples=['"database/creds/orders-read"'])
    engine: Annotated[str, one_of(ENGINE_NAMES)] | None = None
    parameters: dict[Name, Text] | None = None
    dsn: DsnTemplate | None = None
    rotate: RotationPath | None = None
    exclusive: bool = False
    krl_file: StateFile | None = Field(None, examples=['"/etc/ssh/revoked/agents.krl"'])
    resource: Resources | None = Field(None, examples=['"https://orders.example.com"'])
    scope: Text | None = None
    tool: ToolName | None = None
    arguments: Arguments | None = None
    amount: str | None = None
    max_ttl: DurationMs = written("15m")
    ttl: DurationMs = written("5m")
    renewable_for: DurationMs | None = None
    data_class: Name = "internal"
    effects: Many[Effect] = ()
    revocability: Annotated[Revocability, member_of(Revocability)] | None = None
    max_live: Count = 100
    max_live_total: Count | None = None
    issue_rate: IssueRate | None = None
    require_binding: bool = False
    model_may_see: bool = False

    @field_validator("path")
    @classmethod
    def _path_is_one(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        if info.data.get("backend", "vault") in BACKEND_KEYS:
            return credential_path(value)
        return cast("Callable[[str], str]", one_line.func)(value)  # what it means its backend knows

    @field_validator(
        *("path", "engine", "parameters", "dsn", "rotate", "exclusive", "krl_file"),
        *("resource", "scope", "tool", "arguments", "amount"),
        *("renewable_for", "max_live_total", "issue_rate", "model_may_see"),
    )
    @classmethod
    def _goes_with_backend(cls, value: object, info: ValidationInfo) -> object:
        cls._check_key(value, info, "backend", BACKEND_KEYS)
        return value

    @model_validator(mode="after")
    def _engine_gives_it(self) -> Self:
        if self.path is None or self.backend != "vault":
            return self
        engine = engine_of(self.path, self.engine or "")
        if engine is None:
            name = self.engine or self.path.partition("/")[0]
            why = f"path: the engine {name!r} gives no credential at {shown(self.path)}"
            raise Fault(why, "docs/backends/vault.md has the paths of each engine")
        entry = self.entry()
        for name, why in engine.faults(entry, entry.parameters, complete=False):
            raise Fault(f"parameters: {name!r} {why}", "docs/backends/vault.md has those there are")
        if misfit := engine.misfit(self.revocability, has_krl=bool(self.krl_file)):
            raise Fault(*misfit)
        return self

    @field_validator("amount")
    @classmethod
    def _amount_is_a_number(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None or "arguments" not in info.data:  # refused itself
            return value
        arguments: Mapping[str, tuple[str, bool]] = info.data["arguments"] or {}
        numbers = [name for name, (kind, _) in arguments.items() if kind in NUMBERS]
        if value not in numbers:
            raise Fault(
                f"{shown(value)} is not an argument that is a number",
                did_you_mean(value, numbers, "numbers among the arguments"),
            )
        return value

    @field_validator("renewable_for")
    @classmethod
    def _renewed_to_more(cls, value: int | None, info: ValidationInfo) -> int | None:
        longest = info.data.get("max_ttl")
        if value is not None and longest is not None and value < longest:
            raise Fault(
                f"is {format_duration(value)}, shorter than max_ttl, {format_duration(longest)}",
                f'write "{format_duration(longest)}" or more, or leave it out for just that',
            )
        return value

    @field_validator("ttl")
    @classmethod
    def _ttl_within_max(cls, value: int, info: ValidationInfo) -> int:
        return cls._check_order(value, info, "max_ttl")

    def _engine_path(self) -> str:
        """Return the path if it is a secrets engine's: what another backend's means it knows."""
        return self.path or "" if self.backend == "vault" else ""

    def doubt(self) -> str:
        """Return what speaks against the ``revocability`` that is written here; maybe nothing."""
        engine = None if self.krl_file else engine_of(self._engine_path(), self.engine or "")
        return engine.doubt(self.revocability) if engine and self.revocability else ""

    def entry(self) -> Capability:
        """Return what the catalogue holds."""
        return Capability(
            name=self.name,
            power=self.power,
            backend=self.backend,
            ttl_ms=self.ttl,
            max_ttl_ms=self.max_ttl,
            path=self.path or "",
            engine=self.engine or "",
            parameters=dict(self.parameters or {}),
            rotate=self.rotate or "",
            exclusive=self.exclusive,
            krl_file=self.krl_file,
            resources=self.resource or (),
            require_binding=self.require_binding,
            model_may_see=self.model_may_see,
            scope=self.scope or "",
            data_class=self.data_class,
            effects=frozenset(self.effects),
            revocability=self.revocability
            or revocability_of(self._engine_path(), self.engine or "", has_krl=bool(self.krl_file)),
            max_live=self.max_live,
            max_live_total=self.max_live_total or 0,
            issue_rate=self.issue_rate,
            renewable_ms=self.renewable_for or 0,
            dsn=self.dsn or "",
            tool=self.tool or "",
            arguments=dict(self.arguments or {}),
            amount=self.amount or "",
        )
