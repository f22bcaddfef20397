"""A capability whose credential is an access token of ours for a named resource server.

The token's ``jti`` is its lease: it is chosen before the token exists, stands in the ledger with
its grant, and is what introspection looks up. Revoking deletes it there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from broker.backends.protocol import Minted, Prepared
from broker.ids import new_id, shard_of
from broker.tokens import AccessClaims, nested_actor

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from broker.catalog import Capability
    from broker.clock import Clock
    from broker.grants import Grant
    from broker.tasks import Task
    from broker.tokens import Tokens

NAME: Final = "token"


class TokenStore(Protocol):
    """Where live tokens are written down (the ledger)."""

    async def put_token(
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

    async def token_status(
        self, jti: str, *, minting: bool = False
    ) -> tuple[dict[str, Any], Task | None] | None:
        """Return a live token's row and task, or None."""
        ...

    async def drop_token(
        self, jti: str, *, actor: str, event: Mapping[str, Any] | None = None
    ) -> bool:
        """End a token."""
        ...


class TokenBackend:
    """Mints RFC 9068 access tokens that live in the ledger."""

    name = NAME

    def __init__(self, tokens: Tokens, store: TokenStore, clock: Clock) -> None:
        """Sign with ``tokens``; write to ``store``."""
        self._tokens = tokens
        self._store = store
        self._clock = clock

    async def prepare(self, task: Task, capability: Capability) -> Prepared:  # noqa: ARG002
        """Choose the token's id."""
        shard = shard_of(task.id, "tsk")
        assert shard is not None  # noqa: S101  the ledger gave us this task
        return Prepared(lease=new_id("jti", shard))

    async def mint(self, grant: Grant, task: Task, capability: Capability) -> Minted:
        """Write the token down, then sign it."""
        now = self._clock.now()
        # Rounded down: the token never claims to outlive its grant.
        lifetime_ms = grant.expires_at - grant.created_at
        claims = AccessClaims(
            subject=task.subject,
            client_id=task.agent,
            audience=(capability.resource,),
            jti=grant.lease,
            issued_at=int(now),
            expires_at=int(now + lifetime_ms / 1000),
            scope=capability.scope,
            act=nested_actor(task.actors[0], task.actors[1:]),
            txn=task.root_id,
            authorization_details=({"type": "broker_task", "task_id": task.id},),
        )
        row = {"client_id": task.agent, "task_id": task.id, "grant_id": grant.id}
        event = {"audience": capability.resource, "scope": capability.scope}
        await self._store.put_token(
            grant.lease, row, ttl_ms=lifetime_ms, event=event, actor=task.agent
        )
        fields = {"access_token": self._tokens.mint(claims), "token_type": "Bearer"}
        return Minted(lease=grant.lease, lifetime_ms=lifetime_ms, type=NAME, fields=fields)

    async def revoke(self, grant: Grant) -> None:
        """Delete the token from the ledger."""
        await self._store.drop_token(grant.lease, actor="broker")

    async def is_live(self, grant: Grant) -> bool:
        """Ask what introspection would answer."""
        return await self._store.token_status(grant.lease) is not None

    async def revoke_handle(self, task: Task, handle: str) -> None:
        """There are no handles: each token's id is known before the token exists."""

    async def handle_is_live(self, task: Task, handle: str, lost: Sequence[Grant]) -> bool:  # noqa: ARG002
        """There are no handles."""
        return False

    def forget(self, task_id: str) -> None:
        """Nothing is kept in memory."""
