"""The token endpoint's business: from proofs of identity to a token that dies with its task.

 1. Read what is asked              (``token_request.py``)
 2. Authenticate the client, the subject, the actor   (``access.py``)
 3. Who acts? The actor if there is one, else the subject: never more than one party is believed
 4. The task that is named says on whose behalf, through whom, and how long at most
 5. A token for the broker, or through the pipeline a grant for other resource servers

A token is never more than what it was exchanged from: not in scope, time, task, or key.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, cast

from broker.access import Caller, person_name
from broker.acting import (
    Proved,
    act_of,
    acting,
    check_delegation,
    check_may_act,
    how,
    narrowed,
    same_task,
    who_may_act,
    whose_power,
)
from broker.catalog import PrincipalState
from broker.errors import (
    AccessDenied,
    ApprovalDenied,
    ApprovalRequired,
    InvalidRequest,
    InvalidToken,
    OAuthError,
    PrincipalSuspended,
    TaskNotActive,
)
from broker.identity.models import Role
from broker.ids import new_id, shard_of
from broker.secret import Secret
from broker.tasks import TaskState
from broker.token_request import (
    CLIENT_CREDENTIALS,
    EXCHANGE,
    SEALED,
    TYPE_JWT,
    TaskDetail,
)
from broker.tokens import AccessClaims, may_act_claim, token_type
from broker.tracing import span
from broker.wire import RequestGrant

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.access import Access
    from broker.catalog import Capability, Principal
    from broker.clock import Clock
    from broker.deferral import Deferral
    from broker.identity.models import Transport
    from broker.ledger.live_tokens import LiveTokens
    from broker.pipeline import Pipeline
    from broker.rates import Allowance, Rates
    from broker.tasks import Task
    from broker.token_request import ClientAssertion, TokenRequest
    from broker.tokens import Tokens

TOKEN_BACKEND: Final = "token"
NO_TASK: Final = "no active task of this agent has this id"


@dataclass(frozen=True, slots=True)
class Answer:
    """A token response (RFC 8693 section 2.2.1), the agent's task, and what is left of the rate."""

    body: dict[str, Any] = field(repr=False)
    task: Task | None
    allowance: Allowance


