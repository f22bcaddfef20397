"""A trust domain's bundle: the keys of its JWT-SVIDs, and the CAs of its X.509-SVIDs.

The document is a JWK Set (SPIFFE Trust Domain and Bundle section 4). Each entry says in ``use``
which kind of SVID it is for, and is never taken for the other. ``spiffe_sequence`` is not
compared: whoever is trusted to publish a bundle is trusted to go back to an older one.
"""

from __future__ import annotations

from base64 import b64decode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.utils import CryptographyDeprecationWarning

from broker.identity.jwk import KeySet, UnusableKey, VerificationKey, open_key_set, parse_key
from broker.identity.models import SVID_ALGORITHMS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.identity.jws import Jws

JWT_USE: Final = "jwt-svid"
X509_USE: Final = "x509-svid"

MALFORMED: Final = (
    ValueError,
    TypeError,
    x509.InvalidVersion,
    x509.DuplicateExtension,
    x509.UnsupportedGeneralNameType,
    CryptographyDeprecationWarning,  # where warnings are made errors
)
"""What ``cryptography`` raises for a certificate, or an extension, that it can't read."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """What proves the SVIDs of one trust domain at one time; never changed, only replaced.

    Both may be empty: then SVIDs of that kind are not used, or were revoked. ``refresh_s`` is
    when the bundle asks to be fetched again, ``unusable`` says of each entry left out, why.
    """

    jwt: KeySet
    authorities: tuple[x509.Certificate, ...]
    refresh_s: int | None
    unusable: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.jwt) + len(self.authorities)

    def knows(self, kid: str | None) -> bool:
        """Say whether a JWT key with this id is in the bundle."""
        return self.jwt.knows(kid)

    def verifies(self, jws: Jws) -> bool:
        """Say whether a JWT key of the bundle signed the token."""
        return self.jwt.verifies(jws)


def parse_bundle(document: bytes) -> Bundle:
    """Read a bundle: entries of a type or for a use that isn't known are left out (section 4.1.3).

    An empty ``keys`` is a valid bundle that proves nothing: everything is revoked.

    Raises:
        ValueError: not a bundle at all, which says nothing about the keys.
    """
    members = open_key_set(document)
    keys: list[VerificationKey] = []
    authorities: list[x509.Certificate] = []
    unusable: list[str] = []
    for position, entry in enumerate(members["keys"]):
        try:
            if _use_of(entry) == X509_USE:
                authorities.append(_authority(entry))
            else:
                keys.append(_jwt_key(entry))
        except UnusableKey as problem:
            unusable.append(f"key {position}: {problem}")
    hint: Any = members.get("spiffe_refresh_hint")
    usable_hint = isinstance(hint, int) and not isinstance(hint, bool) and hint > 0
    return Bundle(
        jwt=KeySet(keys),
        authorities=tuple(authorities),
        refresh_s=hint if usable_hint else None,
        unusable=tuple(unusable),
    )


def _use_of(entry: object) -> str:
    """Return what an entry is for (section 4.2.2); without ``use`` it is for nothing."""
    use = cast("Mapping[str, Any]", entry).get("use") if isinstance(entry, dict) else None
    if use not in (JWT_USE, X509_USE):
        raise UnusableKey("its use is neither jwt-svid nor x509-svid")
    return use


def _jwt_key(entry: object) -> VerificationKey:
    """Read a key that verifies JWT-SVIDs (JWT-SVID section 6)."""
    key = parse_key(entry)
    if SVID_ALGORITHMS.isdisjoint(key.algorithms):
        raise UnusableKey("JWT-SVIDs are not signed with keys of its type")
    return key


def _authority(entry: Mapping[str, Any]) -> x509.Certificate:
    """Read a CA that signs X.509-SVIDs (X509-SVID section 6.2): the first of ``x5c``, no other."""
    if entry.get("kty") not in ("RSA", "EC"):
        raise UnusableKey("its kty is neither RSA nor EC")
    chain: Any = entry.get("x5c")
    first: Any = cast("list[Any]", chain)[0] if isinstance(chain, list) and chain else None
    if not isinstance(first, str):
        raise UnusableKey("its x5c holds no certificate")
    try:
        certificate = x509.load_der_x509_certificate(b64decode(first, validate=True))
        certificate.public_key()
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints)
    except x509.ExtensionNotFound as error:
        raise UnusableKey("its certificate is not a CA's") from error
    except (*MALFORMED, UnsupportedAlgorithm) as error:
        raise UnusableKey("its x5c holds no certificate that can be read") from error
    if not constraints.value.ca:
        raise UnusableKey("its certificate is not a CA's")
    return certificate
