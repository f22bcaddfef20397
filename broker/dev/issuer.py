"""An identity issuer for development: one key in a file, workload JWTs for the dev principals."""

from __future__ import annotations

import json
import secrets
from typing import TYPE_CHECKING, Final

from broker.keys import KeyRing
from broker.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

    from broker.clock import Clock

NAME: Final = "dev"
ISSUER: Final = "http://localhost/broker-dev-issuer"
AUDIENCE: Final = "broker"
JWKS_FILE: Final = "issuer.jwks.json"


class DevIssuer:
    """Signs workload JWTs that the dev configuration believes, and no other broker does."""

    def __init__(self, data: Path, clock: Clock) -> None:
        """Keep the key below ``data``; it is made when first needed."""
        self._keys = KeyRing.load_or_create(data / "issuer")
        self._clock = clock
        self.jwks_file = data / JWKS_FILE

    def publish(self) -> None:
        """Write the public keys to where the dev configuration looks for them."""
        self.jwks_file.write_text(json.dumps(self._keys.jwks(), indent=2) + "\n", "utf-8")

    def token(self, subject: str, *, ttl_s: int = 3600, audience: str = AUDIENCE) -> Secret:
        """Return a workload JWT for a subject, valid for ``ttl_s`` seconds."""
        now = int(self._clock.now())
        claims = {
            "iss": ISSUER,
            "sub": subject,
            "aud": audience,
            "iat": now,
            "exp": now + ttl_s,
            "jti": secrets.token_hex(8),
        }
        return Secret(self._keys.sign({"typ": "JWT"}, claims))
