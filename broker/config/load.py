"""The configuration file as a whole, and reading it."""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field, ValidationError, ValidationInfo, field_validator

from broker.catalog import Catalog
from broker.config.approvals import ApprovalsSection, ElevationSection
from broker.config.audit import AuditSection
from broker.config.backends import BackendEntry
from broker.config.channels import ChannelEntry  # noqa: TC001  pydantic reads the annotations below
from broker.config.console import ConsoleSection
from broker.config.entries import CapabilityEntry, IdentitySection, PrincipalEntry
from broker.config.fields import Many  # noqa: TC001  as above
from broker.config.login import LoginSection  # noqa: TC001  as above
from broker.config.metrics import MetricsSection
from broker.config.oauth import OAuthSection
from broker.config.policy import PolicySection
from broker.config.problems import Fault, config_error, model_faults
from broker.config.quotas import QuotasSection
from broker.config.references import backend_names, reference_faults
from broker.config.review import ReviewSection
from broker.config.sections import (
    BrokerSection,
    RedisSection,
    RetentionSection,
    RevocationSection,
    TasksSection,
    VaultSection,
)
from broker.config.table import Table
from broker.config.targets import ReconcileSection, TargetEntry
from broker.config.tls import TlsSection  # noqa: TC001  as above
from broker.errors import ConfigError
from broker.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

    from broker.catalog import Capability
    from broker.identity.models import IssuerSettings, TrustDomainSettings

MAX_CONFIG_BYTES: Final = 4 << 20
MAX_SECRET_BYTES: Final = 64 << 10


class Config(Table):
    """The whole file."""

    broker: BrokerSection
    redis: RedisSection
    vault: VaultSection | None = None
    policy: PolicySection = PolicySection()
    tls: TlsSection | None = None
    oauth: OAuthSection = OAuthSection()
    tasks: TasksSection = TasksSection()
    quotas: QuotasSection = QuotasSection()
    revocation: RevocationSection = RevocationSection()
    retention: RetentionSection = RetentionSection()
    review: ReviewSection = ReviewSection()
    metrics: MetricsSection = MetricsSection()
    login: LoginSection | None = None
    reconcile: ReconcileSection = ReconcileSection()
    audit: AuditSection = AuditSection()
    approvals: ApprovalsSection = ApprovalsSection()
    console: ConsoleSection = ConsoleSection()
    elevation: ElevationSection = ElevationSection()
    channels: Many[ChannelEntry] = ()
    backends: dict[str, BackendEntry] = Field(default_factory=dict[str, BackendEntry])
    identity: IdentitySection = IdentitySection()
    principals: Many[PrincipalEntry] = ()
    capabilities: Many[CapabilityEntry] = ()
    targets: Many[TargetEntry] = ()

    @field_validator("tls")
    @classmethod
    def _tls_under_an_https_name(
        cls, value: TlsSection | None, info: ValidationInfo
    ) -> TlsSection | None:
        broker: BrokerSection | None = info.data.get("broker")
        if value is not None and broker is not None and not broker.issuer.startswith("https:"):
            raise Fault(
                "has no use with an http issuer, which is what clients call",
                'write issuer = "https://…" in [broker], or remove [tls]',
            )
        return value

    @field_validator("console")
    @classmethod
    def _links_stay_here(cls, value: ConsoleSection, info: ValidationInfo) -> ConsoleSection:
        broker: BrokerSection | None = info.data.get("broker")
        if value.link_issuer and broker is not None and not broker.issuer.startswith("http:"):
            raise Fault(
                "link_issuer signs people in by a link, which is for a broker on this machine",
                "remove it, and name an issuer and a client_id",
            )
        return value

    @field_validator("channels")
    @classmethod
    def _fed_by_the_log(
        cls, value: tuple[ChannelEntry, ...], info: ValidationInfo
    ) -> tuple[ChannelEntry, ...]:
        audit: AuditSection | None = info.data.get("audit")
        if value and audit is not None and not audit.enabled:
            raise Fault(
                "are fed from the audit log, which is off",
                "remove them, or enabled = false in [audit]",
            )
        return value

    def catalog(self) -> Catalog:
        """Return what can be granted, and to whom."""
        return Catalog(
            [principal.entry() for principal in self.principals],
            [self._bound(capability.entry()) for capability in self.capabilities],
        )

    def _bound(self, capability: Capability) -> Capability:
        """Ask for bound tokens where the power does, whatever the entry says."""
        least = self.policy.require_binding
        if least is None or capability.power.rank < least.rank:
            return capability
        return replace(capability, require_binding=True)

    def login_at(self) -> dict[str, Any] | None:
        """Return where people log in, as which client and for what, if they do."""
        if self.login is None:
            return None
        at = next(i for i in self.identity.issuers if i.name == self.login.issuer)
        scopes = list(self.login.scopes)
        return {"issuer": at.issuer, "client_id": at.audience, "scopes": scopes}

    def issuers(self) -> tuple[IssuerSettings, ...]:
        """Return whose workload tokens are believed."""
        return tuple(issuer.settings() for issuer in self.identity.issuers)

    def trust_domains(self) -> tuple[TrustDomainSettings, ...]:
        """Return whose SVIDs are believed."""
        own = self.broker.issuer
        return tuple(domain.settings(own) for domain in self.identity.trust_domains)


