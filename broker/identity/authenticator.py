"""From a proof to whoever must answer for it: an issuer of tokens, or a SPIFFE trust domain."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from broker.errors import ConfigError, InvalidToken, Unavailable
from broker.identity.jws import parse
from broker.identity.spiffe import subject_of
from broker.identity.x509_svid import parse_chain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from broker.identity.jws import Jws
    from broker.identity.models import Identity, IssuerSettings
    from broker.identity.spiffe import TrustDomain


class Issuer(Protocol):
    """Verifies the tokens of one ``iss``."""

    @property
    def settings(self) -> IssuerSettings:
        """Whose tokens it verifies."""
        ...

    async def verify_parsed(self, jws: Jws) -> Identity:
        """Return the identity a token proves, as ``JwtIssuer.verify_parsed``."""
        ...

    async def aclose(self) -> None:
        """Let go of connections."""
        ...


class Authenticator:
    """Verifies workload JWTs of every configured issuer, and SVIDs of every trust domain."""

    def __init__(
        self, issuers: Iterable[Issuer], trust_domains: Iterable[TrustDomain] = ()
    ) -> None:
        """Names must be unique, and ``iss`` values, and trust domains: they key identities.

        Raises:
            ConfigError: two issuers or trust domains have one of these in common.
        """
        self._issuers: dict[str, Issuer] = {}
        self._trust_domains: dict[str, TrustDomain] = {}
        names: set[str] = set()
        for issuer in issuers:
            settings = issuer.settings
            if settings.name in names or settings.issuer in self._issuers:
                raise ConfigError(
                    f"identity issuer {settings.name!r}: its name or issuer is configured twice"
                )
            names.add(settings.name)
            self._issuers[settings.issuer] = issuer
        for domain in trust_domains:
            name, trust_domain = domain.settings.name, domain.settings.trust_domain
            if name in names or trust_domain in self._trust_domains:
                raise ConfigError(
                    f"trust domain {name!r}: its name or trust_domain is configured twice"
                )
            names.add(name)
            self._trust_domains[trust_domain] = domain

    async def authenticate(self, token: str) -> Identity:
        """Return the identity a workload JWT or a JWT-SVID proves.

        Its ``iss``, or without a configured one its ``sub``, which nobody has verified yet, only
        chooses who verifies it.

        Raises:
            InvalidToken: it proves none, or nobody configured answers for it.
            Unavailable: the issuer's keys can't be had.
        """
        jws = parse(token)
        claimed = jws.claims.get("iss")
        issuer = self._issuers.get(claimed) if isinstance(claimed, str) else None
        if issuer is not None:
            return await issuer.verify_parsed(jws)
        domain = self._domain_of(jws)
        if domain is not None:
            return await domain.verify_parsed(jws)
        raise InvalidToken("the token is from an issuer that is not configured")

    async def authenticate_svid(self, token: str, audience_alone: str) -> Identity:
        """Return the identity a JWT-SVID proves that was made for one audience and no other.

        So a client assertion can't be taken from, or to, anybody else (SPIFFE client
        authentication draft; RFC 7523 as revised).

        Raises:
            InvalidToken: it proves none, or is a token of another kind.
            Unavailable: the trust domain's bundle can't be had.
        """
        jws = parse(token)
        domain = self._domain_of(jws)
        if domain is None:
            raise InvalidToken("the token is from a trust domain that is not configured")
        return await domain.verify_parsed(jws, audience_alone=audience_alone)

    async def authenticate_certificate(self, chain: Sequence[bytes]) -> Identity:
        """Return the identity an X.509-SVID proves; ``chain`` is in DER, the leaf first.

        The caller has made sure that the presenter holds the leaf's key.

        Raises:
            InvalidToken: it proves none, or nobody configured answers for it.
            Unavailable: the trust domain's bundle can't be had.
        """
        svid = parse_chain(chain)
        domain = self._trust_domains.get(svid.spiffe_id.trust_domain)
        if domain is None:
            raise InvalidToken("the client certificate is from a trust domain not configured here")
        return await domain.verify_svid(svid)

    async def certificate_authorities(self) -> tuple[bytes, ...]:
        """Return the CAs of all trust domains, in DER, for a TLS server's handshakes.

        They are thrown together there, so a handshake proves only that somebody holds a key;
        ``authenticate_certificate`` says who. A trust domain whose bundle can't be had adds none.
        """
        found: dict[bytes, None] = {}
        for domain in self._trust_domains.values():
            try:
                found.update(dict.fromkeys(await domain.authorities()))
            except Unavailable:  # and logged where it was fetched
                continue
        return tuple(found)

    async def aclose(self) -> None:
        """Let go of everybody's connections."""
        for issuer in self._issuers.values():
            await issuer.aclose()
        for domain in self._trust_domains.values():
            await domain.aclose()

    def _domain_of(self, jws: Jws) -> TrustDomain | None:
        subject = subject_of(jws.claims)
        return self._trust_domains.get(subject.trust_domain) if subject else None
