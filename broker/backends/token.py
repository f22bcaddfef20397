"""A capability whose credential is an access token of ours for a named resource server.

The token's ``jti`` is its lease: it is chosen before the token exists, stands in the ledger with
its grant, and is what introspection looks up. Revoking deletes it there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol, cast

from broker.backends.protocol import Backend, Minted, Prepared
from broker.errors import InvalidRequest
from broker.ids import new_id, shard_of
from broker.tokens import AccessClaims, nested_actor, token_type

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.catalog import Capability
    from broker.clock import Clock
    from broker.grants import Grant
    from broker.tasks import Task
    from broker.tokens import Tokens

NAME: Final = "token"


class TokenStore(Protocol):
    """Where live tokens are written down (``ledger/live_tokens.py``)."""

    async def put(
        self,
        jti: str,
        row: Mapping[str, Any],
        *,
        ttl_ms: int,
        event: Mapping[str, Any],
        actor: str,
    ) -> None:
        """Write a token before it is handed out."""
        ...

    async def status(self, jti: str) -> tuple[dict[str, Any], Task | None] | None:
        """Return a live token's row and task, or None."""
        ...

    async def drop(self, jti: str, *, actor: str) -> bool:
        """End a token."""
        ...


class TokenBackend(Backend):
    """Mints RFC 9068 access tokens that live in the ledger.

    There are no handles: each token's id is known before the token exists. Nor is there anything to
    rotate behind a token but the signing keys, which no agent ever sees.
    """

    name = NAME

    def __init__(self, tokens: Tokens, store: TokenStore, clock: Clock) -> None:
        """Sign with ``tokens``; write to ``store``."""
        self._tokens = tokens
        self._store = store
        self._clock = clock

    def check(self, capability: Capability, parameters: Mapping[str, Any]) -> None:
        """Accept ``resource`` (one, or a list) and ``scope``: less than the capability has.

        Raises:
            InvalidRequest: another parameter, another type, or more than there is.
        """
        if unknown := set(parameters) - {"resource", "scope"}:
            msg = f"Capability {capability.name!r} has the parameters resource and scope only."
            raise InvalidRequest(msg, field=f"parameters.{min(unknown)}")
        audience, scope = _asked(parameters)
        if not set(audience) <= set(capability.resources):
            msg = f"Capability {capability.name!r} is for: {', '.join(capability.resources)}."
            raise InvalidRequest(msg, field="parameters.resource")
        if not scope <= capability.scopes:
            msg = f"Capability {capability.name!r} has the scopes: {capability.scope or 'none'}."
            raise InvalidRequest(msg, field="parameters.scope")

    async def prepare(
        self,
        task: Task,
        capability: Capability,  # noqa: ARG002
        elevation: str = "",  # noqa: ARG002
        until_ms: int = 0,  # noqa: ARG002
    ) -> Prepared:
        """Choose the token's id; under an elevation too it ends with its grant and no later."""
        shard = shard_of(task.id, "tsk")
        assert shard is not None  # noqa: S101  the ledger gave us this task
        return Prepared(lease=new_id("jti", shard))

    async def mint(self, grant: Grant, task: Task, capability: Capability) -> Minted:
        """Write the token down, then sign it."""
        now = self._clock.now()
        # Rounded down: the token never claims to outlive its grant.
        lifetime_ms = grant.expires_at - grant.created_at
        audience, scopes = _asked(grant.parameters)
        audience = audience or capability.resources
        scope = " ".join(sorted(scopes)) or capability.scope
        claims = AccessClaims(
            subject=task.subject,
            client_id=task.agent,
            audience=audience,
            jti=grant.lease,
            issued_at=int(now),
            expires_at=int(now + lifetime_ms / 1000),
            scope=scope,
            cnf=grant.cnf,
            act=nested_actor(task.actors[0], task.actors[1:]),
            txn=task.root_id,
            authorization_details=({"type": "broker_task", "task_id": task.id},),
        )
        row = {"client_id": task.agent, "task_id": task.id, "grant_id": grant.id}
        event = {"audience": " ".join(audience), "scope": scope}
        await self._store.put(grant.lease, row, ttl_ms=lifetime_ms, event=event, actor=task.agent)
        fields = {
            "access_token": self._tokens.mint(claims),
            "token_type": token_type(grant.cnf),
            "scope": scope,
        }
        return Minted(lease=grant.lease, lifetime_ms=lifetime_ms, type=NAME, fields=fields)

    async def revoke(self, grant: Grant) -> None:
        """Delete the token from the ledger."""
        await self._store.drop(grant.lease, actor="broker")

    async def is_live(self, grant: Grant) -> bool:
        """Ask what introspection would answer."""
        return await self._store.status(grant.lease) is not None

    def evidence(self, grant: Grant) -> str:  # noqa: ARG002
        """Introspection would say so."""
        return "introspection"


def _asked(parameters: Mapping[str, Any]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Return the audience and the scopes that are asked for; empty for all there are.

    Raises:
        InvalidRequest: they are of another type.
    """
    resource: Any = parameters.get("resource", [])
    listed = cast("list[Any]", resource) if isinstance(resource, list) else [resource]
    if not all(isinstance(uri, str) for uri in listed):
        msg = "parameters.resource is a URI, or a list of them."
        raise InvalidRequest(msg, field="parameters.resource")
    scope = parameters.get("scope", "")
    if not isinstance(scope, str):
        raise InvalidRequest("parameters.scope is a text.", field="parameters.scope")
    return tuple(dict.fromkeys(listed)), frozenset(scope.split())
