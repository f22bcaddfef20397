"""Step 1: who calls, by proof. What they may do is nobody's business in here.

Four kinds of proof, each with its own verifier and its own place: a workload's JWT or SVID, good at
the token endpoint alone; a client's own assertion or certificate, good at the OAuth endpoints; an
access token of ours, good everywhere else; and a key, which a token may be bound to.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

from broker.catalog import PrincipalState
from broker.errors import InvalidRequest, InvalidToken, OAuthError
from broker.identity.jws import encode_base64url, parse
from broker.identity.models import Role
from broker.logs import get_logger
from broker.token_request import ASSERTION_SVID, SEALED
from broker.tokens import may_act_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.catalog import Catalog, Principal
    from broker.identity.assertions import ClientKeys
    from broker.identity.authenticator import Authenticator
    from broker.identity.dpop import Proof
    from broker.identity.models import Identity, Transport
    from broker.ledger.live_tokens import LiveTokens
    from broker.ledger.replay import Replay
    from broker.possession import Possession
    from broker.tasks import Task
    from broker.token_request import ClientAssertion
    from broker.tokens import AccessClaims, Tokens

log = get_logger("access")
BEARER: Final = "bearer"
DPOP: Final = "dpop"


class Directory(Protocol):
    """What access needs of whoever keeps the principals."""

    async def refresh(self) -> bool:
        """Look for principals that this replica doesn't know yet; says whether there may be."""
        ...

    def used(self, name: str) -> None:
        """Note that a principal was here."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """A proved caller. ``task`` is set for an agent, and is that task a moment ago.

    ``lineage`` are the ids of the tokens it came with, oldest first: revoking one of them ends what
    was had with it. ``cnf`` is the key it proved (RFC 7800). ``capabilities`` is what a narrowed
    token is good for, None for all that the task may have. ``expires_at`` is the end of its token
    in epoch seconds, 0 where it has shown none of ours. ``method`` is how its identity was proved
    when it got its token. ``may_act`` are the agents that may act for it, None for any.
    A ``sealed`` one sees no credential (``wrapping.py``). ``presenter`` is the resource server that
    acts by a token which the caller has presented to it.
    """

    principal: Principal
    task: Task | None = None
    lineage: tuple[str, ...] = ()
    cnf: Mapping[str, str] = field(default_factory=dict[str, str])
    capabilities: frozenset[str] | None = None
    expires_at: int = 0
    method: str = ""
    may_act: frozenset[str] | None = None
    sealed: bool = False
    presenter: str = ""

    @property
    def name(self) -> str:
        """The principal's name."""
        return self.principal.name


