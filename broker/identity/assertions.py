"""Clients that prove themselves by a key of their own: ``private_key_jwt`` (RFC 7523).

Nothing is remembered here: that an assertion is used once is for the caller to see to.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from broker.errors import InvalidToken
from broker.identity.jwk import KeySet, VerificationKey, parse_key_set
from broker.identity.jwks import KeyCache
from broker.identity.jwks_sources import FileSource
from broker.identity.jws import audiences, numeric_date, text
from broker.identity.models import WORKLOAD_ALGORITHMS, IssuerSettings
from broker.logs import get_logger

if TYPE_CHECKING:
    from pathlib import Path

    from broker.clock import Clock
    from broker.identity.jws import Jws

ALGORITHMS: Final = tuple(sorted(WORKLOAD_ALGORITHMS))
"""What assertions may be signed with: for metadata."""

MAX_LIFETIME_S: Final = 300
LEEWAY_S: Final = 30
MAX_ID_CHARS: Final = 256
_TYPES: Final = frozenset((None, "jwt", "client-authentication+jwt"))
_log: Final = get_logger(__name__)


class Client(Protocol):
    """Who may sign assertions: one with keys, in a file or as the text of a JWK Set.

    ``catalog.Principal`` is one; ``name`` is the ``client_id``.
    """

    @property
    def name(self) -> str: ...  # noqa: D102  described above
    @property
    def jwks_file(self) -> Path | None: ...  # noqa: D102
    @property
    def jwks(self) -> str: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class Assertion:
    """A verified assertion. ``expires_at`` is its ``exp``, in epoch seconds.

    ``remember_ms`` is how long ``jti`` must be remembered as used, from now: until no replica
    accepts the assertion any more.
    """

    jti: str
    expires_at: float
    remember_ms: int


class ClientKeys:
    """The keys of the clients that have their own, and what is signed with them."""

    def __init__(
        self,
        issuer: str,
        clock: Clock,
        *,
        max_lifetime_s: int = MAX_LIFETIME_S,
        leeway_s: int = LEEWAY_S,
    ) -> None:
        """``issuer`` is the broker's own: what assertions must be meant for.

        ``max_lifetime_s`` is the longest an assertion may live, ``leeway_s`` the clock skew
        forgiven.
        """
        self._issuer = issuer
        self._clock = clock
        self._max_lifetime_s = max_lifetime_s
        self._leeway_s = leeway_s
        self._files: dict[Path, KeyCache] = {}

    async def verify_assertion(self, jws: Jws, client: Client | None) -> Assertion:
        """Verify a client's assertion (RFC 7523 section 3).

        ``client`` is whom its ``iss`` names, None if there is nobody of that name: what is said
        then is the same as about a wrong signature, so that nobody learns who there is.

        1. The right kind of JWT.
        2. By the client about itself.
        3. Meant for this broker alone, and by its issuer URL: an endpoint's URL could be another
           server's idea of ours (draft-ietf-oauth-rfc7523bis).
        4. Valid now, and not for long.
        5. With an id, by which it is used once. That is what the caller still owes.
        6. Signed with one of the client's keys.

        Raises:
            InvalidToken: it isn't such an assertion.
            Unavailable: the client's keys can't be had.
        """
        # 1.
        if (jws.typ and jws.typ.lower()) not in _TYPES:
            raise InvalidToken("the client assertion is of another type than JWT")
        # 2.
        name = text(jws.claims, "iss")
        if text(jws.claims, "sub") != name:
            raise InvalidToken("the client assertion's iss and sub are not the same client")
        # 3.
        if audiences(jws.claims) != (self._issuer,):
            raise InvalidToken("the client assertion's aud must be the broker's issuer URL alone")
        # 4.
        expires_at = self._check_times(jws)
        # 5.
        jti = text(jws.claims, "jti")
        if len(jti) > MAX_ID_CHARS:
            raise InvalidToken(f"the client assertion's jti is over {MAX_ID_CHARS} characters")
        # 6.
        keys = await self._keys_of(client) if client and client.name == name else None
        signed = (_nobodys() if keys is None else keys).verifies(jws)
        if keys is None or not signed:
            raise InvalidToken(
                "the client assertion is not signed with a key of its client, or there is no such "
                "client"
            )
        remember_s = expires_at + 2 * self._leeway_s - self._clock.now()
        return Assertion(jti, expires_at, int(remember_s * 1000) + 1)

    async def aclose(self) -> None:
        """Stop reading key files."""
        for cache in self._files.values():
            await cache.aclose()

    def _check_times(self, jws: Jws) -> float:
        """Return ``exp`` of an assertion valid now."""
        now, leeway = self._clock.now(), self._leeway_s
        expires_at = numeric_date(jws.claims, "exp")
        not_before = numeric_date(jws.claims, "nbf")
        issued_at = numeric_date(jws.claims, "iat")
        if expires_at is None:
            raise InvalidToken("the client assertion has no exp")
        if now >= expires_at + leeway:
            raise InvalidToken("the client assertion has expired")
        if not_before is not None and not_before > now + leeway:
            raise InvalidToken("the client assertion is not valid yet")
        if issued_at is not None and issued_at > now + leeway:
            raise InvalidToken("the client assertion was issued in the future")
        start = now if issued_at is None else min(now, issued_at)
        if expires_at - start > self._max_lifetime_s + leeway:
            raise InvalidToken(
                f"the client assertion is valid for more than {self._max_lifetime_s} seconds"
            )
        return expires_at

    async def _keys_of(self, client: Client) -> KeySet | None:
        if client.jwks_file is not None:
            return await self._file(client.jwks_file).keys()
        return _inline(client.jwks) if client.jwks else None

    def _file(self, path: Path) -> KeyCache:
        """Return the keys in a file, which is read again when it is replaced."""
        if path not in self._files:
            settings = IssuerSettings(
                name=path.name,
                issuer=self._issuer,
                audience=self._issuer,
                algorithms=ALGORITHMS,
                jwks_file=path,
            )
            self._files[path] = KeyCache(settings, self._clock, FileSource(path))
        return self._files[path]


@lru_cache(maxsize=256)
def _inline(jwks: str) -> KeySet | None:
    """Read a client's own JWK Set; each text is read once."""
    try:
        return parse_key_set(jwks.encode())
    except ValueError as problem:
        # It was checked when the client was registered.
        _log.warning("client_keys_unusable", error=str(problem))
        return None


@lru_cache(maxsize=1)
def _nobodys() -> KeySet:
    """Return keys that nobody holds: an unknown client's assertion takes as long as a known one's.

    The private halves are forgotten here; the RSA modulus is a random number.
    """
    modulus = secrets.randbits(2048) | 1 << 2047 | 1
    rsa_algorithms = frozenset(name for name in ALGORITHMS if name[:2] in ("RS", "PS"))
    return KeySet(
        (
            VerificationKey(None, frozenset(("ES256",)), _point(ec.SECP256R1())),
            VerificationKey(None, frozenset(("ES384",)), _point(ec.SECP384R1())),
            VerificationKey(None, frozenset(("ES512",)), _point(ec.SECP521R1())),
            VerificationKey(
                None,
                frozenset(("EdDSA", "Ed25519")),
                ed25519.Ed25519PrivateKey.generate().public_key(),
            ),
            VerificationKey(
                None, rsa_algorithms, rsa.RSAPublicNumbers(65537, modulus).public_key()
            ),
        )
    )


def _point(curve: ec.EllipticCurve) -> ec.EllipticCurvePublicKey:
    return ec.generate_private_key(curve).public_key()