def load_config(path: Path, *, files_may_be_missing: bool = False) -> Config:
    """Read and check a configuration file.

    ``files_may_be_missing`` is for whoever is about to write the secret files it names.

    Raises:
        ConfigError: it can't be read or used; the detail lists everything that is wrong.
    """
    try:
        data = _read(path, MAX_CONFIG_BYTES)
    except FileNotFoundError:
        raise ConfigError(
            f"there is no configuration file {path.absolute()}\n"
            "    copy config.example.toml to there, or name another file with --config"
        ) from None
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
    else:
        return parse_config(text, path, files_may_be_missing=files_may_be_missing)
    raise ConfigError(f"{path}:{line}: is not UTF-8 text\n    save the file as UTF-8")


def parse_config(
    text: str, path: Path, *, files_may_be_missing: bool = False, written: str | None = None
) -> Config:
    """Check the text of a configuration; ``path`` is where it is, or would be.

    ``written`` is what a person wrote there, if a program has completed it: problems name its
    lines.

    Raises:
        ConfigError: as ``load_config``.
    """
    data = _parse_toml(text, path)
    config, faults = None, list(reference_faults(data))
    try:
        context = {
            "folder": path.absolute().parent,
            "files_may_be_missing": files_may_be_missing,
            "backends": backend_names(data),
        }
        config = Config.model_validate(data, context=context)
    except ValidationError as error:
        faults = [*model_faults(error, Config), *faults]
    # Raised out here: an error raised in the handler would carry the file's values as context.
    if config is None or faults:
        raise config_error(path, text if written is None else written, faults)
    return config


def read_secret_file(path: Path) -> Secret:
    """Read a secret, without the line break editors put at the end.

    Raises:
        ConfigError: the file is missing, empty, too big, or no text. What is in it is not said.
    """
    reason = ""
    text = ""
    try:
        text = _read(path, MAX_SECRET_BYTES).decode()
    except FileNotFoundError:
        reason = "there is no such file: create it, holding the secret and nothing else"
    except UnicodeDecodeError:
        reason = "is not UTF-8 text: it should hold the secret and nothing else"
    if not reason and not text.strip():
        reason = "is empty: it should hold the secret and nothing else"
    if reason:
        raise ConfigError(f"secret file {path.absolute()}: {reason}")
    return Secret(re.sub(r"\r?\n\Z", "", text))


def write_secret_file(path: Path, value: str) -> None:
    """Write a secret for its owner alone (mode 0600), all of it or nothing."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    fresh = path.with_name(f".{path.name}.new")
    fresh.unlink(missing_ok=True)
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(f"{value}\n")
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)


def _read(path: Path, limit: int) -> bytes:
    """Read a file, but not without end.

    Raises:
        FileNotFoundError: there is none.
        ConfigError: it can't be read, or is too big.
    """
    try:
        with path.open("rb") as file:
            data = file.read(limit + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ConfigError(f"{path.absolute()} can't be read: {error.strerror}") from error
    if len(data) > limit:
        raise ConfigError(f"{path.absolute()} is over {limit >> 10} KiB: is it the right file?")
    return data


def _parse_toml(text: str, path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        place, reason = "", "arrays or tables are nested too deeply"
    except ValueError as error:  # of it TOMLDecodeError is one; an absurdly long number another
        found = re.search(r" \(at (?:line (\d+), column (\d+)|end of document)\)$", str(error))
        last = str(text.count("\n") + 1)
        place = f":{found[1]}:{found[2]}" if found and found[1] else f":{last}" if found else ""
        reason = str(error)[: found.start() if found else None]
    raise ConfigError(
        f"{path}{place}: not valid TOML: {reason[:1].lower()}{reason[1:]}\n"
        '    text goes in double quotes (key = "value"), and every key is written once per table'
    )
