"""Proof of possession: who presents a token holds its key, now, for this very request."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.errors import InvalidDpopProof, UseDpopNonce
from broker.identity.dpop import verify_proof
from broker.ledger.replay import NONCE_SPAN_S, Nonces, Replay

if TYPE_CHECKING:
    from broker.clock import Clock
    from broker.identity.dpop import Proof
    from broker.identity.models import Transport
    from broker.ledger.connection import Connection

WINDOW_S: Final = 60


class Possession:
    """Verifies the DPoP proofs that come with requests (RFC 9449); one for a replica.

    What it remembers is in the ledger, so a proof is used once, whichever replica it reaches.
    """

    def __init__(
        self,
        connection: Connection,
        clock: Clock,
        *,
        window_s: int = WINDOW_S,
        require_nonce: bool = True,
        nonce_span_s: int = NONCE_SPAN_S,
    ) -> None:
        """``window_s`` is how far from now a proof may have been made, either way.

        ``require_nonce`` wants a nonce of ours in every proof, so that none can be made ahead.
        """
        self._clock = clock
        self._window_s = window_s
        self._require_nonce = require_nonce
        self._replay = Replay(connection)
        self._nonces = Nonces(connection, clock, nonce_span_s)

    async def nonce(self) -> str:
        """Return the nonce to give out now.

        Raises:
            LedgerUnavailable: it isn't known yet, and Redis doesn't answer.
        """
        return await self._nonces.current()

    async def verify(self, transport: Transport, *, access_token: str | None = None) -> str | None:
        """Return the thumbprint (``jkt``) of the key the sender holds; None if it proves none.

        ``check`` and ``use_up`` in one, for a sender that something else has proved already.
        """
        proof = await self.check(transport, access_token=access_token)
        if proof is None:
            return None
        await self.use_up(proof)
        return proof.jkt

    async def check(self, transport: Transport, *, access_token: str | None = None) -> Proof | None:
        """Return the proof that came with a request, or None; ``use_up`` it before it counts.

        None is no permission: a token that is bound to a key is refused without the proof, and
        with that of another key. The caller compares. ``access_token`` is the token that came
        with the request, None at the token endpoint.

        1. One DPoP header at most (RFC 9449 section 4.3, the first of its checks).
        2. A proof for this request and this token.
        3. Made with a nonce of ours that is still good (section 8).

        Raises:
            InvalidDpopProof: the header is there, and isn't such a proof.
            UseDpopNonce: all is well but the nonce.
            LedgerUnavailable: what the nonce is can't be known.
        """
        # 1.
        if not transport.dpop:
            return None
        header, *more = transport.dpop
        if more:
            raise InvalidDpopProof("there is more than one DPoP header")
        # 2.
        now = self._clock.now()
        proof = verify_proof(
            header,
            method=transport.method,
            url=transport.url,
            now=now,
            window_s=self._window_s,
            access_token=access_token,
        )
        # 3.
        if self._require_nonce:
            await self._check_nonce(proof)
        return proof

    async def _check_nonce(self, proof: Proof) -> None:
        if proof.nonce is None:
            problem = "the DPoP proof needs a nonce: take it from the DPoP-Nonce header"
        elif not await self._nonces.accepts(proof.nonce):
            problem = "the DPoP proof's nonce is too old: take the one in the DPoP-Nonce header"
        else:
            return
        raise UseDpopNonce(problem, nonce=await self._nonces.current())

    async def use_up(self, proof: Proof) -> None:
        """See to it that a proof counts once (section 11.1).

        Apart from ``check``, so that strangers, who can make any number of proofs, leave nothing
        in the ledger.

        Raises:
            InvalidDpopProof: it was used before.
            LedgerUnavailable: whether it was can't be known.
        """
        now = self._clock.now()
        # One window more than it is good for here: another replica's clock may be behind.
        good_for_s = proof.issued_at + self._window_s - now
        ttl_ms = int((good_for_s + self._window_s) * 1000) + 1
        # The key too: nobody can use up somebody else's proofs by guessing their ids.
        key = f"{proof.jkt}\0{proof.jti}\0{proof.url}"
        if not await self._replay.claim("dpop", key, ttl_ms):
            raise InvalidDpopProof("the DPoP proof was used before: make one for each request")
