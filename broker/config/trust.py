"""``[[identity.trust_domains]]``: SPIFFE trust domains whose SVIDs are believed."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import AfterValidator, Field, ValidationInfo, field_validator

from broker.config.addresses import KeysUrl  # noqa: TC001  pydantic reads the annotations
from broker.config.fields import ExistingFile, Name, Text, WholeSeconds, at_most, pattern
from broker.config.problems import Fault, shown
from broker.config.table import Table, written
from broker.identity.models import TrustDomainSettings
from broker.identity.spiffe_id import is_trust_domain

_WAYS: Final = ("bundle_file", "bundle_url", "workload_api")


def _trust_domain(value: str) -> str:
    if not is_trust_domain(value):
        raise Fault(
            f"{shown(value)} is not the name of a trust domain",
            'write it in lower case and without spiffe://, such as "prod.example.com"',
        )
    return value


TrustDomainName = Annotated[str, AfterValidator(_trust_domain)]

UnixSocket = Annotated[
    str,
    pattern(
        r"unix://(/[A-Za-z0-9._@+-]+)+",
        "is not the address of a unix socket",
        'such as "unix:///run/spire/agent/public/api.sock"',
    ),
]


class TrustDomainEntry(Table):
    """A trust domain, where its bundle is, and how far its SVIDs are trusted."""

    name: Name = Field(examples=['"prod"'])
    trust_domain: TrustDomainName = Field(examples=['"prod.example.com"'])
    audience: Text | None = None
    bundle_file: ExistingFile | None = None
    bundle_url: KeysUrl | None = None
    workload_api: UnixSocket | None = None
    ca_file: ExistingFile | None = None
    leeway: Annotated[WholeSeconds, at_most("5m")] = written("30s")
    max_lifetime: WholeSeconds = written("24h")
    max_stale: WholeSeconds = written("24h")
    refresh: WholeSeconds = written("5m")

    @field_validator("workload_api")
    @classmethod
    def _one_bundle(cls, value: str | None, info: ValidationInfo) -> str | None:
        ways = {**info.data, "workload_api": value}
        if set(_WAYS) <= set(ways) and sum(bool(ways[way]) for way in _WAYS) != 1:
            raise Fault("needs exactly one of bundle_file, bundle_url and workload_api")
        return value

    @field_validator("ca_file")
    @classmethod
    def _for_a_url(cls, value: object, info: ValidationInfo) -> object:
        if value and "bundle_url" in info.data and not info.data["bundle_url"]:
            raise Fault("has a use with bundle_url only", "remove it")
        return value

    @field_validator("refresh")
    @classmethod
    def _refreshed_before_stale(cls, value: int, info: ValidationInfo) -> int:
        return cls._check_order(value, info, "max_stale")

    def settings(self, own_issuer: str) -> TrustDomainSettings:
        """Return what ``identity`` works with; ``own_issuer`` is the broker's issuer URL."""
        return TrustDomainSettings(
            name=self.name,
            trust_domain=self.trust_domain,
            audience=self.audience or own_issuer,
            bundle_file=self.bundle_file,
            bundle_url=self.bundle_url,
            workload_api=self.workload_api,
            ca_file=self.ca_file,
            leeway_s=self.leeway // 1000,
            max_lifetime_s=self.max_lifetime // 1000,
            refresh_s=self.refresh // 1000,
            max_stale_s=self.max_stale // 1000,
        )