class Exchange:
    """Answers token requests."""

    def __init__(  # noqa: PLR0913  all that a token is made of
        self,
        *,
        access: Access,
        pipeline: Pipeline,
        tokens: Tokens,
        live: LiveTokens,
        clock: Clock,
        rates: Rates,
        deferral: Deferral,
        token_ttl_ms: int,
        shards: int,
    ) -> None:
        """``token_ttl_ms`` is how long the broker's own tokens live; ``shards`` the ledger's."""
        self._access = access
        self._pipeline = pipeline
        self._tokens = tokens
        self._live = live
        self._clock = clock
        self._rates = rates
        self._deferral = deferral
        self._ttl_ms = token_ttl_ms
        self._shards = shards

    async def answer(
        self, ask: TokenRequest, client: ClientAssertion, transport: Transport
    ) -> Answer:
        """Answer a token request.

        Raises:
            OAuthError: with the code of RFC 6749 5.2, RFC 8693 2.2.2, RFC 8707 2 or RFC 9396 5.
            RateLimited: the acting principal has asked too often.
        """
        with self._pipeline.steps.metrics.exchanging(), span("exchange"):
            return await self._answer(ask, client, transport)

    async def _answer(
        self, ask: TokenRequest, client: ClientAssertion, transport: Transport
    ) -> Answer:
        # First: a client that must come again with a nonce has then used up no assertion.
        cnf, proof = await self._access.binding(transport)
        proved = await self._client(ask, client, transport)
        subject = await self._subject(ask, cnf) if ask.grant_type == EXCHANGE else None
        actor = await self._actor(ask, subject, proved, cnf)
        presenter = principal = acting(actor)
        if proved is None and client.client_id not in ("", principal.name):
            raise OAuthError("invalid_client", "client_id is not the principal that acts")
        if subject is not None and subject.caller is not None:
            principal = whose_power(subject, presenter, self._access.issuer)
        allowance = self._rates.take(presenter.name)
        if proof is not None:
            await self._access.possession.use_up(proof)
        task = await self._task(principal, ask.detail or same_task(subject))
        if subject is not None and subject is not actor and principal is presenter:
            check_delegation(subject, actor, task)
        elif task is not None and (own := same_task(subject)) and own.task_id != task.id:
            raise OAuthError("invalid_authorization_details", NO_TASK)
        caller = narrowed(ask, subject, principal, task, cnf, presenter)
        try:
            if self._is_for_us(ask):
                body = await self._own_token(ask, caller, actor)
            else:
                body = await self._grant(ask, caller)
        except TaskNotActive as error:
            raise OAuthError("invalid_authorization_details", NO_TASK) from error
        except (PrincipalSuspended, InvalidToken) as error:
            raise OAuthError("invalid_request", error.detail) from error
        self._access.directory.used(presenter.name)
        if ask.grant_type == EXCHANGE:
            body["issued_token_type"] = ask.requested_token_type
        return Answer(body, task, allowance)

    # 2. and 3. Who is who.

    async def _client(
        self, ask: TokenRequest, given: ClientAssertion, transport: Transport
    ) -> Proved | None:
        found = await self._access.client(given, transport)
        if found is None and ask.grant_type == CLIENT_CREDENTIALS:
            if not transport.certificates:
                msg = "client_credentials: authenticate with client_assertion, or mutual TLS"
                raise OAuthError("invalid_client", msg)
            identity, principal = await self._access.certified(transport)
            if principal is None or principal.state is not PrincipalState.ACTIVE:
                raise OAuthError("invalid_client", "no active principal has this certificate")
            found = identity, principal
        if found is None:
            return None
        identity, principal = found
        return Proved(principal.name, principal, identity)

    async def _subject(self, ask: TokenRequest, cnf: Mapping[str, str]) -> Proved:
        """Verify the subject token: ours if it is called an access token, a workload's if a JWT."""
        if ask.subject_token_type == TYPE_JWT:
            identity, principal = await self._access.workload(
                ask.subject_token, "subject_token", cnf
            )
            name = principal.name if principal else person_name(identity)
            return Proved(name, principal, identity)
        try:
            # For whom it is depends on who acts: see ``presented``.
            claims = self._tokens.verify(ask.subject_token, None)
            caller = await self._access.holder(claims)
        except InvalidToken as error:
            raise OAuthError("invalid_request", f"subject_token: {error.detail}") from error
        return Proved(claims.subject, caller.principal, caller=caller, audience=claims.audience)

    async def _actor(
        self,
        ask: TokenRequest,
        subject: Proved | None,
        client: Proved | None,
        cnf: Mapping[str, str],
    ) -> Proved:
        """Return who acts; it may not be taken from one token what another one has to prove."""
        if ask.actor_token:
            identity, principal = await self._access.workload(ask.actor_token, "actor_token", cnf)
            actor = Proved(principal.name if principal else "", principal, identity)
        elif client is not None and (subject is None or client.principal != subject.principal):
            actor = client
        else:
            actor = cast("Proved", subject)
        if client is not None and client.principal != actor.principal:
            raise OAuthError("unauthorized_client", "the client is not the party that acts")
        if subject is not None:
            check_may_act(subject, actor)
        return actor

    # 4. The task.

    async def _task(self, principal: Principal, detail: TaskDetail | None) -> Task | None:
        if principal.role is not Role.AGENT:
            if detail is not None:
                msg = "only an agent's token names a task"
                raise OAuthError("invalid_authorization_details", msg)
            return None
        if detail is None:
            msg = (
                "an agent names its task: authorization_details="
                '[{"type":"broker_task","task_id":"tsk_..."}]'
            )
            raise OAuthError("invalid_authorization_details", msg)
        task = await self._pipeline.queries.task(detail.task_id)
        if task is None or task.agent != principal.name or task.state is not TaskState.ACTIVE:
            raise OAuthError("invalid_authorization_details", NO_TASK)
        if detail.capabilities is not None and not detail.capabilities <= set(task.capabilities):
            msg = "capabilities: the task has none of that name"
            raise OAuthError("invalid_authorization_details", msg)
        return task

    # 5. The token.

    def _is_for_us(self, ask: TokenRequest) -> bool:
        others = set(ask.targets) - {self._access.issuer}
        if others and len(others) < len(ask.targets):
            msg = "a token is for the broker or for resource servers, never for both"
            raise OAuthError("invalid_target", msg)
        return not others

    async def _own_token(self, ask: TokenRequest, caller: Caller, actor: Proved) -> dict[str, Any]:
        principal, task = caller.principal, caller.task
        presenter = caller.presenter or principal.name
        sealed = caller.sealed or SEALED in (ask.scope or ())
        if ask.scope is not None and not ask.scope <= {str(principal.role), SEALED}:
            raise OAuthError("invalid_scope", f"the scopes here are {principal.role} and {SEALED}")
        now = int(self._clock.now())
        ttl_s = self._ttl_ms // 1000
        if task is not None:
            self._pipeline.judge.admit()  # people and orchestrators still get in, to revoke
            ttl_s = min(ttl_s, task.expires_at // 1000 - now)
        if caller.expires_at:
            ttl_s = min(ttl_s, caller.expires_at - now)
        if ttl_s <= 0:
            raise OAuthError("invalid_authorization_details", "the task's time is up")
        detail = None if task is None else TaskDetail(task.id, caller.capabilities)
        details = [detail.as_json()] if detail else []
        claims = AccessClaims(
            subject=task.subject if task else principal.name,
            client_id=presenter,
            audience=(self._access.issuer,),
            jti=new_id("jti", self._place(caller)),
            issued_at=now,
            expires_at=now + ttl_s,
            scope=f"{principal.role} {SEALED}" if sealed else principal.role,
            act=act_of(task, caller.presenter) if task else None,
            authorization_details=tuple(details),
            txn=task.root_id if task else "",
            cnf=caller.cnf,
            lineage=caller.lineage,
            may_act=may_act_claim(who_may_act(caller)) if task else None,
        )
        await self._live.put(
            claims.jti,
            {
                "client_id": presenter,
                "owner": self._pipeline.catalog.principals[presenter].owner,
                "method": caller.method or how(actor)["method"],
                **({"task_id": task.id} if task else {}),
            },
            ttl_ms=ttl_s * 1000,
            event={
                "jti": claims.jti,
                "audience": self._access.issuer,
                **how(actor),
                "bound": ",".join(caller.cnf),
                "expires_in": ttl_s,
            },
            actor=presenter,
            ancestors=caller.lineage,
        )
        return {
            "access_token": self._tokens.mint(claims).reveal(),
            "token_type": token_type(claims.cnf),
            "expires_in": ttl_s,
            "scope": claims.scope,
            **({"authorization_details": details} if details else {}),
        }

    def _place(self, caller: Caller) -> int:
        """Return the shard of a new token: that of its task, and of the tokens it dies with.

        So that one script sees them all. They are of one chain, or all of one principal without a
        task.
        """
        if caller.task is not None:
            return shard_of(caller.task.id, "tsk") or 0
        if caller.lineage:
            return shard_of(caller.lineage[-1], "jti") or 0
        return secrets.randbelow(self._shards)

    async def _grant(self, ask: TokenRequest, caller: Caller) -> dict[str, Any]:
        """Issue a token for resource servers: a grant like any other, revoked with its task."""
        if caller.task is None or caller.presenter:
            role = Role.RESOURCE_SERVER if caller.presenter else caller.principal.role
            msg = f"{role}s have no tokens for others: ask for {self._access.issuer}"
            raise OAuthError("invalid_target", msg)
        targets = self._resources(ask.targets)
        capability = self._capability(caller, targets, ask.scope)
        parameters: dict[str, Any] = {"resource": sorted(targets)}
        if ask.scope is not None:
            parameters["scope"] = " ".join(sorted(ask.scope))
        left_ms = (caller.expires_at - int(self._clock.now())) * 1000 if caller.expires_at else None
        if left_ms is not None and left_ms <= 0:  # since it was verified; 0 would be no bound
            raise OAuthError("invalid_request", "subject_token: the token has expired")
        wanted = RequestGrant.model_construct(
            capability=capability.name, ttl=left_ms, parameters=parameters, intent=None
        )
        if ask.deferral and left_ms is not None:
            # What is left of it is another time each time, so no repeat would be the same request.
            raise OAuthError("invalid_request", "deferral: with a workload's own token alone")
        await self._deferral.look(ask, caller)
        try:
            issued = await self._pipeline.issue(caller, caller.task, wanted, None)
        except PrincipalSuspended:
            raise
        except (ApprovalRequired, ApprovalDenied) as error:
            if not ask.deferral:
                raise OAuthError("invalid_target", error.detail) from error
            raise await self._deferral.wait(ask, error) from error
        except (AccessDenied, InvalidRequest) as error:
            # RFC 8693 section 2.2.2: unwilling to issue for the target.
            raise OAuthError("invalid_target", error.detail) from error
        token = issued.minted.fields["access_token"]
        left_s = (issued.grant.expires_at - issued.grant.created_at) // 1000
        return {
            "access_token": token.reveal() if isinstance(token, Secret) else token,
            "token_type": issued.minted.fields["token_type"],
            "expires_in": left_s,
            "scope": issued.minted.fields["scope"],
            "authorization_details": [TaskDetail(caller.task.id).as_json()],
            "grant_id": issued.grant.id,
        }

    def _resources(self, targets: tuple[str, ...]) -> frozenset[str]:
        """Return the URIs of the targets; a resource server's name stands for its URI."""
        principals = self._pipeline.catalog.principals
        named = (principals.get(target) for target in targets)
        return frozenset(
            server.resource if server is not None and server.resource else target
            for target, server in zip(targets, named, strict=True)
        )

    def _capability(
        self, caller: Caller, targets: frozenset[str], scope: frozenset[str] | None
    ) -> Capability:
        """Return the least capability of the task, and of the token, that covers what is asked."""
        names = set(caller.task.capabilities if caller.task else ())
        if caller.capabilities is not None:
            names &= caller.capabilities
        known = (self._pipeline.catalog.capabilities.get(name) for name in names)
        fitting = [
            capability
            for capability in known
            if capability is not None
            and capability.backend == TOKEN_BACKEND
            and targets <= set(capability.resources)
        ]
        if not fitting:
            raise OAuthError("invalid_target", "the task has no capability for these targets")
        enough = [c for c in fitting if scope is None or scope <= c.scopes]
        if not enough:
            raise OAuthError("invalid_scope", "the task has no capability with these scopes")
        least = min(enough, key=lambda c: (c.power.rank, len(c.scopes), c.name))
        if caller.sealed and not least.model_may_see:
            raise OAuthError("invalid_target", "subject_token: it is sealed")
        return least
