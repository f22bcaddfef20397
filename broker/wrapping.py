"""Step 7 where somebody in between carries the credential: it goes in a wrapping token.

Vault keeps what is in there for a while and gives it out once. Who carries the token can't read it
without spending it, and then it is noticed:

- the token is another than the one made for this grant, or its content is: somebody has taken that
  out, and put this in its place
- it is spent before its time is up: somebody has opened it

A voucher is a part of such a token, by which nobody but the broker opens it (``vouchers.py``).

Either way the grant is revoked at once, and that is told as an alarm. Of a token whose time is up
Vault can't say whether it was opened before: the grant is revoked then as well.

The ledger keeps the token's digest, never the token.

Who has a sealed token gets vouchers alone, but for what the operator lets models see.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from broker.backends.protocol import Minted
from broker.backends.vault_api import VaultGone
from broker.backends.vault_wrapping import PATH
from broker.clock import to_rfc3339
from broker.errors import (
    AccessDenied,
    BindingRequired,
    BrokerError,
    Conflict,
    InvalidRequest,
    LedgerUnavailable,
    Unavailable,
    WrappingExpired,
    WrappingIntercepted,
)
from broker.grants import GrantState
from broker.ledger.lives import already_opened, ended
from broker.ledger.models import is_dead
from broker.logs import get_logger
from broker.refusals import cannot_issue
from broker.secret import Secret
from broker.steps import Issued
from broker.visibility import is_own
from broker.vouchers import joined, split

if TYPE_CHECKING:
    from collections.abc import Awaitable
    from typing import Any

    from broker.access import Caller
    from broker.backends.vault_wrapping import VaultWrapping
    from broker.catalog import Capability
    from broker.clock import Clock
    from broker.grants import Grant
    from broker.ledger.lives import Lives
    from broker.ledger.models import Idempotency
    from broker.pipeline import Pipeline
    from broker.tasks import Task
    from broker.wire import RequestGrant

log = get_logger("wrapping")
INLINE: Final = "inline"
WRAPPED: Final = "wrapped"
VOUCHER: Final = "voucher"
_USUAL_MS: Final = 60_000
_LONGEST_MS: Final = 600_000
"""What ``deploy/vault/broker.hcl`` allows."""
_ACTOR: Final = "broker"


class Sign(StrEnum):
    """By what it is noticed that somebody else has opened it."""

    SPENT = "spent"
    ANOTHER_TOKEN = "another_token"
    ANOTHER_PATH = "another_path"
    ANOTHER_GRANT = "another_grant"


class Wrapping:
    """Issues credentials as they are to be delivered, and opens what was wrapped."""

    def __init__(
        self, pipeline: Pipeline, lives: Lives, vault: VaultWrapping | None, clock: Clock, url: str
    ) -> None:
        """Without a ``vault`` nothing is wrapped. ``url`` is the broker's own."""
        self._pipeline = pipeline
        self._lives = lives
        self._vault = vault
        self._clock = clock
        self._url = url

    async def issue(
        self, caller: Caller, task: Task, ask: RequestGrant, idempotency: Idempotency | None
    ) -> Issued:
        """Issue a credential under a task the caller may act for.

        Raises:
            InvalidRequest: it is to be wrapped, and there is no Vault to do it.
            AccessDenied: it would be seen by whoever mustn't see it.
            BrokerError: as ``Pipeline.issue``. A credential that couldn't be wrapped is revoked.
        """
        if ask.delivery != VOUCHER:
            must_not_be_sealed(caller, self._pipeline.catalog.capabilities.get(ask.capability))
        if ask.delivery == INLINE:
            return await self._pipeline.issue(caller, task, ask, idempotency)
        if self._vault is None:
            msg = "This broker has no [vault] to wrap a credential in: ask for delivery inline."
            raise InvalidRequest(msg, field="delivery")
        # As with issuing: finished even if the caller hangs up.
        work = self._issue_wrapped(self._vault, caller, task, ask, idempotency)
        return await asyncio.shield(self._pipeline.work.spawn(work))

    async def _issue_wrapped(
        self,
        vault: VaultWrapping,
        caller: Caller,
        task: Task,
        ask: RequestGrant,
        idempotency: Idempotency | None,
    ) -> Issued:
        issued = await self._pipeline.issue(caller, task, ask, idempotency)
        try:
            return await self._wrap(vault, issued, ask)
        except BrokerError as error:
            # It is known to nobody but us; the token, if there is one, to nobody at all.
            marked = self._pipeline.ledger.begin_revoke(
                [issued.grant.id], reason="not_wrapped", actor=_ACTOR
            )
            await self._end(issued.grant, marked, wait=False)
            raise cannot_issue("vault", error) from error

    async def _wrap(self, vault: VaultWrapping, issued: Issued, ask: RequestGrant) -> Issued:
        grant, minted, asked_ms = issued.grant, issued.minted, ask.wrap_ttl
        # Counted from before Vault is asked, so that the token is spent if it is gone by then.
        now_ms = int(self._clock.now() * 1000)
        longest_ms = min(_LONGEST_MS, grant.expires_at - now_ms)
        seconds = max(min(asked_ms or _USUAL_MS, longest_ms) // 1000, 1)
        ends_at = now_ms + seconds * 1000
        fields = {
            name: value.reveal() if isinstance(value, Secret) else value
            for name, value in minted.fields.items()
        }
        content = {**fields, "type": minted.type, "grant_id": grant.id}
        made = await vault.wrap(content, seconds)
        about: dict[str, str | Secret] = {
            "expires_at": to_rfc3339(ends_at),
            "unwrap_url": f"{self._url}/v1/grants/{grant.id}/unwrap",
        }
        share = ""
        if ask.delivery == VOUCHER:
            key, share = split(made.token)
            about = {"voucher": Secret(f"{grant.id}:{key.reveal()}"), **about}
        else:
            made_at = {"creation_path": made.path, "creation_time": made.created_at}
            about = {"token": made.token, **made_at, **about}
        digest = _digest(made.token)
        wrapped = await self._lives.wrapped(grant, digest=digest, ends_at=ends_at, share=share)
        notes = issued.notes
        if asked_ms is not None and asked_ms > longest_ms:
            notes += (f"wrap_ttl shortened to {seconds}s: no longer than 10m, nor than the grant",)
        return Issued(wrapped, Minted(minted.lease, minted.lifetime_ms, ask.delivery, about), notes)

    async def unwrap(self, caller: Caller, task: Task, grant: Grant, token: Secret) -> Issued:
        """Open what was wrapped, once, for the task's own agent.

        ``token`` is what its carrier had: the wrapping token, or the part of it in a voucher.

        Raises:
            InvalidRequest: it isn't the grant's voucher. Nothing is revoked: no part of one that
                somebody may guess at can be spent elsewhere.
            AccessDenied, BindingRequired: it isn't for this caller.
            AlreadyDelivered: the broker has opened it before.
            WrappingIntercepted, WrappingExpired: it isn't to be had any more, and is revoked.
            Conflict: it wasn't wrapped, or has ended.
            Unavailable: Vault or the ledger doesn't answer. If Vault may have opened it, the grant
                is revoked.
        """
        self._must_be_for(caller, task, grant)
        self._pipeline.judge.admit()
        if not grant.wrapping or self._vault is None:
            raise Conflict("This credential was not delivered wrapped.")
        if grant.wrapping.get("opened_at"):
            raise already_opened(grant)
        if grant.state is not GrantState.ACTIVE:
            raise ended(grant.state)
        share = str(grant.wrapping.get("share", ""))
        token = joined(token, share) if share else token
        if not hmac.compare_digest(_digest(token), str(grant.wrapping["digest"])):
            if share:
                raise InvalidRequest("This isn't the credential's voucher.", field="token")
            raise await self._lost(grant, caller, Sign.ANOTHER_TOKEN)
        try:
            made_at = await self._vault.made_at(token)
        except VaultGone:
            raise await self._lost(grant, caller, self._gone(grant)) from None
        except Unavailable as error:
            raise cannot_issue("vault", error) from error
        if made_at != PATH:
            raise await self._lost(grant, caller, Sign.ANOTHER_PATH)
        work = self._open(self._vault, caller, grant, token)
        return await asyncio.shield(self._pipeline.work.spawn(work))

    async def _open(
        self, vault: VaultWrapping, caller: Caller, grant: Grant, token: Secret
    ) -> Issued:
        grant = await self._lives.opened(grant, actor=caller.name)
        try:
            content = dict(await vault.open(token))
        except VaultGone:
            raise await self._lost(grant, caller, self._gone(grant), ours=True) from None
        except BrokerError as error:
            # Whether it was opened, and its answer lost, nobody knows.
            marked = self._pipeline.ledger.begin_revoke(
                [grant.id], reason="outcome_unknown", actor=_ACTOR
            )
            await self._end(grant, marked, wait=False)
            raise cannot_issue("vault", error) from error
        if content.pop("grant_id", None) != grant.id:
            raise await self._lost(grant, caller, Sign.ANOTHER_GRANT, ours=True)
        kind = str(content.pop("type", ""))
        fields: dict[str, str | Secret] = {k: Secret(str(v)) for k, v in content.items()}
        return Issued(grant, Minted(grant.lease, 0, kind, fields), ())

    def _must_be_for(self, caller: Caller, task: Task, grant: Grant) -> None:
        must_not_be_sealed(caller, self._pipeline.catalog.capabilities.get(grant.capability))
        if not is_own(caller, task):
            raise AccessDenied("Only the task's own agent opens what was wrapped for it.")
        if caller.capabilities is not None and grant.capability not in caller.capabilities:
            raise AccessDenied("The token is for other capabilities of the task.")
        capability = self._pipeline.catalog.capabilities.get(grant.capability)
        if capability is not None and capability.require_binding and not caller.cnf:
            raise BindingRequired("This capability is for tokens that are bound to a key.")

    def _gone(self, grant: Grant) -> Sign | None:
        """Say what it means that Vault knows a token no more: nothing once its time is up."""
        return Sign.SPENT if self._clock.now() * 1000 < grant.wrapping["ends_at"] else None

    async def _lost(
        self, grant: Grant, caller: Caller, sign: Sign | None, *, ours: bool = False
    ) -> Conflict:
        """Revoke what somebody else may have; returns the error that says so.

        Raises:
            AlreadyDelivered: the broker has opened it meanwhile, for another call of the agent's.
        """
        await self._end(grant, self._mark(grant, caller, sign, ours=ours))
        if sign is None:
            msg = (
                "The wrapping token's time was up before it was opened here, so the credential "
                "was revoked. Ask for another, and open it sooner."
            )
            return WrappingExpired(msg, grant_id=grant.id)
        log.warning("wrapped credential intercepted", grant=grant.id, how=str(sign))
        msg = (
            "Somebody else has opened this credential, or put another token in the place of its "
            "own. It was revoked, and operators are told."
        )
        return WrappingIntercepted(msg, grant_id=grant.id)

    async def _mark(
        self, grant: Grant, caller: Caller, sign: Sign | None, *, ours: bool
    ) -> tuple[Grant, ...]:
        marked = await self._lives.lost(grant, how=sign or "", ours=ours, actor=caller.name)
        return () if is_dead(marked) else (marked,)

    async def _end(
        self, grant: Grant, marking: Awaitable[tuple[Grant, ...]], *, wait: bool = True
    ) -> None:
        """Revoke a grant, marked in the ledger first; without one at the backend all the same."""
        try:
            work = self._pipeline.revoke(await marking)
        except LedgerUnavailable:
            work = self._pipeline.closing.backend(grant.backend).revoke(grant)
        job: asyncio.Task[Any] = self._pipeline.work.spawn(work)
        if wait:
            await asyncio.wait([job])


def must_not_be_sealed(caller: Caller, capability: Capability | None) -> None:
    """Refuse what would show a credential to the holder of a sealed token, but for an exception.

    Raises:
        AccessDenied: the operator doesn't let models see what the capability gives.
    """
    if caller.sealed and not (capability and capability.model_may_see):
        msg = "This token is sealed: ask for delivery as a voucher, which the task's agent redeems."
        raise AccessDenied(msg)


def _digest(token: Secret) -> str:
    return hashlib.sha256(token.reveal().encode()).hexdigest()
