"""The sections about the broker itself, and what it stands on."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator

from broker.config.addresses import (
    IssuerUrl,
    Listen,
    RedisUrl,
    ServerUrl,
    refuse_plaintext,
    split_listen,
)
from broker.config.fields import (
    ByteCount,
    Count,
    DurationMs,
    ExistingFile,
    Many,
    StateFolder,
    Text,
    VaultName,
    WholeSeconds,
    at_least,
    at_most,
    between,
    member_of,
    one_of,
    or_off,
    present_file,
)
from broker.config.problems import Fault
from broker.config.table import Keys, Table, written
from broker.config.tls import Network  # noqa: TC001  pydantic reads the annotations below

if TYPE_CHECKING:
    from collections.abc import Mapping

KUBERNETES_TOKEN_FILE: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/token")


class LogFormat(StrEnum):
    """How log lines are written."""

    TEXT = "text"
    JSON = "json"


class VaultAuth(StrEnum):
    """How the broker proves to Vault who it is."""

    APPROLE = "approle"
    JWT = "jwt"
    KUBERNETES = "kubernetes"
    TOKEN_FILE = "token_file"


_AUTH_KEYS: Final[Mapping[str, Keys]] = {
    VaultAuth.APPROLE: {"role_id_file": True, "secret_id_file": True, "auth_mount": False},
    VaultAuth.JWT: {"role": True, "jwt_file": True, "auth_mount": False},
    VaultAuth.KUBERNETES: {"role": True, "jwt_file": False, "auth_mount": False},
    VaultAuth.TOKEN_FILE: {"token_file": True},
}


_CACHED: Final = ": others may keep the published keys for 5m"


class BrokerSection(Table):
    """``[broker]``: the broker itself. ``token_ttl`` is the lifetime of its own access tokens.

    A signing key is replaced once it has signed for ``key_rotation``, or None: by hand only. The
    next one is published ``key_publish`` before it signs. ``trusted_proxies`` say which client
    certificate they have seen. ``linger`` is how long requests are still taken after SIGTERM, while
    ``/readyz`` says no.
    """

    issuer: IssuerUrl = Field(examples=['"https://broker.example.com"'])
    listen: Listen = "127.0.0.1:8700"
    state_dir: StateFolder = Path(".broker")
    token_ttl: Annotated[WholeSeconds, at_most("24h")] = written("15m")
    max_body: ByteCount = 64 << 10
    log_format: Annotated[LogFormat, member_of(LogFormat)] = LogFormat.TEXT
    signing_algorithm: Annotated[str, one_of(("ES256", "RS256"))] = "ES256"
    key_rotation: Annotated[WholeSeconds | None, BeforeValidator(or_off)] = written("30d")
    key_publish: Annotated[WholeSeconds, at_least("6m", _CACHED)] = written("10m")

    trusted_proxies: Many[Network] = ()
    linger: Annotated[DurationMs | None, BeforeValidator(or_off)] = None

    @field_validator("key_publish")
    @classmethod
    def _published_within_rotation(cls, value: int, info: ValidationInfo) -> int:
        by_hand = info.data.get("key_rotation") is None
        return value if by_hand else cls._check_order(value, info, "key_rotation")

    @property
    def host(self) -> str:
        """The host to listen on, an IPv6 address without brackets."""
        return split_listen(self.listen)[0]

    @property
    def port(self) -> int:
        """The port to listen on."""
        return split_listen(self.listen)[1]


class RedisSection(Table):
    """``[redis]``: the ledger. The files of TLS go with a ``rediss`` URL.

    Nothing is issued before ``replicas`` replicas know of it; ``allow_data_loss`` lets
    ``privileged`` capabilities be granted though Redis can lose writes.
    """

    url: RedisUrl = Field(examples=['"redis://127.0.0.1:6379/0"'])
    username: Text | None = None
    password_file: ExistingFile | None = None
    sentinel_username: Text | None = None
    sentinel_password_file: ExistingFile | None = None
    ca_file: ExistingFile | None = None
    cert_file: ExistingFile | None = None
    key_file: ExistingFile | None = None
    shards: Annotated[int, between(1, 256)] = 64
    timeout: DurationMs = written("2s")
    replicas: Annotated[int, between(0, 5)] = 0
    allow_data_loss: bool = False

    @field_validator("sentinel_username", "sentinel_password_file")
    @classmethod
    def _of_sentinels(cls, value: Path | str | None, info: ValidationInfo) -> Path | str | None:
        if value is not None and "+sentinel://" not in info.data.get("url", "+sentinel://"):
            raise Fault("is for Sentinels", "use it with a url of redis+sentinel://, or remove it")
        return value

    @field_validator("ca_file", "cert_file", "key_file")
    @classmethod
    def _of_tls(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and not info.data.get("url", "rediss").startswith("rediss"):
            raise Fault("is for TLS", "use a url of rediss://, or remove it")
        return value

    @field_validator("key_file")
    @classmethod
    def _goes_with_certificate(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("cert_file", value) is None:
            raise Fault("has no certificate", "name that with cert_file")
        return value


class VaultSection(Table):
    """``[vault]``: Vault or OpenBao, and how the broker logs in there."""

    allow_plaintext: bool = False
    address: ServerUrl = Field(examples=['"https://vault.example.com:8200"'])
    auth: Annotated[VaultAuth, member_of(VaultAuth)] = Field(examples=['"approle"'])
    auth_mount: VaultName | None = None
    role_id_file: ExistingFile | None = Field(None, examples=['"secrets/vault-role-id"'])
    secret_id_file: ExistingFile | None = Field(None, examples=['"secrets/vault-secret-id"'])
    role: Text | None = Field(None, examples=['"broker"'])
    jwt_file: ExistingFile | None = Field(None, examples=['"/run/secrets/vault-jwt"'])
    token_file: ExistingFile | None = Field(None, examples=['"secrets/vault-token"'])
    namespace: VaultName | None = None
    ca_file: ExistingFile | None = None
    token_role: VaultName = "broker-task"
    policy_prefix: VaultName = "broker-cap-"
    timeout: DurationMs = written("5s")
    issue_concurrency: Annotated[int, between(1, 1000)] = 16
    revoke_concurrency: Annotated[int, between(1, 1000)] = 16

    @field_validator("address")
    @classmethod
    def _encrypted(cls, value: str, info: ValidationInfo) -> str:
        if info.data.get("allow_plaintext", True):
            return value
        return refuse_plaintext(value, ", or set allow_plaintext = true for a private network")

    @field_validator("role_id_file", "secret_id_file", "role", "jwt_file", "token_file")
    @classmethod
    def _goes_with_auth(cls, value: Path | str | None, info: ValidationInfo) -> Path | str | None:
        cls._check_key(value, info, "auth", _AUTH_KEYS)
        is_default = value is None and info.field_name == "jwt_file"
        if is_default and info.data.get("auth") is VaultAuth.KUBERNETES:
            return present_file(KUBERNETES_TOKEN_FILE)
        return value

    @field_validator("auth_mount")
    @classmethod
    def _named_after_auth(cls, value: str | None, info: ValidationInfo) -> str | None:
        cls._check_key(value, info, "auth", _AUTH_KEYS)
        auth = info.data.get("auth")
        return value if value or auth is VaultAuth.TOKEN_FILE else auth and auth.value


class TasksSection(Table):
    """``[tasks]``: what every task is bounded by. ``max_live_per_agent`` counts tasks.

    ``cycles`` lets an agent be in a chain of tasks more than once.
    """

    max_ttl: DurationMs = written("24h")
    default_ttl: DurationMs = written("15m")
    min_heartbeat: DurationMs = written("1s")
    max_depth: Annotated[int, between(1, 32)] = 5
    max_children: Count = 20
    max_live_per_agent: Count = 1000
    cycles: bool = False

    @field_validator("default_ttl")
    @classmethod
    def _default_within_max(cls, value: int, info: ValidationInfo) -> int:
        return cls._check_order(value, info, "max_ttl")


class RevocationSection(Table):
    """``[revocation]``: retries, and when a backend counts as unhealthy.

    ``attempts`` is the budget before a grant counts as stuck; ``claim`` how long one sweep keeps
    an item to itself; ``stuck_limit`` how many stuck grants of a capability stop issuing it, and
    ``backlog_limit`` how many revocations that failed at least once stop all issuing on a backend;
    ``wait`` how long a call waits for confirmation before it answers with what is still revoking.
    """

    attempts: Count = 6
    max_backoff: DurationMs = written("30s")
    backoff: DurationMs = written("1s")
    claim: DurationMs = written("30s")
    stuck_limit: Count = 50
    backlog_limit: Count = 1000
    wait: DurationMs = written("10s")

    @field_validator("backoff")
    @classmethod
    def _backoff_within_max(cls, value: int, info: ValidationInfo) -> int:
        return cls._check_order(value, info, "max_backoff")


class RetentionSection(Table):
    """``[retention]``: how long ended tasks and audit events stay in the ledger."""

    tasks: DurationMs = written("7d")
    audit: DurationMs = written("30d")
