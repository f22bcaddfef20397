"""What becomes of tokens of ours after they were issued: introspection and revocation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.errors import AccessDenied, InvalidToken, OAuthError, Unavailable
from broker.identity.models import Role
from broker.tokens import token_type

if TYPE_CHECKING:
    from broker.access import Access
    from broker.catalog import Principal
    from broker.clock import Clock
    from broker.ledger.live_tokens import LiveTokens
    from broker.pipeline import Pipeline
    from broker.tokens import Tokens

INTROSPECTION_TYPE: Final = "token-introspection+jwt"
_INACTIVE: Final = {"active": False}
_WATCHERS: Final = (Role.OPERATOR, Role.AUDITOR)


class Introspection:
    """Says whether tokens live, and ends them."""

    def __init__(
        self, *, access: Access, pipeline: Pipeline, tokens: Tokens, live: LiveTokens, clock: Clock
    ) -> None:
        """Look at the same tokens as everybody else."""
        self._access = access
        self._pipeline = pipeline
        self._tokens = tokens
        self._live = live
        self._clock = clock

    async def introspect(self, principal: Principal, token: str) -> dict[str, Any]:
        """Answer RFC 7662: what a token says if it is alive and the caller's business.

        What is not is inactive, and nothing else is said of it (section 2.2).

        Raises:
            AccessDenied: the caller is neither a resource server nor an operator or auditor.
        """
        watches = principal.role in _WATCHERS
        if not watches and principal.role is not Role.RESOURCE_SERVER:
            msg = "Introspection is for resource servers and operators."
            raise AccessDenied(msg)
        try:
            claims = self._tokens.verify(token, None if watches else principal.resource)
        except InvalidToken:
            return _INACTIVE
        status = await self._live.status(claims.jti, ancestors=claims.lineage, asker=principal.name)
        if status is None:
            return _INACTIVE
        audience = list(claims.audience) if watches else [principal.resource]
        optional = {
            "act": claims.act,
            "may_act": claims.may_act,
            "authorization_details": list(claims.authorization_details),
            "txn": claims.txn,
            "scope": claims.scope,
            "cnf": claims.cnf,
        }
        return {
            "active": True,
            "iss": self._access.issuer,
            "sub": claims.subject,
            "aud": audience[0] if len(audience) == 1 else audience,
            "client_id": claims.client_id,
            "jti": claims.jti,
            "iat": claims.issued_at,
            "exp": claims.expires_at,
            "token_type": token_type(claims.cnf),
            **{key: value for key, value in optional.items() if value},
        }

    def signed(self, principal: Principal, answer: dict[str, Any]) -> str:
        """Return an answer as a JWT for whoever asked (RFC 9701 section 5).

        The claims of the token are inside ``token_introspection`` alone: nobody can take the answer
        itself for a token.
        """
        claims = {
            "iss": self._access.issuer,
            # One party, by both names that it may know itself by: client_id first, then resource.
            "aud": [principal.name, principal.resource] if principal.resource else principal.name,
            "iat": int(self._clock.now()),
            "token_introspection": answer,
        }
        return self._tokens.sign(INTROSPECTION_TYPE, claims)

    async def revoke(self, client: Principal | None, token: str, client_id: str) -> None:
        """End a token, and all that was had with it (RFC 7009).

        Without ``client`` the token itself is the proof: a workload without credentials of its own
        gives up what it holds. A token that isn't alive, or isn't ours, is no error (section 2.2).

        Raises:
            OAuthError: ``unauthorized_client``: the token is another client's.
            Unavailable: its end could not be confirmed; ask again after ``retry_after`` seconds.
        """
        try:
            claims = self._tokens.verify(token, None)
        except InvalidToken:
            return
        name = client.name if client is not None else client_id or claims.client_id
        if name != claims.client_id and (client is None or client.role is not Role.OPERATOR):
            raise OAuthError("unauthorized_client", "the token was issued to another client")
        # One that is dead already too: what was had with it may not be, when this was asked before.
        details = claims.authorization_details
        claimed = await self._live.end(
            claims.jti,
            task_id=str(details[0].get("task_id", "")) if details else "",
            reason=f"token revoked by {name}",
            claim_ms=self._pipeline.ledger.times.claim_ms,
            actor=name,
        )
        outcome = await self._pipeline.revoke_and_close(claimed)
        if outcome.revoking:
            # Section 2.2.1: the client must take the token to be alive still, and ask again.
            msg = "The token is ended here; its end elsewhere is not confirmed yet."
            raise Unavailable(msg, retry_after=5)
