"""Receipts: signed statements of what became of a grant that nothing more is done about.

A receipt is a JWS of type ``revocation-receipt+jwt``, signed as the broker's tokens are, so anybody
verifies it by ``/.well-known/jwks.json`` while its key is published there, or by a copy of that set
kept with the receipt. It has no expiry: it tells of the past. The lasting proof is the event in the
audit log that ``audit_event_id`` names.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from broker.errors import InvalidToken, NotDeadYet
from broker.grants import DEAD, GrantState
from broker.identity.jws import parse, text
from broker.wire import grant_json

if TYPE_CHECKING:
    from broker.clock import Clock
    from broker.grants import Grant
    from broker.identity.jwk import KeySet
    from broker.ledger.queries import Queries
    from broker.tokens import Tokens

TYPE: Final = "revocation-receipt+jwt"
_LONGEST_S: Final = 60
_MEMBERS: Final = (
    *("grant_id", "task_id", "agent", "capability", "backend", "power", "account", "revocability"),
    *("state", "created_at", "expires_at", "revoke_requested_at", "reason", "ended_at"),
    *("evidence", "statement", "attempts", "time_to_dead_ms"),
)
"""What a receipt says in the words of ``grant_json``."""


class Receipts:
    """Signs receipts."""

    def __init__(self, queries: Queries, tokens: Tokens, issuer: str, clock: Clock) -> None:
        """Sign as ``issuer``, the broker's own URL."""
        self._queries = queries
        self._tokens = tokens
        self._issuer = issuer
        self._clock = clock

    async def of(self, grant: Grant) -> dict[str, Any]:
        """Return a grant's receipt, signed now, and what it says.

        ``confirmed`` is true only when death was confirmed by ``evidence``. ``issued`` is null when
        nobody knows whether there ever was a credential: nobody was given it, and what it would
        hang from is gone.

        Raises:
            NotDeadYet: it lives, or is being revoked.
        """
        if grant.state not in DEAD:
            raise self._not_yet(grant)
        shown = grant_json(grant)
        claims: dict[str, Any] = {
            "iss": self._issuer,
            "iat": int(self._clock.now()),
            **{name: shown[name] for name in _MEMBERS},
            "confirmed": grant.state is GrantState.REVOKED,
            "issued": _issued(grant),
            "audit_event_id": await self._queries.ending(grant),
        }
        return {"receipt": self._tokens.sign(TYPE, claims), "claims": claims}

    def _not_yet(self, grant: Grant) -> NotDeadYet:
        look_at = grant.due_at or grant.expires_at
        wait_s = math.ceil(look_at / 1000 - self._clock.now())
        msg = f"The grant is {grant.state}: there is a receipt once it is confirmed dead."
        return NotDeadYet(msg, retry_after=min(max(wait_s, 1), _LONGEST_S), state=str(grant.state))


def verified(receipt: str, keys: KeySet) -> dict[str, Any]:
    """Return what a receipt says, if one of these keys signed it as such.

    Raises:
        InvalidToken: it is none, none of these keys signed it, or its key isn't among them.
    """
    jws = parse(receipt)
    if jws.typ != TYPE:
        raise InvalidToken("this is no revocation receipt")
    if not keys.knows(jws.kid):
        msg = "its key is not among these: verify it by a key set kept since it was signed"
        raise InvalidToken(msg)
    if not keys.verifies(jws):
        raise InvalidToken("the signature doesn't fit")
    text(jws.claims, "grant_id")
    return dict(jws.claims)


def _issued(grant: Grant) -> bool | None:
    if grant.state is GrantState.FAILED:
        return False
    return True if grant.revocability else None  # as written when its lease was
