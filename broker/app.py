"""The composition root: the only file that knows which adapter stands behind which port."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

from broker import settings
from broker.access import Access
from broker.approval_desk import ApprovalDesk
from broker.audit.fingerprint import Fingerprints
from broker.audit_log import AuditLog, open_audit_log
from broker.backends.token import TokenBackend
from broker.backends.vault_api import VaultApi, vault_state
from broker.backends.vault_look import VaultLook
from broker.clock import SystemClock
from broker.config import read_secret_file
from broker.consents import Consents
from broker.console_settings import mount_console, sign_in_client
from broker.decisions import DecisionPoint
from broker.deferral import Deferral
from broker.dry_runs import DryRuns
from broker.elevating import Elevations
from broker.errors import BrokerError
from broker.exchange import Exchange
from broker.executions import Executions
from broker.gauges import Gauges, revocation_state
from broker.http.app import Readiness, create_app
from broker.http.metrics import Scrape
from broker.http.tls import ServerTls
from broker.identity.assertions import ClientKeys
from broker.identity.authenticator import Authenticator
from broker.identity.kubernetes import TokenReviewIssuer
from broker.identity.oidc import JwtIssuer
from broker.identity.spiffe import TrustDomain
from broker.introspection import Introspection
from broker.judge import Judge
from broker.keys import Algorithm, KeyRing, KeyRotation
from broker.ledger.actions import Actions
from broker.ledger.approvals import ApprovalTable
from broker.ledger.durability import durability
from broker.ledger.elevations import ElevationTable
from broker.ledger.glance import Glance
from broker.ledger.live_tokens import LiveTokens
from broker.ledger.queries import Queries
from broker.ledger.redis import RedisLedger
from broker.ledger.registry import Registry
from broker.ledger.replay import Replay
from broker.ledger.roster import Roster
from broker.ledger.schema import Schema
from broker.lockout import Lockout
from broker.metrics import Metrics
from broker.oversight import Oversight
from broker.overview import Overviews
from broker.owners import Owners
from broker.pipeline import Pipeline
from broker.possession import Possession
from broker.principals import Principals
from broker.quotas import Quotas
from broker.rates import Rates
from broker.reaper import Reaper
from broker.receipts import Receipts
from broker.renewing import Renewals
from broker.scheduler import Scheduler
from broker.service import Broker
from broker.standing import Standing
from broker.steps import Steps
from broker.tokens import Tokens

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from fastapi import FastAPI

    from broker.backends.protocol import Backend
    from broker.clock import Clock
    from broker.config import Config
    from broker.console.oidc import SignInClient
    from broker.ledger.connection import Connection
    from broker.steps import Step
    from broker.worker_metrics import WorkerMetrics

DRAIN_S = 10.0


@dataclass(frozen=True)
class Application:
    """All parts of one replica, wired."""

    config: Config
    broker: Broker
    pipeline: Pipeline
    principals: Principals
    owners: Owners
    oversight: Oversight
    reaper: Reaper
    connection: Connection
    vault: VaultApi | None
    authenticator: Authenticator
    client_keys: ClientKeys
    keys: KeyRing
    tokens: Tokens
    rotation: KeyRotation
    clock: Clock
    metrics: Metrics
    gauges: Gauges
    glance: Glance
    audit: AuditLog | None
    schema: Schema
    sign_in: SignInClient | None

    async def ready(self) -> Readiness:
        """Look at the ledger, its durability, and Vault."""
        parts: Readiness = {}
        try:
            lacks = await durability(self.connection)
            self.pipeline.ledger_durable = not lacks or self.config.redis.allow_data_loss
            parts["ledger"] = f"warning: {'; '.join(lacks)}" if lacks else "ok"
            self.schema.check()
        except BrokerError as error:
            parts["ledger"] = error.detail
        if self.vault is not None:
            parts["vault"] = await vault_state(self.vault)
        parts["revocation"] = revocation_state(self.pipeline)
        if self.audit is not None:
            parts["audit"] = self.audit.state()
        with contextlib.suppress(BrokerError):  # the ledger's own state says so
            parts |= await self.oversight.states()
        return parts

    @cached_property
    def overview(self) -> Overviews:
        """What operators look at first, put together once for all who look."""
        return Overviews(
            self.pipeline, self.gauges, self.glance, self.metrics, self.clock, self.ready
        )

    def http(self, beside: WorkerMetrics | None = None) -> FastAPI:
        """Build the HTTP application; its lifespan runs the scheduler.

        ``beside`` knows the metrics of the other workers of this host, if there are any.
        """
        app = create_app(
            self.broker,
            keys=self.rotation,
            principals=self.principals,
            owners=self.owners,
            oversight=self.oversight,
            overview=self.overview,
            dry_runs=DryRuns(self.pipeline, self.broker.decisions),
            login=self.config.login_at(),
            audit=self.audit,
            max_body=self.config.broker.max_body,
            trusted_proxies=self.config.broker.trusted_proxies,
            ready=self.ready,
            lifespan=partial(self._lifespan, beside),
        )
        if (section := self.config.metrics).enabled:
            token = read_secret_file(section.token_file) if section.token_file else None
            shared = beside.exposition if beside else None
            app.show(Scrape(self.metrics, self.gauges.read, token, shared))
        mount_console(app, self.config, self.connection, self.clock, self.sign_in)
        return app

    def tls(self) -> ServerTls | None:
        """Return what the server needs to speak https itself, if it is to.

        Raises:
            ConfigError: its certificate or key can't be used.
        """
        tls = self.config.tls
        if tls is None:
            return None
        ask = self.authenticator.certificate_authorities if tls.client_certificates else None
        return ServerTls(tls.cert_file, tls.key_file, authorities=ask)

    @contextlib.asynccontextmanager
    async def _lifespan(self, beside: WorkerMetrics | None, app: FastAPI) -> AsyncGenerator[None]:
        try:
            await self.schema.start()
        except BrokerError as error:
            app.state.refusal = error  # whoever serves says so
            await self.close()
            raise
        async with beside or contextlib.nullcontext(), self._working():
            yield

    @contextlib.asynccontextmanager
    async def _working(self) -> AsyncGenerator[None]:
        scheduler = Scheduler(
            self.reaper,
            self.clock,
            keys=self.rotation,
            metrics=self.metrics,
            policing=self.oversight.policing,
            policy_s=(self.config.policy.reload or 60_000) // 1000,
            reconcile=self.oversight.reconcile,
            schema=self.schema,
            audit=self.audit,
        )
        # Nothing is scanned before serving: the first sweep runs beside the first requests.
        with contextlib.suppress(BrokerError):
            await self.ready()
            await self.principals.roster.reload()
        if self.audit is not None:
            with contextlib.suppress(BrokerError):
                await self.audit.start()
        scheduler.start()
        try:
            yield
        finally:
            scheduler.stop()
            with contextlib.suppress(TimeoutError):
                await self.pipeline.work.drain(DRAIN_S)
            with contextlib.suppress(BrokerError):
                await self.principals.roster.write_down()
            if self.audit is not None:
                await self.audit.stop()
            await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self.authenticator.aclose()
        await self.client_keys.aclose()
        if self.sign_in is not None:
            await self.sign_in.aclose()
        await self.pipeline.disconnect()
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
    algorithm = Algorithm(config.broker.signing_algorithm)
    keys = KeyRing.load_or_create(
        config.broker.state_dir / "keys", clock=clock, algorithm=algorithm
    )
    tokens = Tokens(config.broker.issuer, keys, clock)
    metrics = Metrics(clock, backends={c.backend for c in catalog.capabilities.values()})
    connection = settings.connect(config, metrics)
    audit = open_audit_log(config, connection, clock, metrics)
    schema = Schema(connection)
    quotas = Quotas(settings.quota_bounds(config), catalog, connection, metrics)
    ledger = RedisLedger(connection, settings.times(config), quotas.places)
    live = LiveTokens(connection)
    roster = Roster(catalog, Registry(connection, ledger.times), clock)
    vault = settings.vault_api(config.vault, clock) if config.vault else None
    backends: dict[str, Backend] = {**settings.backends(config, ledger, clock)}
    backends["token"] = TokenBackend(tokens, live, clock)
    if vault is not None:
        backends["vault"] = settings.vault_backend(config, vault, ledger, catalog, clock)
    queries = Queries(connection, tuple(backends))
    authenticator = Authenticator(
        [(TokenReviewIssuer if i.token_review else JwtIssuer)(i, clock) for i in config.issuers()],
        [TrustDomain(domain, clock) for domain in config.trust_domains()],
    )
    possession = Possession(
        connection,
        clock,
        window_s=config.oauth.dpop_window // 1000,
        require_nonce=config.oauth.dpop_nonce,
    )
    client_keys = ClientKeys(config.broker.issuer, clock, max_lifetime_s=3600)
    access = Access(
        issuer=config.broker.issuer,
        authenticator=authenticator,
        tokens=tokens,
        live=live,
        catalog=catalog,
        possession=possession,
        client_keys=client_keys,
        replay=Replay(connection),
        directory=roster,
    )
    approvals = ApprovalTable(connection, ledger.times)
    judge = Judge(
        consents=Consents(
            approvals, settings.groups(config), catalog, settings.consent_limits(config)
        ),
        catalog=catalog,
        policies=settings.policies(config, catalog),
        metrics=metrics,
        actions=Actions(connection),
        ledger=ledger,
        clock=clock,
        environment=config.policy.environment,
        private=config.policy.private,
        used=roster.used_capability,
        admit=partial(_admit, schema, audit),
    )
    pipeline = Pipeline(
        ledger=ledger,
        queries=queries,
        backends=backends,
        catalog=catalog,
        judge=judge,
        clock=clock,
        quotas=quotas,
        lockout=Lockout(settings.targets(config), clock, metrics),
        limits=settings.limits(config),
        steps=Steps(metrics, before_step),
    )
    standing = Standing(pipeline, roster)
    oversight = Oversight.over(
        pipeline,
        standing,
        connection,
        metrics,
        follow=config.policy.reload is not None,
        look=VaultLook(vault, config.broker.issuer) if vault is not None else None,
        targets=settings.targets(config),
        rules=settings.reconcile_rules(config),
    )
    principals = Principals(
        standing=standing,
        pipeline=pipeline,
        reach=oversight.reach,
        rules=settings.review_rules(config),
        issuers={s.name for s in (*config.issuers(), *config.identity.trust_domains)},
        broker=config.broker.issuer,
    )
    exchange = Exchange(
        access=access,
        pipeline=pipeline,
        tokens=tokens,
        live=live,
        clock=clock,
        rates=Rates(clock, quota=config.oauth.rate, window_s=config.oauth.rate_window // 1000),
        deferral=Deferral(approvals, Replay(connection)),
        token_ttl_ms=config.broker.token_ttl,
        shards=config.redis.shards,
    )
    elevations = Elevations(
        pipeline, ElevationTable(connection, ledger.times), settings.elevation_limits(config)
    )
    service = Broker(
        pipeline=pipeline,
        access=access,
        exchange=exchange,
        introspection=Introspection(
            access=access, pipeline=pipeline, tokens=tokens, live=live, clock=clock
        ),
        decisions=DecisionPoint(
            pipeline,
            Fingerprints.load_or_create(config.audit.fingerprint_key(config.broker.state_dir)),
            report_ms=config.policy.report_within,
        ),
        executions=Executions(judge.actions, queries),
        approvals=ApprovalDesk(pipeline),
        elevations=elevations,
        receipts=Receipts(queries, tokens, config.broker.issuer, clock),
        renewals=Renewals.over(pipeline, connection, vault, clock, config.broker.issuer),
        limits=settings.task_limits(config),
        shards=config.redis.shards,
    )
    return Application(
        config=config,
        broker=service,
        pipeline=pipeline,
        principals=principals,
        owners=Owners(standing),
        oversight=oversight,
        reaper=Reaper(pipeline, principals, oversight.detections, elevations, metrics, audit),
        connection=connection,
        vault=vault,
        authenticator=authenticator,
        client_keys=client_keys,
        keys=keys,
        tokens=tokens,
        rotation=KeyRotation(
            keys,
            ledger,
            clock,
            times=settings.rotation_times(config),
            algorithm=algorithm,
            shards=config.redis.shards,
        ),
        clock=clock,
        metrics=metrics,
        gauges=Gauges(pipeline, metrics, clock),
        glance=Glance(connection, tuple(backends)),
        audit=audit,
        schema=schema,
        sign_in=sign_in_client(config, clock),
    )


def _admit(schema: Schema, audit: AuditLog | None) -> None:
    """Raise while nothing may be issued, whoever asks."""
    schema.check()
    if audit is not None:
        audit.guard.check()
