"""What agents give to have certified, and what certificates say: X.509 and OpenSSH.

An agent's request is judged here before a CA is asked. A PKI role may take names from the signing
request instead of from the parameters (``use_csr_common_name``, ``use_csr_sans``), so the request
may have no name that the parameters haven't: what was decided on is what is signed.
"""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final, cast

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import SSHCertificate, load_ssh_public_identity

if TYPE_CHECKING:
    from collections.abc import Mapping


_COMMON_NAME: Final = x509.NameOID.COMMON_NAME
_LEAST_RSA_BITS: Final = 2048
_MOST_RSA_BITS: Final = 8192
_LEAST_CURVE_BITS: Final = 256
_UNREADABLE: Final = (ValueError, TypeError, UnsupportedAlgorithm)

Fault = tuple[str, str]
"""The name of a parameter, and what is wrong with it."""


def csr_faults(asked: Mapping[str, Any]) -> list[Fault]:
    """Return what is wrong with a signing request (PEM, ``csr``) and the names it asks for."""
    try:
        request = x509.load_pem_x509_csr(str(asked.get("csr", "")).encode("ascii"))
        key, sound = request.public_key(), request.is_signature_valid
        extensions = request.extensions
    except (*_UNREADABLE, InvalidSignature):
        return [("csr", "is not a signing request that can be read")]
    if not sound:
        return [("csr", "is not signed with the key that it is for")]
    why = _weakness(key) or _surplus(request, extensions, asked)
    return [("csr", why)] if why else []


def _surplus(
    request: x509.CertificateSigningRequest, extensions: x509.Extensions, asked: Mapping[str, Any]
) -> str:
    """Say which names a request has that the parameters haven't."""
    common = {str(name.value) for name in request.subject.get_attributes_for_oid(_COMMON_NAME)}
    if common - {asked.get("common_name")}:
        return "has another common name than the parameter common_name"
    try:
        wanted = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ""
    surplus = {_name_of(name) for name in wanted} - _names_in(asked)
    return "has names that the parameters haven't" if surplus else ""


def _name_of(name: x509.GeneralName) -> tuple[str, str]:
    """Return a name's kind and text; a kind that no parameter has is nobody's."""
    for kind in (x509.DNSName, x509.IPAddress, x509.UniformResourceIdentifier):
        if isinstance(name, kind):
            return kind.__name__, str(name.value).lower()
    return "", ""


def _names_in(asked: Mapping[str, Any]) -> set[tuple[str, str]]:
    return {
        (kind.__name__, _plain(text))
        for parameter, kind in (
            ("common_name", x509.DNSName),
            ("alt_names", x509.DNSName),
            ("ip_sans", x509.IPAddress),
            ("uri_sans", x509.UniformResourceIdentifier),
        )
        for text in _texts(asked.get(parameter))
    }


def _texts(value: object) -> list[str]:
    if isinstance(value, list):
        return [str(text) for text in cast("list[object]", value)]
    return [] if value is None else [str(value)]


def _plain(text: str) -> str:
    """Write a name as ``cryptography`` does: addresses have many spellings."""
    try:
        return str(ip_address(text))
    except ValueError:
        return text.lower()


def ssh_key_faults(asked: Mapping[str, Any]) -> list[Fault]:
    """Return what is wrong with an OpenSSH public key (one line, ``public_key``)."""
    try:
        key = load_ssh_public_identity(str(asked.get("public_key", "")).encode("ascii"))
    except _UNREADABLE:
        return [("public_key", "is not an OpenSSH public key that can be read")]
    if isinstance(key, SSHCertificate):
        return [("public_key", "is a certificate, where a key is wanted")]
    why = _weakness(key)
    return [("public_key", why)] if why else []


def _weakness(key: object) -> str:
    if isinstance(key, rsa.RSAPublicKey):
        fits = _LEAST_RSA_BITS <= key.key_size <= _MOST_RSA_BITS
        return "" if fits else f"has an RSA key of {key.key_size} bits; 2048 to 8192 will do"
    if isinstance(key, ec.EllipticCurvePublicKey):
        return "" if key.key_size >= _LEAST_CURVE_BITS else "has a curve of fewer than 256 bits"
    if isinstance(key, ed25519.Ed25519PublicKey):
        return ""
    return "has a key of a kind that isn't signed: RSA, EC and Ed25519 are"


def x509_end(data: Mapping[str, Any]) -> float:
    """Return when the certificate in an answer ends, in epoch seconds.

    Raises:
        ValueError: there is none that can be read.
    """
    pem = str(data.get("certificate", ""))
    return x509.load_pem_x509_certificate(pem.encode("ascii")).not_valid_after_utc.timestamp()


def ssh_end(data: Mapping[str, Any]) -> float:
    """Return when the OpenSSH certificate in an answer ends, in epoch seconds.

    Raises:
        ValueError: there is none that can be read.
    """
    found = load_ssh_public_identity(str(data.get("signed_key", "")).encode("ascii"))
    if not isinstance(found, SSHCertificate):
        raise ValueError("a key, and no certificate")  # noqa: TRY004  of what was read
    return float(found.valid_before)


def is_on_list(crl_pem: str, serial: str) -> bool:
    """Whether a revocation list has a serial number, written in hex with colons between.

    Raises:
        ValueError: one of the two can't be read.
    """
    number = int(serial.replace(":", ""), 16)
    crl = x509.load_pem_x509_crl(crl_pem.encode("ascii"))
    return crl.get_revoked_certificate_by_serial_number(number) is not None
