"""What the parts of a replica are told, taken from the configuration."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from broker.approvals import Groups
from broker.backends.plugins import BackendContext, Plugin, make
from broker.backends.vault import VaultBackend
from broker.backends.vault_api import VaultApi, VaultLogin
from broker.clock import SystemClock
from broker.config import VaultAuth, read_secret_file
from broker.config.policy import RemoteMode
from broker.config.targets import TargetKind
from broker.consents import ConsentLimits
from broker.elevating import ElevationLimits
from broker.keys import RotationTimes
from broker.ledger.connection import Connection
from broker.ledger.models import LedgerTimes
from broker.ledger.topology import Login
from broker.policy.authzen import RemoteDecisionPoint
from broker.policy.folder import default_sources, sources_in
from broker.policy.policies import Policies, Sources
from broker.quotas import Bounds, QuotaBounds
from broker.reconcile.desk import ReconcileRules
from broker.reviews import ReviewRules
from broker.service import TaskLimits
from broker.steps import Limits
from broker.targets.mysql import MySQL
from broker.targets.postgresql import PostgreSQL
from broker.targets.protocol import Target
from broker.targets.rabbitmq import RabbitMQ
from broker.targets.valkey import Valkey

if TYPE_CHECKING:
    from broker.backends.guarded import GuardedBackend
    from broker.backends.protocol import HandleStore
    from broker.catalog import Catalog
    from broker.clock import Clock
    from broker.config import Config, RedisSection, VaultSection
    from broker.config.targets import TargetEntry
    from broker.metrics import Metrics
    from broker.secret import Secret
    from broker.targets.protocol import Accounts


def times(config: Config) -> LedgerTimes:
    """Return how long the ledger waits and keeps."""
    timeouts = [entry.timeout for entry in config.backends.values()]
    timeout = max([config.vault.timeout if config.vault else 5000, *timeouts])
    return LedgerTimes(
        claim_ms=config.revocation.claim,
        # A mint may wait for a thread, for the task's token, and for the backend itself.
        pending_ms=6 * timeout,
        retain_ms=config.retention.tasks,
        audit_ms=config.retention.audit,
    )


def backends(config: Config, handles: HandleStore, clock: Clock) -> dict[str, GuardedBackend]:
    """Make the backends of other packages.

    Raises:
        ConfigError: one of them can't be made.
    """
    return {name: backend(config, name, handles, clock) for name in config.backends}


def backend(config: Config, name: str, handles: HandleStore, clock: Clock) -> GuardedBackend:
    """Make one of them.

    Raises:
        ConfigError: as ``backends``.
    """
    entry = config.backends[name]
    context = BackendContext(
        name=name, options=entry.options, clock=clock, handles=handles, read=read_secret_file
    )
    return make(Plugin(name, entry.kind or name, entry.timeout), context)


def vault_backend(
    config: Config, api: VaultApi, handles: HandleStore, catalog: Catalog, clock: Clock
) -> VaultBackend:
    """Make the Vault backend; ``broker_id`` is the issuer, by which replicas are one broker."""
    assert config.vault is not None  # noqa: S101  ``api`` was made of it
    return VaultBackend(
        api,
        handles,
        catalog.capabilities.values(),
        clock,
        broker_id=config.broker.issuer,
        token_role=config.vault.token_role,
        policy_prefix=config.vault.policy_prefix,
    )


def rotation_times(config: Config) -> RotationTimes:
    """Return how signing keys rotate."""
    broker = config.broker
    # What keys sign: our own access tokens, and those that are a capability's credential.
    granted = [entry.max_ttl for entry in config.capabilities if entry.backend == "token"]
    longest_ms = max([broker.token_ttl, *granted])
    return RotationTimes(
        every_s=broker.key_rotation // 1000 if broker.key_rotation else None,
        publish_s=broker.key_publish // 1000,
        keep_s=longest_ms // 1000 + 1,
    )


def review_rules(config: Config) -> ReviewRules:
    """Return what becomes of principals that nobody looks at."""
    review = config.review
    return ReviewRules(
        unused_after_ms=review.unused_after, grace_ms=review.grace, suspend=review.suspend
    )


def limits(config: Config) -> Limits:
    """Return the bounds of revoking."""
    revocation = config.revocation
    return Limits(
        attempts=revocation.attempts,
        backoff_ms=revocation.backoff,
        max_backoff_ms=revocation.max_backoff,
        stuck_limit=revocation.stuck_limit,
        backlog_limit=revocation.backlog_limit,
        wait_ms=revocation.wait,
        lane_width=config.vault.revoke_concurrency if config.vault else 16,
    )


def quota_bounds(config: Config) -> QuotaBounds:
    """Return what live credentials and their rates are bounded by."""
    quotas = config.quotas
    return QuotaBounds(
        agent=Bounds(quotas.max_live_per_agent or 0, quotas.issue_rate_per_agent),
        orchestrator=Bounds(
            quotas.max_live_per_orchestrator or 0, quotas.issue_rate_per_orchestrator
        ),
        backends={
            name: Bounds(entry.max_live or 0, entry.issue_rate)
            for name, entry in quotas.backends.items()
        },
    )


def task_limits(config: Config) -> TaskLimits:
    """Return what every task is bounded by."""
    tasks = config.tasks
    return TaskLimits(
        default_ttl_ms=tasks.default_ttl,
        max_ttl_ms=tasks.max_ttl,
        min_heartbeat_ms=tasks.min_heartbeat,
        max_depth=tasks.max_depth,
        max_children=tasks.max_children,
        max_live_per_agent=tasks.max_live_per_agent,
        cycles=tasks.cycles,
    )


def groups(config: Config) -> Groups:
    """Return who may approve what."""
    return Groups(entry.group() for entry in config.approvals.groups)


def consent_limits(config: Config) -> ConsentLimits:
    """Return how long approvals are waited for, and good for."""
    approvals = config.approvals
    return ConsentLimits(
        wait_ms=approvals.ttl, use_ms=approvals.use_within, max_pending=approvals.max_pending
    )


def elevation_limits(config: Config) -> ElevationLimits:
    """Return how long elevations last."""
    elevation = config.elevation
    return ElevationLimits(
        ttl_ms=elevation.ttl,
        max_ttl_ms=elevation.max_ttl,
        glass_ms=elevation.break_glass,
        heartbeat_ms=elevation.heartbeat,
    )


def connect(config: Config, metrics: Metrics | None = None) -> Connection:
    """Make the ledger's connection."""
    redis = config.redis
    return Connection(
        redis.url,
        shards=redis.shards,
        login=ledger_login(redis),
        timeout_s=redis.timeout / 1000,
        replicas=redis.replicas,
        metrics=metrics,
    )


