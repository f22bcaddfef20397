"""From a token to the issuer that must answer for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.errors import ConfigError, InvalidToken
from broker.identity.jws import parse

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.identity.models import Identity
    from broker.identity.oidc import JwtIssuer


class Authenticator:
    """Verifies workload JWTs of every configured issuer."""

    def __init__(self, issuers: Iterable[JwtIssuer]) -> None:
        """Names and ``iss`` values must be unique: both are half of an identity's key.

        Raises:
            ConfigError: two issuers have the same name or the same ``iss``.
        """
        self._issuers: dict[str, JwtIssuer] = {}
        names: set[str] = set()
        for issuer in issuers:
            settings = issuer.settings
            if settings.name in names or settings.issuer in self._issuers:
                raise ConfigError(
                    f"identity issuer {settings.name!r}: its name or issuer is configured twice"
                )
            names.add(settings.name)
            self._issuers[settings.issuer] = issuer

    async def authenticate(self, token: str) -> Identity:
        """Return the identity a workload JWT proves.

        Its ``iss``, which nobody has verified yet, only chooses who verifies it.

        Raises:
            InvalidToken: it proves none, or nobody configured answers for it.
            Unavailable: the issuer's keys can't be had.
        """
        jws = parse(token)
        claimed = jws.claims.get("iss")
        issuer = self._issuers.get(claimed) if isinstance(claimed, str) else None
        if issuer is None:
            raise InvalidToken("the token is from an issuer that is not configured")
        return await issuer.verify_parsed(jws)

    async def aclose(self) -> None:
        """Let go of every issuer's connections."""
        for issuer in self._issuers.values():
            await issuer.aclose()
