"""Step 1: who calls. Workload identities become access tokens here, and access tokens callers.

A workload JWT is good for one thing, the token endpoint; everything else takes a token of ours. The
two are never confused: each has its own ``typ``, issuer and verifier.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast
from urllib.parse import urlsplit

from broker.errors import (
    AccessDenied,
    InvalidRequest,
    InvalidToken,
    OAuthError,
    TaskNotActive,
)
from broker.identity.models import Role
from broker.ids import new_id, shard_of
from broker.logs import get_logger
from broker.tasks import TaskState
from broker.tokens import AccessClaims, nested_actor

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.catalog import Catalog, Principal
    from broker.clock import Clock
    from broker.identity.authenticator import Authenticator
    from broker.identity.models import Identity
    from broker.ledger.queries import Queries
    from broker.ledger.redis import RedisLedger
    from broker.tasks import Task
    from broker.tokens import Tokens

log = get_logger("access")

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:token-exchange"
TYPE_JWT: Final = "urn:ietf:params:oauth:token-type:jwt"
TYPE_ACCESS_TOKEN: Final = "urn:ietf:params:oauth:token-type:access_token"
DETAIL_TYPE: Final = "broker_task"
_SINGLE: Final = (
    "grant_type",
    "subject_token",
    "subject_token_type",
    "actor_token",
    "actor_token_type",
    "requested_token_type",
    "scope",
    "authorization_details",
)


@dataclass(frozen=True, slots=True)
class Caller:
    """A proved caller. ``task`` is set for an agent's token, and is that task a moment ago."""

    principal: Principal
    claims: AccessClaims
    task: Task | None

    @property
    def name(self) -> str:
        """The principal's name."""
        return self.principal.name


