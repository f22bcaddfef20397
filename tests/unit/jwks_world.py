"""An issuer whose keys come from a source that the tests hold."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from broker.identity.models import IssuerSettings
from broker.identity.oidc import JwtIssuer
from tests.issuers import IssuerKey

if TYPE_CHECKING:
    from tests.clocks import ManualClock

KEY = IssuerKey.new()
NEXT = IssuerKey.new(kid="k2")


def new_issuer(clock: ManualClock, **changes: object) -> JwtIssuer:
    values: dict[str, Any] = {
        "name": "ci",
        "issuer": "https://issuer.example",
        "audience": "broker",
        "algorithms": ("ES256", "RS256"),
        **changes,
    }
    return JwtIssuer(IssuerSettings(**values), clock)


def token(clock: ManualClock, key: IssuerKey = KEY, **header: object) -> str:
    now = int(clock.now())
    claims = {"sub": "a", "aud": "broker", "iat": now, "exp": now + 600}
    return key.sign({"iss": "https://issuer.example", **claims}, **header)