def ledger_login(redis: RedisSection) -> Login:
    """How the broker logs in to Redis, and to its Sentinels."""
    files = {"password": redis.password_file, "sentinel_password": redis.sentinel_password_file}
    return Login(
        username=redis.username,
        sentinel_username=redis.sentinel_username,
        ca_file=redis.ca_file,
        cert_file=redis.cert_file,
        key_file=redis.key_file,
        **{name: read_secret_file(path) for name, path in files.items() if path},
    )


def vault_api(vault: VaultSection, clock: Clock) -> VaultApi:
    """Make the connection to Vault."""
    return VaultApi(
        vault.address,
        vault_login(vault),
        clock,
        namespace=vault.namespace or "",
        ca_file=vault.ca_file,
        timeout_s=vault.timeout / 1000,
        issue_concurrency=vault.issue_concurrency,
        revoke_concurrency=vault.revoke_concurrency,
    )


def vault_login(vault: VaultSection) -> VaultLogin:
    """How the broker logs in; the files are read anew each time, since they rotate."""

    def body() -> dict[str, str]:
        match vault.auth:
            case VaultAuth.APPROLE:
                files = {"role_id": vault.role_id_file, "secret_id": vault.secret_id_file}
            case VaultAuth.TOKEN_FILE:
                files = {"token": vault.token_file}
            case _:
                files = {"jwt": vault.jwt_file}
        read = {k: read_secret_file(path).reveal() for k, path in files.items() if path}
        return {**read, "role": vault.role} if vault.role else read

    return VaultLogin(vault.auth, vault.auth_mount or "", body)


def admin_api(vault: VaultSection, token: Secret) -> VaultApi:
    """Make a connection to Vault as its admin, to set it up."""
    return VaultApi(
        vault.address,
        VaultLogin("token_file", "", lambda: {"token": token.reveal()}),
        SystemClock(),
        namespace=vault.namespace or "",
        ca_file=vault.ca_file,
        timeout_s=vault.timeout / 1000,
    )


def policies(config: Config, catalog: Catalog) -> Policies:
    """Load the policies of the package and of the configuration.

    Raises:
        ConfigError: they can't be read or used.
    """
    policy = config.policy

    def read() -> Sources:
        own = sources_in(policy.dir) if policy.dir else ()
        tried = tuple((name, sources_in(folder)) for name, folder in policy.watched)
        return Sources((*default_sources(), *own), tried)

    remote = None
    if (there := policy.remote) is not None:
        remote = RemoteDecisionPoint(
            there.url,
            instead=there.mode is RemoteMode.INSTEAD,
            timeout_s=there.timeout / 1000,
            token_file=there.token_file,
            ca_file=there.ca_file,
        )
    return Policies(read, list(catalog.tools.values()), remote)


def reconcile_rules(config: Config) -> ReconcileRules:
    """Return how often and how far ledger, backends and targets are reconciled."""
    section = config.reconcile
    return ReconcileRules(every_ms=section.every, apply=section.apply, shown_ms=section.shown)


def targets(config: Config) -> list[Target]:
    """Return whose accounts are looked at; the files behind them are read anew each time."""
    return [
        Target(
            entry.name,
            entry.accounts,
            frozenset(entry.capabilities),
            _accounts(entry),
            entry.lockout and entry.kind is not TargetKind.RABBITMQ,  # which can't
        )
        for entry in config.targets
    ]


def _accounts(entry: TargetEntry) -> Accounts:
    login = partial(read_secret_file, entry.dsn_file)
    match entry.kind:
        case TargetKind.POSTGRESQL:
            return PostgreSQL(login)
        case TargetKind.MYSQL:
            return MySQL(login, entry.ca_file)
        case TargetKind.RABBITMQ:
            return RabbitMQ(login, entry.ca_file)
        case TargetKind.VALKEY:
            return Valkey(login)
