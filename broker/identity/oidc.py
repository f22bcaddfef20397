"""Workload JWTs: from a token to the identity it proves, or a refusal that says why.

Every claim is accounted for. Required: ``iss``, ``sub``, ``aud``, ``exp``. Checked where
present: ``iat``, ``nbf``. Everything else is unchecked, proves nothing by itself, and is passed
on in ``Identity.claims``. ``jti`` is not required and a token may be presented again, as
JWT-SVIDs and projected service-account tokens are (RFC 7523 section 3 leaves it open).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.errors import InvalidToken
from broker.identity.jwks import KeyCache
from broker.identity.jws import audiences, numeric_date, parse, text
from broker.identity.models import Identity

if TYPE_CHECKING:
    from broker.clock import Clock
    from broker.identity.jwks_sources import KeySource
    from broker.identity.jws import Jws
    from broker.identity.models import IssuerSettings

METHOD: Final = "jwt"
_TYPES: Final = frozenset(("jwt", "jose"))


class JwtIssuer:
    """One issuer that the configuration trusts to say who a workload is."""

    def __init__(
        self, settings: IssuerSettings, clock: Clock, source: KeySource | None = None
    ) -> None:
        """``source`` takes the place of the one the settings name.

        Raises:
            ConfigError: the settings name a source of keys that can't be trusted.
        """
        self.settings = settings
        self._clock = clock
        self._keys = KeyCache(settings, clock, source)

    async def verify(self, token: str) -> Identity:
        """Return the identity a token proves, now.

        Raises:
            InvalidToken: it proves none.
            Unavailable: the issuer's keys can't be had.
        """
        return await self.verify_parsed(parse(token))

    async def verify_parsed(self, jws: Jws) -> Identity:
        """Verify a token already taken apart (RFC 7519 section 7.2, RFC 8725).

        1. The right kind of token, signed with an algorithm configured for this issuer.
        2. Said to be of this issuer, exactly.
        3. Signed by one of its keys.
        4. Meant for this broker.
        5. Valid now, and not for too long.
        6. With a subject that can be compared and shown.

        Raises:
            InvalidToken: it proves none.
            Unavailable: the issuer's keys can't be had.
        """
        # 1. RFC 8725 section 3.11: an access token or a logout token is no workload identity.
        if jws.typ is not None and jws.typ.lower() not in _TYPES:
            raise InvalidToken("the token is of another type than JWT")
        if jws.algorithm not in self.settings.algorithms:
            raise InvalidToken("the token's signature algorithm is not configured for its issuer")
        # 2.
        if jws.claims.get("iss") != self.settings.issuer:
            raise InvalidToken("the token is from another issuer")
        # 3.
        await self._check_signature(jws)
        # 4.
        if self.settings.audience not in audiences(jws.claims):
            raise InvalidToken("the token is meant for another audience")
        # 5.
        expires_at = self._check_times(jws)
        # 6.
        return Identity(
            issuer_name=self.settings.name,
            issuer=self.settings.issuer,
            subject=text(jws.claims, "sub"),
            method=METHOD,
            expires_at=int(expires_at),
            claims=jws.claims,
        )

    async def aclose(self) -> None:
        """Let go of connections."""
        await self._keys.aclose()

    async def _check_signature(self, jws: Jws) -> None:
        keys = await self._keys.keys()
        if keys.verifies(jws):
            return
        if keys.knows(jws.kid):
            # We have the very key it names: fetching again would serve forgers only.
            raise InvalidToken("the token's signature is wrong")
        newer = await self._keys.keys_after_miss()
        if newer is keys or not newer.verifies(jws):
            raise InvalidToken("the token is signed by no key of its issuer")

    def _check_times(self, jws: Jws) -> float:
        """Return ``exp`` of a token valid now (RFC 7519 sections 4.1.4 to 4.1.6)."""
        now, leeway = self._clock.now(), self.settings.leeway_s
        expires_at = numeric_date(jws.claims, "exp")
        not_before = numeric_date(jws.claims, "nbf")
        issued_at = numeric_date(jws.claims, "iat")
        if expires_at is None:
            raise InvalidToken("the token has no exp")
        if now >= expires_at + leeway:
            raise InvalidToken("the token has expired")
        if not_before is not None and not_before > now + leeway:
            raise InvalidToken("the token is not valid yet")
        if issued_at is not None and issued_at > now + leeway:
            raise InvalidToken("the token was issued in the future")
        start = now if issued_at is None else issued_at
        if expires_at - start > self.settings.max_lifetime_s:
            raise InvalidToken(
                f"the token is valid for more than {self.settings.max_lifetime_s} seconds"
            )
        return expires_at
