"""A sender that holds a key: makes DPoP proofs, good ones and any other, without the broker."""

from __future__ import annotations

import hashlib
import uuid
from typing import Any

from broker.identity.models import Transport
from tests.issuers import IssuerKey, segment

TYPE = "dpop+jwt"


class Sender:
    """One key pair. A change to None leaves a claim or a header member out."""

    def __init__(self, key: IssuerKey | None = None) -> None:
        self.key = key or IssuerKey.new(kid=None)

    def jwk(self, **changes: object) -> dict[str, Any]:
        """The public key, with nothing else in it."""
        return self.key.jwk(**{"kid": None, "use": None, **changes})

    def jkt(self) -> str:
        """RFC 7638's thumbprint, from the text of the RFC: sorted members, no white space."""
        members = {
            name: value
            for name, value in self.jwk().items()
            if name in {"kty", "crv", "x", "y", "n", "e"}
        }
        text = ",".join(f'"{name}":"{members[name]}"' for name in sorted(members))
        return segment(hashlib.sha256(f"{{{text}}}".encode()).digest())

    def proof(
        self,
        method: str,
        url: str,
        now: float,
        *,
        access_token: str | None = None,
        header: dict[str, object] | None = None,
        **claims: object,
    ) -> str:
        """A proof for one request; ``claims`` and ``header`` take the place of good ones."""
        members: dict[str, object] = {
            "jti": str(uuid.uuid4()),
            "htm": method,
            "htu": url,
            "iat": int(now),
            **claims,
        }
        if access_token is not None:
            members.setdefault("ath", ath(access_token))
        good = {name: value for name, value in members.items() if value is not None}
        return self.key.sign(
            good, **{"typ": TYPE, "kid": None, "jwk": self.jwk(), **(header or {})}
        )

    def request(self, method: str, url: str, now: float, **kwargs: Any) -> Transport:
        """What a request with a proof looks like to the broker."""
        return Transport(method, url, dpop=(self.proof(method, url, now, **kwargs),))


def ath(access_token: str) -> str:
    """The digest of a token that a proof carries (RFC 9449 section 4.2)."""
    return segment(hashlib.sha256(access_token.encode("ascii")).digest())
