"""What an agent may have certified: keys that are strong, requests that ask for no more names."""

from __future__ import annotations

import ipaddress
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    SSHCertificateBuilder,
    SSHCertificateType,
)

from broker.certificates import csr_faults, is_on_list, ssh_end, ssh_key_faults, x509_end
from tests.certificates import authority, csr, pem, ssh_line
from tests.svids import new_key

RSA_2048 = rsa.generate_private_key(65537, 2048)
RSA_1024 = rsa.generate_private_key(65537, 1024)  # noqa: S505  the weak one
NAME = {"common_name": "a.example.com"}


@pytest.mark.parametrize(
    "key",
    [new_key(), ec.generate_private_key(ec.SECP384R1()), ed25519.Ed25519PrivateKey.generate()],
    ids=["p256", "p384", "ed25519"],
)
def test_a_strong_key_is_certified(key: Any) -> None:
    assert csr_faults({**NAME, "csr": csr(key, "a.example.com")}) == []
    assert ssh_key_faults({"public_key": ssh_line(key)}) == []


def test_an_rsa_key_of_2048_bits_is_certified_and_a_shorter_one_is_not() -> None:
    assert csr_faults({**NAME, "csr": csr(RSA_2048, "")}) == []
    assert ssh_key_faults({"public_key": ssh_line(RSA_2048)}) == []
    assert "1024 bits" in str(csr_faults({**NAME, "csr": csr(RSA_1024, "")}))
    assert "1024 bits" in str(ssh_key_faults({"public_key": ssh_line(RSA_1024)}))


def test_keys_of_other_kinds_and_short_curves_are_not_certified() -> None:
    curve = ec.generate_private_key(ec.SECP192R1())
    assert "curve" in str(csr_faults({**NAME, "csr": csr(curve, "a.example.com")}))
    other = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    text = other.sign(ed448.Ed448PrivateKey.generate(), None).public_bytes(Encoding.PEM).decode()
    assert "kind" in str(csr_faults({**NAME, "csr": text}))


def test_a_request_that_another_key_signed_is_refused() -> None:
    honest = x509.load_pem_x509_csr(csr(new_key(), "a.example.com").encode())
    other = x509.load_pem_x509_csr(csr(new_key(), "a.example.com").encode())
    point = honest.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    theirs = other.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    forged = honest.public_bytes(Encoding.DER).replace(point, theirs)
    text = x509.load_der_x509_csr(forged).public_bytes(Encoding.PEM).decode()

    assert csr_faults({**NAME, "csr": text}) == [
        ("csr", "is not signed with the key that it is for")
    ]


def test_what_is_no_request_or_key_is_a_fault_and_no_crash() -> None:
    whole, line = csr(new_key(), "a.example.com"), ssh_line(new_key())
    spoilt = whole.replace("REQUEST", "REQUES"), whole[:200], whole.replace("\nMI", "\nAA")
    for text in ("", "x", "é", *spoilt):
        assert csr_faults({**NAME, "csr": text}) == [
            ("csr", "is not a signing request that can be read")
        ]
    for text in ("", "x", "é", line[:60], line.replace("AAAA", "BBBB"), whole):
        assert ssh_key_faults({"public_key": text}) == [
            ("public_key", "is not an OpenSSH public key that can be read")
        ]


def test_a_request_may_have_the_names_of_the_parameters_and_no_others() -> None:
    key = new_key()
    asked = {
        **NAME,
        "alt_names": ["b.example.com"],
        "ip_sans": ["2001:DB8:0::1"],
        "uri_sans": ["spiffe://example.com/a"],
    }
    some = (
        x509.DNSName("A.example.com"),
        x509.DNSName("b.example.com"),
        x509.IPAddress(ipaddress.ip_address("2001:db8::1")),
        x509.UniformResourceIdentifier("spiffe://example.com/a"),
    )

    assert csr_faults({**asked, "csr": csr(key, "a.example.com", *some)}) == []
    for more in (
        x509.DNSName("c.example.com"),
        x509.IPAddress(ipaddress.ip_address("10.0.0.1")),
        x509.UniformResourceIdentifier("b.example.com"),
        x509.RFC822Name("b.example.com"),
    ):
        assert csr_faults({**asked, "csr": csr(key, "a.example.com", *some, more)})
    assert csr_faults({**asked, "csr": csr(key, "b.example.com")}) == [
        ("csr", "has another common name than the parameter common_name")
    ]


def test_a_certificate_is_no_key_to_sign() -> None:
    signer = ed25519.Ed25519PrivateKey.generate()
    certificate = (
        SSHCertificateBuilder()
        .public_key(new_key().public_key())
        .type(SSHCertificateType.USER)
        .valid_for_all_principals()
        .valid_after(0)
        .valid_before(1_800_000_000)
        .sign(signer)
    )
    line = certificate.public_bytes().decode()

    assert ssh_key_faults({"public_key": line}) == [
        ("public_key", "is a certificate, where a key is wanted")
    ]
    assert ssh_end({"signed_key": line}) == 1_800_000_000
    with pytest.raises(ValueError, match="no certificate"):
        ssh_end({"signed_key": ssh_line(signer)})


def test_an_answer_without_a_certificate_is_a_value_error() -> None:
    ca = authority("ca")
    assert x509_end({"certificate": pem(ca.der).decode()}) == (
        ca.certificate.not_valid_after_utc.timestamp()
    )
    for data in ({}, {"certificate": "x", "signed_key": "x"}):
        with pytest.raises(ValueError, match=r"."):
            x509_end(data)
        with pytest.raises(ValueError, match=r"."):
            ssh_end(data)


def test_a_serial_is_on_a_list_or_not() -> None:
    ca, number = authority("ca"), 0x1A_02_FF
    now = ca.certificate.not_valid_before_utc
    revoked = x509.RevokedCertificateBuilder().serial_number(number).revocation_date(now).build()
    crl = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(ca.certificate.subject)
        .last_update(now)
        .next_update(ca.certificate.not_valid_after_utc)
        .add_revoked_certificate(revoked)
        .sign(ca.key, hashes.SHA256())
        .public_bytes(Encoding.PEM)
        .decode()
    )

    assert is_on_list(crl, "1a:02:ff")
    assert not is_on_list(crl, "1a:02:fe")
    for bad in (("", "1a"), (crl, ""), (crl, "zz")):
        with pytest.raises(ValueError, match=r"."):
            is_on_list(*bad)
