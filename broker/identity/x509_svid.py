"""X.509-SVIDs: from a certificate chain to the workload it names, or a refusal that says why.

Whoever calls has made sure that the presenter holds the certificate's key: the TLS handshake did,
or a proxy that is trusted to say so. What is checked here is whose certificate it is.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeVar

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID
from cryptography.x509.verification import (
    Criticality,
    ExtensionPolicy,
    PolicyBuilder,
    Store,
    VerificationError,
)

from broker.errors import InvalidToken
from broker.identity.bundles import MALFORMED
from broker.identity.spiffe_id import SpiffeId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cryptography.x509.verification import Policy

MAX_CERTIFICATES: Final = 8
MAX_CERTIFICATE_BYTES: Final = 16 * 1024
MIN_RSA_BITS: Final = 2048
MAX_RSA_BITS: Final = 4096
MAX_RSA_EXPONENT: Final = 2**32
"""The keys are the presenter's choice: a huge one, tried along many paths, costs us dearly."""

_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)

E = TypeVar("E", bound=x509.ExtensionType)


@dataclass(frozen=True, slots=True)
class X509Svid:
    """A chain whose leaf is made as an X.509-SVID; nobody has checked yet who signed it."""

    spiffe_id: SpiffeId
    leaf: x509.Certificate
    intermediates: tuple[x509.Certificate, ...]

    @property
    def expires_at(self) -> int:
        """The last second it is valid, in epoch seconds."""
        return int(self.leaf.not_valid_after_utc.timestamp())


def parse_chain(chain: Sequence[bytes]) -> X509Svid:
    """Take a chain in DER, the leaf first, apart (X509-SVID sections 2 to 5.2).

    1. A few certificates of bounded size, with keys that are neither weak nor absurd.
    2. One URI in the leaf, which is the SPIFFE ID of a workload; other kinds of names say nothing.
    3. A leaf that is no CA and signs nothing but handshakes, and those of clients.

    Raises:
        InvalidToken: it isn't made so.
    """
    # 1.
    if not 0 < len(chain) <= MAX_CERTIFICATES:
        raise InvalidToken(f"a client certificate chain has 1 to {MAX_CERTIFICATES} certificates")
    if max(map(len, chain)) > MAX_CERTIFICATE_BYTES:
        raise InvalidToken(f"a certificate is longer than {MAX_CERTIFICATE_BYTES} bytes")
    try:
        leaf, *intermediates = map(x509.load_der_x509_certificate, chain)
        for certificate in (leaf, *intermediates):
            if certificate.serial_number <= 0:  # RFC 5280 section 4.1.2.2; read with a warning
                raise InvalidToken("a certificate's serial number is not positive")
            _check_key(certificate)
        # 2.
        spiffe_id = _workload(leaf)
        # 3.
        _check_leaf(leaf)
    except (*MALFORMED, UnsupportedAlgorithm) as error:
        raise InvalidToken("the client certificate can't be read") from error
    return X509Svid(spiffe_id, leaf, tuple(intermediates))


def check_validity(svid: X509Svid, now: float, max_lifetime_s: int) -> None:
    """Check that the leaf is valid now (epoch seconds), and not for too long to come.

    From now on, not from its beginning: certificates are dated back, for the sake of slow clocks.

    Raises:
        InvalidToken: it isn't.
    """
    if now > svid.expires_at:
        raise InvalidToken("the client certificate has expired")
    if now < svid.leaf.not_valid_before_utc.timestamp():
        raise InvalidToken("the client certificate is not valid yet")
    if svid.expires_at - now > max_lifetime_s:
        raise InvalidToken(
            f"the client certificate is valid for more than {max_lifetime_s} seconds"
        )


