"""A SPIFFE trust domain to test against: its authorities, its SVIDs, good and spoiled ones.

Nothing of the broker is used to make them, so that a mistake can't cancel itself out.
"""

from __future__ import annotations

import json
from base64 import b64encode
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol, Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.clocks import ManualClock
from tests.issuers import PRIMITIVES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.issuers import IssuerKey


class Certifiable(Protocol):
    """What a certificate is for: a key with a public half."""

    def public_key(self) -> Any: ...


PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
Extension = tuple[x509.ExtensionType, bool]

NOW = datetime.fromtimestamp(ManualClock().now(), UTC)
CLIENT = ExtendedKeyUsageOID.CLIENT_AUTH
SERVER = ExtendedKeyUsageOID.SERVER_AUTH


def new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


LEAF_KEY = new_key()


def usage(**wanted: bool) -> x509.KeyUsage:
    """Key usage with nothing set but what is wanted, by ``cryptography``'s names."""
    every = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**dict.fromkeys(every, False) | wanted)


CA_USAGE = usage(key_cert_sign=True, crl_sign=True)
LEAF_USAGE = usage(digital_signature=True)


@dataclass(frozen=True)
class Window:
    """When a certificate is valid: from and until, in seconds from now."""

    starts: float = -600
    ends: float = 3600


VALID = Window()
FOR_YEARS = Window(-315_000_000, 315_000_000)
"""For authorities: valid by a test's clock and by the machine's."""


def uris(*values: str) -> x509.SubjectAlternativeName:
    return x509.SubjectAlternativeName([x509.UniformResourceIdentifier(v) for v in values])


def leaf_extensions(
    *names: str,
    key_usage: x509.KeyUsage | None = LEAF_USAGE,
    ca: bool | None = False,
    purposes: Sequence[x509.ObjectIdentifier] | None = (SERVER, CLIENT),
    extra: Sequence[Extension] = (),
) -> list[Extension]:
    """What a good leaf has, but for what is asked otherwise; None leaves one out."""
    found: list[Extension] = [(uris(*names), True)] if names else []
    if key_usage is not None:
        found.append((key_usage, True))
    if ca is not None:
        found.append((x509.BasicConstraints(ca, None), True))
    if purposes is not None:
        found.append((x509.ExtendedKeyUsage(purposes), False))
    return [*found, *extra]


@dataclass(frozen=True)
class Authority:
    """A CA: its certificate, and the key that signs others."""

    certificate: x509.Certificate
    key: PrivateKey

    @classmethod
    def root(cls, name: str = "root", key: PrivateKey | None = None, **details: Any) -> Self:
        """Make one that signed itself."""
        key = key or new_key()
        return cls(_certificate(_name(name), key, _name(name), key, _ca(**details), FOR_YEARS), key)

    def intermediate(
        self,
        name: str = "intermediate",
        key: PrivateKey | None = None,
        window: Window = VALID,
        **details: Any,
    ) -> Authority:
        """Make one below this."""
        key = key or new_key()
        subject = self.certificate.subject
        certificate = _certificate(_name(name), key, subject, self.key, _ca(**details), window)
        return Authority(certificate, key)

    def sign(
        self,
        extensions: Sequence[Extension],
        *,
        key: Certifiable = LEAF_KEY,
        window: Window = VALID,
        subject: str = "",
    ) -> bytes:
        """Sign a certificate with any extensions at all."""
        issuer = self.certificate.subject
        made = _certificate(_name(subject), key, issuer, self.key, extensions, window)
        return made.public_bytes(Encoding.DER)

    def svid(self, spiffe_id: str, window: Window = VALID, key: Certifiable = LEAF_KEY) -> bytes:
        """Sign a good X.509-SVID."""
        return self.sign(leaf_extensions(spiffe_id), window=window, key=key)

    @property
    def der(self) -> bytes:
        return self.certificate.public_bytes(Encoding.DER)

    def jwk(self, **changes: object) -> dict[str, Any]:
        """Return the entry of a bundle; a change to None leaves a member out."""
        kind = "RSA" if isinstance(self.key, rsa.RSAPrivateKey) else "EC"
        public: dict[str, Any] = PRIMITIVES["RS256" if kind == "RSA" else "ES256"].to_jwk(
            self.key.public_key(), as_dict=True
        )
        members = {
            **public,
            "key_ops": None,
            "use": "x509-svid",
            "x5c": [b64encode(self.der).decode()],
            **changes,
        }
        return {name: value for name, value in members.items() if value is not None}


def bundle(*entries: Authority | IssuerKey | dict[str, Any], **members: object) -> bytes:
    """Return a bundle document: CAs for X.509-SVIDs, keys for JWT-SVIDs, or entries as given."""
    keys: list[object] = []
    for entry in entries:
        if isinstance(entry, Authority):
            keys.append(entry.jwk())
        else:
            keys.append(entry if isinstance(entry, dict) else entry.jwk(use="jwt-svid"))
    return json.dumps({"keys": keys, **members}).encode()


def _ca(
    *,
    ca: bool = True,
    path_length: int | None = None,
    key_usage: x509.KeyUsage = CA_USAGE,
    extra: Sequence[Extension] = (),
) -> list[Extension]:
    return [(x509.BasicConstraints(ca, path_length), True), (key_usage, True), *extra]


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else [])


def _certificate(
    subject: x509.Name,
    key: Certifiable,
    issuer: x509.Name,
    issuer_key: PrivateKey,
    extensions: Sequence[Extension],
    window: Window,
) -> x509.Certificate:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(1 << 158 | x509.random_serial_number())  # always as long in DER
        .not_valid_before(NOW + timedelta(seconds=window.starts))
        .not_valid_after(NOW + timedelta(seconds=window.ends))
    )
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    pure = isinstance(issuer_key, ed25519.Ed25519PrivateKey)
    return builder.sign(issuer_key, None if pure else hashes.SHA256())
