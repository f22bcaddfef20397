"""An issuer with its keys at hand, and good claims to spoil."""

from __future__ import annotations

from typing import Any

import pytest

from broker.errors import InvalidToken
from broker.identity.models import IssuerSettings
from broker.identity.oidc import JwtIssuer
from tests.clocks import ManualClock
from tests.issuers import IssuerKey, jwks

ISSUER = "https://issuer.example"
KEY = IssuerKey.new()
RSA = IssuerKey.new("RS256", "rsa")
NOW = int(ManualClock().now())


class Keys:
    """A source of keys that are at hand."""

    def __init__(self, *keys: IssuerKey | dict[str, Any]) -> None:
        self._document = jwks(*keys)

    def changed(self) -> bool:
        return False

    async def fetch(self) -> bytes:
        return self._document

    async def aclose(self) -> None:
        pass


def settings(**changes: object) -> IssuerSettings:
    values: dict[str, Any] = {
        "name": "ci",
        "issuer": ISSUER,
        "audience": "broker",
        "algorithms": ("ES256", "RS256"),
        "jwks_url": f"{ISSUER}/jwks",
        **changes,
    }
    return IssuerSettings(**values)


def issuer_with(*keys: IssuerKey | dict[str, Any], **changes: object) -> JwtIssuer:
    return JwtIssuer(settings(**changes), ManualClock(), Keys(*keys))


def claims(**changes: object) -> dict[str, object]:
    """Good claims; a change to None leaves one out."""
    values = {
        "iss": ISSUER,
        "sub": "agent/report-writer",
        "aud": "broker",
        "iat": NOW,
        "exp": NOW + 600,
        **changes,
    }
    return {name: value for name, value in values.items() if value is not None}


async def refusal(token: str, issuer: JwtIssuer | None = None) -> str:
    with pytest.raises(InvalidToken) as caught:
        await (issuer or issuer_with(KEY, RSA)).verify(token)
    return caught.value.detail