class Access:
    """Tells who presents a proof."""

    def __init__(  # noqa: PLR0913
        self,
        *,
        issuer: str,
        authenticator: Authenticator,
        tokens: Tokens,
        live: LiveTokens,
        catalog: Catalog,
        possession: Possession,
        client_keys: ClientKeys,
        replay: Replay,
        directory: Directory,
    ) -> None:
        """``issuer`` is the broker's own URL."""
        self.issuer = issuer
        self.possession = possession
        self.directory = directory
        self._authenticator = authenticator
        self._tokens = tokens
        self._live = live
        self._catalog = catalog
        self._client_keys = client_keys
        self._replay = replay

    # Access tokens of ours.

    async def authenticate(self, token: str, scheme: str, transport: Transport) -> Caller:
        """Return who presents an access token of ours for ourselves.

        ``scheme`` is that of the Authorization header, in lower case: ``bearer`` or ``dpop``.

        Raises:
            InvalidToken: malformed, not ours, expired, revoked, its task has ended, or it is bound
                to a key that the caller has not proved.
            InvalidDpopProof, UseDpopNonce: as ``Possession.verify``.
        """
        claims = self._tokens.verify(token, self.issuer)
        await self._check_binding(claims, token, scheme, transport)
        return await self.holder(claims)

    async def holder(self, claims: AccessClaims) -> Caller:
        """Return whose verified token this is, if it is alive.

        Raises:
            InvalidToken: it was revoked, its task has ended, or its principal is there no more.
        """
        status = await self._live.status(claims.jti, ancestors=claims.lineage)
        presenter, principal = "", await self._named(claims.client_id) if status else None
        if principal is not None and status and status[1] and principal.role is not Role.AGENT:
            # By the token of an agent's task, which the agent has presented to it.
            presenter, stopped = principal.name, principal.state is not PrincipalState.ACTIVE
            principal = None if stopped else await self._named(status[1].agent)
        if status is None or principal is None or principal.state is not PrincipalState.ACTIVE:
            raise InvalidToken("The token is no longer valid: exchange your identity for another.")
        details = claims.authorization_details
        names: Any = details[0].get("capabilities") if details else None
        return Caller(
            principal=principal,
            task=status[1],
            lineage=(*claims.lineage, claims.jti),
            cnf=claims.cnf or {},
            capabilities=None if names is None else frozenset(names),
            expires_at=claims.expires_at,
            method=str(status[0].get("method", "")),
            may_act=may_act_of(claims),
            sealed=SEALED in claims.scope.split(),
            presenter=presenter,
        )

    async def _check_binding(
        self, claims: AccessClaims, token: str, scheme: str, transport: Transport
    ) -> None:
        """A token that is bound to a key is worth nothing without it (RFC 9449 7.1, RFC 8705 3)."""
        bound = claims.cnf or {}
        if ("jkt" in bound) != (scheme == DPOP):
            if "jkt" in bound:
                raise InvalidToken("The token is bound to a key: send it as DPoP, with a proof.")
            raise InvalidToken("The token is not bound to a key: send it as Bearer.")
        if "jkt" in bound:
            if await self.possession.verify(transport, access_token=token) != bound["jkt"]:
                raise InvalidToken("The token is bound to another key than the proof's.")
        elif bound and bound.get("x5t#S256") != thumbprint(transport):
            raise InvalidToken("The token is bound to a certificate that this connection lacks.")

    async def binding(self, transport: Transport) -> tuple[Mapping[str, str], Proof | None]:
        """Return what a new token is bound to: the proof's key, else the certificate's, if any.

        The proof comes with it: who asks uses it up once the sender is known.
        """
        proof = await self.possession.check(transport)
        if proof is not None:
            return {"jkt": proof.jkt}, proof
        certificate = thumbprint(transport)
        return ({"x5t#S256": certificate} if certificate else {}), None

    # Workloads and people.

    async def workload(
        self, token: str, what: str, cnf: Mapping[str, str]
    ) -> tuple[Identity, Principal | None]:
        """Return the identity that a workload's or person's JWT proves, and whose it is.

        ``cnf`` is the key that this request proves. A token whose issuer has bound it to a key is
        worth nothing without (RFC 7800 section 3).

        Raises:
            OAuthError: ``invalid_request`` (RFC 8693 section 2.2.2); ``what`` names the parameter.
        """
        try:
            identity = await self._authenticator.authenticate(token)
        except InvalidToken as error:
            raise OAuthError("invalid_request", f"{what}: {error.detail}") from error
        if "cnf" in identity.claims and (not cnf or identity.claims["cnf"] != cnf):
            msg = f"{what}: it is bound to a key that this request doesn't prove"
            raise OAuthError("invalid_request", msg)
        return identity, await self._owner_of(identity)

    async def person(self, token: str) -> str:
        """Return the person a JWT of a configured issuer proves, for ``on_behalf_of``."""
        try:
            identity = await self._authenticator.authenticate(token)
        except InvalidToken as error:
            # The caller itself is proved: a 401 would tell it to get another token for itself.
            msg = f"on_behalf_of: {error.detail}"
            raise InvalidRequest(msg, field="on_behalf_of") from error
        for claim in ("cnf", "may_act"):
            # Who presents it, and who is to act, is proved at the token endpoint and not here.
            if claim in identity.claims:
                msg = f"on_behalf_of: a token with {claim} proves its subject to whom it names only"
                raise InvalidRequest(msg, field="on_behalf_of")
        return person_name(identity)

    # OAuth clients.

    async def client(
        self, given: ClientAssertion, transport: Transport
    ) -> tuple[Identity | None, Principal] | None:
        """Return the client that authenticates by an assertion or a certificate, if one does.

        A certificate counts where the form names the client (RFC 8705 section 2): elsewhere it
        only binds.

        Raises:
            OAuthError: ``invalid_client``, whatever is wrong with it.
        """
        if given.assertion:
            found = await self._by_assertion(given)
        elif given.client_id and transport.certificates:
            found = await self._by_certificate(transport)
        else:
            return None
        identity, principal = found
        if principal is None or given.client_id not in ("", principal.name):
            raise OAuthError(
                "invalid_client", "the client is not the one that is named, or unknown"
            )
        if principal.state is not PrincipalState.ACTIVE:
            raise OAuthError("invalid_client", f"the client is {principal.state}")
        return identity, principal

    async def certified(self, transport: Transport) -> tuple[Identity, Principal | None]:
        """Return who a request's certificate says it is.

        Raises:
            OAuthError: ``invalid_client``.
        """
        return await self._by_certificate(transport)

    async def _by_certificate(self, transport: Transport) -> tuple[Identity, Principal | None]:
        try:
            identity = await self._authenticator.authenticate_certificate(transport.certificates)
        except InvalidToken as error:
            raise OAuthError("invalid_client", f"the certificate: {error.detail}") from error
        return identity, await self._owner_of(identity)

    async def _by_assertion(
        self, given: ClientAssertion
    ) -> tuple[Identity | None, Principal | None]:
        try:
            if given.assertion_type == ASSERTION_SVID:
                identity = await self._authenticator.authenticate_svid(given.assertion, self.issuer)
                return identity, await self._owner_of(identity)
            jws = parse(given.assertion)
            principal = await self._named(str(jws.claims.get("iss", "")))
            proved = await self._client_keys.verify_assertion(jws, principal)
        except InvalidToken as error:
            raise OAuthError("invalid_client", f"client_assertion: {error.detail}") from error
        assert principal is not None  # noqa: S101  a stranger's assertion is verified by no key
        # RFC 7523 section 3, item 7: used once, whichever replica it is shown to.
        key = f"{principal.name} {proved.jti}"
        if not await self._replay.claim("assertion", key, proved.remember_ms):
            raise OAuthError("invalid_client", "client_assertion: it was used before")
        return None, principal

    # Principals.

    async def _owner_of(self, identity: Identity) -> Principal | None:
        principal = self._catalog.principal_of(identity)
        if principal is None and await self.directory.refresh():
            principal = self._catalog.principal_of(identity)
        if principal is None:
            log.warning("unknown workload", issuer=identity.issuer, subject=identity.subject)
        return principal

    async def _named(self, name: str) -> Principal | None:
        principal = self._catalog.principals.get(name)
        if principal is None and await self.directory.refresh():
            principal = self._catalog.principals.get(name)
        return principal


def thumbprint(transport: Transport) -> str:
    """Return the SHA-256 thumbprint of the client's certificate (RFC 8705 section 3.1), or ''."""
    if not transport.certificates:
        return ""
    digest = hashlib.sha256(transport.certificates[0]).digest()
    return encode_base64url(digest).decode("ascii")


def person_name(identity: Identity) -> str:
    """Return how a person is written: the issuer's name and the subject, since subjects repeat."""
    return f"{identity.issuer_name}:{identity.subject}"