class Access:
    """Exchanges workload identities, checks access tokens, answers introspection."""

    def __init__(  # noqa: PLR0913
        self,
        *,
        issuer: str,
        authenticator: Authenticator,
        tokens: Tokens,
        ledger: RedisLedger,
        queries: Queries,
        catalog: Catalog,
        clock: Clock,
        token_ttl_ms: int,
        shards: int,
    ) -> None:
        """``issuer`` is the broker's own URL; ``token_ttl_ms`` how long its tokens live."""
        self.issuer = issuer
        self._authenticator = authenticator
        self._tokens = tokens
        self._ledger = ledger
        self._queries = queries
        self._catalog = catalog
        self._clock = clock
        self._ttl_ms = token_ttl_ms
        self._shards = shards

    async def exchange(self, form: Mapping[str, list[str]]) -> tuple[dict[str, Any], Task | None]:
        """Answer a token request (RFC 8693 section 2); returns the answer and the agent's task.

        Raises:
            OAuthError: with the code of RFC 6749 section 5.2, RFC 8693 section 2.2.2 or RFC 9396.
        """
        fields = _single_fields(form)
        self._check_target(form)
        try:
            identity = await self._authenticator.authenticate(fields["subject_token"])
        except InvalidToken as error:
            # RFC 8693 section 2.2.2: an unacceptable subject token is an invalid_request.
            raise OAuthError("invalid_request", f"subject_token: {error.detail}") from error
        principal = self._catalog.principal_of(identity)
        if principal is None:
            log.warning("unknown workload", issuer=identity.issuer, subject=identity.subject)
            msg = "subject_token: no principal is registered for this issuer and subject"
            raise OAuthError("invalid_request", msg)
        task_id = _task_named(fields.get("authorization_details"))
        task = await self._task_for(principal, task_id)
        return await self._issue(principal, identity, task), task

    async def _task_for(self, principal: Principal, task_id: str | None) -> Task | None:
        if principal.role is not Role.AGENT:
            if task_id is not None:
                msg = "only an agent's token names a task"
                raise OAuthError("invalid_authorization_details", msg)
            return None
        if task_id is None:
            msg = (
                "an agent names its task: authorization_details="
                '[{"type":"broker_task","task_id":"tsk_…"}]'
            )
            raise OAuthError("invalid_authorization_details", msg)
        task = await self._queries.task(task_id)
        if task is None or task.agent != principal.name or task.state is not TaskState.ACTIVE:
            msg = "no active task of this agent has this id"
            raise OAuthError("invalid_authorization_details", msg)
        return task

    async def _issue(
        self, principal: Principal, identity: Identity, task: Task | None
    ) -> dict[str, Any]:
        now = int(self._clock.now())
        ttl_s = self._ttl_ms // 1000
        if task is not None:
            ttl_s = min(ttl_s, task.expires_at // 1000 - now)
        if ttl_s <= 0:
            raise OAuthError("invalid_authorization_details", "the task's time is up")
        # An agent's token is in its task's shard, so that one script sees both.
        shard = shard_of(task.id, "tsk") if task else secrets.randbelow(self._shards)
        details = [{"type": DETAIL_TYPE, "task_id": task.id}] if task else []
        claims = AccessClaims(
            subject=task.subject if task else principal.name,
            client_id=principal.name,
            audience=(self.issuer,),
            jti=new_id("jti", shard or 0),
            issued_at=now,
            expires_at=now + ttl_s,
            scope=principal.role,
            act=nested_actor(task.actors[0], task.actors[1:]) if task else None,
            authorization_details=tuple(details),
            txn=task.root_id if task else "",
        )
        row = {"client_id": principal.name, **({"task_id": task.id} if task else {})}
        event = {
            "audience": self.issuer,
            "identity": f"{identity.issuer} {identity.subject}",
            "method": identity.method,
            "expires_in": ttl_s,
        }
        try:
            await self._ledger.put_token(
                claims.jti, row, ttl_ms=ttl_s * 1000, event=event, actor=principal.name
            )
        except TaskNotActive as error:
            msg = "no active task of this agent has this id"
            raise OAuthError("invalid_authorization_details", msg) from error
        return {
            "access_token": self._tokens.mint(claims).reveal(),
            "issued_token_type": TYPE_ACCESS_TOKEN,
            "token_type": "Bearer",
            "expires_in": ttl_s,
            "scope": claims.scope,
            **({"authorization_details": details} if details else {}),
        }

    async def authenticate(self, token: str) -> Caller:
        """Return who presents an access token of ours for ourselves.

        Raises:
            InvalidToken: malformed, not ours, expired, revoked, or its task has ended.
        """
        claims = self._tokens.verify(token, self.issuer)
        status = await self._ledger.token_status(claims.jti)
        principal = self._catalog.principals.get(claims.client_id)
        if status is None or principal is None:
            raise InvalidToken("The token is no longer valid: exchange your identity for another.")
        return Caller(principal, claims, status[1])

    async def introspect(self, caller: Caller, token: str) -> dict[str, Any]:
        """Answer RFC 7662: what a token says if it is alive and the caller's business."""
        operator = caller.principal.role in (Role.OPERATOR, Role.AUDITOR)
        audience = caller.principal.resource
        if not operator and caller.principal.role is not Role.RESOURCE_SERVER:
            msg = "Introspection is for resource servers and operators."
            raise AccessDenied(msg)
        try:
            claims = self._tokens.verify(token, None if operator else audience)
        except InvalidToken:
            return {"active": False}
        if await self._ledger.token_status(claims.jti) is None:
            return {"active": False}
        optional = {
            "act": claims.act,
            "authorization_details": list(claims.authorization_details),
            "txn": claims.txn,
            "scope": claims.scope,
            "cnf": claims.cnf,
        }
        return {
            "active": True,
            "iss": self.issuer,
            "sub": claims.subject,
            "aud": claims.audience[0] if len(claims.audience) == 1 else list(claims.audience),
            "client_id": claims.client_id,
            "jti": claims.jti,
            "iat": claims.issued_at,
            "exp": claims.expires_at,
            "token_type": "Bearer",
            **{key: value for key, value in optional.items() if value},
        }

    async def person(self, token: str) -> str:
        """Return the person a JWT of a configured issuer proves, for ``on_behalf_of``."""
        try:
            identity = await self._authenticator.authenticate(token)
        except InvalidToken as error:
            # The caller itself is proved: a 401 would tell it to get another token for itself.
            msg = f"on_behalf_of: {error.detail}"
            raise InvalidRequest(msg, field="on_behalf_of") from error
        return f"{identity.issuer_name}:{identity.subject}"

    def _check_target(self, form: Mapping[str, list[str]]) -> None:
        """Only tokens for the broker itself are exchanged here (RFC 8707, RFC 8693 2.1)."""
        for resource in form.get("resource", []):
            if not _is_absolute(resource):
                raise OAuthError("invalid_target", "resource: an absolute URI without a fragment")
        for target in (*form.get("resource", []), *form.get("audience", [])):
            if target != self.issuer:
                msg = f"tokens are exchanged for {self.issuer} here; ask for a grant for others"
                raise OAuthError("invalid_target", msg)


def _is_absolute(uri: str) -> bool:
    """Say whether ``uri`` may name a resource (RFC 8707 section 2)."""
    try:
        parts = urlsplit(uri)
    except ValueError:  # such as a bracket that nothing closes
        return False
    return bool(parts.scheme and parts.netloc) and "#" not in uri


def _single_fields(form: Mapping[str, list[str]]) -> dict[str, str]:  # noqa: C901  one branch a rule
    """Return the request's parameters, each given once (RFC 6749 section 3.2)."""
    fields: dict[str, str] = {}
    for name in _SINGLE:
        values = form.get(name, [])
        if len(values) > 1:
            raise OAuthError("invalid_request", f"{name} is given more than once")
        if values and values[0]:
            fields[name] = values[0]
    if "grant_type" not in fields:
        raise OAuthError("invalid_request", "grant_type is missing")
    if fields["grant_type"] != GRANT_TYPE:
        raise OAuthError("unsupported_grant_type", f"grant_type is {GRANT_TYPE}")
    for name in ("subject_token", "subject_token_type"):
        if name not in fields:
            raise OAuthError("invalid_request", f"{name} is missing")
    if fields["subject_token_type"] != TYPE_JWT:
        raise OAuthError("invalid_request", f"subject_token_type is {TYPE_JWT}")
    if fields.get("requested_token_type", TYPE_ACCESS_TOKEN) != TYPE_ACCESS_TOKEN:
        raise OAuthError("invalid_request", f"requested_token_type is {TYPE_ACCESS_TOKEN}")
    if "actor_token" in fields or "actor_token_type" in fields:
        raise OAuthError("invalid_request", "actor_token is not supported")
    if "scope" in fields:
        raise OAuthError("invalid_scope", "scopes are not asked for; the role decides them")
    return fields


def _task_named(text: str | None) -> str | None:
    """Return the task that ``authorization_details`` names (RFC 9396 section 2)."""
    if text is None:
        return None
    code = "invalid_authorization_details"
    try:
        details = json.loads(text)
    except (ValueError, RecursionError):
        raise OAuthError(code, "authorization_details is not JSON") from None
    listed = cast("list[Any]", details) if isinstance(details, list) else []
    if len(listed) != 1 or not isinstance(listed[0], dict):
        raise OAuthError(code, "authorization_details is an array of one object")
    detail = cast("dict[str, Any]", listed[0])
    if detail.get("type") != DETAIL_TYPE:
        raise OAuthError(code, f"the only type is {DETAIL_TYPE}")
    if set(detail) != {"type", "task_id"} or not isinstance(detail["task_id"], str):
        raise OAuthError(code, f"{DETAIL_TYPE} has exactly: type, task_id")
    return detail["task_id"]