def verify_chain(svid: X509Svid, authorities: Sequence[x509.Certificate], now: float) -> None:
    """Check that one of its trust domain's authorities answers for an SVID, now (section 5.1).

    RFC 5280 path validation: signatures, times, CA flags, path lengths, name constraints, and no
    critical extension that isn't understood. A constraint on URIs isn't, so such a CA is refused.

    Raises:
        InvalidToken: none does.
    """
    if not authorities:
        raise InvalidToken("the trust domain has no authority for X.509-SVIDs")
    verifier = (
        PolicyBuilder()
        .store(Store(list(authorities)))
        .time(datetime.fromtimestamp(now, UTC))
        .extension_policies(ca_policy=_CA_POLICY, ee_policy=_LEAF_POLICY)
        .build_client_verifier()
    )
    try:
        verifier.verify(svid.leaf, list(svid.intermediates))
    except (VerificationError, *MALFORMED) as error:
        raise InvalidToken(
            "the client certificate has no valid chain to an authority of its trust domain"
        ) from error


def _check_key(certificate: x509.Certificate) -> None:
    key = certificate.public_key()
    if isinstance(key, rsa.RSAPublicKey):
        if not MIN_RSA_BITS <= key.key_size <= MAX_RSA_BITS:
            raise InvalidToken(
                f"a certificate's RSA key has not {MIN_RSA_BITS} to {MAX_RSA_BITS} bits"
            )
        if key.public_numbers().e > MAX_RSA_EXPONENT:
            raise InvalidToken("a certificate's RSA key has too large an exponent")
    elif not (isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, _CURVES)):
        raise InvalidToken("a certificate's key is not of a type or curve that is used")


def _workload(leaf: x509.Certificate) -> SpiffeId:
    names = _extension(leaf, x509.SubjectAlternativeName)
    uris = names.get_values_for_type(x509.UniformResourceIdentifier) if names else []
    if len(uris) != 1:
        raise InvalidToken("the client certificate doesn't name exactly one URI")
    try:
        spiffe_id = SpiffeId.parse(uris[0])
    except ValueError as error:
        raise InvalidToken("the client certificate's URI is not a SPIFFE ID") from error
    if not spiffe_id.path:
        raise InvalidToken("the client certificate names a trust domain and no workload in it")
    return spiffe_id


def _check_leaf(leaf: x509.Certificate) -> None:
    constraints = _extension(leaf, x509.BasicConstraints)
    usage = _extension(leaf, x509.KeyUsage)
    purposes = _extension(leaf, x509.ExtendedKeyUsage)
    if constraints is not None and constraints.ca:
        raise InvalidToken("the client certificate is a CA's")
    if usage is None or not usage.digital_signature:
        raise InvalidToken("the client certificate is not for signatures")
    if usage.key_cert_sign or usage.crl_sign:
        raise InvalidToken("the client certificate may sign certificates or revocation lists")
    if not _for_clients(purposes):
        raise InvalidToken("the client certificate is not for clients")


def _extension(certificate: x509.Certificate, kind: type[E]) -> E | None:
    try:
        return certificate.extensions.get_extension_for_class(kind).value
    except x509.ExtensionNotFound:
        return None


def _for_clients(purposes: x509.ExtendedKeyUsage | None) -> bool:
    return purposes is None or ExtendedKeyUsageOID.CLIENT_AUTH in purposes


def _ca_usage(_: Policy, __: x509.Certificate, usage: x509.KeyUsage) -> None:
    if not usage.key_cert_sign:
        raise ValueError("not for signing certificates")


def _ca_purposes(_: Policy, __: x509.Certificate, purposes: x509.ExtendedKeyUsage | None) -> None:
    if not _for_clients(purposes):
        raise ValueError("not for signing clients' certificates")


# The library's own policies are those of the web: they want DNS names, and key identifiers that an
# SVID's chain need not have. What X509-SVID section 4 asks of leaves has been checked above; that
# whoever signs has the CA flag, and how deep below it, the library always checks.
_LEAF_POLICY: Final = ExtensionPolicy.permit_all()
_CA_POLICY: Final = (
    ExtensionPolicy.permit_all()
    .require_present(x509.BasicConstraints, Criticality.AGNOSTIC, None)
    .require_present(x509.KeyUsage, Criticality.AGNOSTIC, _ca_usage)
    .may_be_present(x509.ExtendedKeyUsage, Criticality.AGNOSTIC, _ca_purposes)
)
