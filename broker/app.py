"""The composition root: the only file that knows which adapter stands behind which port."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.access import Access
from broker.backends.token import TokenBackend
from broker.backends.vault import VaultBackend
from broker.backends.vault_api import VaultApi, VaultLogin
from broker.clock import SystemClock
from broker.config import VaultAuth, read_secret_file
from broker.errors import BrokerError
from broker.http.app import Readiness, create_app
from broker.identity.authenticator import Authenticator
from broker.identity.oidc import JwtIssuer
from broker.keys import KeyRing
from broker.ledger.connection import Connection
from broker.ledger.durability import durability
from broker.ledger.models import LedgerTimes
from broker.ledger.queries import Queries
from broker.ledger.redis import RedisLedger
from broker.logs import get_logger
from broker.pipeline import Pipeline
from broker.reaper import Reaper
from broker.scheduler import Scheduler
from broker.service import Broker, TaskLimits
from broker.steps import Limits, Step
from broker.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from fastapi import FastAPI

    from broker.backends.protocol import Backend
    from broker.catalog import Catalog
    from broker.clock import Clock
    from broker.config import Config, VaultSection
    from broker.secret import Secret

log = get_logger("app")
DRAIN_S = 10.0


@dataclass(frozen=True, slots=True)
class Application:
    """All parts of one replica, wired."""

    config: Config
    broker: Broker
    pipeline: Pipeline
    reaper: Reaper
    connection: Connection
    vault: VaultApi | None
    authenticator: Authenticator
    keys: KeyRing
    clock: Clock

    async def ready(self) -> Readiness:
        """Look at the ledger, its durability, and Vault."""
        parts: Readiness = {}
        try:
            lacks = await durability(self.connection)
            self.pipeline.ledger_durable = not lacks or self.config.redis.allow_data_loss
            parts["ledger"] = f"warning: {'; '.join(lacks)}" if lacks else "ok"
        except BrokerError as error:
            parts["ledger"] = error.detail
        if self.vault is not None:
            parts["vault"] = await vault_state(self.vault)
        stuck = sum(self.pipeline.stuck.values())
        parts["revocation"] = f"warning: {stuck} credentials are stuck" if stuck else "ok"
        return parts

    def http(self) -> FastAPI:
        """Build the HTTP application; its lifespan runs the scheduler."""
        return create_app(
            self.broker,
            jwks=self.keys.jwks(),
            max_body=self.config.broker.max_body,
            ready=self.ready,
            lifespan=self._lifespan,
        )

    @contextlib.asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncGenerator[None]:
        scheduler = Scheduler(self.reaper, self.clock)
        # Nothing is scanned before serving: the first sweep runs beside the first requests.
        with contextlib.suppress(BrokerError):
            await self.ready()
        scheduler.start()
        try:
            yield
        finally:
            scheduler.stop()
            with contextlib.suppress(TimeoutError):
                await self.pipeline.work.drain(DRAIN_S)
            await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self.authenticator.aclose()
        if self.vault is not None:
            self.vault.close()
        await self.connection.close()


def build(
    config: Config,
    *,
    clock: Clock | None = None,
    before_step: Callable[[Step], None] = lambda _: None,
) -> Application:
    """Wire a replica from its configuration. Opens no connection yet; creates the signing key."""
    clock = clock or SystemClock()
    catalog = config.catalog()
    keys = KeyRing.load_or_create(config.broker.state_dir / "keys")
    tokens = Tokens(config.broker.issuer, keys, clock)
    connection = connect(config)
    ledger = RedisLedger(connection, _times(config))
    vault = vault_api(config.vault, clock) if config.vault else None
    backends: dict[str, Backend] = {"token": TokenBackend(tokens, ledger, clock)}
    if vault is not None and config.vault is not None:
        backends["vault"] = vault_backend(config, config.vault, vault, ledger, catalog, clock)
    queries = Queries(connection, tuple(backends))
    authenticator = Authenticator([JwtIssuer(i, clock) for i in config.issuers()])
    access = Access(
        issuer=config.broker.issuer,
        authenticator=authenticator,
        tokens=tokens,
        ledger=ledger,
        queries=queries,
        catalog=catalog,
        clock=clock,
        token_ttl_ms=config.broker.token_ttl,
        shards=config.redis.shards,
    )
    pipeline = Pipeline(
        ledger=ledger,
        queries=queries,
        backends=backends,
        catalog=catalog,
        clock=clock,
        limits=_limits(config),
        before_step=before_step,
    )
    service = Broker(pipeline, access, _task_limits(config), config.redis.shards)
    return Application(
        config=config,
        broker=service,
        pipeline=pipeline,
        reaper=Reaper(pipeline),
        connection=connection,
        vault=vault,
        authenticator=authenticator,
        keys=keys,
        clock=clock,
    )


def connect(config: Config) -> Connection:
    """Make the ledger's connection."""
    redis = config.redis
    password = read_secret_file(redis.password_file) if redis.password_file else None
    return Connection(
        redis.url,
        shards=redis.shards,
        username=redis.username,
        password=password,
        timeout_s=redis.timeout / 1000,
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


def vault_backend(
    config: Config,
    vault: VaultSection,
    api: VaultApi,
    ledger: RedisLedger,
    catalog: Catalog,
    clock: Clock,
) -> VaultBackend:
    """Make the Vault backend; ``broker_id`` is the issuer, by which replicas are one broker."""
    return VaultBackend(
        api,
        ledger,
        catalog.capabilities.values(),
        clock,
        broker_id=config.broker.issuer,
        token_role=vault.token_role,
        policy_prefix=vault.policy_prefix,
    )


async def vault_state(vault: VaultApi) -> str:
    """Say in a word how Vault is."""
    try:
        health = await vault.health()
    except BrokerError as error:
        return error.detail
    if not health.get("initialized"):
        return "not initialised"
    return "sealed" if health.get("sealed") else "ok"


def _times(config: Config) -> LedgerTimes:
    timeout = config.vault.timeout if config.vault else 5000
    return LedgerTimes(
        claim_ms=config.revocation.claim,
        # A mint may wait for a thread, for the task's token, and for Vault itself.
        pending_ms=6 * timeout,
        retain_ms=config.retention.tasks,
        audit_ms=config.retention.audit,
    )


def _limits(config: Config) -> Limits:
    revocation = config.revocation
    return Limits(
        attempts=revocation.attempts,
        backoff_ms=revocation.backoff,
        max_backoff_ms=revocation.max_backoff,
        stuck_limit=revocation.stuck_limit,
        wait_ms=revocation.wait,
        lane_width=config.vault.revoke_concurrency if config.vault else 16,
    )


def _task_limits(config: Config) -> TaskLimits:
    tasks = config.tasks
    return TaskLimits(
        default_ttl_ms=tasks.default_ttl,
        max_ttl_ms=tasks.max_ttl,
        min_heartbeat_ms=tasks.min_heartbeat,
        max_depth=tasks.max_depth,
        max_children=tasks.max_children,
        max_live_per_agent=tasks.max_live_per_agent,
    )
