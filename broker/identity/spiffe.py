"""SPIFFE: from an SVID to the workload it names, by the bundle of that workload's trust domain.

A JWT-SVID may be presented again until it ends: ``jti`` is not required, and reuse is how they are
meant to be used (JWT-SVID section 7.1).
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final

from cryptography.hazmat.primitives.serialization import Encoding

from broker.errors import ConfigError, InvalidToken
from broker.identity.bundles import parse_bundle
from broker.identity.fetching import Fetcher, is_protected
from broker.identity.jwks import DocumentCache
from broker.identity.jwks_sources import FileSource, UrlSource
from broker.identity.jws import audiences
from broker.identity.models import SVID_ALGORITHMS, Identity
from broker.identity.oidc import check_meant
from broker.identity.spiffe_id import SpiffeId
from broker.identity.x509_svid import check_validity, parse_chain, verify_chain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

    from broker.clock import Clock
    from broker.identity.jwks_sources import KeySource
    from broker.identity.jws import Jws
    from broker.identity.models import TrustDomainSettings
    from broker.identity.x509_svid import X509Svid

JWT_METHOD: Final = "jwt-svid"
X509_METHOD: Final = "x509-svid"
_TYPES: Final = (None, "JWT", "JOSE")


class TrustDomain:
    """One trust domain that the configuration trusts to say who its workloads are."""

    def __init__(
        self, settings: TrustDomainSettings, clock: Clock, source: KeySource | None = None
    ) -> None:
        """``source`` yields the bundle in place of the one the settings name.

        Raises:
            ConfigError: the settings name a source that can't be trusted, or can't be used here.
        """
        self.settings = settings
        self._clock = clock
        self._bundle = DocumentCache(
            settings, clock, source or bundle_source(settings), parse_bundle
        )

    async def verify_parsed(self, jws: Jws, *, audience_alone: str | None = None) -> Identity:
        """Verify a JWT-SVID already taken apart (JWT-SVID sections 2 to 4).

        1. The right kind of token, signed with an algorithm that JWT-SVIDs may have.
        2. Of a workload in this trust domain.
        3. Signed by a key of the trust domain's bundle that is for JWT-SVIDs.
        4. Meant for this broker; with ``audience_alone``, for that and nobody else.
        5. Valid now, and not for too long.

        Raises:
            InvalidToken: it proves nobody.
            Unavailable: the bundle can't be had.
        """
        # 1.
        if jws.typ not in _TYPES:
            raise InvalidToken("the token is of another type than a JWT-SVID")
        if jws.algorithm not in SVID_ALGORITHMS:
            raise InvalidToken("the token's signature algorithm is not one of JWT-SVIDs")
        # 2.
        spiffe_id = subject_of(jws.claims)
        if spiffe_id is None or spiffe_id.trust_domain != self.settings.trust_domain:
            raise InvalidToken("the token is from another trust domain")
        if not spiffe_id.path:
            raise InvalidToken("the token names a trust domain and no workload in it")
        # 3.
        await self._bundle.check_signature(jws)
        # 4.
        if audience_alone is not None and audiences(jws.claims) != (audience_alone,):
            raise InvalidToken("the token's audience is not this broker alone")
        meant_for = replace(self.settings, audience=audience_alone or self.settings.audience)
        # 5.
        expires_at = check_meant(jws.claims, meant_for, self._clock.now())
        return Identity(
            issuer_name=self.settings.name,
            issuer=self.settings.issuer,
            subject=str(spiffe_id),
            method=JWT_METHOD,
            expires_at=expires_at,
            claims=jws.claims,
        )

    async def verify_certificate(self, chain: Sequence[bytes]) -> Identity:
        """Verify an X.509-SVID: a chain in DER, the leaf first, whose key the presenter holds.

        Raises:
            InvalidToken: it proves nobody.
            Unavailable: the bundle can't be had.
        """
        return await self.verify_svid(parse_chain(chain))

    async def verify_svid(self, svid: X509Svid) -> Identity:
        """Verify an X.509-SVID already taken apart.

        Raises:
            InvalidToken: it proves nobody.
            Unavailable: the bundle can't be had.
        """
        if svid.spiffe_id.trust_domain != self.settings.trust_domain:
            raise InvalidToken("the client certificate is from another trust domain")
        check_validity(svid, self._clock.now(), self.settings.max_lifetime_s)
        await self._check_chain(svid)
        return Identity(
            issuer_name=self.settings.name,
            issuer=self.settings.issuer,
            subject=str(svid.spiffe_id),
            method=X509_METHOD,
            expires_at=svid.expires_at,
        )

    async def authorities(self) -> tuple[bytes, ...]:
        """Return the CAs that its X.509-SVIDs may hang from now, in DER.

        Raises:
            Unavailable: the bundle can't be had.
        """
        bundle = await self._bundle.keys()
        return tuple(ca.public_bytes(Encoding.DER) for ca in bundle.authorities)

    async def aclose(self) -> None:
        """Let go of connections."""
        await self._bundle.aclose()

    async def _check_chain(self, svid: X509Svid) -> None:
        bundle = await self._bundle.keys()
        try:
            verify_chain(svid, bundle.authorities, self._clock.now())
        except InvalidToken:
            newer = await self._bundle.keys_after_miss()
            if newer is bundle:
                raise
        else:
            return
        verify_chain(svid, newer.authorities, self._clock.now())


def subject_of(claims: Mapping[str, Any]) -> SpiffeId | None:
    """Return the SPIFFE ID that a token's ``sub`` is, if it is one."""
    subject = claims.get("sub")
    try:
        return SpiffeId.parse(subject) if isinstance(subject, str) else None
    except ValueError:
        return None


def bundle_source(settings: TrustDomainSettings) -> KeySource:
    """Build the source that a trust domain's settings name.

    Raises:
        ConfigError: the bundle would travel unprotected, ``ca_file`` can't be used, or the Workload
            API is named and its library isn't installed.
    """
    if settings.bundle_file is not None:
        return FileSource(settings.bundle_file)
    if settings.bundle_url is not None:
        if not is_protected(settings.bundle_url, loopback_http=True):
            raise ConfigError(
                f"trust domain {settings.name!r}: bundle_url must be an https URL without user"
                " information (http only to a loopback address)"
            )
        return UrlSource(settings.bundle_url, Fetcher(ca_file=settings.ca_file))
    return _workload_source(settings)


def _workload_source(settings: TrustDomainSettings) -> KeySource:
    try:
        # An optional extra, and slow to load: only for those who configured it.
        from broker.identity.workload_api import WorkloadApiSource  # noqa: PLC0415
    except ImportError as error:
        raise ConfigError(
            f"trust domain {settings.name!r}: workload_api needs a library that isn't installed:"
            " install broker[spiffe], or give bundle_file or bundle_url instead"
        ) from error
    return WorkloadApiSource(settings.workload_api or "", settings.trust_domain)
