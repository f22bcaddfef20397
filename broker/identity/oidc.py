"""Workload JWTs: from a token to the identity it proves, or a refusal that says why.

Every claim is accounted for. Required: ``iss``, ``sub``, ``aud``, ``exp``. Checked where
present: ``iat``, ``nbf``. Checked as configured: what the issuer's rules name. Refused: ``act``.
Everything else is unchecked, proves nothing by itself, and is passed on in ``Identity.claims``.
``jti`` is not required and a token may be presented again, as JWT-SVIDs and projected
service-account tokens are (RFC 7523 section 3 leaves it open).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from broker.errors import InvalidToken
from broker.identity.jwks import KeyCache
from broker.identity.jws import audiences, numeric_date, parse, text
from broker.identity.models import Identity
from broker.identity.rules import unmet

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.clock import Clock
    from broker.identity.jwks_sources import KeySource
    from broker.identity.jws import Jws
    from broker.identity.models import IssuerSettings, Trust

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
        4. Meant for this broker, and no delegation.
        5. Valid now, and not for too long.
        6. With a subject that can be compared and shown.
        7. Saying what the issuer's rules ask for.

        Raises:
            InvalidToken: it proves none.
            Unavailable: the issuer's keys can't be had.
        """
        # 1. and 2.
        check_origin(jws, self.settings)
        # 3.
        await self._check_signature(jws)
        # 4. and 5.
        expires_at = check_meant(jws.claims, self.settings, self._clock.now())
        # 6.
        subject = text(jws.claims, "sub")
        # 7.
        check_rules(jws.claims, self.settings)
        return Identity(
            issuer_name=self.settings.name,
            issuer=self.settings.issuer,
            subject=subject,
            method=METHOD,
            expires_at=expires_at,
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


def check_origin(jws: Jws, settings: IssuerSettings) -> None:
    """Check that a token is of the right kind, and says that it is of this issuer.

    Raises:
        InvalidToken: it isn't, or it names an algorithm not configured for the issuer.
    """
    # RFC 8725 section 3.11: an access token or a logout token is no workload identity.
    if jws.typ is not None and jws.typ.lower() not in _TYPES:
        raise InvalidToken("the token is of another type than JWT")
    if jws.algorithm not in settings.algorithms:
        raise InvalidToken("the token's signature algorithm is not configured for its issuer")
    if jws.claims.get("iss") != settings.issuer:
        raise InvalidToken("the token is from another issuer")


def check_meant(claims: Mapping[str, Any], settings: Trust, now: float) -> int:
    """Check that a token is meant for this broker, now, by the workload it speaks of.

    Returns its ``exp`` (RFC 7519 sections 4.1.3 to 4.1.6), in whole epoch seconds.

    Raises:
        InvalidToken: another audience, a delegation, or the wrong time.
    """
    if settings.audience not in audiences(claims):
        raise InvalidToken("the token is meant for another audience")
    # RFC 8693 section 4.1: it says what its subject may do, and that another does it. Taken as
    # proof of the subject, it would hide who that is.
    if "act" in claims:
        raise InvalidToken("the token says that somebody else acts: present your own")
    leeway = settings.leeway_s
    expires_at = numeric_date(claims, "exp")
    not_before = numeric_date(claims, "nbf")
    issued_at = numeric_date(claims, "iat")
    if expires_at is None:
        raise InvalidToken("the token has no exp")
    if now >= expires_at + leeway:
        raise InvalidToken("the token has expired")
    if not_before is not None and not_before > now + leeway:
        raise InvalidToken("the token is not valid yet")
    if issued_at is not None and issued_at > now + leeway:
        raise InvalidToken("the token was issued in the future")
    start = now if issued_at is None else issued_at
    if expires_at - start > settings.max_lifetime_s:
        raise InvalidToken(f"the token is valid for more than {settings.max_lifetime_s} seconds")
    return int(expires_at)


def check_rules(claims: Mapping[str, Any], settings: IssuerSettings) -> None:
    """Check what the configuration asks of every token of the issuer.

    Raises:
        InvalidToken: names the first claim whose rule isn't met, not what it says.
    """
    name = unmet(settings.claims, claims)
    if name is not None:
        raise InvalidToken(f"the token's claim {name!r} is not what its issuer's tokens must say")
