"""What Vault answers for a certificate or a session: what can't be revoked is not handed on."""

from __future__ import annotations

from typing import Any, Final

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import SSHCertificateBuilder, SSHCertificateType

from broker.backends.vault_answers import engine_at, minted
from broker.catalog import Capability, Power
from broker.errors import BackendRefused, BackendUnavailable
from broker.grants import Grant, GrantState
from tests.certificates import authority, pem, ssh_line
from tests.svids import new_key

SIGNER: Final = ed25519.Ed25519PrivateKey.generate()
END: Final = 1_800_000_000
CA: Final = authority("ca")
SIGNED: Final = (
    SSHCertificateBuilder()
    .public_key(new_key().public_key())
    .type(SSHCertificateType.USER)
    .valid_principals([b"deploy"])
    .valid_after(0)
    .valid_before(END)
    .sign(SIGNER)
    .public_bytes()
    .decode()
)
SSH: Final[dict[str, Any]] = {"serial_number": "0f", "signed_key": SIGNED}
PKI: Final[dict[str, Any]] = {"serial_number": "0f:10", "certificate": pem(CA.der).decode()}


def read(path: str, data: dict[str, Any], **answer: Any) -> Any:
    capability = Capability("x", Power.READ, "vault", 1, 1, path=path)
    grant = Grant("grt_1", GrantState.PENDING, "t", "a", "o", "x", "vault", "read", path, "h", 0, 1)
    whole = {"data": data, **answer}
    return minted(engine_at(path, ""), capability, grant, whole, now_s=END - 60)


def test_how_long_it_lives_is_read_from_the_certificate() -> None:
    ssh = read("ssh/sign/a", SSH, lease_duration=9999)
    assert (ssh.lifetime_ms, ssh.lease, ssh.account) == (60_000, "ssh/sign/a#0f", "0f")
    pki = read("pki/sign/a", PKI, lease_id="pki/sign/a/L", lease_duration=5)
    left = CA.certificate.not_valid_after_utc.timestamp() - (END - 60)
    assert abs(pki.lifetime_ms - max(1, left * 1000)) <= 1


@pytest.mark.parametrize("name", ["type", "grant_id"])
def test_a_member_in_whose_place_another_would_stand_is_not_lost_but_refused(name: str) -> None:
    with pytest.raises(BackendRefused, match=f"a member '{name}'"):
        read("kv/data/a", {"data": {"key": "s", name: "t"}})


@pytest.mark.parametrize("path", ["aws/creds/a", "cloud/sts/a"])
def test_a_session_is_withheld_also_of_an_engine_that_nobody_has_named(path: str) -> None:
    """Revoking its lease does nothing in the cloud; a capability is instant unless it says more."""
    session = {"access_key": "A", "secret_key": "s", "session_token": "t"}

    made = read(path, session, lease_id=f"{path}/L", lease_duration=900)

    assert (made.lease, made.lifetime_ms, made.fields) == (f"{path}/L", 900_000, {})
    assert 'revocability = "ttl_only"' in made.withheld


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("ssh/sign/a", {"signed_key": SIGNED}),
        ("ssh/sign/a", {**SSH, "signed_key": ssh_line(SIGNER)}),
        ("ssh/sign/a", {**SSH, "signed_key": "x"}),
        ("ssh/sign/a", {**SSH, "serial_number": ""}),
        ("ssh/sign/a", {**SSH, "serial_number": "zz"}),
        ("ssh/sign/a", {**SSH, "serial_number": "1" + "0" * 16}),
        ("pki/sign/a", {"certificate": PKI["certificate"]}),
        ("pki/sign/a", {**PKI, "certificate": "x"}),
        ("pki/sign/a", {**PKI, "serial_number": None}),
        ("pki/sign/a", {**PKI, "serial_number": "../../sys/health"}),
    ],
    ids=map(str, range(10)),
)
def test_what_could_not_be_revoked_is_not_handed_on(path: str, data: dict[str, Any]) -> None:
    with pytest.raises(BackendUnavailable, match="Vault answered no certificate"):
        read(path, data, lease_id="a/b/L")
