"""Certificates that are valid now, for TLS that happens: authorities, servers, clients, files.

``tests/svids.py`` makes them for the time of a clock that stands still.
"""

from __future__ import annotations

import ipaddress
import ssl
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from cryptography.x509.oid import NameOID

from tests.svids import CA_USAGE, LEAF_USAGE, NOW, SERVER, Authority, Window, new_key

if TYPE_CHECKING:
    from pathlib import Path

    from tests.svids import PrivateKey

_OFF = (datetime.now(UTC) - NOW).total_seconds()
LIVE = Window(_OFF - 3600, _OFF + 3600)
PAST = Window(_OFF - 7200, _OFF - 3600)


def authority(name: str) -> Authority:
    """A CA that signed itself."""
    key = new_key()
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + timedelta(seconds=LIVE.starts))
        .not_valid_after(NOW + timedelta(seconds=LIVE.ends))
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .add_extension(CA_USAGE, critical=True)
    )
    return Authority(builder.sign(key, hashes.SHA256()), key)


def pem(*certificates: bytes) -> bytes:
    return "".join(map(ssl.DER_cert_to_PEM_cert, certificates)).encode()


def key_pem(key: PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write_private(path: Path, content: bytes) -> Path:
    """Write a file for its owner alone, in place of another: whole or not at all."""
    fresh = path.with_suffix(".new")
    fresh.touch(mode=0o600)
    fresh.write_bytes(content)
    return fresh.replace(path)


def server_files(issuer: Authority, folder: Path, name: str = "broker") -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and ``localhost``, and its key, as files."""
    key = new_key()
    san = x509.SubjectAlternativeName(
        [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    )
    extensions = [(san, False), (LEAF_USAGE, True), (x509.ExtendedKeyUsage([SERVER]), False)]
    certificate = issuer.sign(extensions, key=key, window=LIVE, subject=name)
    return (
        write_private(folder / "server.crt", pem(certificate)),
        write_private(folder / "server.key", key_pem(key)),
    )


def csr(key: PrivateKey, common_name: str, *names: x509.GeneralName) -> str:
    """A signing request, as an agent makes it."""
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)] if common_name else []
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name(attributes))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    of_its_own = isinstance(key, ed25519.Ed25519PrivateKey)
    return (
        builder.sign(key, None if of_its_own else hashes.SHA256())
        .public_bytes(Encoding.PEM)
        .decode()
    )


def ssh_line(key: PrivateKey) -> str:
    """A public key, as ``id_*.pub`` has it."""
    return key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def client_context(server_ca: Authority) -> ssl.SSLContext:
    """A client that trusts one server authority, and has no certificate yet."""
    return ssl.create_default_context(cadata=server_ca.der)
